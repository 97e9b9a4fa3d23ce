//! Runs that invoke the engine.

use std::fs;

use serde_json::{Value, json};
use wellspring_domain::ports::ObjectStore;
use wellspring_domain::scenario::control::RunVerdict;
use wellspring_domain::scenario::settings::ReusePolicy;

use super::support::{Bench, Death, PLATFORM_RUN, RUN_ID, receipt, write};

fn forced() -> Value {
    json!({"requested_strategy": "FORCE_INVOKE"})
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

fn bench_with(command: Vec<String>) -> Bench {
    let mut bench = Bench::new();
    bench.wiring.engine_command = command;
    bench
}

/// The receipt an honest engine writes: of the run that asked.
fn writes_receipt() -> String {
    format!(
        "printf '%s' '{}' > {{engine_run_root}}/run_receipt.json",
        receipt(RUN_ID, 42)
    )
}

#[test]
fn the_engine_is_run_once_its_output_kept_and_its_world_proven() {
    let script = format!(
        "echo said {{seed}} {{run_id}}; echo oops >&2; {}",
        writes_receipt()
    );
    let bench = bench_with(shell(&script));
    let response = bench.submit(forced()).unwrap();
    assert_eq!(response.verdict, RunVerdict::Ready, "{}", response.message);
    let facts = bench.facts();
    assert_eq!(facts["ENGINE_ATTEMPT_LAUNCH_REQUESTED"], 1);
    assert_eq!(facts["ENGINE_ATTEMPT_FINISHED"], 1);
    let finished = bench.record();
    let finished = finished
        .iter()
        .find(|e| e["event_kind"] == "ENGINE_ATTEMPT_FINISHED")
        .unwrap();
    let attempt = &finished["details"];
    assert_eq!(attempt["outcome"], "SUCCEEDED");
    assert_eq!(
        attempt["attempt_id"], "d85d61d57f456db4b04740a771c1e671",
        "V2"
    );
    assert_eq!(attempt["invoker"], "sr-local");
    let log = |stream: &str| {
        let key = attempt["logs_ref"][format!("{stream}_ref")]
            .as_str()
            .unwrap();
        let folder = format!("sr/engine_attempt_logs/run_id={RUN_ID}/attempt_no=1/{stream}.log");
        assert_eq!(key, format!("fraud-platform/{PLATFORM_RUN}/{folder}"));
        String::from_utf8(bench.runs().get(key).unwrap().unwrap()).unwrap()
    };
    assert_eq!(log("stdout"), format!("said 42 {RUN_ID}\n"));
    assert_eq!(log("stderr"), "oops\n");
    bench.submit(forced()).unwrap();
    assert_eq!(
        bench.facts()["ENGINE_ATTEMPT_FINISHED"],
        1,
        "a READY run runs no engine"
    );
}

#[test]
fn the_invocation_is_in_the_environment_as_canonical_json() {
    let script = format!(
        "printf '%s|%s' \"$SR_ENGINE_INVOCATION_JSON\" \"$SR_ENGINE_RUN_ROOT\"; {}",
        writes_receipt()
    );
    let bench = bench_with(shell(&script));
    bench.submit(forced()).unwrap();
    let key = format!(
        "fraud-platform/{PLATFORM_RUN}/sr/engine_attempt_logs/run_id={RUN_ID}/attempt_no=1/stdout.log"
    );
    let text = String::from_utf8(bench.runs().get(&key).unwrap().unwrap()).unwrap();
    let (invocation, root) = text.split_once('|').unwrap();
    assert!(
        invocation.starts_with("{\"engine_run_root\":"),
        "{invocation}"
    );
    assert!(invocation.contains("\"scenario_binding\":{\"scenario_id\":\"baseline_v1\"}"));
    assert_eq!(root, bench.world().display().to_string());
}

#[test]
fn every_way_an_attempt_can_fail_is_named() {
    let no_receipt = "rm {engine_run_root}/run_receipt.json";
    let bad_receipt = "printf 'x' > {engine_run_root}/run_receipt.json";
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![], "ENGINE_COMMAND_MISSING"),
        (shell("echo {colour}"), "ENGINE_COMMAND_TEMPLATE_UNRESOLVED"),
        (shell("exit 3"), "ENGINE_EXIT_NONZERO"),
        (shell("sleep 60"), "ENGINE_TIMEOUT"),
        (vec!["/no/such/engine".to_owned()], "ENGINE_FAILED"),
        (shell(no_receipt), "ENGINE_RECEIPT_MISSING"),
        (shell(bad_receipt), "ENGINE_RECEIPT_INVALID"),
        (shell("true"), "ENGINE_RECEIPT_MISMATCH"),
    ];
    for (command, reason) in cases {
        let mut bench = bench_with(command);
        bench.wiring.engine_command_timeout_seconds = Some(if reason == "ENGINE_TIMEOUT" {
            0.005
        } else {
            60.0
        });
        let response = bench.submit(forced()).unwrap();
        assert_eq!(response.verdict, RunVerdict::Failed, "{reason}");
        assert_eq!(bench.reason(), reason);
        let last = bench.record();
        let last = last
            .iter()
            .find(|e| e["event_kind"] == "ENGINE_ATTEMPT_FINISHED")
            .unwrap();
        assert_eq!(last["details"]["reason_code"], reason);
        assert_eq!(last["details"]["outcome"], "FAILED");
    }
}

