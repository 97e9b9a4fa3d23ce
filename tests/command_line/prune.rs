//! `run prune` on a run with an admitted event: order of pruning, and what stays.

use super::{folder, json, program, run, stderr, stdout};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A served gate, ended with SIGTERM.
struct Gate {
    child: Child,
    url: String,
}

impl Gate {
    fn serve(folder: &Path) -> Gate {
        let mut child = program(folder)
            .args(["gate", "serve", "--host", "127.0.0.1", "--port", "0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.find_map(|line| {
            line.unwrap()
                .strip_prefix("wellspring listens on ")
                .map(str::to_string)
        });
        // Read on, so that the gate never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Gate {
            child,
            url: listening.expect("the gate says where it listens"),
        }
    }

    fn push(&self, envelope: &Value) -> Value {
        let answer = reqwest::blocking::Client::new()
            .post(format!("{}/v1/ingest/push", self.url))
            .body(envelope.to_string())
            .send()
            .unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        serde_json::from_str(&answer.text().unwrap()).unwrap()
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

fn envelope(platform_run_id: &str) -> Value {
    let (world, parameters) = ("a".repeat(64), "b".repeat(64));
    json!({
        "event_id": "5".repeat(64),
        "event_type": "s3_event_stream_with_fraud_6B",
        "schema_version": "v1",
        "ts_utc": "2026-01-01T00:00:01.250000Z",
        "manifest_fingerprint": world,
        "parameter_hash": parameters,
        "seed": 42,
        "scenario_id": "baseline_v1",
        "run_id": "abcdabcdabcdabcdabcdabcdabcdabcd",
        "platform_run_id": platform_run_id,
        "scenario_run_id": "e4f2285913cc771d0d8dd1ad475f7a01",
        "producer": "svc:world_stream_producer",
        "payload": {
            "flow_id": 1_234_567_890_123_456_789_u64,
            "event_seq": 1,
            "event_type": "AUTH_REQUEST",
            "ts_utc": "2026-01-01T00:00:01.250000Z",
            "amount": 25.99,
            "seed": 42,
            "manifest_fingerprint": world,
            "parameter_hash": parameters,
            "scenario_id": "baseline_v1",
            "fraud_flag": false,
            "campaign_id": null,
        },
    })
}

#[test]
fn a_run_is_pruned_bus_first_and_never_while_a_gate_has_it() {
    let folder = folder();
    let new = json(&run(folder.path(), &["run", "new"]));
    let id = new["platform_run_id"].as_str().unwrap();
    let records = folder
        .path()
        .join(new["run_root"].as_str().unwrap())
        .join("eb");
    let records = records.join("fp.bus.traffic.fraud.v1/partition=0.jsonl");

    let gate = Gate::serve(folder.path());
    assert_eq!(gate.push(&envelope(id))["decision"], "ADMIT");
    let busy = run(folder.path(), &["run", "prune", id]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(
        stderr(&busy).starts_with("error: STORE_LOCKED: "),
        "{}",
        stderr(&busy)
    );
    gate.stop();

    let index_first = run(folder.path(), &["run", "prune", id, "--part", "index"]);
    assert_eq!(
        index_first.status.code(),
        Some(3),
        "{}",
        stdout(&index_first)
    );
    assert!(stderr(&index_first).starts_with("error: PRUNE_INDEX_BEFORE_BUS: "));
    assert!(records.is_file());

    let pruned = json(&run(folder.path(), &["run", "prune", id, "--part", "all"]));
    assert_eq!(
        (&pruned["records"], &pruned["index_pruned"]),
        (&json!(1), &json!(true))
    );
    assert!(!records.exists());
    let again = json(&run(folder.path(), &["run", "prune", id]));
    assert_eq!(
        (&again["records"], &again["freed_bytes"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn a_run_that_does_not_exist_is_not_made_by_pruning_it() {
    let folder = folder();
    let output = run(
        folder.path(),
        &["run", "prune", "platform_20260101T000000Z"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: PLATFORM_RUN_NOT_FOUND: "));
    assert!(!folder.path().join("runs").exists());
}
