//! Quarantine records: the evidence kept of an event that was refused (contract 7.8).

use crate::admission::decision::{Actor, PolicyRev};
use crate::admission::envelope::{Envelope, FIELD_NAMES, Field};
use crate::admission::intake::pins;
use crate::ids::receipt_id;
use crate::time_text::Micros;
use serde_json::{Map, Value, json};

/// Code of an event that carries another payload than the one admitted under its key.
pub const PAYLOAD_HASH_MISMATCH: &str = "PAYLOAD_HASH_MISMATCH";

/// The part of a quarantine record that is known when the event is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarantineDraft {
    /// Contract reason code.
    pub code: &'static str,
    /// A sentence for people; goes to logs and answers, not into the record.
    pub detail: String,
    event_id: String,
    manifest_fingerprint: String,
    pins: Map<String, Value>,
    envelope: Map<String, Value>,
}

/// Keeps what the record needs of an envelope: every top-level field but the payload.
pub(crate) fn draft(
    envelope: &Envelope<'_>,
    code: &'static str,
    detail: String,
) -> QuarantineDraft {
    let text = |field| envelope.string(field).map(|text| text.into_owned());
    let manifest_fingerprint =
        text(Field::ManifestFingerprint).filter(|_| envelope.is_valid(Field::ManifestFingerprint));
    let fields: Value = serde_json::from_slice(envelope.text()).unwrap_or_default();
    let mut kept = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    kept.retain(|name, _| name != FIELD_NAMES[Field::Payload as usize]);
    QuarantineDraft {
        code,
        detail,
        event_id: text(Field::EventId).unwrap_or_else(|| "unknown".to_owned()),
        manifest_fingerprint: manifest_fingerprint.unwrap_or_else(|| "0".repeat(64)),
        pins: pins(envelope),
        envelope: kept,
    }
}

/// The stamp a record gets when the decision is made.
#[derive(Clone, Copy, Debug)]
pub struct RecordStamp<'a> {
    /// When the gate decided.
    pub received_at: Micros,
    /// Policy in force.
    pub policy_rev: &'a PolicyRev,
    /// Caller.
    pub actor: &'a Actor,
    /// Provenance block (contract 1.5).
    pub provenance: &'a Value,
}

impl QuarantineDraft {
    /// Draws up the record for an event that turned out to carry another payload than the one admitted
    /// under its key, from the published form of its envelope.
    pub fn payload_mismatch(envelope_text: &[u8]) -> QuarantineDraft {
        QuarantineDraft::late(envelope_text, PAYLOAD_HASH_MISMATCH)
    }

    /// Draws up the record for an event that was refused after it had been judged.
    pub fn late(envelope_text: &[u8], code: &'static str) -> QuarantineDraft {
        let detail = match code {
            PAYLOAD_HASH_MISMATCH => "the same event was admitted with another payload".to_owned(),
            _ => "the event cannot be published".to_owned(),
        };
        match Envelope::read(envelope_text) {
            Ok(Some(envelope)) => draft(&envelope, code, detail),
            // The bytes were judged before, so this arm only keeps the function total.
            _ => QuarantineDraft {
                code,
                detail,
                event_id: "unknown".to_owned(),
                manifest_fingerprint: "0".repeat(64),
                pins: Map::new(),
                envelope: Map::new(),
            },
        }
    }

    /// The complete record (contract 7.8).
    pub fn record(&self, stamp: &RecordStamp<'_>) -> Value {
        json!({
            "quarantine_id": receipt_id("QUARANTINE", &self.event_id),
            "received_at_utc": stamp.received_at.format_off(),
            "decision": "QUARANTINE",
            "reason_codes": [self.code],
            "manifest_fingerprint": self.manifest_fingerprint,
            "pins": self.pins,
            "policy_rev": stamp.policy_rev,
            "envelope": self.envelope,
            "actor": stamp.actor,
            "service_release_id": stamp.provenance.get("service_release_id"),
            "environment": stamp.provenance.get("environment"),
            "provenance": stamp.provenance,
        })
    }
}
