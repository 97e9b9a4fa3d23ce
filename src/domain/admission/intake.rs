//! Judging envelopes: everything the gate can decide about an event from its bytes alone
//! (contract 7.3, steps 2 to 6).
//!
//! Runs on the sender's task, so that it scales with the cores and an admission shard only has to claim,
//! append and answer. Nothing here trusts the sender: an event of our own streamer and one from an HTTP
//! client take the same steps over the same bytes.

use crate::admission::decision::{Actor, ReceiptContext};
use crate::admission::envelope::{Envelope, Field};
use crate::admission::policy::{AdmissionPolicy, EventRule};
use crate::admission::quarantine::{QuarantineDraft, draft};
use crate::admission::routing::{admission_shard_of, partition_key_of, partition_of};
use crate::ids::{Hash32, dedupe_key, payload_hash};
use crate::json_scan::ValueKind;
use crate::ports::EnvelopeBatch;
use crate::run_paths::PlatformRunId;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// What is known about the gates of a run (D5).
#[derive(Clone, Debug)]
pub enum ProofState {
    /// The facts view was read; these gates passed.
    Proven(Arc<BTreeSet<String>>),
    /// There is no facts view for this run.
    Absent,
    /// The store did not answer: the event must wait.
    Unavailable,
    /// Not looked up yet: the caller must look it up and judge again.
    NotLoaded,
}

/// What to do when a gate is not proven (D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyGates {
    /// Do not look.
    Off,
    /// Admit, but count and log.
    Warn,
    /// Quarantine with `GATE_PASS_MISSING`.
    Enforce,
}

/// What judging needs besides the bytes.
pub struct IntakeContext<'a> {
    /// Compiled policy.
    pub policy: &'a AdmissionPolicy,
    /// Number of partitions per topic index.
    pub partitions: &'a [u32],
    /// Number of admission shards.
    pub shards: u16,
    /// Caller, from authentication.
    pub actor: &'a Actor,
    /// Provenance block stamped on receipts (contract 1.5).
    pub provenance: &'a Value,
    /// Gate verification switch.
    pub verify_gates: VerifyGates,
    /// Gate proofs by platform run and scenario run.
    pub proofs: &'a dyn Fn(&str, &str) -> ProofState,
}

/// A piece of a judged batch's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextRef {
    /// In the batch as received.
    Source(Range<u32>),
    /// In [`JudgedBatch::extra`].
    Extra(Range<u32>),
}

/// One event that gets a decision.
#[derive(Debug)]
pub struct JudgedItem {
    /// Position in the batch as received.
    pub index: u32,
    /// Index into [`JudgedBatch::runs`].
    pub run: u16,
    /// Index into [`JudgedBatch::contexts`].
    pub context: u16,
    /// Admission shard that decides.
    pub shard: u16,
    /// Partition in the context's topic.
    pub partition: u32,
    /// The envelope's canonical bytes.
    pub text: TextRef,
    /// Decoded event id.
    pub event_id: TextRef,
    /// Event time as received.
    pub ts_utc: TextRef,
    /// Uniqueness (V11).
    pub dedupe_key: Hash32,
    /// Payload hash (V12).
    pub payload_hash: Hash32,
    /// Partition key (V14).
    pub partition_key: Hash32,
    /// Set when the event is refused with a record instead of being published.
    pub quarantine: Option<Box<QuarantineDraft>>,
}

/// An answer that is given at once, without a decision on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Immediate {
    /// Not an event at all; sending it again will not help.
    Refused {
        /// HTTP status.
        status: u16,
        /// Reason code.
        code: &'static str,
        /// A sentence.
        detail: String,
    },
    /// The gate cannot decide now.
    Retry {
        /// Reason code.
        code: &'static str,
        /// A sentence.
        detail: String,
    },
}

/// A batch after judging.
#[derive(Debug, Default)]
pub struct JudgedBatch {
    /// The batch as received.
    pub source: Arc<Vec<u8>>,
    /// Rewritten envelopes and decoded texts.
    pub extra: Vec<u8>,
    /// Platform runs the items belong to.
    pub runs: Vec<PlatformRunId>,
    /// Receipt constants the items share.
    pub contexts: Vec<Arc<ReceiptContext>>,
    /// Items that get a decision, in batch order.
    pub items: Vec<JudgedItem>,
    /// Items answered at once: position and answer.
    pub immediate: Vec<(u32, Immediate)>,
    /// Gate proofs that must be looked up before these items can be judged.
    pub unproven: BTreeSet<(String, String)>,
    /// Items admitted although a gate is not proven (`warn`).
    pub gate_warnings: u32,
}

