//! What becomes of a READY message (contract 6.2, 6.3): every decision, its record, its governance fact.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::Finished;
use crate::support::run::{KEY, ReadyRun, outcomes};
use crate::support::scenario::run_id_of;
use crate::support::site::{copy_folder, read_json};
use crate::support::world::small;

fn facts_path(run: &ReadyRun<'_>) -> PathBuf {
    run.root()
        .join(format!("sr/run_facts_view/{}.json", run_id_of(KEY)))
}

fn ready_path(run: &ReadyRun<'_>) -> PathBuf {
    let topic = run.root().join("control_bus/fp.bus.control.v1");
    fs::read_dir(topic).unwrap().next().unwrap().unwrap().path()
}

fn rewrite(path: PathBuf, change: impl Fn(&mut Value)) {
    let mut document = read_json(&path);
    change(&mut document);
    fs::write(path, document.to_string()).unwrap();
}

/// `stream ready --once` with nobody to push to: a decision that refuses never pushes.
fn consume(run: &ReadyRun<'_>, env: &[(&str, &str)]) -> Finished {
    let nobody = "wiring.ig_ingest_url=http://127.0.0.1:9";
    let quick = "wiring.wsp_retry.max_attempts=1";
    let args = [
        "--set",
        nobody,
        "--set",
        quick,
        "stream",
        "ready",
        "--once",
        "--speedup",
        "0",
    ];
    run.site.run_with(&args, env)
}

