//! The canonical envelope: its fields and their rules (contract 2.1).
//!
//! An [`Envelope`] is a view of canonical bytes: where each field lies. Bytes that are valid but not
//! canonical are rewritten first ([`Envelope::read`]), so that what is published is the insertion-order
//! form and what is hashed is the sorted form, whoever sent it.

use crate::json_scan::{JsonError, Member, Scanner, ValueKind};
use crate::json_tree::{Json, decode_string};
use crate::time_text::is_env_shape;
use std::borrow::Cow;
use std::ops::Range;

/// The fields an envelope may have; there are no others (contract 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Field {
    EventId,
    EventType,
    TsUtc,
    ManifestFingerprint,
    ParameterHash,
    Seed,
    ScenarioId,
    RunId,
    PlatformRunId,
    ScenarioRunId,
    EmittedAtUtc,
    SchemaVersion,
    TraceId,
    SpanId,
    ParentEventId,
    Producer,
    Payload,
}

/// Field names in the order of [`Field`].
pub const FIELD_NAMES: [&str; 17] = [
    "event_id",
    "event_type",
    "ts_utc",
    "manifest_fingerprint",
    "parameter_hash",
    "seed",
    "scenario_id",
    "run_id",
    "platform_run_id",
    "scenario_run_id",
    "emitted_at_utc",
    "schema_version",
    "trace_id",
    "span_id",
    "parent_event_id",
    "producer",
    "payload",
];

const FIELDS: [Field; 17] = [
    Field::EventId,
    Field::EventType,
    Field::TsUtc,
    Field::ManifestFingerprint,
    Field::ParameterHash,
    Field::Seed,
    Field::ScenarioId,
    Field::RunId,
    Field::PlatformRunId,
    Field::ScenarioRunId,
    Field::EmittedAtUtc,
    Field::SchemaVersion,
    Field::TraceId,
    Field::SpanId,
    Field::ParentEventId,
    Field::Producer,
    Field::Payload,
];

impl Field {
    /// The field's name in the envelope.
    pub fn name(self) -> &'static str {
        FIELD_NAMES[self as usize]
    }

    /// The field of that name.
    pub fn from_name(name: &[u8]) -> Option<Field> {
        Some(match name {
            b"event_id" => Field::EventId,
            b"event_type" => Field::EventType,
            b"ts_utc" => Field::TsUtc,
            b"manifest_fingerprint" => Field::ManifestFingerprint,
            b"parameter_hash" => Field::ParameterHash,
            b"seed" => Field::Seed,
            b"scenario_id" => Field::ScenarioId,
            b"run_id" => Field::RunId,
            b"platform_run_id" => Field::PlatformRunId,
            b"scenario_run_id" => Field::ScenarioRunId,
            b"emitted_at_utc" => Field::EmittedAtUtc,
            b"schema_version" => Field::SchemaVersion,
            b"trace_id" => Field::TraceId,
            b"span_id" => Field::SpanId,
            b"parent_event_id" => Field::ParentEventId,
            b"producer" => Field::Producer,
            b"payload" => Field::Payload,
            _ => return None,
        })
    }
}

/// The rule an envelope breaks (contract 7.3, step 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct EnvelopeViolation {
    /// Field name, or the unknown name.
    pub field: String,
    /// The rule, in words.
    pub rule: &'static str,
}

/// Where one field lies, and what kind of value it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    value: Range<u32>,
    kind: ValueKind,
}

/// An envelope as canonical bytes with the place of every field.
#[derive(Debug)]
pub struct Envelope<'a> {
    text: Cow<'a, [u8]>,
    slots: [Option<Slot>; 17],
    /// The first member with a name no envelope has.
    unknown: Option<String>,
    /// Members of the payload, relative to [`Envelope::payload_json`].
    payload_members: Vec<Member>,
    /// Sorted payload bytes, when the payload in `text` is not sorted itself.
    payload_sorted: Option<Vec<u8>>,
}