impl JudgedBatch {
    /// The bytes a reference stands for.
    pub fn text<'a>(&'a self, reference: &TextRef) -> &'a [u8] {
        match reference {
            TextRef::Source(range) => &self.source[range.start as usize..range.end as usize],
            TextRef::Extra(range) => &self.extra[range.start as usize..range.end as usize],
        }
    }

    fn push_extra(&mut self, bytes: &[u8]) -> TextRef {
        let start = self.extra.len() as u32;
        self.extra.extend_from_slice(bytes);
        TextRef::Extra(start..self.extra.len() as u32)
    }
}

/// Judges every envelope of a batch.
pub fn judge(batch: &EnvelopeBatch, context: &IntakeContext<'_>) -> JudgedBatch {
    let mut judged = JudgedBatch {
        source: batch.bytes.clone(),
        ..JudgedBatch::default()
    };
    judged.items.reserve(batch.len());
    let mut judge = Judge {
        context,
        last_key: Vec::new(),
        key: Vec::new(),
        last_proof: None,
    };
    for (index, range) in batch.ranges.iter().enumerate() {
        judge.item(index as u32, range, batch.envelope(index), &mut judged);
    }
    judged
}

struct Judge<'a> {
    context: &'a IntakeContext<'a>,
    /// The constant fields of the last item: consecutive events of one stream share their context.
    last_key: Vec<u8>,
    key: Vec<u8>,
    /// The last run's proof: looked up once per run and batch, not once per event.
    last_proof: Option<(Vec<u8>, ProofState)>,
}

/// Fields that are the same for all events of a stream.
const CONTEXT_FIELDS: [Field; 10] = [
    Field::EventType,
    Field::ManifestFingerprint,
    Field::ParameterHash,
    Field::Seed,
    Field::ScenarioId,
    Field::RunId,
    Field::PlatformRunId,
    Field::ScenarioRunId,
    Field::SchemaVersion,
    Field::Producer,
];

/// Pins of a receipt (contract 7.7).
const PIN_FIELDS: [Field; 7] = [
    Field::ManifestFingerprint,
    Field::ParameterHash,
    Field::Seed,
    Field::ScenarioId,
    Field::RunId,
    Field::PlatformRunId,
    Field::ScenarioRunId,
];

