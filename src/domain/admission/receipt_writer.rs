//! Receipts written as canonical JSON, member by member in the order the form wants (contract 7.7).
//!
//! One is written for every event that is pushed alone, so no JSON value is made on the way.

use super::decision::{ReceiptContext, RowRef};
use super::journal_row::{JournalOutcome, JournalRow};
use super::receipt::{ReceiptError, ReceiptPlaces, quarantine_object, without_nulls};
use crate::canonical_json::{push_cj, push_string, push_u64};
use crate::ids::{Hash32, receipt_id_hex};
use crate::time_text::Micros;
use serde_json::Value;

/// Appends the receipt of a row. A DUPLICATE needs its ADMIT row.
pub fn push_receipt(
    out: &mut Vec<u8>,
    row: &JournalRow,
    original: Option<&JournalRow>,
    places: &ReceiptPlaces<'_>,
) -> Result<(), ReceiptError> {
    let shared = SharedMembers::of(&row.context);
    let receipt_id = receipt_id_hex(row.decision().as_str(), &row.event_id);
    push_receipt_with(&shared, &receipt_id, out, row, original, places)
}

/// As [`push_receipt`], with the members that the receipts of one context share, and its id, made before.
pub fn push_receipt_with(
    shared: &SharedMembers,
    receipt_id: &[u8; 32],
    out: &mut Vec<u8>,
    row: &JournalRow,
    original: Option<&JournalRow>,
    places: &ReceiptPlaces<'_>,
) -> Result<(), ReceiptError> {
    let admitted = admitted_row(row, original)?;
    let evidence = evidence(row, admitted, places);
    let mut receipt = Members::open(out);
    receipt.copied(&shared.actor);
    push_decision(&mut receipt, row, admitted);
    receipt.copied(&shared.environment_and_class);
    receipt.text("event_id", &row.event_id);
    receipt.copied(&shared.event_type);
    if let Some(evidence) = &evidence {
        push_evidence_refs(&mut receipt, evidence);
    }
    receipt.copied(&shared.manifest_fingerprint);
    push_payload(&mut receipt, row, admitted);
    receipt.copied(&shared.pins_to_provenance);
    if let Some(evidence) = &evidence {
        push_reason(&mut receipt, evidence);
    }
    receipt.plain("receipt_id", receipt_id);
    receipt.copied(&shared.digest_to_release);
    receipt.text("ts_utc", &row.ts_utc);
    receipt.close();
    Ok(())
}

/// Runs of members that are the same in every receipt of one context, as JSON text.
pub struct SharedMembers {
    actor: Run,
    environment_and_class: Run,
    event_type: Run,
    manifest_fingerprint: Run,
    pins_to_provenance: Run,
    digest_to_release: Run,
}

impl SharedMembers {
    /// Those of a context.
    pub fn of(context: &ReceiptContext) -> SharedMembers {
        let provenance = &context.provenance;
        SharedMembers {
            actor: Run::of(|run| push_actor(run, context)),
            environment_and_class: Run::of(|run| {
                run.value_if_any("environment", provenance.get("environment"));
                run.text("event_class", &context.event_class);
            }),
            event_type: Run::of(|run| run.text("event_type", &context.event_type)),
            manifest_fingerprint: Run::of(|run| {
                run.text("manifest_fingerprint", &context.manifest_fingerprint);
            }),
            pins_to_provenance: Run::of(|run| push_pins_to_provenance(run, context)),
            digest_to_release: Run::of(|run| {
                run.text("run_config_digest", &context.policy_rev.content_digest);
                run.text_if_any("scenario_run_id", context.scenario_run_id.as_deref());
                run.text_if_any("schema_version", context.schema_version.as_deref());
                run.value_if_any("service_release_id", provenance.get("service_release_id"));
            }),
        }
    }
}

fn push_actor(run: &mut Members<'_>, context: &ReceiptContext) {
    let actor = &context.actor;
    run.texts(
        "actor",
        &[
            ("actor_id", &actor.actor_id),
            ("auth_mode", &actor.auth_mode),
            ("principal", &actor.principal),
            ("source_type", &actor.source_type),
        ],
    );
}

/// `pins` to `provenance`: the world, the run, the policy, where the event comes from.
fn push_pins_to_provenance(run: &mut Members<'_>, context: &ReceiptContext) {
    push_pins(run.name("pins"), &context.pins);
    run.text("platform_run_id", &context.platform_run_id);
    let policy = &context.policy_rev;
    run.texts(
        "policy_rev",
        &[
            ("content_digest", &policy.content_digest),
            ("policy_id", &policy.policy_id),
            ("revision", &policy.revision),
        ],
    );
    run.text_if_any("producer", context.producer.as_deref());
    run.value_if_any("provenance", Some(&context.provenance));
}

/// `admitted_at_utc` to `eb_ref`: what was decided, where the event went.
fn push_decision(receipt: &mut Members<'_>, row: &JournalRow, admitted: Option<&JournalRow>) {
    if let Some(admitted) = admitted {
        receipt.time("admitted_at_utc", admitted.decided_at);
    }
    receipt.text("decision", row.decision().as_str());
    match row.dedupe_key == Hash32::default() {
        true => receipt.text("dedupe_key", ""),
        false => receipt.plain("dedupe_key", &row.dedupe_key.hex()),
    }
    if let Some(admitted) = admitted {
        push_place(receipt, admitted);
    }
}

fn push_evidence_refs(receipt: &mut Members<'_>, evidence: &Evidence<'_>) {
    let out = receipt.name("evidence_refs");
    out.push(b'[');
    let mut reference = Members::open(out);
    reference.text("kind", evidence.kind);
    reference.text("ref", &evidence.reference);
    reference.close();
    receipt.out.push(b']');
}

