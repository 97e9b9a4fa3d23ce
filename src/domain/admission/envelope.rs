//! The canonical envelope: its fields and their rules (contract 2.1).
//!
//! An [`Envelope`] is a view of canonical bytes: where each field lies. Bytes that are valid but not
//! canonical are rewritten first ([`Envelope::read`]), so that what is published is the insertion-order
//! form and what is hashed is the sorted form, whoever sent it.

use crate::admission::envelope_layout::Layout;
use crate::admission::payload_schema::scan_members;
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

pub(super) const FIELDS: [Field; 17] = [
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

/// An envelope as canonical bytes with the place of every field.
#[derive(Debug)]
pub struct Envelope<'a> {
    pub(super) text: Cow<'a, [u8]>,
    /// Borrowed from a reader that writes it again and again, or its own.
    pub(super) layout: Cow<'a, Box<Layout>>,
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
        let mut layout = Box::<Layout>::default();
        let mut repeated = false;
        let mut more = scanner.enter_object(0)?;
        while more {
            let key = scanner.next_key()?;
            let start = scanner.position() as u32;
            let name = &text[key.start as usize..key.end as usize];
            let kind = if name == b"payload" && scanner.peek() == Some(b'{') {
                layout.scan_payload(&mut scanner, text, start)?;
                ValueKind::Object
            } else {
                // An object here is wrong anyway; unsorted, the slow road finds out whether a key is
                // repeated in it.
                scanner.value(1)?
            };
            let value = start..scanner.position() as u32;
            repeated |= layout.place(text, &Member { key, value, kind });
            more = scanner.after_value()?;
        }
        scanner.end()?;
        layout.escapes = scanner.escapes;
        let canonical = scanner.normal && scanner.sorted && !repeated;
        Ok(canonical.then_some(Envelope {
            text: Cow::Borrowed(text),
            layout: Cow::Owned(layout),
        }))
    }

    /// The slow road: rewrites the bytes, which also refuses repeated keys.
    fn rewrite(text: &[u8]) -> Result<Option<Envelope<'a>>, JsonError> {
        let tree = Json::parse(text)?;
        if !matches!(tree, Json::Object(_)) {
            return Ok(None);
        }
        let mut normal = Vec::with_capacity(text.len());
        tree.push_ij(&mut normal);
        let mut layout = Box::<Layout>::default();
        let mut members = Vec::new();
        Scanner::new(&normal).members(0, |_, member| {
            members.push(member);
            Ok(())
        })?;
        for member in &members {
            layout.place(&normal, member);
        }
        layout.escapes = true;
        if let Some(payload @ Json::Object(_)) = tree.get("payload") {
            let mut sorted = Vec::new();
            payload.push_cj(&mut sorted);
            layout.payload_members = scan_members(&sorted);
            layout.payload_sorted = Some(sorted);
        }
        Ok(Some(Envelope {
            text: Cow::Owned(normal),
            layout: Cow::Owned(layout),
        }))
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
        let slot = self.layout.slots[field as usize].as_ref()?;
        Some(&self.text[slot.value.start as usize..slot.value.end as usize])
    }

    /// Where the inside of a string field lies in [`Envelope::text`].
    pub fn string_range(&self, field: Field) -> Option<Range<u32>> {
        let slot = self.layout.slots[field as usize]
            .as_ref()
            .filter(|slot| slot.kind == ValueKind::String)?;
        Some(slot.value.start + 1..slot.value.end - 1)
    }

    /// The kind of a field's value.
    pub fn kind(&self, field: Field) -> Option<ValueKind> {
        self.layout.slots[field as usize]
            .as_ref()
            .map(|slot| slot.kind)
    }

    /// The decoded text of a string field; anything else is `None`.
    pub fn string(&self, field: Field) -> Option<Cow<'_, str>> {
        let range = self.string_range(field)?;
        let raw = &self.text[range.start as usize..range.end as usize];
        Some(self.decoded(raw))
    }

    /// As [`Envelope::string`], as bytes.
    pub fn string_bytes(&self, field: Field) -> Option<Cow<'_, [u8]>> {
        let range = self.string_range(field)?;
        let raw = &self.text[range.start as usize..range.end as usize];
        Some(match self.has_escape(raw) {
            true => Cow::Owned(decode_string(raw).into_bytes()),
            false => Cow::Borrowed(raw),
        })
    }

    /// The payload's sorted canonical bytes (CJ), `null` when there is none.
    pub fn payload_json(&self) -> &[u8] {
        match &self.layout.payload_sorted {
            Some(sorted) => sorted,
            None => self.json(Field::Payload).unwrap_or(b"null"),
        }
    }

    /// The payload's members, relative to [`Envelope::payload_json`].
    pub fn payload_members(&self) -> &[Member] {
        &self.layout.payload_members
    }

    /// Checks every rule of contract 2.1.
    pub fn validate(&self) -> Result<(), EnvelopeViolation> {
        if let Some(name) = &self.layout.unknown {
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
        self.validate_fields(&FIELDS)
    }

    /// As [`Envelope::validate`], where the fields not named are known to keep their rules.
    pub fn validate_only(&self, fields: &[Field]) -> Result<(), EnvelopeViolation> {
        if self.layout.unknown.is_some() {
            return self.validate();
        }
        self.validate_fields(fields)
    }

    fn validate_fields(&self, fields: &[Field]) -> Result<(), EnvelopeViolation> {
        fields.iter().try_for_each(|field| match self.kind(*field) {
            Some(kind) => self.validate_field(*field, kind),
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
            Field::SchemaVersion => {
                self.expect_length(field, raw, 64, "must have 1 to 64 characters")
            }
            Field::TraceId | Field::SpanId | Field::Producer => {
                self.expect_length(field, raw, 128, "must have 1 to 128 characters")
            }
            _ => self.expect_length(field, raw, 256, "must have 1 to 256 characters"),
        }
    }
}

impl Envelope<'_> {
    fn expect_length(
        &self,
        field: Field,
        raw: &[u8],
        max: usize,
        rule: &'static str,
    ) -> Result<(), EnvelopeViolation> {
        let characters = if self.layout.escapes {
            self.decoded(raw).chars().count()
        } else {
            raw.len()
        };
        if (1..=max).contains(&characters) {
            Ok(())
        } else {
            violation(field, rule)
        }
    }

    /// Whether a piece of the text stands for something else than itself.
    fn has_escape(&self, raw: &[u8]) -> bool {
        self.layout.escapes && raw.contains(&b'\\')
    }

    fn decoded<'t>(&self, raw: &'t [u8]) -> Cow<'t, str> {
        if self.has_escape(raw) {
            return Cow::Owned(decode_string(raw));
        }
        // Canonical text is ASCII, so this never falls back.
        Cow::Borrowed(std::str::from_utf8(raw).unwrap_or_default())
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

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
