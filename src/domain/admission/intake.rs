//! Judging envelopes: everything the gate can decide about an event from its bytes alone
//! (contract 7.3, steps 2 to 6).
//!
//! Runs on tasks of the senders, one a batch, so that it scales with the cores and an admission shard only has to claim,
//! append and answer. Nothing here trusts the sender: an event of our own streamer and one from an HTTP
//! client take the same steps over the same bytes.

use crate::admission::decision::{Actor, ReceiptContext};
use crate::admission::envelope::{Envelope, Field};
use crate::admission::envelope_checks::{
    CONTEXT_FIELDS, OWN_FIELDS_NOT_IN_RECEIPTS, check_changed_values, check_schema, is_empty,
    not_receiptable,
};
use crate::admission::envelope_reader::{EnvelopeReader, PayloadChange, Reading, SharedFields};
use crate::admission::item_hashes::{ItemHashes, Topic, Wanted};
use crate::admission::policy::EventRule;
use crate::admission::quarantine::draft;
use crate::admission::routing::partition_key_text;
use crate::ids::{Hash32, dedupe_key_text, payload_hash_text};
use crate::json_scan::{ValueKind, is_space};
use crate::ports::EnvelopeBatch;
use crate::run_paths::PlatformRunId;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

pub use crate::admission::judged::{
    Immediate, IntakeContext, JudgedBatch, JudgedItem, ProofState, TextRef, VerifyGates,
};

/// Judges every envelope of a batch. `memory` is what an earlier batch left, or a new one.
pub fn judge<'a>(
    batch: &'a EnvelopeBatch,
    context: &'a IntakeContext<'a>,
    memory: &'a mut IntakeMemory,
) -> JudgedBatch {
    let mut judged = JudgedBatch {
        source: batch.bytes.clone(),
        ..JudgedBatch::default()
    };
    judged.items.reserve(batch.len());
    memory.last.begin(context.actor);
    memory.hashes.begin();
    let mut judge = Judge {
        context,
        memory,
        last_proof: None,
    };
    for (index, range) in batch.ranges.iter().enumerate() {
        let range = without_outer_space(&batch.bytes, range);
        let bytes = &batch.bytes[range.start as usize..range.end as usize];
        judge.item(index as u32, &range, bytes, &mut judged);
        let hashes = &mut judge.memory.hashes;
        hashes.settle_when_full(&mut judged, context.shards);
    }
    memory.hashes.settle(&mut judged, context.shards);
    judged
}

/// What judging one batch leaves for the next: events of a stream are alike, in whichever batches they come, so
/// a small batch then costs an event little more than a large one. It decides nothing: what is not equal byte
/// for byte is judged anew. It belongs to one policy and provenance.
#[derive(Default)]
pub struct IntakeMemory {
    reader: EnvelopeReader,
    last: LastContext,
    key: Vec<u8>,
    hashes: ItemHashes,
}

struct Judge<'a> {
    context: &'a IntakeContext<'a>,
    memory: &'a mut IntakeMemory,
    /// The last run's proof: looked up once per run and batch, not once per event.
    last_proof: Option<LastProof>,
}

/// What is known of the constant fields of the last event: consecutive events of one stream share them, so
/// they are judged once.
#[derive(Default)]
struct LastContext {
    key: Vec<u8>,
    rule: Option<Arc<EventRule>>,
    /// True once an envelope with these fields was valid.
    is_valid: bool,
    /// True once the envelope that others are compared with has passed its schema.
    fits_schema: bool,
    /// What their receipts share, when there was one.
    receipt: Option<Arc<ReceiptContext>>,
    /// Its place among the batch's contexts, when there was an item.
    index: Option<u16>,
}

impl LastContext {
    /// Begins another batch, perhaps of another caller.
    fn begin(&mut self, actor: &Actor) {
        self.index = None;
        self.receipt.take_if(|receipt| receipt.actor != *actor);
    }
}