impl Judge<'_> {
    fn item(&mut self, index: u32, range: &Range<u32>, bytes: &[u8], judged: &mut JudgedBatch) {
        let envelope = match Envelope::read(bytes) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => {
                return refuse(
                    judged,
                    index,
                    422,
                    "ENVELOPE_INVALID",
                    "the event is not a JSON object".to_owned(),
                );
            }
            Err(error) => return refuse(judged, index, 400, "INVALID_JSON", error.to_string()),
        };
        if let Some(reason) = not_receiptable(&envelope) {
            return refuse(judged, index, 422, "ENVELOPE_INVALID", reason);
        }
        let event_type = envelope.string(Field::EventType).unwrap_or_default();
        let rule = self.context.policy.rule(&event_type).clone();
        let finding = match self.check(&envelope, &rule, judged) {
            Ok(finding) => finding,
            Err(immediate) => return judged.immediate.push((index, immediate)),
        };
        self.accept(index, range, envelope, &rule, finding, judged);
    }

    /// Steps 2 to 4b: the first failure, as code and detail.
    fn check(
        &mut self,
        envelope: &Envelope<'_>,
        rule: &EventRule,
        judged: &mut JudgedBatch,
    ) -> Result<Option<(&'static str, String)>, Immediate> {
        if let Err(violation) = envelope.validate() {
            return Ok(Some(("ENVELOPE_INVALID", violation.to_string())));
        }
        let missing: Vec<&str> = rule
            .pins
            .iter()
            .filter(|pin| is_empty(envelope, **pin))
            .map(|pin| pin.name())
            .collect();
        if !missing.is_empty() {
            return Ok(Some(("PINS_MISSING", missing.join(","))));
        }
        if let Some(failure) = check_schema(envelope, rule) {
            return Ok(Some(failure));
        }
        self.check_gates(envelope, rule, judged)
    }

    fn check_gates(
        &mut self,
        envelope: &Envelope<'_>,
        rule: &EventRule,
        judged: &mut JudgedBatch,
    ) -> Result<Option<(&'static str, String)>, Immediate> {
        if self.context.verify_gates == VerifyGates::Off || rule.required_gates.is_empty() {
            return Ok(None);
        }
        let run = envelope.string(Field::PlatformRunId).unwrap_or_default();
        let scenario_run = envelope.string(Field::ScenarioRunId).unwrap_or_default();
        let problem = match self.proof_of(envelope, &run, &scenario_run) {
            ProofState::Proven(passed) => rule
                .required_gates
                .iter()
                .find(|gate| !passed.contains(*gate))
                .cloned(),
            ProofState::Absent => Some("no facts view for this run".to_owned()),
            ProofState::Unavailable => {
                return Err(Immediate::Retry {
                    code: "IG_UNHEALTHY",
                    detail: "the facts view cannot be read now".to_owned(),
                });
            }
            ProofState::NotLoaded => {
                judged
                    .unproven
                    .insert((run.into_owned(), scenario_run.into_owned()));
                None
            }
        };
        match problem {
            None => Ok(None),
            Some(_) if self.context.verify_gates == VerifyGates::Warn => {
                judged.gate_warnings += 1;
                Ok(None)
            }
            Some(detail) => Ok(Some(("GATE_PASS_MISSING", detail))),
        }
    }

    fn proof_of(&mut self, envelope: &Envelope<'_>, run: &str, scenario_run: &str) -> ProofState {
        let key = [
            envelope.json(Field::PlatformRunId),
            envelope.json(Field::ScenarioRunId),
        ]
        .map(Option::unwrap_or_default)
        .concat();
        match &self.last_proof {
            Some((last, state)) if *last == key => state.clone(),
            _ => {
                let state = (self.context.proofs)(run, scenario_run);
                self.last_proof = Some((key, state.clone()));
                state
            }
        }
    }

    /// Steps 5 and 6, then files the item under its run, context, partition and shard.
    fn accept(
        &mut self,
        index: u32,
        range: &Range<u32>,
        envelope: Envelope<'_>,
        rule: &EventRule,
        mut finding: Option<(&'static str, String)>,
        judged: &mut JudgedBatch,
    ) {
        let run_id = envelope.string(Field::PlatformRunId).unwrap_or_default();
        let event_id = envelope.string(Field::EventId).unwrap_or_default();
        let mut item = JudgedItem {
            index,
            run: run_index(judged, &run_id),
            context: self.context_index(judged, &envelope, rule),
            shard: 0,
            partition: 0,
            text: TextRef::Source(range.clone()),
            event_id: text_ref(judged, range, &envelope, Field::EventId),
            ts_utc: text_ref(judged, range, &envelope, Field::TsUtc),
            dedupe_key: dedupe_key(
                run_id.as_bytes(),
                rule.class.as_bytes(),
                event_id.as_bytes(),
            ),
            payload_hash: Hash32::default(),
            partition_key: Hash32::default(),
            quarantine: None,
        };
        if finding.is_none() {
            item.payload_hash = hash_payload(&envelope);
            finding = self.route(&envelope, rule, &mut item).err();
        }
        if let Some((code, detail)) = finding {
            item.shard =
                (item.dedupe_key.leading_u64() % u64::from(self.context.shards.max(1))) as u16;
            item.quarantine = Some(Box::new(draft(&envelope, code, detail)));
        }
        drop((run_id, event_id));
        if let Some(rewritten) = envelope.into_rewritten() {
            item.text = judged.push_extra(&rewritten);
        }
        judged.items.push(item);
    }

    fn route(
        &self,
        envelope: &Envelope<'_>,
        rule: &EventRule,
        item: &mut JudgedItem,
    ) -> Result<(), (&'static str, String)> {
        if rule.hash_algo != "sha256" {
            return Err(("UNSUPPORTED_HASH_ALGO", rule.hash_algo.clone()));
        }
        let Some(key) = partition_key_of(envelope, &rule.key_precedence) else {
            return Err((
                "PARTITION_KEY_MISSING",
                format!("profile {}", rule.profile_id),
            ));
        };
        let partitions = self
            .context
            .partitions
            .get(usize::from(rule.topic_index))
            .copied()
            .unwrap_or(1);
        item.partition_key = key;
        item.partition = partition_of(&key, partitions);
        item.shard = admission_shard_of(rule.topic_index, item.partition, self.context.shards);
        Ok(())
    }

    fn context_index(
        &mut self,
        judged: &mut JudgedBatch,
        envelope: &Envelope<'_>,
        rule: &EventRule,
    ) -> u16 {
        self.key.clear();
        for field in CONTEXT_FIELDS {
            self.key
                .extend_from_slice(envelope.json(field).unwrap_or_default());
            self.key.push(0);
        }
        if judged.contexts.is_empty() || self.key != self.last_key {
            judged
                .contexts
                .push(Arc::new(self.receipt_context(envelope, rule)));
            std::mem::swap(&mut self.key, &mut self.last_key);
        }
        (judged.contexts.len() - 1) as u16
    }

    fn receipt_context(&self, envelope: &Envelope<'_>, rule: &EventRule) -> ReceiptContext {
        let text = |field| envelope.string(field).map(|text| text.into_owned());
        ReceiptContext {
            event_type: text(Field::EventType).unwrap_or_default(),
            event_class: rule.class.clone(),
            manifest_fingerprint: text(Field::ManifestFingerprint).unwrap_or_default(),
            pins: Value::Object(pins(envelope)),
            platform_run_id: text(Field::PlatformRunId).unwrap_or_default(),
            scenario_run_id: text(Field::ScenarioRunId).or_else(|| text(Field::RunId)),
            schema_version: text(Field::SchemaVersion),
            producer: text(Field::Producer),
            topic: rule.topic.to_string(),
            partitioning_profile_id: rule.profile_id.clone(),
            actor: self.context.actor.clone(),
            policy_rev: self.context.policy.policy_rev.clone(),
            provenance: self.context.provenance.clone(),
        }
    }
}

