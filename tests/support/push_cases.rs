//! Envelopes with one change each, and what a gate must decide about them, on every kind of backend.

use super::gate_client::Answer;
use serde_json::{Value, json};

/// A change of a good envelope, and what the gate must decide.
pub struct Case {
    /// What changes.
    pub name: &'static str,
    /// The change.
    pub change: fn(&mut Value),
    /// HTTP status it must get.
    pub status: u16,
    /// Decision it must get; none when it is refused.
    pub decision: &'static str,
    /// Code it must get.
    pub code: &'static str,
}

const fn quarantine(name: &'static str, code: &'static str, change: fn(&mut Value)) -> Case {
    Case {
        name,
        change,
        status: 200,
        decision: "QUARANTINE",
        code,
    }
}

const fn refuse(name: &'static str, change: fn(&mut Value)) -> Case {
    Case {
        name,
        change,
        status: 422,
        decision: "",
        code: "ENVELOPE_INVALID",
    }
}

/// Takes a field out of an event.
pub fn remove(event: &mut Value, name: &str) {
    event.as_object_mut().unwrap().shift_remove(name);
}

/// Every decision and code a push can get.
pub const CASES: &[Case] = &[
    Case {
        name: "good",
        change: |_| {},
        status: 200,
        decision: "ADMIT",
        code: "",
    },
    quarantine("unknown-field", "ENVELOPE_INVALID", |event| {
        event["extra"] = json!(1)
    }),
    quarantine("null-producer", "ENVELOPE_INVALID", |event| {
        event["producer"] = json!(null)
    }),
    quarantine("long-trace", "ENVELOPE_INVALID", |event| {
        event["trace_id"] = json!("x".repeat(129))
    }),
    quarantine("seed-text", "ENVELOPE_INVALID", |event| {
        event["seed"] = json!("42")
    }),
    quarantine("bad-hash", "ENVELOPE_INVALID", |event| {
        event["parameter_hash"] = json!("B".repeat(64))
    }),
    quarantine("payload-list", "ENVELOPE_INVALID", |event| {
        event["payload"] = json!([])
    }),
    quarantine("no-run-id", "PINS_MISSING", |event| remove(event, "run_id")),
    quarantine("no-seed", "PINS_MISSING", |event| remove(event, "seed")),
    quarantine("no-scenario-run", "PINS_MISSING", |event| {
        remove(event, "scenario_run_id")
    }),
    quarantine("unknown-type", "SCHEMA_POLICY_MISSING", |event| {
        event["event_type"] = json!("nobody_knows")
    }),
    quarantine("version-needed", "SCHEMA_VERSION_REQUIRED", |event| {
        event["event_type"] = json!("action_intent");
        remove(event, "schema_version");
    }),
    quarantine("version-wrong", "SCHEMA_VERSION_NOT_ALLOWED", |event| {
        event["event_type"] = json!("action_intent");
        event["schema_version"] = json!("v2");
    }),
    quarantine("column-missing", "SCHEMA_FAIL", |event| {
        remove(&mut event["payload"], "amount")
    }),
    quarantine("column-extra", "SCHEMA_FAIL", |event| {
        event["payload"]["more"] = json!(1)
    }),
    quarantine("column-type", "SCHEMA_FAIL", |event| {
        event["payload"]["amount"] = json!("25.99")
    }),
    quarantine("no-payload", "SCHEMA_FAIL", |event| {
        remove(event, "payload")
    }),
    refuse("no-event-id", |event| remove(event, "event_id")),
    refuse("no-event-type", |event| remove(event, "event_type")),
    refuse("no-ts", |event| remove(event, "ts_utc")),
    refuse("no-fingerprint", |event| {
        remove(event, "manifest_fingerprint")
    }),
    refuse("no-platform-run", |event| remove(event, "platform_run_id")),
    refuse("bad-platform-run", |event| {
        event["platform_run_id"] = json!("../../etc/passwd")
    }),
];

/// The answer is the one the case says.
#[track_caller]
pub fn assert_answer(case: &Case, answer: &Answer) {
    let told = format!("{}: {answer:?}", case.name);
    assert_eq!(answer.status, case.status, "{told}");
    assert_eq!(answer.decision(), case.decision, "{told}");
    assert_eq!(answer.code(), case.code, "{told}");
}
