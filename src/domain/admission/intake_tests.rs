//! Judging: every step, code and identity.

use super::*;
use crate::admission::decision::Actor;
use crate::admission::policy::AdmissionPolicy;
use crate::admission::policy::tests::small_files;
use serde_json::json;
use std::collections::BTreeSet;

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
    let provenance = json!({"service_release_id": "test", "environment": "local"});
    let context = IntakeContext {
        policy: &policy,
        partitions: &[4; 3],
        shards: 2,
        actor: &caller("ANONYMOUS"),
        provenance: &provenance,
        verify_gates,
        proofs,
    };
    judge(&batch_of(texts), &context, &mut IntakeMemory::default())
}

fn caller(principal: &str) -> Actor {
    Actor {
        actor_id: format!("SYSTEM::{principal}"),
        source_type: "SYSTEM".into(),
        auth_mode: "disabled".into(),
        principal: principal.into(),
    }
}

fn batch_of(texts: &[String]) -> EnvelopeBatch {
    let mut batch = EnvelopeBatch::default();
    let mut bytes = Vec::new();
    for text in texts {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(text.as_bytes());
        batch.ranges.push(start..bytes.len() as u32);
    }
    batch.bytes = Arc::new(bytes);
    batch
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
        (Some(item), None) => judged.quarantine(item).map_or("ADMIT", |draft| draft.code),
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
        enforced.quarantine(&enforced.items[0]).unwrap().code,
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

/// Events of two streams and of none, some of which are wrong in one way or another.
fn strange_texts() -> Vec<String> {
    let pretty = |text: String| {
        let value: Value = serde_json::from_str(&text).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    vec![
        envelope_text("e1", 1),
        envelope_text("e2", 22),
        envelope_text("\u{e9}", 3),
        pretty(envelope_text("e4", 4)),
        changed("event_type", json!("own_event")),
        changed("event_type", json!("nobody")),
        changed("seed", json!(43)),
        changed("seed", json!("42")),
        changed("platform_run_id", json!("platform_20260101T000001Z")),
        changed("platform_run_id", json!("elsewhere")),
        changed("scenario_id", Value::Null),
        changed("payload", json!({"flow_id": 1, "more": "x"})),
        changed("payload", json!({"flow_id": 22, "more": "y"})),
        changed("payload", json!({"flow_id": "x", "more": "y"})),
        changed("payload", json!({"flow_id": "x"})),
        changed("payload", json!({"flow_id": 1.5})),
        changed("payload", json!({"more": "x"})),
        changed("payload", json!({})),
        changed("payload", Value::Null),
        changed("ts_utc", json!("today")),
        changed("event_id", json!("")),
        "[]".to_owned(),
        "{".to_owned(),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
    #[test]
    fn what_earlier_batches_left_changes_nothing(
        batches in proptest::collection::vec(
            (proptest::collection::vec(0..strange_texts().len(), 0..9), 0usize..2), 1..6,
        )
    ) {
        let texts = strange_texts();
        let policy = AdmissionPolicy::compile(&small_files()).unwrap();
        let provenance = json!({"service_release_id": "test"});
        let callers = [caller("ONE"), caller("TWO")];
        let mut memory = IntakeMemory::default();
        for (picked, actor) in batches {
            let picked: Vec<String> = picked.into_iter().map(|at| texts[at].clone()).collect();
            let (batch, context) = (batch_of(&picked), IntakeContext {
                policy: &policy,
                partitions: &[4; 3],
                shards: 2,
                actor: &callers[actor],
                provenance: &provenance,
                verify_gates: VerifyGates::Off,
                proofs: &|_, _| ProofState::NotLoaded,
            });
            let after_others = judge(&batch, &context, &mut memory);
            let alone = judge(&batch, &context, &mut IntakeMemory::default());
            proptest::prop_assert_eq!(format!("{after_others:?}"), format!("{alone:?}"));
        }
    }
}

#[test]
fn white_space_around_an_event_is_no_other_spelling_of_it() {
    // Canonical, so that its own bytes can be taken over.
    let value: Value = serde_json::from_str(&envelope_text("e1", 1)).unwrap();
    let text = crate::canonical_json::to_cj(&value).unwrap();
    let plain = judge_texts(std::slice::from_ref(&text));
    let spaced = judge_texts(&[format!(" \r\n\t{text} \n\r\n")]);
    let (plain_item, item) = (&plain.items[0], &spaced.items[0]);
    assert!(matches!(item.text, TextRef::Source(_)), "{:?}", item.text);
    assert_eq!(spaced.text(&item.text), plain.text(&plain_item.text));
    assert_eq!(spaced.text(&item.ts_utc), plain.text(&plain_item.ts_utc));
    assert_eq!(item.payload_hash, plain_item.payload_hash);
    for empty in ["", " \n "] {
        let judged = judge_texts(&[empty.to_owned()]);
        assert_eq!(judged.immediate.len(), 1, "{empty:?}");
    }
    // A form feed is no white space of JSON.
    assert_eq!(judge_texts(&[format!("{text}\u{c}")]).immediate.len(), 1);
}
