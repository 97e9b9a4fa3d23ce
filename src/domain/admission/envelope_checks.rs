//! Checks of one envelope against the contract and the rule of its event type (contract 7.3, 7.8).

use crate::admission::envelope::{Envelope, Field};
use crate::admission::payload_schema::SchemaViolation;
use crate::admission::policy::EventRule;
use crate::json_scan::ValueKind;

/// What is wrong with an event: reason code and detail.
pub(super) type Finding = (&'static str, String);

/// Fields that are the same for all events of a stream.
pub(super) const CONTEXT_FIELDS: [Field; 10] = [
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

/// Fields of an event of its own that a receipt needs: [`not_receiptable`] looks at them.
const OWN_FIELDS_IN_RECEIPTS: [Field; 2] = [Field::EventId, Field::TsUtc];

/// All other fields: they differ from event to event.
pub(super) const OWN_FIELDS_NOT_IN_RECEIPTS: [Field; 5] = [
    Field::EmittedAtUtc,
    Field::TraceId,
    Field::SpanId,
    Field::ParentEventId,
    Field::Payload,
];

/// Why no schema-valid receipt is possible, if so (contract 7.8, last paragraph).
pub(super) fn not_receiptable(envelope: &Envelope<'_>, context_is_valid: bool) -> Option<String> {
    let needed = [
        Field::EventId,
        Field::EventType,
        Field::TsUtc,
        Field::ManifestFingerprint,
        Field::PlatformRunId,
    ];
    let unknown = |field: &Field| !context_is_valid || OWN_FIELDS_IN_RECEIPTS.contains(field);
    let broken = needed
        .into_iter()
        .filter(unknown)
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

pub(super) fn is_empty(envelope: &Envelope<'_>, pin: Field) -> bool {
    match envelope.kind(pin) {
        None | Some(ValueKind::Null) => true,
        Some(ValueKind::String) => envelope
            .string_range(pin)
            .is_none_or(|range| range.is_empty()),
        Some(_) => false,
    }
}

/// Every check of an envelope that differs from one that passed them only in event id, time and the values of these
/// payload members, a bit for each from the first on, and, when it says so, in [`OWN_FIELDS_NOT_IN_RECEIPTS`].
pub(super) fn check_differences(
    envelope: &Envelope<'_>,
    rule: &EventRule,
    own_fields: bool,
    payload_members: u64,
) -> Option<Finding> {
    if own_fields && let Err(violation) = envelope.validate_only(&OWN_FIELDS_NOT_IN_RECEIPTS) {
        return Some(("ENVELOPE_INVALID", violation.to_string()));
    }
    let payload = rule.schema.as_ref()?.payload.as_ref()?;
    let (text, members) = (envelope.payload_json(), envelope.payload_members());
    schema_failure(payload.check_values(text, members, payload_members))
}

pub(super) fn check_schema(envelope: &Envelope<'_>, rule: &EventRule) -> Option<Finding> {
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
    let (text, members) = (envelope.payload_json(), envelope.payload_members());
    schema_failure(payload.check_members(text, members))
}

fn schema_failure(checked: Result<(), SchemaViolation>) -> Option<Finding> {
    let violation = checked.err()?;
    let detail = format!("{} {}", violation.path, violation.rule);
    Some(("SCHEMA_FAIL", detail))
}
