//! The rules a receipt must meet, whoever wrote it (contract 7.7): a closed document whose fields
//! depend on the decision.

use crate::ids::is_hex;
use crate::run_paths::is_platform_run_id;
use serde_json::{Map, Value};

/// The first rule a receipt breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct ReceiptViolation {
    /// Field with its path.
    pub field: String,
    /// The rule, in words.
    pub rule: &'static str,
}

type Checked = Result<(), ReceiptViolation>;

const ALWAYS: [&str; 15] = [
    "receipt_id",
    "decision",
    "event_id",
    "event_type",
    "event_class",
    "ts_utc",
    "manifest_fingerprint",
    "platform_run_id",
    "run_config_digest",
    "policy_rev",
    "dedupe_key",
    "pins",
    "actor",
    "service_release_id",
    "environment",
];
const ADMITTED: [&str; 4] = [
    "scenario_run_id",
    "payload_hash",
    "admitted_at_utc",
    "eb_ref",
];
const OPTIONAL: [&str; 4] = [
    "scenario_run_id",
    "schema_version",
    "producer",
    "provenance",
];

/// Checks a receipt (contract 7.7).
pub fn check_receipt(receipt: &Value) -> Checked {
    let Value::Object(receipt) = receipt else {
        return broken("receipt", "must be an object");
    };
    let own: &[&str] = match receipt.get("decision").and_then(Value::as_str) {
        Some("ADMIT") => &["partitioning_profile_id", "partition_key"],
        Some("DUPLICATE") => &["reason_codes", "evidence_refs"],
        Some("QUARANTINE") => &["reason_codes", "evidence_refs"],
        _ => return broken("decision", "must be ADMIT, DUPLICATE or QUARANTINE"),
    };
    let admitted: &[&str] = match receipt["decision"] == "QUARANTINE" {
        true => &[],
        false => &ADMITTED,
    };
    let required: Vec<&str> = [&ALWAYS[..], admitted, own].concat();
    for name in &required {
        if receipt.get(*name).is_none_or(Value::is_null) {
            return broken(name, "is required");
        }
    }
    let known =
        |name: &String| required.contains(&name.as_str()) || OPTIONAL.contains(&name.as_str());
    if let Some(name) = receipt.keys().find(|name| !known(name)) {
        return broken(name, "is not a field of this receipt");
    }
    check_texts(receipt)?;
    check_parts(receipt)
}

fn check_texts(receipt: &Map<String, Value>) -> Checked {
    hex(receipt, "receipt_id", 32)?;
    hex(receipt, "manifest_fingerprint", 64)?;
    for name in ["scenario_run_id", "partition_key", "run_config_digest"] {
        let length = if name == "scenario_run_id" { 32 } else { 64 };
        if receipt.contains_key(name) {
            hex(receipt, name, length)?;
        }
    }
    let texts = [
        "event_id",
        "event_type",
        "event_class",
        "ts_utc",
        "admitted_at_utc",
        "service_release_id",
        "environment",
        "schema_version",
        "producer",
        "partitioning_profile_id",
    ];
    for name in texts {
        if receipt.contains_key(name) && text(receipt, name)?.is_empty() {
            return broken(name, "must not be empty");
        }
    }
    let dedupe_key = text(receipt, "dedupe_key")?;
    if !dedupe_key.is_empty() && !is_hex(dedupe_key, 64) {
        return broken("dedupe_key", "must be 64 hex characters or empty");
    }
    match is_platform_run_id(text(receipt, "platform_run_id")?.as_bytes()) {
        true => Ok(()),
        false => broken("platform_run_id", "must be a platform run id"),
    }
}