impl<'a> Envelope<'a> {
    /// Reads an envelope from JSON text. `Ok(None)` when the text is JSON but not an object.
    pub fn read(text: &'a [u8]) -> Result<Option<Envelope<'a>>, JsonError> {
        match Envelope::read_canonical(text)? {
            Some(envelope) => Ok(Some(envelope)),
            None => Envelope::rewrite(text),
        }
    }

    /// The fast road: `None` when the bytes are not canonical, or are no object.
    fn read_canonical(text: &'a [u8]) -> Result<Option<Envelope<'a>>, JsonError> {
        let mut scanner = Scanner::new(text);
        if scanner.peek() != Some(b'{') {
            return Ok(None);
        }
        let mut envelope = Envelope::empty(Cow::Borrowed(text));
        let mut repeated = false;
        let mut payload: Option<Range<u32>> = None;
        scanner.members(0, |scanner, member| {
            repeated |= envelope.place(text, &member);
            // Only order inside the payload matters: the envelope's own fields may come in any order.
            match Field::from_name(member.key_of(text)) {
                Some(Field::Payload) => payload = Some(member.value),
                _ => scanner.sorted = true,
            }
            if payload.is_some() && !scanner.sorted {
                repeated = true;
            }
            Ok(())
        })?;
        scanner.end()?;
        if !scanner.normal || repeated {
            return Ok(None);
        }
        Ok(envelope.with_payload_members().then_some(envelope))
    }

    /// The slow road: rewrites the bytes, which also refuses repeated keys.
    fn rewrite(text: &[u8]) -> Result<Option<Envelope<'a>>, JsonError> {
        let tree = Json::parse(text)?;
        if !matches!(tree, Json::Object(_)) {
            return Ok(None);
        }
        let mut normal = Vec::with_capacity(text.len());
        tree.push_ij(&mut normal);
        let mut envelope = Envelope::empty(Cow::Owned(Vec::new()));
        let mut members = Vec::new();
        Scanner::new(&normal).members(0, |_, member| {
            members.push(member);
            Ok(())
        })?;
        for member in &members {
            envelope.place(&normal, member);
        }
        envelope.text = Cow::Owned(normal);
        if let Some(payload @ Json::Object(_)) = tree.get("payload") {
            let mut sorted = Vec::new();
            payload.push_cj(&mut sorted);
            envelope.payload_sorted = Some(sorted);
        }
        envelope.with_payload_members();
        Ok(Some(envelope))
    }

    fn empty(text: Cow<'a, [u8]>) -> Envelope<'a> {
        Envelope {
            text,
            slots: Default::default(),
            unknown: None,
            payload_members: Vec::new(),
            payload_sorted: None,
        }
    }

    /// Notes where a member lies; true when its name came before (the slow road then refuses it).
    fn place(&mut self, text: &[u8], member: &Member) -> bool {
        match Field::from_name(member.key_of(text)) {
            Some(field) => {
                let slot = Slot {
                    value: member.value.clone(),
                    kind: member.kind,
                };
                self.slots[field as usize].replace(slot).is_some()
            }
            None => {
                // Unknown members end on the slow road only to find out whether one is repeated.
                let first = self.unknown.is_none();
                self.unknown
                    .get_or_insert_with(|| decode_string(member.key_of(text)));
                !first
            }
        }
    }

    /// Fills the payload members; false when the payload's own keys are not strictly ascending.
    fn with_payload_members(&mut self) -> bool {
        if self.kind(Field::Payload) != Some(ValueKind::Object) {
            return true;
        }
        let mut members = Vec::with_capacity(24);
        let mut ascending = true;
        {
            let text = self.payload_json();
            let mut order = Scanner::new(b"");
            let _ = Scanner::new(text).members(0, |_, member| {
                if let Some(previous) = members.last() {
                    order.note_order(Member::key_of(previous, text), member.key_of(text));
                }
                members.push(member);
                Ok(())
            });
            ascending &= order.sorted;
        }
        self.payload_members = members;
        ascending
    }

    /// The envelope in insertion-order canonical form: what is published.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// True when the bytes received are published as they are.
    pub fn is_unchanged(&self) -> bool {
        matches!(self.text, Cow::Borrowed(_))
    }

    /// The rewritten bytes, when they differ from what was received.
    pub fn into_rewritten(self) -> Option<Vec<u8>> {
        match self.text {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(text),
        }
    }

    /// The canonical JSON of a field, quotes included.
    pub fn json(&self, field: Field) -> Option<&[u8]> {
        let slot = self.slots[field as usize].as_ref()?;
        Some(&self.text[slot.value.start as usize..slot.value.end as usize])
    }

    /// Where the inside of a string field lies in [`Envelope::text`].
    pub fn string_range(&self, field: Field) -> Option<Range<u32>> {
        let slot = self.slots[field as usize]
            .as_ref()
            .filter(|slot| slot.kind == ValueKind::String)?;
        Some(slot.value.start + 1..slot.value.end - 1)
    }

    /// The kind of a field's value.
    pub fn kind(&self, field: Field) -> Option<ValueKind> {
        self.slots[field as usize].as_ref().map(|slot| slot.kind)
    }

    /// The decoded text of a string field; anything else is `None`.
    pub fn string(&self, field: Field) -> Option<Cow<'_, str>> {
        let range = self.string_range(field)?;
        let raw = &self.text[range.start as usize..range.end as usize];
        Some(decoded(raw))
    }

    /// The payload's sorted canonical bytes (CJ), `null` when there is none.
    pub fn payload_json(&self) -> &[u8] {
        match &self.payload_sorted {
            Some(sorted) => sorted,
            None => self.json(Field::Payload).unwrap_or(b"null"),
        }
    }

    /// The payload's members, relative to [`Envelope::payload_json`].
    pub fn payload_members(&self) -> &[Member] {
        &self.payload_members
    }

    /// Checks every rule of contract 2.1.
    pub fn validate(&self) -> Result<(), EnvelopeViolation> {
        if let Some(name) = &self.unknown {
            return Err(EnvelopeViolation {
                field: name.clone(),
                rule: "is not a field of the envelope",
            });
        }
        for field in [
            Field::EventId,
            Field::EventType,
            Field::TsUtc,
            Field::ManifestFingerprint,
        ] {
            if self.kind(field).is_none() {
                return violation(field, "is required");
            }
        }
        FIELDS
            .into_iter()
            .try_for_each(|field| match self.kind(field) {
                Some(kind) => self.validate_field(field, kind),
                None => Ok(()),
            })
    }

    /// True when one field is there and keeps its rule.
    pub fn is_valid(&self, field: Field) -> bool {
        self.kind(field)
            .is_some_and(|kind| self.validate_field(field, kind).is_ok())
    }

    fn validate_field(&self, field: Field, kind: ValueKind) -> Result<(), EnvelopeViolation> {
        match field {
            Field::Payload if kind == ValueKind::Object => Ok(()),
            Field::Payload => violation(field, "must be an object"),
            Field::Seed => self.validate_seed(kind),
            Field::ScenarioId if kind == ValueKind::Integer => match self.json(field) {
                Some([b'-', ..]) => violation(field, "must not be negative"),
                _ => Ok(()),
            },
            _ if kind != ValueKind::String => violation(field, "must be a string"),
            _ => self.validate_string(field),
        }
    }

    fn validate_seed(&self, kind: ValueKind) -> Result<(), EnvelopeViolation> {
        let text =
            std::str::from_utf8(self.json(Field::Seed).unwrap_or_default()).unwrap_or_default();
        let in_range = match kind {
            ValueKind::Integer => text.parse::<u64>().is_ok(),
            // 7.0 counts as an integer (contract 0.2).
            ValueKind::Float => text.parse::<f64>().is_ok_and(|seed| {
                seed.fract() == 0.0 && (0.0..18446744073709551616.0).contains(&seed)
            }),
            _ => false,
        };
        if in_range {
            Ok(())
        } else {
            violation(
                Field::Seed,
                "must be an integer from 0 to 18446744073709551615",
            )
        }
    }

    fn validate_string(&self, field: Field) -> Result<(), EnvelopeViolation> {
        let range = self.string_range(field).unwrap_or_default();
        let raw = &self.text[range.start as usize..range.end as usize];
        match field {
            Field::TsUtc | Field::EmittedAtUtc if is_env_shape(raw) => Ok(()),
            Field::TsUtc | Field::EmittedAtUtc => {
                violation(field, "must look like 2026-01-01T00:00:00.000000Z")
            }
            Field::ManifestFingerprint | Field::ParameterHash => {
                expect_hex(field, raw, 64, "must be 64 lower-case hex characters")
            }
            Field::RunId | Field::ScenarioRunId => {
                expect_hex(field, raw, 32, "must be 32 lower-case hex characters")
            }
            Field::PlatformRunId if crate::run_paths::is_platform_run_id(raw) => Ok(()),
            Field::PlatformRunId => violation(field, "must look like platform_20260101T000000Z"),
            Field::SchemaVersion => expect_length(field, raw, 64, "must have 1 to 64 characters"),
            Field::TraceId | Field::SpanId | Field::Producer => {
                expect_length(field, raw, 128, "must have 1 to 128 characters")
            }
            _ => expect_length(field, raw, 256, "must have 1 to 256 characters"),
        }
    }
}

fn violation(field: Field, rule: &'static str) -> Result<(), EnvelopeViolation> {
    Err(EnvelopeViolation {
        field: field.name().to_owned(),
        rule,
    })
}

fn expect_hex(
    field: Field,
    raw: &[u8],
    length: usize,
    rule: &'static str,
) -> Result<(), EnvelopeViolation> {
    let fits = raw.len() == length
        && raw
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if fits { Ok(()) } else { violation(field, rule) }
}

fn expect_length(
    field: Field,
    raw: &[u8],
    max: usize,
    rule: &'static str,
) -> Result<(), EnvelopeViolation> {
    let characters = if raw.contains(&b'\\') {
        decoded(raw).chars().count()
    } else {
        raw.len()
    };
    if (1..=max).contains(&characters) {
        Ok(())
    } else {
        violation(field, rule)
    }
}

fn decoded(raw: &[u8]) -> Cow<'_, str> {
    if raw.contains(&b'\\') {
        return Cow::Owned(decode_string(raw));
    }
    String::from_utf8_lossy(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> serde_json::Value {
        serde_json::json!({
            "event_id": "e1", "event_type": "t", "ts_utc": "2026-01-01T00:00:01.250000Z",
            "manifest_fingerprint": "a".repeat(64), "seed": 42, "payload": {"a": 1, "b": {"c": 2}}
        })
    }

    fn with(field: &str, value: serde_json::Value) -> String {
        let mut envelope = base();
        envelope[field] = value;
        serde_json::to_string(&envelope).unwrap()
    }

    #[test]
    fn canonical_bytes_are_read_in_place() {
        let text = serde_json::to_string(&base()).unwrap();
        let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
        assert!(envelope.is_unchanged());
        assert_eq!(envelope.validate(), Ok(()));
        assert_eq!(envelope.payload_json(), br#"{"a":1,"b":{"c":2}}"#);
        assert_eq!(envelope.payload_members().len(), 2);
        assert_eq!(envelope.string(Field::EventId).unwrap(), "e1");
        assert_eq!(envelope.json(Field::Seed).unwrap(), b"42");
    }

    #[test]
    fn other_spellings_are_rewritten_and_only_the_hash_is_sorted() {
        let text = " {\"payload\": {\"b\": 1.50, \"a\": \"\\/\"}, \"event_id\" : \"e\\u00E9\"}";
        let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(
            envelope.text(),
            br#"{"payload":{"b":1.5,"a":"/"},"event_id":"e\u00e9"}"#
        );
        assert_eq!(envelope.payload_json(), br#"{"a":"/","b":1.5}"#);
        assert_eq!(envelope.string(Field::EventId).unwrap(), "eé");
        assert_eq!(
            envelope.payload_members()[1].key_of(envelope.payload_json()),
            b"b"
        );
    }

    #[test]
    fn an_unsorted_payload_at_any_depth_takes_the_slow_road() {
        for payload in [r#"{"b":1,"a":2}"#, r#"{"a":{"d":1,"c":2}}"#] {
            let text = format!("{{\"event_id\":\"e\",\"payload\":{payload},\"producer\":\"p\"}}");
            let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
            assert_eq!(envelope.text(), text.as_bytes());
            assert!(!envelope.is_unchanged());
            assert_ne!(envelope.payload_json(), payload.as_bytes());
        }
    }

    #[test]
    fn repeated_keys_are_refused_at_every_level() {
        for text in [
            r#"{"event_id":"a","event_id":"b"}"#,
            r#"{"event_id":"a","payload":{"x":1,"x":2}}"#,
            r#"{"zzz":1,"zzz":2}"#,
            r#"{"zzz":1,"yyy":{"a":1,"a":1},"zzy":1}"#,
        ] {
            assert_eq!(
                Envelope::read(text.as_bytes()).unwrap_err().cause,
                "a key occurs twice in one object",
                "{text}"
            );
        }
        assert!(Envelope::read(b"[1]").unwrap().is_none());
        assert!(Envelope::read(b"nope").is_err());
    }

    #[test]
    fn each_rule_of_the_envelope_is_enforced() {
        use serde_json::json;
        for (field, value, good) in [
            ("event_id", json!(""), false),
            ("event_id", json!("x".repeat(256)), true),
            ("event_id", json!("x".repeat(257)), false),
            ("event_id", json!("é".repeat(256)), true),
            ("event_id", json!(1), false),
            ("ts_utc", json!("2026-01-01T00:00:01Z"), false),
            ("manifest_fingerprint", json!("A".repeat(64)), false),
            ("parameter_hash", json!(null), false),
            ("seed", json!(-1), false),
            ("seed", json!("42"), false),
            ("seed", json!(7.0), true),
            ("seed", json!(7.5), false),
            ("seed", json!(u64::MAX), true),
            ("scenario_id", json!(3), true),
            ("scenario_id", json!(-3), false),
            ("scenario_id", json!(true), false),
            ("run_id", json!("0".repeat(32)), true),
            ("run_id", json!("0".repeat(33)), false),
            ("platform_run_id", json!("platform_20260101T000000Z"), true),
            ("platform_run_id", json!("x"), false),
            ("schema_version", json!("v".repeat(65)), false),
            ("trace_id", json!("v".repeat(129)), false),
            ("payload", json!([1]), false),
            ("extra", json!(1), false),
        ] {
            let text = with(field, value.clone());
            let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
            let result = envelope.validate();
            assert_eq!(result.is_ok(), good, "{field} = {value}: {result:?}");
            if let Err(violation) = result {
                assert_eq!(violation.field, field);
            }
        }
    }
}
