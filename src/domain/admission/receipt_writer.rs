//! Receipts written as canonical JSON, member by member in the order the form wants (contract 7.7).
//!
//! One is written for every event that is pushed alone, so no JSON value is made on the way.

use super::decision::RowRef;
use super::journal_row::{JournalOutcome, JournalRow};
use super::receipt::{ReceiptError, ReceiptPlaces, dedupe_text, quarantine_object, without_nulls};
use crate::canonical_json::{push_cj, push_string, push_u64};
use serde_json::Value;

/// Appends the receipt of a row. A DUPLICATE needs its ADMIT row.
pub fn push_receipt(
    out: &mut Vec<u8>,
    row: &JournalRow,
    original: Option<&JournalRow>,
    places: &ReceiptPlaces<'_>,
) -> Result<(), ReceiptError> {
    let admitted = admitted_row(row, original)?;
    let evidence = evidence(row, admitted, places);
    let mut receipt = Members::open(out);
    push_decision(&mut receipt, row, admitted);
    if let Some(evidence) = &evidence {
        push_evidence_refs(&mut receipt, evidence);
    }
    push_identity(&mut receipt, row, admitted);
    push_origin(&mut receipt, row, evidence.as_ref());
    receipt.close();
    Ok(())
}

/// `actor` to `event_type`: who asked, what was decided, where the event went.
fn push_decision(receipt: &mut Members<'_>, row: &JournalRow, admitted: Option<&JournalRow>) {
    let context = &*row.context;
    let actor = &context.actor;
    receipt.texts(
        "actor",
        &[
            ("actor_id", &actor.actor_id),
            ("auth_mode", &actor.auth_mode),
            ("principal", &actor.principal),
            ("source_type", &actor.source_type),
        ],
    );
    if let Some(admitted) = admitted {
        receipt.text("admitted_at_utc", &admitted.decided_at.format_off());
    }
    receipt.text("decision", row.decision().as_str());
    receipt.text("dedupe_key", &dedupe_text(&row.dedupe_key));
    if let Some(admitted) = admitted {
        push_place(receipt, admitted);
    }
    receipt.value_if_any("environment", context.provenance.get("environment"));
    receipt.text("event_class", &context.event_class);
    receipt.text("event_id", &row.event_id);
    receipt.text("event_type", &context.event_type);
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

/// `manifest_fingerprint` to `policy_rev`: the world, the payload, the policy.
fn push_identity(receipt: &mut Members<'_>, row: &JournalRow, admitted: Option<&JournalRow>) {
    let context = &*row.context;
    receipt.text("manifest_fingerprint", &context.manifest_fingerprint);
    if matches!(row.outcome, JournalOutcome::Admit { .. }) {
        receipt.text("partition_key", &row.partition_key.to_string());
        let profile = &context.partitioning_profile_id;
        receipt.text("partitioning_profile_id", profile);
    }
    if let Some(admitted) = admitted {
        let hex = admitted.payload_hash.to_string();
        receipt.texts("payload_hash", &[("algo", "sha256"), ("hex", &hex)]);
    }
    push_pins(receipt.name("pins"), &context.pins);
    receipt.text("platform_run_id", &context.platform_run_id);
    let policy = &context.policy_rev;
    receipt.texts(
        "policy_rev",
        &[
            ("content_digest", &policy.content_digest),
            ("policy_id", &policy.policy_id),
            ("revision", &policy.revision),
        ],
    );
}

/// `producer` to `ts_utc`: where the event and the decision come from.
fn push_origin(receipt: &mut Members<'_>, row: &JournalRow, evidence: Option<&Evidence<'_>>) {
    let context = &*row.context;
    let provenance = &context.provenance;
    receipt.text_if_any("producer", context.producer.as_deref());
    receipt.value_if_any("provenance", Some(provenance));
    if let Some(evidence) = evidence {
        let out = receipt.name("reason_codes");
        out.push(b'[');
        push_string(out, evidence.code);
        out.push(b']');
    }
    receipt.text("receipt_id", &row.receipt_id());
    receipt.text("run_config_digest", &context.policy_rev.content_digest);
    receipt.text_if_any("scenario_run_id", context.scenario_run_id.as_deref());
    receipt.text_if_any("schema_version", context.schema_version.as_deref());
    receipt.value_if_any("service_release_id", provenance.get("service_release_id"));
    receipt.text("ts_utc", &row.ts_utc);
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
            reference: places.receipt_ref(*at, &admitted.receipt_id()),
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
    place.text("offset", &offset.to_string());
    place.text("offset_kind", offset.kind());
    push_u64(place.name("partition"), u64::from(*partition));
    place.text("published_at_utc", &admitted.decided_at.format_off());
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

/// An object being written; its names come in order.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    last: &'static str,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Members { out, last: "" }
    }

    /// Begins a member; its value is to be written next.
    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        debug_assert!(self.last < name, "{name} comes before {}", self.last);
        if !self.last.is_empty() {
            self.out.push(b',');
        }
        self.last = name;
        push_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn text(&mut self, name: &'static str, text: &str) {
        push_string(self.name(name), text);
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