#[test]
fn an_attempt_without_a_root_says_so() {
    let bench = bench_with(shell("true"));
    let change = json!({"requested_strategy": "FORCE_INVOKE", "engine_run_root": null});
    bench.submit(change).unwrap();
    assert_eq!(bench.reason(), "ENGINE_ROOT_MISSING");
}

#[test]
fn a_failing_engine_is_tried_up_to_the_limit_and_a_misconfigured_one_once() {
    let mut bench = bench_with(shell("exit 1"));
    bench.policy.attempt_limit = 3;
    bench.submit(forced()).unwrap();
    assert_eq!(bench.facts()["ENGINE_ATTEMPT_FINISHED"], 3);
    assert_eq!(bench.reason(), "ENGINE_EXIT_NONZERO");
    let mut bench = bench_with(shell("true"));
    bench.policy.attempt_limit = 3;
    bench.submit(forced()).unwrap();
    assert_eq!(bench.facts()["ENGINE_ATTEMPT_FINISHED"], 1);
}

#[test]
fn an_engine_that_passes_at_the_second_attempt_gets_the_run_to_ready() {
    let script = format!(
        "test -e {{engine_run_root}}/tried || {{ touch {{engine_run_root}}/tried; exit 1; }}; {}",
        writes_receipt()
    );
    let mut bench = bench_with(shell(&script));
    bench.policy.attempt_limit = 2;
    assert_eq!(bench.submit(forced()).unwrap().verdict, RunVerdict::Ready);
    assert_eq!(bench.facts()["ENGINE_ATTEMPT_FINISHED"], 2);
}

#[test]
fn an_attempt_that_was_recorded_before_a_crash_counts() {
    // Killed after the failed attempt was recorded and before the run was failed.
    let mut write = 0;
    loop {
        let bench = bench_with(shell("exit 1"));
        let death = Death::at(write, false);
        let _ = bench
            .runner_with(bench.ports(&death))
            .submit(&bench.request(forced()));
        assert!(death.struck(), "the moment was not found");
        let facts = bench.facts();
        if facts.contains_key("ENGINE_ATTEMPT_FINISHED") && !facts.contains_key("RUN_FAILED") {
            bench.clock.pass_seconds(301);
            bench.submit(forced()).unwrap();
            assert_eq!(bench.reason(), "ATTEMPT_LIMIT_EXCEEDED");
            return;
        }
        write += 1;
    }
}

#[test]
fn a_world_that_is_not_complete_yet_waits_without_another_attempt() {
    let bench = bench_with(shell(&writes_receipt()));
    fs::remove_dir_all(bench.world().join("data/context")).unwrap();
    assert_eq!(bench.submit(forced()).unwrap().verdict, RunVerdict::Waiting);
    write(&bench.world(), "data/context/part-0.parquet", b"context");
    assert_eq!(bench.submit(forced()).unwrap().verdict, RunVerdict::Ready);
    assert_eq!(bench.facts()["ENGINE_ATTEMPT_FINISHED"], 1);
}

#[test]
fn a_policy_without_reuse_invokes_the_engine_whatever_was_asked() {
    let mut bench = bench_with(vec![]);
    bench.policy.reuse_policy = ReusePolicy::Deny;
    bench
        .submit(json!({"requested_strategy": "FORCE_REUSE"}))
        .unwrap();
    assert_eq!(bench.reason(), "ENGINE_COMMAND_MISSING");
}

#[test]
fn auto_never_invokes_the_engine() {
    let bench = bench_with(shell("touch {engine_run_root}/ran"));
    fs::remove_dir_all(bench.world().join("data/context")).unwrap();
    assert_eq!(
        bench.submit(json!({})).unwrap().verdict,
        RunVerdict::Waiting
    );
    assert!(!bench.world().join("ran").exists());
}