/// What is known about the run of the last event.
struct LastProof {
    run: String,
    scenario_run: String,
    state: ProofState,
}

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
        let reading = match self.memory.reader.read(bytes) {
            Ok(Some(reading)) => reading,
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
        let Reading {
            envelope,
            shared,
            payload,
        } = reading;
        let rule = self.look_at_context(&envelope, shared);
        self.memory.last.fits_schema &= payload != PayloadChange::Unknown;
        if let Some(reason) = not_receiptable(&envelope, self.memory.last.is_valid) {
            return refuse(judged, index, 422, "ENVELOPE_INVALID", reason);
        }
        let finding = match self.check(&envelope, payload, &rule, judged) {
            Ok(finding) => finding,
            Err(immediate) => return judged.immediate.push((index, immediate)),
        };
        self.accept(index, range, envelope, &rule, finding, judged);
    }

    /// Compares the constant fields with those of the last event and gives their rule.
    fn look_at_context(&mut self, envelope: &Envelope<'_>, shared: SharedFields) -> Arc<EventRule> {
        let IntakeMemory { last, key, .. } = &mut *self.memory;
        if let (SharedFields::Same, Some(rule)) = (shared, &last.rule) {
            return rule.clone();
        }
        key.clear();
        for field in CONTEXT_FIELDS {
            key.extend_from_slice(envelope.json(field).unwrap_or_default());
            key.push(0);
        }
        if let Some(rule) = &last.rule
            && *key == last.key
        {
            return rule.clone();
        }
        std::mem::swap(key, &mut last.key);
        let event_type = envelope.string(Field::EventType).unwrap_or_default();
        let rule = self.context.policy.rule(&event_type).clone();
        last.rule = Some(rule.clone());
        last.is_valid = false;
        last.receipt = None;
        last.index = None;
        rule
    }

    /// Steps 2 to 4b: the first failure, as code and detail.
    fn check(
        &mut self,
        envelope: &Envelope<'_>,
        payload: PayloadChange,
        rule: &EventRule,
        judged: &mut JudgedBatch,
    ) -> Result<Option<(&'static str, String)>, Immediate> {
        let last = &mut self.memory.last;
        let valid = match last.is_valid {
            true => envelope.validate_only(&OWN_FIELDS_NOT_IN_RECEIPTS),
            false => envelope.validate(),
        };
        if let Err(violation) = valid {
            return Ok(Some(("ENVELOPE_INVALID", violation.to_string())));
        }
        last.is_valid = true;
        let missing: Vec<&str> = rule
            .pins
            .iter()
            .filter(|pin| is_empty(envelope, **pin))
            .map(|pin| pin.name())
            .collect();
        if !missing.is_empty() {
            return Ok(Some(("PINS_MISSING", missing.join(","))));
        }
        let fits = match payload {
            PayloadChange::Values(changed) if last.fits_schema => {
                check_changed_values(envelope, rule, changed)
            }
            _ => check_schema(envelope, rule),
        };
        if let Some(failure) = fits {
            return Ok(Some(failure));
        }
        last.fits_schema |= payload == PayloadChange::Unknown;
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
        let problem = match self.proof_of(&run, &scenario_run) {
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

    fn proof_of(&mut self, run: &str, scenario_run: &str) -> ProofState {
        match &self.last_proof {
            Some(last) if last.run == run && last.scenario_run == scenario_run => {
                last.state.clone()
            }
            _ => {
                let state = (self.context.proofs)(run, scenario_run);
                let (run, scenario_run) = (run.to_owned(), scenario_run.to_owned());
                self.last_proof = Some(LastProof {
                    run,
                    scenario_run,
                    state: state.clone(),
                });
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
        let text = |field| envelope.string_bytes(field).unwrap_or_default();
        let (run_id, event_id) = (text(Field::PlatformRunId), text(Field::EventId));
        let mut item = JudgedItem {
            index,
            run: run_index(judged, &run_id),
            context: self.context_index(judged, &envelope, rule),
            shard: 0,
            partition: 0,
            text: TextRef::Source(range.clone()),
            event_id: text_ref(judged, range, &envelope, Field::EventId),
            ts_utc: text_ref(judged, range, &envelope, Field::TsUtc),
            dedupe_key: Hash32::default(),
            payload_hash: Hash32::default(),
            partition_key: Hash32::default(),
            quarantine: None,
        };
        let number = judged.items.len();
        let identity = dedupe_key_text(&run_id, rule.class.as_bytes(), &event_id);
        self.memory.hashes.ask(Wanted::DedupeKey, number, &identity);
        let mut topic = None;
        if finding.is_none() {
            let payload = payload_text(&envelope);
            self.memory
                .hashes
                .ask(Wanted::PayloadHash, number, &payload);
            match self.route(&envelope, rule, number) {
                Ok(found) => topic = Some(found),
                Err(refused) => finding = Some(refused),
            }
        }
        self.memory.hashes.place(topic);
        if let Some((code, detail)) = finding {
            item.quarantine = Some(Box::new(draft(&envelope, code, detail)));
        }
        drop((run_id, event_id));
        let (rewritten, members) = envelope.into_parts();
        if let Some(rewritten) = rewritten {
            item.text = judged.push_extra(&rewritten);
        }
        self.memory.reader.recycle(members);
        judged.items.push(item);
    }

    fn route(
        &mut self,
        envelope: &Envelope<'_>,
        rule: &EventRule,
        number: usize,
    ) -> Result<Topic, (&'static str, String)> {
        if rule.hash_algo != "sha256" {
            return Err(("UNSUPPORTED_HASH_ALGO", rule.hash_algo.clone()));
        }
        let Some(key) = partition_key_text(envelope, &rule.key_precedence) else {
            return Err((
                "PARTITION_KEY_MISSING",
                format!("profile {}", rule.profile_id),
            ));
        };
        self.memory
            .hashes
            .ask(Wanted::PartitionKey, number, &[&key]);
        let partitions = self.context.partitions.get(usize::from(rule.topic_index));
        Ok(Topic {
            index: rule.topic_index,
            partitions: partitions.copied().unwrap_or(1),
        })
    }

    fn context_index(
        &mut self,
        judged: &mut JudgedBatch,
        envelope: &Envelope<'_>,
        rule: &EventRule,
    ) -> u16 {
        if let Some(index) = self.memory.last.index {
            return index;
        }
        let known = self.memory.last.receipt.clone();
        let receipt = known.unwrap_or_else(|| Arc::new(self.receipt_context(envelope, rule)));
        judged.contexts.push(receipt.clone());
        let index = (judged.contexts.len() - 1) as u16;
        self.memory.last.receipt = Some(receipt);
        self.memory.last.index = Some(index);
        index
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

/// Where an event lies without the white space around it: a line break at its end is no other spelling of it.
fn without_outer_space(bytes: &[u8], range: &Range<u32>) -> Range<u32> {
    let whole = &bytes[range.start as usize..range.end as usize];
    let leading = whole.iter().take_while(|byte| is_space(**byte)).count();
    let rest = &whole[leading..];
    let trailing = rest
        .iter()
        .rev()
        .take_while(|byte| is_space(**byte))
        .count();
    range.start + leading as u32..range.end - trailing as u32
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

fn payload_text<'a>(envelope: &'a Envelope<'_>) -> [&'a [u8]; 7] {
    payload_hash_text(
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

fn run_index(judged: &mut JudgedBatch, run_id: &[u8]) -> u16 {
    if let Some(index) = judged
        .runs
        .iter()
        .rposition(|known| known.as_str().as_bytes() == run_id)
    {
        return index as u16;
    }
    let run = std::str::from_utf8(run_id).ok().map(PlatformRunId::parse);
    let run = run.and_then(Result::ok);
    judged
        .runs
        .push(run.expect("not_receiptable checked the platform run id"));
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
    match envelope.string_bytes(field).unwrap_or_default() {
        Cow::Borrowed(_) if envelope.is_unchanged() => {
            TextRef::Source(range.start + inside.start..range.start + inside.end)
        }
        decoded => judged.push_extra(&decoded),
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
pub(crate) mod tests;
