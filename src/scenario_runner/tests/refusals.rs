//! Submissions that are refused or must change nothing: drift, collisions, callers, leases.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use wellspring_domain::ports::{
    EquivalenceOutcome, LeaseGrant, Leases, ObjectStore, RunEquivalence, StoreError,
};
use wellspring_domain::scenario::control::RunVerdict;
use wellspring_domain::scenario::state_machine::RunState;
use wellspring_domain::time_text::Micros;

use super::support::{Bench, Death, PLATFORM_RUN, RUN_ID, write};

#[test]
fn a_stored_proof_that_states_something_else_fails_the_run() {
    let bench = Bench::new();
    let key = format!(
        "fraud-platform/{PLATFORM_RUN}/sr/instance_receipts/output_id=context/\
         manifest_fingerprint={}/seed=42/instance_receipt.json",
        "a".repeat(64)
    );
    write(bench.runs().root(), &key, b"{\"output_id\":\"context\"}");
    assert_eq!(bench.submit(json!({})).unwrap().verdict, RunVerdict::Failed);
    assert_eq!(bench.reason(), "INSTANCE_RECEIPT_DRIFT");
}

#[test]
fn a_key_that_stands_for_another_intent_is_refused_and_nothing_changes() {
    let bench = Bench::new();
    bench.submit(json!({})).unwrap();
    let before = bench.record();
    let refused = bench.submit(json!({"seed": 43})).unwrap_err();
    assert_eq!(refused.code(), "EQUIV_KEY_COLLISION");
    assert_eq!(bench.record(), before);
}

#[test]
fn a_request_that_contradicts_the_stored_plan_is_refused() {
    let bench = Bench::new();
    bench.submit(json!({})).unwrap();
    let refused = bench
        .submit(json!({"output_ids": ["traffic"]}))
        .unwrap_err();
    assert_eq!(refused.code(), "PLAN_DRIFT");
    assert_eq!(bench.document("run_status")["state"], "READY");
}

#[test]
fn write_once_documents_that_were_edited_are_named_and_left_alone() {
    for (folder, member, code) in [
        ("run_plan", "attempt_limit", "PLAN_DRIFT"),
        ("run_facts_view", "locators", "FACTS_VIEW_DRIFT"),
        ("ready_signal", "bundle_hash", "READY_SIGNAL_DRIFT"),
    ] {
        let bench = Bench::new();
        bench.submit(json!({})).unwrap();
        let mut document = bench.document(folder);
        document[member] = match member {
            "attempt_limit" => json!(7),
            "locators" => json!([]),
            _ => json!("f".repeat(64)),
        };
        let key = format!("fraud-platform/{PLATFORM_RUN}/sr/{folder}/{RUN_ID}.json");
        write(bench.runs().root(), &key, document.to_string().as_bytes());
        assert_eq!(
            bench.submit(json!({})).unwrap_err().code(),
            code,
            "{folder}"
        );
        assert_eq!(
            bench.document(folder),
            document,
            "{folder} is left as it was found"
        );
    }
}

#[test]
fn an_unlisted_caller_is_answered_and_recorded_and_the_status_is_not_touched() {
    let mut bench = Bench::new();
    bench.submit(json!({})).unwrap();
    let status = bench.document("run_status");
    bench.wiring.auth_mode = "allowlist".to_owned();
    bench.wiring.auth_allowlist = vec!["ops".to_owned()];
    for _ in 0..2 {
        let denied = bench.submit(json!({"invoker": "guest"})).unwrap();
        assert_eq!(denied.verdict, RunVerdict::Unauthorized);
        assert_eq!(
            (denied.state, denied.message.as_str()),
            (RunState::Failed, "Unauthorized.")
        );
    }
    assert_eq!(bench.document("run_status"), status);
    assert_eq!(bench.facts()["AUTH_DENIED"], 1);
    assert_eq!(
        bench.submit(json!({"invoker": "ops"})).unwrap().verdict,
        RunVerdict::Ready
    );
}