/// `partition_key` to `payload_hash`.
fn push_payload(receipt: &mut Members<'_>, row: &JournalRow, admitted: Option<&JournalRow>) {
    if matches!(row.outcome, JournalOutcome::Admit { .. }) {
        receipt.plain("partition_key", &row.partition_key.hex());
        let profile = &row.context.partitioning_profile_id;
        receipt.text("partitioning_profile_id", profile);
    }
    if let Some(admitted) = admitted {
        let mut hash = Members::open(receipt.name("payload_hash"));
        hash.text("algo", "sha256");
        hash.plain("hex", &admitted.payload_hash.hex());
        hash.close();
    }
}

fn push_reason(receipt: &mut Members<'_>, evidence: &Evidence<'_>) {
    let out = receipt.name("reason_codes");
    out.push(b'[');
    push_string(out, evidence.code);
    out.push(b']');
}

/// The row that put the event on the bus: the row itself, or a duplicate's original.
fn admitted_row<'a>(
    row: &'a JournalRow,
    original: Option<&'a JournalRow>,
) -> Result<Option<&'a JournalRow>, ReceiptError> {
    match row.outcome {
        JournalOutcome::Admit { .. } => Ok(Some(row)),
        JournalOutcome::Quarantine { .. } => Ok(None),
        JournalOutcome::Duplicate { original: at } => {
            let original = original.ok_or(ReceiptError::OriginalMissing(at))?;
            match is_original(original, row, at) {
                true => Ok(Some(original)),
                false => Err(ReceiptError::OriginalDiffers(at)),
            }
        }
    }
}

fn is_original(original: &JournalRow, copy: &JournalRow, at: RowRef) -> bool {
    original.row_ref == at
        && original.dedupe_key == copy.dedupe_key
        && matches!(original.outcome, JournalOutcome::Admit { .. })
}

/// What a decision other than ADMIT rests on.
struct Evidence<'a> {
    code: &'a str,
    kind: &'static str,
    reference: String,
}

fn evidence<'a>(
    row: &'a JournalRow,
    admitted: Option<&JournalRow>,
    places: &ReceiptPlaces<'_>,
) -> Option<Evidence<'a>> {
    match (&row.outcome, admitted) {
        (JournalOutcome::Duplicate { original: at }, Some(admitted)) => Some(Evidence {
            code: "DUPLICATE",
            kind: "receipt_ref",
            reference: places.receipt_ref(*at, || admitted.receipt_id()),
        }),
        (JournalOutcome::Quarantine { code, .. }, _) => Some(Evidence {
            code,
            kind: "quarantine_record",
            reference: quarantine_object(places.paths, &row.receipt_id()),
        }),
        _admitted => None,
    }
}

/// `eb_ref`: the place of the record on the bus (contract 8).
fn push_place(receipt: &mut Members<'_>, admitted: &JournalRow) {
    let JournalOutcome::Admit {
        topic,
        partition,
        offset,
    } = &admitted.outcome
    else {
        return;
    };
    let mut place = Members::open(receipt.name("eb_ref"));
    let out = place.name("offset");
    out.push(b'"');
    offset.push_text(out);
    out.push(b'"');
    place.text("offset_kind", offset.kind());
    push_u64(place.name("partition"), u64::from(*partition));
    place.time("published_at_utc", admitted.decided_at);
    place.text("topic", topic);
    place.close();
}

fn push_pins(out: &mut Vec<u8>, pins: &Value) {
    let has_nulls = pins
        .as_object()
        .is_some_and(|pins| pins.values().any(Value::is_null));
    match has_nulls {
        true => push_cj(out, &without_nulls(pins)),
        false => push_cj(out, pins),
    }
}

/// Members that follow each other, without the braces around them.
struct Run {
    text: Vec<u8>,
    first: &'static str,
    last: &'static str,
}

impl Run {
    /// What `push` writes.
    fn of(push: impl FnOnce(&mut Members<'_>)) -> Run {
        let mut text = Vec::new();
        let mut members = Members {
            out: &mut text,
            first: "",
            last: "",
        };
        push(&mut members);
        let (first, last) = (members.first, members.last);
        Run { text, first, last }
    }
}

/// An object being written; its names come in order.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: &'static str,
    last: &'static str,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Members {
            out,
            first: "",
            last: "",
        }
    }

    /// Begins a member; its value is to be written next.
    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.follow(name, name);
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Copies members that were written before.
    fn copied(&mut self, run: &Run) {
        self.follow(run.first, run.last);
        self.out.extend_from_slice(&run.text);
    }

    /// Goes on with names from `first` to `last`.
    fn follow(&mut self, first: &'static str, last: &'static str) {
        debug_assert!(self.last < first, "{first} comes before {}", self.last);
        match self.last.is_empty() {
            true => self.first = first,
            false => self.out.push(b','),
        }
        self.last = last;
    }

    fn text(&mut self, name: &'static str, text: &str) {
        push_string(self.name(name), text);
    }

    /// Text of which nothing needs escaping.
    fn plain(&mut self, name: &'static str, text: &[u8]) {
        let out = self.name(name);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }

    fn time(&mut self, name: &'static str, time: Micros) {
        let out = self.name(name);
        out.push(b'"');
        time.push_off(out);
        out.push(b'"');
    }

    fn text_if_any(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn value_if_any(&mut self, name: &'static str, value: Option<&Value>) {
        if let Some(value) = value {
            push_cj(self.name(name), value);
        }
    }

    /// A member that is an object of texts.
    fn texts(&mut self, name: &'static str, texts: &[(&'static str, &str)]) {
        let mut members = Members::open(self.name(name));
        for (name, text) in texts {
            members.text(name, text);
        }
        members.close();
    }

    fn close(self) {
        self.out.push(b'}');
    }
}