/// The lines of the READY record.
fn recorded(run: &ReadyRun<'_>) -> Vec<Value> {
    let message = ready_path(run)
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let path = run.root().join(format!("wsp/ready_runs/{message}.jsonl"));
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn governance(run: &ReadyRun<'_>) -> Vec<String> {
    let Ok(events) = fs::read_dir(run.root().join("obs/governance/events")) else {
        return Vec::new();
    };
    let family = |path: PathBuf| read_json(path)["event_family"].as_str().unwrap().to_owned();
    events.map(|event| family(event.unwrap().path())).collect()
}

/// A change of the stored documents, and what the consumer must decide.
struct Case {
    change: fn(&ReadyRun<'_>),
    status: &'static str,
    reason: &'static str,
    cancelled: bool,
}

fn other_run(document: &mut Value) {
    document["platform_run_id"] = json!("platform_20200101T000000Z");
}

const CASES: &[Case] = &[
    Case {
        change: |run| fs::remove_file(facts_path(run)).unwrap(),
        status: "FAILED",
        reason: "RUN_FACTS_INVALID",
        cancelled: false,
    },
    Case {
        change: |run| fs::write(facts_path(run), "{\"run_id\":1}").unwrap(),
        status: "FAILED",
        reason: "RUN_FACTS_INVALID",
        cancelled: false,
    },
    Case {
        change: |run| rewrite(facts_path(run), other_run),
        status: "FAILED",
        reason: "PLATFORM_RUN_ID_MISMATCH",
        cancelled: false,
    },
    Case {
        change: |run| {
            rewrite(facts_path(run), |facts| {
                facts["scenario_run_id"] = json!("e".repeat(32))
            })
        },
        status: "FAILED",
        reason: "SCENARIO_RUN_ID_MISMATCH",
        cancelled: false,
    },
    Case {
        change: |run| {
            rewrite(facts_path(run), |facts| {
                facts
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("oracle_pack_ref");
            });
            rewrite(ready_path(run), |envelope| {
                envelope["payload"]
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("oracle_pack_ref");
            });
        },
        status: "FAILED",
        reason: "ENGINE_ROOT_MISSING",
        cancelled: true,
    },
];

#[test]
fn every_ready_that_is_refused_is_recorded_with_its_reason() {
    for case in CASES {
        let run = ReadyRun::new(small());
        (case.change)(&run);
        let finished = consume(&run, &[]);
        let outcome = &outcomes(&finished)[0];
        let told = format!("{}: {}", case.reason, finished.everything());
        assert_eq!(outcome["status"], case.status, "{told}");
        assert_eq!(outcome["reason"], case.reason, "{told}");
        assert!(
            outcome["detail"].as_str().unwrap_or("").contains(' '),
            "no sentence: {told}"
        );
        let last = recorded(&run)
            .pop()
            .unwrap_or_else(|| panic!("not recorded: {told}"));
        assert_eq!(
            (&last["status"], &last["reason"]),
            (&outcome["status"], &outcome["reason"])
        );
        assert_eq!(last["emitted"], 0);
        let cancelled = governance(&run).contains(&"RUN_CANCELLED".to_owned());
        assert_eq!(cancelled, case.cancelled, "{told}");
        assert!(
            !run.root().join("eb").exists(),
            "nothing was streamed: {told}"
        );
    }
}

#[test]
fn a_ready_of_another_run_is_put_aside_once_and_never_streamed() {
    let old = ReadyRun::new(small());
    let new = ReadyRun::new(small());
    // The old run's READY and facts lie on the new run's control bus.
    copy_folder(&old.root(), &new.site.run_root(&old.id));
    fs::remove_file(ready_path(&new)).unwrap();
    copy_folder(
        &old.root().join("control_bus"),
        &new.root().join("control_bus"),
    );
    if old.id == new.id {
        return; // made within one second: the same run id, nothing to tell apart
    }
    let first = consume(&new, &[]);
    let outcome = &outcomes(&first)[0];
    assert_eq!(
        outcome["status"],
        "SKIPPED_OUT_OF_SCOPE",
        "{}",
        first.everything()
    );
    assert_eq!(outcome["reason"], "PLATFORM_RUN_SCOPE_MISMATCH");
    assert_eq!(recorded(&new).len(), 1);
    assert!(governance(&new).contains(&"RUN_CANCELLED".to_owned()));
    let second = consume(&new, &[]);
    assert_eq!(outcomes(&second)[0]["status"], "SKIPPED_DUPLICATE");
    assert_eq!(recorded(&new).len(), 1, "recorded once");
}

#[test]
fn messages_that_are_no_ready_are_passed_over() {
    let run = ReadyRun::new(small());
    let topic = run.root().join("control_bus/fp.bus.control.v1");
    fs::write(topic.join("0broken.json"), "{not json").unwrap();
    fs::write(topic.join("1other.json"), "{\"topic\":\"other\"}\n").unwrap();
    let terminal = json!({"topic": "fp.bus.control.v1", "message_id": "t", "published_at_utc": "x",
        "attributes": {"kind": "TERMINAL_REEMIT"}, "partition_key": "k", "payload": {"run_id": "r"}});
    fs::write(topic.join("2terminal.json"), format!("{terminal}\n")).unwrap();
    let finished = run.over_http(&[]).ok();
    let streamed: Vec<_> = outcomes(&finished)
        .into_iter()
        .filter(|outcome| outcome["status"] == "STREAMED")
        .collect();
    assert_eq!(streamed.len(), 1, "{}", finished.everything());
    assert_eq!(run.records().len(), 1_000);
}

/// Pack files and states in every wrong form, and the reason each gives.
fn pack_cases(run: &ReadyRun<'_>) -> Vec<(&'static str, Option<String>, Option<Value>)> {
    let spec =
        "version: 1\npack_id: rtdl\nprocesses:\n  - id: worker\n    command: [sleep]\n".to_owned();
    let state = |active: Value, processes: Value| {
        Some(
            json!({"pack_id": "rtdl", "pack_path": "pack.yaml", "updated_at_utc": "x",
            "active_platform_run_id": active, "processes": processes}),
        )
    };
    let process = |pid: u32, created: f64| {
        json!({"worker": {"pid": pid, "pid_create_time": created, "command": ["sleep"], "cwd": ".",
            "log_path": "x", "started_at_utc": "x", "env_keys": []}})
    };
    let id = json!(run.id);
    vec![
        ("PACK_FILE_MISSING:", None, None),
        ("PACK_SPEC_INVALID:", Some("processes: 7".to_owned()), None),
        ("PACK_STATE_MISSING:rtdl", Some(spec.clone()), None),
        (
            "PACK_STATE_INVALID:rtdl",
            Some(spec.clone()),
            Some(json!([1])),
        ),
        (
            "PACK_ACTIVE_RUN_MISSING:rtdl",
            Some(spec.clone()),
            state(json!(null), process(1, 0.0)),
        ),
        (
            "PACK_ACTIVE_RUN_MISMATCH:rtdl",
            Some(spec.clone()),
            state(json!("platform_20200101T000000Z"), process(1, 0.0)),
        ),
        (
            "PACK_PROCESSES_MISSING:rtdl",
            Some(spec.clone()),
            state(id.clone(), json!({})),
        ),
        (
            "PACK_PROCESS_MISSING:rtdl:worker",
            Some(spec.clone()),
            state(id.clone(), json!({"other": {}})),
        ),
        (
            "PACK_PROCESS_NOT_RUNNING:rtdl:worker",
            Some(spec),
            state(id, process(1, 0.0)),
        ),
    ]
}

#[test]
fn a_ready_waits_unrecorded_until_the_packs_downstream_are_live() {
    let run = ReadyRun::new(small());
    let env = [("WSP_READY_REQUIRED_PACKS", "pack.yaml")];
    let state_folder = run.site.path().join("runs/fraud-platform/operate/rtdl");
    fs::create_dir_all(&state_folder).unwrap();
    for (reason, spec, state) in pack_cases(&run) {
        if let Some(spec) = spec {
            fs::write(run.site.path().join("pack.yaml"), spec).unwrap();
        }
        let state_file = state_folder.join("state.json");
        match state {
            Some(state) => fs::write(&state_file, state.to_string()).unwrap(),
            None => drop(fs::remove_file(&state_file)),
        }
        let finished = consume(&run, &env);
        let outcome = &outcomes(&finished)[0];
        let told = format!("{reason}: {}", finished.everything());
        assert_eq!(outcome["status"], "DEFERRED_DOWNSTREAM_NOT_READY", "{told}");
        assert!(
            outcome["reason"].as_str().unwrap().contains(reason),
            "{told}"
        );
        assert!(
            recorded(&run).is_empty(),
            "a deferral is not recorded: {told}"
        );
    }
    // The packs are live: the same READY streams.
    fs::write(
        state_folder.join("state.json"),
        live_state(&run).to_string(),
    )
    .unwrap();
    let finished = consume(&run, &env);
    assert_ne!(
        outcomes(&finished)[0]["status"],
        "DEFERRED_DOWNSTREAM_NOT_READY",
        "{}",
        finished.everything()
    );
}

/// A state that names this test's own process.
fn live_state(run: &ReadyRun<'_>) -> Value {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let ticks: f64 = after_name
        .split_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    let boot = fs::read_to_string("/proc/stat").unwrap();
    let boot = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .unwrap();
    let created = boot.trim().parse::<f64>().unwrap() + ticks / 100.0;
    json!({"pack_id": "rtdl", "pack_path": "pack.yaml", "updated_at_utc": "x",
        "active_platform_run_id": run.id, "processes": {"worker": {"pid": std::process::id(),
        "pid_create_time": created, "command": ["sleep"], "cwd": ".", "log_path": "x",
        "started_at_utc": "x", "env_keys": []}}})
}