fn refuse(judged: &mut JudgedBatch, index: u32, status: u16, code: &'static str, detail: String) {
    judged.immediate.push((
        index,
        Immediate::Refused {
            status,
            code,
            detail,
        },
    ));
}

/// Why no schema-valid receipt is possible, if so (contract 7.8, last paragraph).
fn not_receiptable(envelope: &Envelope<'_>) -> Option<String> {
    let needed = [
        Field::EventId,
        Field::EventType,
        Field::TsUtc,
        Field::ManifestFingerprint,
        Field::PlatformRunId,
    ];
    let broken = needed
        .into_iter()
        .find(|field| !envelope.is_valid(*field))?;
    let state = if envelope.kind(broken).is_some() {
        "invalid"
    } else {
        "missing"
    };
    Some(format!(
        "{} is {state}: no receipt can be written without it",
        broken.name()
    ))
}

fn is_empty(envelope: &Envelope<'_>, pin: Field) -> bool {
    match envelope.kind(pin) {
        None | Some(ValueKind::Null) => true,
        Some(ValueKind::String) => envelope
            .string_range(pin)
            .is_none_or(|range| range.is_empty()),
        Some(_) => false,
    }
}

fn check_schema(envelope: &Envelope<'_>, rule: &EventRule) -> Option<(&'static str, String)> {
    let Some(schema) = &rule.schema else {
        let event_type = envelope.string(Field::EventType).unwrap_or_default();
        return Some((
            "SCHEMA_POLICY_MISSING",
            format!("no schema policy for event type {event_type}"),
        ));
    };
    match envelope.string(Field::SchemaVersion) {
        None if schema.version_required => {
            return Some((
                "SCHEMA_VERSION_REQUIRED",
                "schema_version is missing".to_owned(),
            ));
        }
        Some(version)
            if !schema.versions.is_empty()
                && !schema.versions.iter().any(|allowed| *allowed == version) =>
        {
            return Some((
                "SCHEMA_VERSION_NOT_ALLOWED",
                format!("schema_version {version}"),
            ));
        }
        _ => {}
    }
    let payload = schema.payload.as_ref()?;
    if envelope.kind(Field::Payload).is_none() {
        return Some(("SCHEMA_FAIL", "payload is missing".to_owned()));
    }
    let violation = payload
        .check_members(envelope.payload_json(), envelope.payload_members())
        .err()?;
    Some((
        "SCHEMA_FAIL",
        format!("{} {}", violation.path, violation.rule),
    ))
}

fn hash_payload(envelope: &Envelope<'_>) -> Hash32 {
    payload_hash(
        envelope.json(Field::EventType).unwrap_or(b"null"),
        envelope.json(Field::SchemaVersion).unwrap_or(b"null"),
        envelope.payload_json(),
    )
}

