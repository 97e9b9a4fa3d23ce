//! Judging envelopes: everything the gate can decide about an event from its bytes alone
//! (contract 7.3, steps 2 to 6).
//!
//! Runs on tasks of the senders, one a batch, so that it scales with the cores and an admission shard only has to claim,
//! append and answer. Nothing here trusts the sender: an event of our own streamer and one from an HTTP
//! client take the same steps over the same bytes.

use crate::admission::decision::{Actor, ReceiptContext};
use crate::admission::envelope::{Envelope, Field};
use crate::admission::envelope_checks::{
    CONTEXT_FIELDS, Finding, OWN_FIELDS_NOT_IN_RECEIPTS, check_differences, check_schema, is_empty,
    not_receiptable,
};
use crate::admission::envelope_reader::{Compared, EnvelopeReader, Reading};
use crate::admission::gate_verdict::GateVerdict;
use crate::admission::item_hashes::{ItemHashes, Topic, Wanted};
use crate::admission::policy::EventRule;
use crate::admission::quarantine::draft;
use crate::admission::routing::partition_key_text;
use crate::ids::{Hash32, dedupe_key_text, payload_hash_text};
use crate::json_scan::{ValueKind, is_space};
use crate::ports::EnvelopeBatch;
use crate::prefetch::{EVENTS_AHEAD, prefetch};
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
    let IntakeMemory {
        reader,
        last,
        key,
        hashes,
    } = memory;
    let mut judge = Judge {
        context,
        last,
        key,
        hashes,
        gates: None,
    };
    for (index, range) in batch.ranges.iter().enumerate() {
        if let Some(ahead) = batch.ranges.get(index + EVENTS_AHEAD) {
            prefetch(&batch.bytes[ahead.start as usize..ahead.end as usize]);
        }
        let index = index as u32;
        let range = without_outer_space(&batch.bytes, range);
        let bytes = &batch.bytes[range.start as usize..range.end as usize];
        match reader.read(bytes) {
            Ok(Some(reading)) => judge.item(index, &range, reading, &mut judged),
            Ok(None) => {
                let detail = "the event is not a JSON object".to_owned();
                refuse(&mut judged, index, 422, "ENVELOPE_INVALID", detail);
            }
            Err(error) => refuse(&mut judged, index, 400, "INVALID_JSON", error.to_string()),
        }
        judge.hashes.settle_when_full(&mut judged, context.shards);
    }
    judge.hashes.settle(&mut judged, context.shards);
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
    last: &'a mut LastContext,
    key: &'a mut Vec<u8>,
    hashes: &'a mut ItemHashes,
    /// That of the last event: found once per run and batch, not once per event.
    gates: Option<GateVerdict>,
}

/// What is known of the constant fields of the last event: consecutive events of one stream share them, so
/// they are judged once.
#[derive(Default)]
struct LastContext {
    key: Vec<u8>,
    rule: Option<Arc<EventRule>>,
    /// True once an envelope with these fields was valid.
    is_valid: bool,
    /// True once the envelope that others are compared with has passed every check but that of the gates.
    pattern_passed: bool,
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
    fn item(
        &mut self,
        index: u32,
        range: &Range<u32>,
        reading: Reading<'_>,
        judged: &mut JudgedBatch,
    ) {
        let Reading { envelope, compared } = reading;
        // Taken out and put back: counting its owners would cost more, with all cores at it.
        let rule = self.take_rule(&envelope, compared);
        self.last.pattern_passed &= compared != Compared::Unknown;
        match self.check(&envelope, compared, &rule, judged) {
            Ok(finding) => self.accept(index, range, envelope, &rule, finding, judged),
            Err(immediate) => judged.immediate.push((index, immediate)),
        }
        self.last.rule = Some(rule);
    }

    /// Compares the constant fields with those of the last event and gives their rule.
    fn take_rule(&mut self, envelope: &Envelope<'_>, compared: Compared) -> Arc<EventRule> {
        let rule = self.last.rule.take();
        let rule = match (compared, rule) {
            (Compared::Alike { .. }, Some(rule)) => return rule,
            (_, rule) => rule,
        };
        self.key.clear();
        for field in CONTEXT_FIELDS {
            let json = envelope.json(field).unwrap_or_default();
            self.key.extend_from_slice(json);
            self.key.push(0);
        }
        if let Some(rule) = rule
            && *self.key == self.last.key
        {
            return rule;
        }
        std::mem::swap(self.key, &mut self.last.key);
        self.last.is_valid = false;
        self.last.receipt = None;
        self.last.index = None;
        self.gates = None;
        let event_type = envelope.string(Field::EventType).unwrap_or_default();
        self.context.policy.rule(&event_type).clone()
    }

