//! Saying READY or a terminal state again.

use std::fs;

use serde_json::{Value, json};
use wellspring_domain::scenario::control::{ReemitResponse, ReemitVerdict};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::ready::{ReadySignal, TerminalSignal};
use wellspring_domain::scenario::reemit::ReemitRequest;

use super::support::{Bench, Death, RUN_ID, write};

const OTHER_RUN: &str = "platform_20260202T000000Z";

fn ready_bench() -> Bench {
    let bench = Bench::new();
    bench.submit(json!({})).unwrap();
    bench
}

fn failed_bench() -> Bench {
    let bench = Bench::new();
    bench.submit(json!({"output_ids": ["x"]})).unwrap();
    bench
}

fn reemit(bench: &Bench, change: Value) -> ReemitResponse {
    let mut request = json!({"run_id": RUN_ID, "requested_by": "ops"});
    for (name, value) in change.as_object().unwrap() {
        request[name] = value.clone();
    }
    bench
        .runner()
        .reemit(&ReemitRequest::from_value(request).unwrap())
        .unwrap()
}

fn last(bench: &Bench, kind: &str) -> Value {
    let record = bench.record();
    record
        .iter()
        .rev()
        .find(|event| event["event_kind"] == kind)
        .unwrap()["details"]
        .clone()
}

#[test]
fn ready_is_said_again_under_the_same_message_id() {
    let bench = ready_bench();
    let before = bench.bus();
    fs::remove_dir_all(bench.paths().control_bus()).unwrap();
    let response = reemit(
        &bench,
        json!({"reemit_kind": "READY_ONLY", "reason": "lost"}),
    );
    assert_eq!(
        serde_json::to_value(&response).unwrap(),
        json!({"run_id": RUN_ID, "status_state": "READY", "published": ["READY"],
               "message": "READY re-emitted."})
    );
    let after = bench.bus();
    assert_eq!(after[0]["message_id"], before[0]["message_id"]);
    assert_eq!(
        after[0]["attributes"],
        json!({"kind": "READY_REEMIT", "run_id": RUN_ID})
    );
    let again = ReadySignal::from_value(after[0]["payload"].clone()).unwrap();
    assert_eq!(again.bundle_hash, before[0]["payload"]["bundle_hash"]);
    let requested = last(&bench, "REEMIT_REQUESTED");
    assert_eq!(
        requested,
        json!({"reemit_kind": "READY_ONLY", "reason": "lost", "requested_by": "ops", "attempt_no": 1})
    );
    assert_eq!(
        last(&bench, "GOV_REEMIT_KEY")["reemit_key"],
        after[0]["message_id"]
    );
}

#[test]
fn a_message_still_on_the_bus_is_said_to_be_there() {
    let bench = ready_bench();
    let response = reemit(&bench, json!({}));
    assert_eq!(response.verdict, ReemitVerdict::Published);
    assert!(
        response.message.contains("still held"),
        "{}",
        response.message
    );
    assert_eq!(bench.bus().len(), 1);
}

#[test]
fn the_end_of_a_failed_run_is_said_with_its_reason() {
    let bench = failed_bench();
    let response = reemit(&bench, json!({"reemit_kind": "TERMINAL_ONLY"}));
    assert_eq!(response.published, ["TERMINAL"]);
    let bus = bench.bus();
    let signal = TerminalSignal::from_value(bus[0]["payload"].clone()).unwrap();
    assert_eq!(signal.reason_code.as_deref(), Some("UNKNOWN_OUTPUT_ID"));
    assert_eq!(bus[0]["message_id"], signal.reemit_key);
    let attributes = json!({"kind": "TERMINAL_REEMIT", "run_id": RUN_ID, "state": "FAILED"});
    assert_eq!(bus[0]["attributes"], attributes);
}

#[test]
fn what_does_not_apply_is_refused_by_its_code() {
    let waiting = Bench::new();
    fs::remove_dir_all(waiting.world().join("data/top")).unwrap();
    waiting.submit(json!({})).unwrap();
    let cases = [
        (
            ready_bench(),
            "TERMINAL_ONLY",
            "REEMIT_TERMINAL_ONLY_MISMATCH",
        ),
        (failed_bench(), "READY_ONLY", "REEMIT_READY_ONLY_MISMATCH"),
        (waiting, "BOTH", "REEMIT_NOT_APPLICABLE"),
    ];
    for (bench, kind, code) in cases {
        let published = bench.bus().len();
        let response = reemit(&bench, json!({"reemit_kind": kind}));
        assert_eq!(response.verdict, ReemitVerdict::Refused);
        assert_eq!(response.reason_code.as_deref(), Some(code));
        assert_eq!(response.message, "Reemit not applicable.");
        assert_eq!(last(&bench, "REEMIT_FAILED")["reason"], code);
        assert_eq!(bench.bus().len(), published);
    }
}