/// The pins of an envelope without nulls. An integer `scenario_id` becomes text: receipts know no other.
pub(crate) fn pins(envelope: &Envelope<'_>) -> Map<String, Value> {
    let mut pins = Map::new();
    for field in PIN_FIELDS {
        let value = match (field, envelope.kind(field)) {
            (_, None | Some(ValueKind::Null)) => continue,
            (Field::ScenarioId, Some(ValueKind::Integer)) => Value::from(
                String::from_utf8_lossy(envelope.json(field).unwrap_or_default()).into_owned(),
            ),
            (_, Some(ValueKind::String)) => {
                Value::from(envelope.string(field).unwrap_or_default().into_owned())
            }
            _ => serde_json::from_slice(envelope.json(field).unwrap_or(b"null"))
                .unwrap_or(Value::Null),
        };
        pins.insert(field.name().to_owned(), value);
    }
    pins
}

fn run_index(judged: &mut JudgedBatch, run_id: &str) -> u16 {
    if let Some(index) = judged
        .runs
        .iter()
        .rposition(|known| known.as_str() == run_id)
    {
        return index as u16;
    }
    judged
        .runs
        .push(PlatformRunId::parse(run_id).expect("not_receiptable checked the platform run id"));
    (judged.runs.len() - 1) as u16
}