fn check_parts(receipt: &Map<String, Value>) -> Checked {
    closed(
        receipt,
        "policy_rev",
        &["policy_id", "revision", "content_digest"],
    )?;
    closed(
        receipt,
        "actor",
        &["actor_id", "source_type", "auth_mode", "principal"],
    )?;
    let pins = receipt["pins"].as_object();
    if pins.is_none_or(|pins| pins.values().any(Value::is_null)) {
        return broken("pins", "must be an object without nulls");
    }
    if receipt.contains_key("payload_hash") {
        closed(receipt, "payload_hash", &["algo", "hex"])?;
        let hash = &receipt["payload_hash"];
        if hash["algo"] != "sha256" || !hash["hex"].as_str().is_some_and(|text| is_hex(text, 64)) {
            return broken("payload_hash", "must be a sha256 of 64 hex characters");
        }
    }
    if receipt.contains_key("eb_ref") {
        check_eb_ref(&receipt["eb_ref"])?;
    }
    if receipt.contains_key("reason_codes") {
        check_reasons(receipt)?;
    }
    Ok(())
}

fn check_reasons(receipt: &Map<String, Value>) -> Checked {
    let codes = receipt["reason_codes"].as_array();
    if codes.is_none_or(|codes| codes.len() != 1 || codes[0].as_str().is_none_or(str::is_empty)) {
        return broken("reason_codes", "must hold one code");
    }
    let kind = match receipt["decision"] == "QUARANTINE" {
        true => "quarantine_record",
        false => "receipt_ref",
    };
    let refs = receipt["evidence_refs"].as_array();
    let good = |item: &Value| {
        item["kind"] == kind && item["ref"].as_str().is_some_and(|at| !at.is_empty())
    };
    match refs.is_some_and(|refs| !refs.is_empty() && refs.iter().all(good)) {
        true => Ok(()),
        false => broken(
            "evidence_refs",
            "must point to the evidence of the decision",
        ),
    }
}

/// A place on the bus (contract 8).
fn check_eb_ref(place: &Value) -> Checked {
    let known = [
        "topic",
        "partition",
        "offset",
        "offset_kind",
        "published_at_utc",
    ];
    let Some(fields) = place.as_object() else {
        return broken("eb_ref", "must be an object");
    };
    if fields.keys().any(|name| !known.contains(&name.as_str())) {
        return broken("eb_ref", "has a field that is not known");
    }
    let offset = place["offset"].as_str().unwrap_or_default();
    let kinds = ["file_line", "kinesis_sequence", "kafka_offset"];
    let good = place["topic"]
        .as_str()
        .is_some_and(|topic| !topic.is_empty())
        && place["partition"].is_u64()
        && (1..=128).contains(&offset.len())
        && place["offset_kind"]
            .as_str()
            .is_some_and(|kind| kinds.contains(&kind));
    match good {
        true => Ok(()),
        false => broken("eb_ref", "must name topic, partition, offset and kind"),
    }
}

/// An object with exactly these fields, all non-empty texts.
fn closed(receipt: &Map<String, Value>, name: &str, fields: &[&str]) -> Checked {
    let Some(part) = receipt[name].as_object() else {
        return broken(name, "must be an object");
    };
    for field in fields {
        if part
            .get(*field)
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            return broken(&format!("{name}.{field}"), "must be a text");
        }
    }
    match part.len() == fields.len() {
        true => Ok(()),
        false => broken(name, "has a field that is not known"),
    }
}

fn hex(receipt: &Map<String, Value>, name: &str, length: usize) -> Checked {
    match is_hex(text(receipt, name)?, length) {
        true => Ok(()),
        false => broken(name, "must be lower-case hex of the right length"),
    }
}

fn text<'a>(receipt: &'a Map<String, Value>, name: &str) -> Result<&'a str, ReceiptViolation> {
    let value = receipt.get(name).and_then(Value::as_str);
    value.ok_or_else(|| violation(name, "must be a text"))
}

fn broken<T>(field: &str, rule: &'static str) -> Result<T, ReceiptViolation> {
    Err(violation(field, rule))
}

fn violation(field: &str, rule: &'static str) -> ReceiptViolation {
    ReceiptViolation {
        field: field.to_owned(),
        rule,
    }
}