#[test]
fn a_run_another_runner_works_on_is_answered_with_its_status() {
    let bench = Bench::new();
    fs::remove_dir_all(bench.world().join("data/top")).unwrap();
    bench.submit(json!({})).unwrap();
    let ports = bench.ports(&Death::never());
    let grant = ports.leases.acquire(RUN_ID, "other", 300).unwrap().unwrap();
    let busy = bench.submit(json!({})).unwrap();
    assert_eq!(busy.verdict, RunVerdict::LeaseBusy);
    assert_eq!(busy.state, RunState::WaitingEvidence);
    assert!(busy.message.starts_with("Lease held by another runner"));
    ports.leases.release(RUN_ID, &grant.token).unwrap();
    assert_eq!(
        bench.submit(json!({})).unwrap().verdict,
        RunVerdict::Waiting,
        "free at once"
    );
}

/// Leases that are granted and then not ours, or have no token.
struct BadLeases(&'static str);

impl Leases for BadLeases {
    fn acquire(&self, _: &str, _: &str, _: u64) -> Result<Option<LeaseGrant>, StoreError> {
        Ok(Some(LeaseGrant {
            token: self.0.to_owned(),
            epoch: 1,
            expires_at: Micros(0),
        }))
    }
    fn renew(&self, _: &str, _: &str, _: u64) -> Result<Option<LeaseGrant>, StoreError> {
        Ok(None)
    }
    fn holds(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn release(&self, _: &str, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

struct ForgetfulEquivalence;

impl RunEquivalence for ForgetfulEquivalence {
    fn resolve(&self, _: &str, _: &str, _: &str) -> Result<EquivalenceOutcome, StoreError> {
        Ok(EquivalenceOutcome::Vanished)
    }
}

#[test]
fn a_runner_without_its_lease_writes_nothing() {
    for (token, code) in [("", "LEASE_TOKEN_MISSING"), ("t", "LEASE_LOST")] {
        let bench = Bench::new();
        let mut ports = bench.ports(&Death::never());
        ports.leases = Arc::new(BadLeases(token));
        let refused = bench
            .runner_with(ports)
            .submit(&bench.request(json!({})))
            .unwrap_err();
        assert_eq!(refused.code(), code);
        assert_eq!(bench.record(), Vec::<Value>::new());
        assert_eq!(bench.document("run_status"), Value::Null);
    }
}

#[test]
fn a_key_whose_row_vanishes_is_not_guessed() {
    let bench = Bench::new();
    let mut ports = bench.ports(&Death::never());
    ports.equivalence = Arc::new(ForgetfulEquivalence);
    let refused = bench
        .runner_with(ports)
        .submit(&bench.request(json!({})))
        .unwrap_err();
    assert_eq!(refused.code(), "EQUIV_KEY_RESOLUTION_FAILED");
}

#[test]
fn the_bundle_hash_depends_on_the_world_and_not_on_when_it_was_proven() {
    let (one, two) = (Bench::new(), Bench::new());
    two.clock.pass_seconds(86_400);
    one.submit(json!({})).unwrap();
    two.submit(json!({})).unwrap();
    let digest = |bench: &Bench| bench.document("run_facts_view")["evidence_notes"][1].clone();
    assert_eq!(
        digest(&one),
        digest(&two),
        "the same world wherever it lies"
    );
    let other = Bench::new();
    write(
        &other.world(),
        "data/context/part-0.parquet",
        b"other context",
    );
    other.submit(json!({})).unwrap();
    assert_ne!(digest(&one), digest(&other));
}

#[test]
fn a_torn_last_line_of_the_record_is_dropped_and_its_fact_told_again() {
    let bench = Bench::new();
    bench.submit(json!({})).unwrap();
    let key = format!("fraud-platform/{PLATFORM_RUN}/sr/run_record/{RUN_ID}.jsonl");
    let path = bench.runs().root().join(&key);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    bench.submit(json!({})).unwrap();
    assert_eq!(bench.facts()["READY_PUBLISHED"], 1);
    assert_eq!(bench.bus().len(), 1);
}

#[test]
fn a_submission_is_a_session_event() {
    let bench = Bench::new();
    bench.submit(json!({})).unwrap();
    let key = format!("fraud-platform/{PLATFORM_RUN}/session.jsonl");
    let text = String::from_utf8(bench.runs().get(&key).unwrap().unwrap()).unwrap();
    let event: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(
        (event["component"].as_str(), event["event_kind"].as_str()),
        (Some("sr"), Some("run_submit"))
    );
    assert_eq!(event["details"]["state"], "READY");
}