/// Where a string field's decoded text lies; escapes and rewritten bytes go to the extra text.
fn text_ref(
    judged: &mut JudgedBatch,
    range: &Range<u32>,
    envelope: &Envelope<'_>,
    field: Field,
) -> TextRef {
    let inside = envelope.string_range(field).unwrap_or_default();
    let raw = &envelope.text()[inside.start as usize..inside.end as usize];
    if envelope.is_unchanged() && !raw.contains(&b'\\') {
        return TextRef::Source(range.start + inside.start..range.start + inside.end);
    }
    let decoded = envelope.string(field).unwrap_or_default();
    judged.push_extra(decoded.as_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::admission::policy::tests::small_files;
    use serde_json::json;

    const RUN: &str = "platform_20260101T000000Z";

    pub(crate) fn envelope_text(event_id: &str, flow: u64) -> String {
        json!({"event_id": event_id, "event_type": "s3_event_stream_with_fraud_6B", "schema_version": "v1",
            "ts_utc": "2026-01-01T00:00:01.250000Z", "manifest_fingerprint": "a".repeat(64), "parameter_hash": "b".repeat(64),
            "seed": 42, "scenario_id": "baseline_v1", "run_id": "c".repeat(32), "platform_run_id": RUN,
            "scenario_run_id": "d".repeat(32), "payload": {"flow_id": flow}})
        .to_string()
    }

    pub(crate) fn judge_texts(texts: &[String]) -> JudgedBatch {
        judge_with(texts, VerifyGates::Off, &|_, _| ProofState::NotLoaded)
    }

    fn judge_with(
        texts: &[String],
        verify_gates: VerifyGates,
        proofs: &dyn Fn(&str, &str) -> ProofState,
    ) -> JudgedBatch {
        let policy = AdmissionPolicy::compile(&small_files()).unwrap();
        let mut batch = EnvelopeBatch::default();
        let mut bytes = Vec::new();
        for text in texts {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(text.as_bytes());
            batch.ranges.push(start..bytes.len() as u32);
        }
        batch.bytes = Arc::new(bytes);
        let actor = Actor {
            actor_id: "SYSTEM::ANONYMOUS".into(),
            source_type: "SYSTEM".into(),
            auth_mode: "disabled".into(),
            principal: "ANONYMOUS".into(),
        };
        let provenance = json!({"service_release_id": "test", "environment": "local"});
        let context = IntakeContext {
            policy: &policy,
            partitions: &[4; 3],
            shards: 2,
            actor: &actor,
            provenance: &provenance,
            verify_gates,
            proofs,
        };
        judge(&batch, &context)
    }

    fn changed(field: &str, value: Value) -> String {
        let mut envelope: Value = serde_json::from_str(&envelope_text("e1", 1)).unwrap();
        match value {
            Value::Null => envelope.as_object_mut().unwrap().remove(field),
            value => envelope
                .as_object_mut()
                .unwrap()
                .insert(field.to_owned(), value),
        };
        envelope.to_string()
    }

    fn code_of(text: String) -> &'static str {
        let judged = judge_texts(&[text]);
        match (judged.items.first(), judged.immediate.first()) {
            (Some(item), None) => item.quarantine.as_ref().map_or("ADMIT", |draft| draft.code),
            (None, Some((0, Immediate::Refused { code, .. }))) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_step_before_the_claim_has_its_code() {
        assert_eq!(code_of(envelope_text("e1", 1)), "ADMIT");
        assert_eq!(code_of("{".to_owned()), "INVALID_JSON");
        assert_eq!(code_of("[]".to_owned()), "ENVELOPE_INVALID");
        assert_eq!(
            code_of(changed("event_id", Value::Null)),
            "ENVELOPE_INVALID"
        );
        assert_eq!(code_of(changed("seed", json!("42"))), "ENVELOPE_INVALID");
        assert_eq!(code_of(changed("scenario_id", Value::Null)), "PINS_MISSING");
        assert_eq!(
            code_of(changed("event_type", json!("nobody"))),
            "SCHEMA_POLICY_MISSING"
        );
        assert_eq!(
            code_of(changed("payload", json!({"flow_id": "1"}))),
            "SCHEMA_FAIL"
        );
        assert_eq!(code_of(changed("payload", Value::Null)), "SCHEMA_FAIL");
        assert_eq!(code_of(changed("scenario_id", json!(7))), "ADMIT");
    }

    #[test]
    fn schema_versions_are_required_and_checked_by_policy() {
        let own = |version: Value| {
            let mut envelope: Value =
                serde_json::from_str(&changed("event_type", json!("own_event"))).unwrap();
            envelope["schema_version"] = version.clone();
            if version.is_null() {
                envelope.as_object_mut().unwrap().remove("schema_version");
            }
            code_of(envelope.to_string())
        };
        assert_eq!(own(Value::Null), "SCHEMA_VERSION_REQUIRED");
        assert_eq!(own(json!("v2")), "SCHEMA_VERSION_NOT_ALLOWED");
        assert_eq!(own(json!("v1")), "ADMIT");
    }

    #[test]
    fn a_key_that_is_nowhere_is_refused() {
        let mut envelope: Value =
            serde_json::from_str(&changed("event_type", json!("own_event"))).unwrap();
        envelope.as_object_mut().unwrap().remove("seed");
        assert_eq!(code_of(envelope.to_string()), "PARTITION_KEY_MISSING");
    }

    #[test]
    fn spelling_does_not_change_any_identity() {
        let compact = envelope_text("é1", 5);
        let value: Value = serde_json::from_str(&compact).unwrap();
        let judged = judge_texts(&[compact, serde_json::to_string_pretty(&value).unwrap()]);
        let [first, second] = &judged.items[..] else {
            panic!("two items")
        };
        assert_eq!(first.dedupe_key, second.dedupe_key);
        assert_eq!(first.payload_hash, second.payload_hash);
        assert_eq!(
            (first.partition_key, first.shard),
            (second.partition_key, second.shard)
        );
        assert_eq!(judged.text(&first.text), judged.text(&second.text));
        assert_eq!(judged.text(&first.event_id), "é1".as_bytes());
        assert_eq!((judged.contexts.len(), judged.runs.len()), (1, 1));
    }

    #[test]
    fn gates_are_ignored_warned_about_or_enforced() {
        let text = [envelope_text("e1", 1)];
        let absent = |_: &str, _: &str| ProofState::Absent;
        let passed =
            |_: &str, _: &str| ProofState::Proven(Arc::new(BTreeSet::from(["gate.6B".to_owned()])));
        let failing = |_: &str, _: &str| ProofState::Unavailable;
        let warned = judge_with(&text, VerifyGates::Warn, &absent);
        assert_eq!(
            (warned.gate_warnings, warned.items[0].quarantine.is_none()),
            (1, true)
        );
        let enforced = judge_with(&text, VerifyGates::Enforce, &absent);
        assert_eq!(
            enforced.items[0].quarantine.as_ref().unwrap().code,
            "GATE_PASS_MISSING"
        );
        assert!(
            judge_with(&text, VerifyGates::Enforce, &passed).items[0]
                .quarantine
                .is_none()
        );
        let waiting = judge_with(&text, VerifyGates::Enforce, &failing);
        assert!(matches!(
            waiting.immediate[0].1,
            Immediate::Retry {
                code: "IG_UNHEALTHY",
                ..
            }
        ));
        let unknown = judge_with(&text, VerifyGates::Enforce, &|_, _| ProofState::NotLoaded);
        assert_eq!(unknown.unproven.len(), 1);
    }
}