#[test]
fn an_unknown_run_a_busy_one_and_an_unlisted_caller_are_answered() {
    let mut bench = Bench::new();
    let response = reemit(&bench, json!({}));
    assert_eq!(
        (response.verdict, response.message.as_str()),
        (ReemitVerdict::NotFound, "Run not found.")
    );
    bench.submit(json!({})).unwrap();
    let ports = bench.ports(&Death::never());
    let key = format!("reemit:{RUN_ID}:BOTH");
    let grant = ports
        .leases
        .acquire(&key, "sr-reemit", 60)
        .unwrap()
        .unwrap();
    let response = reemit(&bench, json!({}));
    assert_eq!(response.message, "Reemit busy; another operator is active.");
    assert_eq!(
        reemit(&bench, json!({"reemit_kind": "READY_ONLY"})).published,
        ["READY"]
    );
    ports.leases.release(&key, &grant.token).unwrap();
    bench.wiring.auth_mode = "allowlist".to_owned();
    bench.wiring.reemit_allowlist = vec!["lead".to_owned()];
    let response = reemit(&bench, json!({}));
    assert_eq!(response.verdict, ReemitVerdict::Unauthorized);
    assert_eq!(
        (response.message.as_str(), response.status_state),
        ("Unauthorized.", None)
    );
    assert_eq!(last(&bench, "AUTH_DENIED")["requested_by"], "ops");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_not() {
    let bench = ready_bench();
    fs::remove_dir_all(bench.paths().control_bus()).unwrap();
    let response = reemit(&bench, json!({"dry_run": true}));
    assert_eq!(response.verdict, ReemitVerdict::DryRun);
    assert!(response.published.is_empty());
    assert!(bench.bus().is_empty());
    let dry = last(&bench, "REEMIT_DRY_RUN");
    assert_eq!(dry["would_publish"], json!(["READY"]));
    assert_eq!(dry["source_platform_run_id"], dry["target_platform_run_id"]);
}

#[test]
fn every_publish_counts_against_the_rate_limit_even_when_nothing_differs() {
    let mut bench = ready_bench();
    bench.wiring.reemit_rate_limit_max = Some(2);
    for _ in 0..2 {
        assert_eq!(reemit(&bench, json!({})).verdict, ReemitVerdict::Published);
    }
    let limited = reemit(&bench, json!({}));
    assert_eq!(limited.reason_code.as_deref(), Some("REEMIT_RATE_LIMIT"));
    assert_eq!(bench.facts()["REEMIT_PUBLISHED"], 2);
    bench.clock.pass_seconds(3_601);
    assert_eq!(reemit(&bench, json!({})).verdict, ReemitVerdict::Published);
}

#[test]
fn another_platform_run_needs_an_approval_with_an_allowed_reason_when_wiring_says_so() {
    let mut bench = ready_bench();
    let approval = |reason: &str| {
        json!({"emit_platform_run_id": OTHER_RUN, "cross_run_override": {
            "override_id": "o1", "reason_code": reason, "evidence_ref": "e", "approved_by": "lead",
            "approved_at_utc": "2026-01-01T00:00:00Z"}})
    };
    let target = json!({"emit_platform_run_id": OTHER_RUN});
    assert_eq!(
        reemit(&bench, target.clone()).published,
        ["READY"],
        "open by default"
    );
    bench.wiring.reemit_same_platform_run_only = true;
    bench.wiring.reemit_cross_run_reason_allowlist = vec!["replay".to_owned()];
    let refused = reemit(&bench, target);
    assert_eq!(
        refused.reason_code.as_deref(),
        Some("CROSS_RUN_OVERRIDE_REQUIRED")
    );
    let refused = reemit(&bench, approval("other"));
    assert_eq!(
        refused.reason_code.as_deref(),
        Some("CROSS_RUN_OVERRIDE_REASON_NOT_ALLOWED")
    );
    assert_eq!(reemit(&bench, approval("REPLAY")).published, ["READY"]);
    let approved = last(&bench, "GOV_REEMIT_OVERRIDE_APPROVED");
    assert_eq!(approved["target_platform_run_id"], OTHER_RUN);
    let other = bench
        .bus()
        .into_iter()
        .find(|e| e["payload"]["platform_run_id"] == OTHER_RUN);
    let own = bench
        .bus()
        .into_iter()
        .find(|e| e["payload"]["platform_run_id"] != OTHER_RUN);
    assert_ne!(other.unwrap()["message_id"], own.unwrap()["message_id"]);
}

#[test]
fn a_ready_run_without_its_facts_view_cannot_speak() {
    let bench = ready_bench();
    let facts = format!("{}/run_facts_view/{RUN_ID}.json", bench.paths().sr());
    fs::remove_file(facts).unwrap();
    for change in [json!({}), json!({"emit_platform_run_id": OTHER_RUN})] {
        let refused = reemit(&bench, change);
        assert_eq!(refused.reason_code.as_deref(), Some("FACTS_VIEW_MISSING"));
    }
}

#[test]
fn a_bus_that_does_not_take_it_is_recorded() {
    let bench = ready_bench();
    let folder = bench.paths().control_bus();
    fs::remove_dir_all(&folder).unwrap();
    write(
        std::path::Path::new(&folder).parent().unwrap(),
        "control_bus",
        b"a file in the way",
    );
    let response = reemit(&bench, json!({}));
    assert_eq!(response.verdict, ReemitVerdict::PublishFailed);
    assert_eq!(last(&bench, "REEMIT_FAILED")["kind"], "READY");
    assert!(!bench.facts().contains_key("REEMIT_PUBLISHED"));
}