    /// Steps 2 to 4b: the first failure, as code and detail.
    fn check(
        &mut self,
        envelope: &Envelope<'_>,
        compared: Compared,
        rule: &EventRule,
        judged: &mut JudgedBatch,
    ) -> Result<Option<Finding>, Immediate> {
        if let Some(detail) = not_receiptable(envelope, self.last.is_valid) {
            return Err(Immediate::Refused {
                status: 422,
                code: "ENVELOPE_INVALID",
                detail,
            });
        }
        let finding = match compared {
            Compared::Alike {
                own_fields,
                payload: Some(changed),
            } if self.last.pattern_passed => check_differences(envelope, rule, own_fields, changed),
            _ => self.check_all(envelope, rule),
        };
        if finding.is_some() {
            return Ok(finding);
        }
        self.last.pattern_passed |= compared == Compared::Unknown;
        self.check_gates(envelope, rule, judged)
    }

    fn check_all(&mut self, envelope: &Envelope<'_>, rule: &EventRule) -> Option<Finding> {
        let valid = match self.last.is_valid {
            true => envelope.validate_only(&OWN_FIELDS_NOT_IN_RECEIPTS),
            false => envelope.validate(),
        };
        if let Err(violation) = valid {
            return Some(("ENVELOPE_INVALID", violation.to_string()));
        }
        self.last.is_valid = true;
        let missing: Vec<&str> = rule
            .pins
            .iter()
            .filter(|pin| is_empty(envelope, **pin))
            .map(|pin| pin.name())
            .collect();
        match missing.is_empty() {
            true => check_schema(envelope, rule),
            false => Some(("PINS_MISSING", missing.join(","))),
        }
    }

    fn check_gates(
        &mut self,
        envelope: &Envelope<'_>,
        rule: &EventRule,
        judged: &mut JudgedBatch,
    ) -> Result<Option<Finding>, Immediate> {
        let context = self.context;
        let verdict = self
            .gates
            .get_or_insert_with(|| GateVerdict::on(envelope, rule, context));
        match verdict {
            GateVerdict::Pass => Ok(None),
            GateVerdict::Missing(_) if context.verify_gates == VerifyGates::Warn => {
                judged.gate_warnings += 1;
                Ok(None)
            }
            GateVerdict::Missing(detail) => Ok(Some(("GATE_PASS_MISSING", detail.clone()))),
            GateVerdict::NotLoaded(run, scenario_run) => {
                let unproven = (run.clone(), scenario_run.clone());
                judged.unproven.insert(unproven);
                Ok(None)
            }
            GateVerdict::Unavailable => Err(Immediate::Retry {
                code: "IG_UNHEALTHY",
                detail: "the facts view cannot be read now".to_owned(),
            }),
        }
    }

    /// Steps 5 and 6, then files the item under its run, context, partition and shard.
    fn accept(
        &mut self,
        index: u32,
        range: &Range<u32>,
        envelope: Envelope<'_>,
        rule: &EventRule,
        mut finding: Option<Finding>,
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
        self.hashes.ask(Wanted::DedupeKey, number, &identity);
        let mut topic = None;
        if finding.is_none() {
            let payload = payload_text(&envelope);
            self.hashes.ask(Wanted::PayloadHash, number, &payload);
            match self.route(&envelope, rule, number) {
                Ok(found) => topic = Some(found),
                Err(refused) => finding = Some(refused),
            }
        }
        self.hashes.place(topic);
        if let Some((code, detail)) = finding {
            item.quarantine = Some(judged.quarantines.len() as u32);
            judged.quarantines.push(draft(&envelope, code, detail));
        }
        drop((run_id, event_id));
        if let Some(rewritten) = envelope.into_rewritten() {
            item.text = judged.push_extra(&rewritten);
        }
        judged.items.push(item);
    }

    fn route(
        &mut self,
        envelope: &Envelope<'_>,
        rule: &EventRule,
        number: usize,
    ) -> Result<Topic, Finding> {
        if rule.hash_algo != "sha256" {
            return Err(("UNSUPPORTED_HASH_ALGO", rule.hash_algo.clone()));
        }
        let Some(key) = partition_key_text(envelope, &rule.key_precedence) else {
            return Err((
                "PARTITION_KEY_MISSING",
                format!("profile {}", rule.profile_id),
            ));
        };
        self.hashes.ask(Wanted::PartitionKey, number, &[&key]);
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
        if let Some(index) = self.last.index {
            return index;
        }
        let known = self.last.receipt.clone();
        let receipt = known.unwrap_or_else(|| Arc::new(self.receipt_context(envelope, rule)));
        judged.contexts.push(receipt.clone());
        let index = (judged.contexts.len() - 1) as u16;
        self.last.receipt = Some(receipt);
        self.last.index = Some(index);
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
