//! A running daemon in the hands of an operator: the live tree, pause, resume, cancel, READY over HTTP.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Site;
use crate::support::bus::records;
use crate::support::daemon::Daemon;
use crate::support::gate_client::GateClient;
use crate::support::run::ReadyRun;
use crate::support::world::{World, small};

/// Streams a world of a week slowly enough to be held.
fn slow(events: u64) -> World {
    let world = World::generate(events, 8, 1);
    world.pack();
    world.sort();
    world
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn events(run: &ReadyRun<'_>) -> usize {
    match run.root().join("eb").is_dir() {
        true => records_so_far(run),
        false => 0,
    }
}

/// Published heads: records may be in writing.
fn records_so_far(run: &ReadyRun<'_>) -> usize {
    let heads = run.site.run(&["--format", "json", "bus", "head"]);
    let heads: Value = serde_json::from_str(&heads.stdout).unwrap_or_default();
    let heads = heads.as_array().cloned().unwrap_or_default();
    heads
        .iter()
        .map(|head| head["next_offset"].as_u64().unwrap() as usize)
        .sum()
}

#[test]
fn a_run_is_paused_resumed_and_cancelled_from_another_terminal() {
    let world = slow(2_000);
    let run = ReadyRun::new(&world);
    let daemon = Daemon::start(&run.site, &["up", "--port", "0", "--speedup", "20000"]);
    let url = format!("wiring.ig_ingest_url={}", daemon.url);
    let order = |verb: &str| run.site.run(&["--set", &url, "run", verb, &run.id]).ok();
    wait_until("events come", || events(&run) > 200);
    order("pause");
    std::thread::sleep(Duration::from_millis(700));
    let held = events(&run);
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!(events(&run), held, "a paused run sends nothing");
    order("resume");
    wait_until("events come again", || events(&run) > held + 50);
    let tree = run
        .site
        .run(&["--set", &url, "--format", "json", "ps"])
        .ok()
        .json();
    let nodes = tree["nodes"].as_array().unwrap();
    let is_stream = |node: &&Value| node["path"].as_str().unwrap().contains("output");
    assert!(nodes.iter().filter(is_stream).count() >= 4, "{tree}");
    order("cancel");
    wait_until("the run has ended", || {
        std::thread::sleep(Duration::from_millis(300));
        let before = events(&run);
        std::thread::sleep(Duration::from_millis(300));
        events(&run) == before
    });
    let ended = daemon.terminate();
    assert_eq!(ended.code, Some(0));
    assert!(
        records(&run.root()).len() < 5_000,
        "cancelled before its end"
    );
    run.verify();
}

#[test]
fn a_run_submitted_over_http_is_streamed_by_the_same_daemon() {
    let site = Site::new();
    let id = site.new_run();
    let world = small();
    let daemon = Daemon::start(&site, &["up", "--port", "0", "--speedup", "0"]);
    let client = GateClient::new(&daemon.url);
    let receipt = world.receipt();
    let request = json!({
        "run_equivalence_key": "over-http", "manifest_fingerprint": receipt["manifest_fingerprint"],
        "parameter_hash": receipt["parameter_hash"], "seed": receipt["seed"],
        "scenario": {"scenario_id": "baseline_v1"}, "engine_run_root": world.root_text(),
        "window": {"window_start_utc": "2026-01-01T00:00:00Z", "window_end_utc": "2026-01-02T00:00:00Z",
            "window_tz": "UTC"}
    });
    let answer = client.post_json("/runs", &request);
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (200, &json!("READY")),
        "{answer:?}"
    );
    let run_id = answer.body["run_id"].as_str().unwrap().to_owned();
    let root = site.run_root(&id);
    wait_until("the world has arrived", || {
        let found = client.get("/v1/ops/health");
        found.status == 200 && root.join("eb").is_dir() && lines(&root) == 1_000
    });
    let again = client.post_json(
        &format!("/runs/{run_id}/reemit"),
        &json!({"reemit_kind": "READY_ONLY"}),
    );
    assert_eq!(again.body["published"], json!(["READY"]), "{again:?}");
    let nobody = client.post_json(&format!("/runs/{}/reemit", "0".repeat(32)), &json!({}));
    assert_eq!(nobody.status / 100, 4, "{nobody:?}");
    let nonsense = client.post_json("/runs", &json!({"seed": "x"}));
    assert_eq!(nonsense.status / 100, 4, "{nonsense:?}");
    assert_eq!(daemon.terminate().code, Some(0));
    assert_eq!(records(&root).len(), 1_000);
    site.run(&["bus", "verify"]).ok();
}

fn lines(run_root: &std::path::Path) -> usize {
    let topics = std::fs::read_dir(run_root.join("eb")).unwrap();
    let log = |topic: std::path::PathBuf| std::fs::read_to_string(topic.join("partition=0.jsonl"));
    topics
        .map(|topic| log(topic.unwrap().path()).map_or(0, |text| text.lines().count()))
        .sum()
}

#[test]
fn the_validation_harness_passes_on_a_sound_world_and_fails_by_name_on_a_broken_one() {
    let site = Site::new();
    let world = small();
    let gate = Daemon::gate(&site);
    let url = format!("wiring.ig_ingest_url={}", gate.url);
    let mut args = vec![
        "--set",
        &url,
        "validate",
        "--mode",
        "local",
        "--check-failures",
    ];
    let named = world.args();
    args.extend(named.iter().map(String::as_str));
    let sound = site.run(&args).ok().json();
    assert_eq!(sound["status"], "PASS", "{sound}");
    let broken = Site::new();
    let mut args = vec![
        "validate",
        "--mode",
        "local",
        "--engine-run-root",
        "nowhere",
    ];
    args.extend(["--scenario-id", "baseline_v1"]);
    let failed = broken.run(&args);
    assert_eq!(failed.code, Some(1), "{}", failed.everything());
    assert!(
        failed.everything().contains("RUN_RECEIPT_UNREADABLE"),
        "{}",
        failed.everything()
    );
}
