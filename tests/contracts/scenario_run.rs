//! Scenario runs (contract 5.4-5.8): every ending, provoked on a world, with state, reason and sentence.

use std::fs;

use crate::support::Site;
use crate::support::finished::assert_is_sentence;
use crate::support::scenario::{Runner, record_of, run_id_of};
use crate::support::site::{assert_contains, read_json};
use crate::support::world::{World, small};

/// What is done before the submission, and how the run must end.
struct Case {
    name: &'static str,
    world: fn() -> World,
    prepare: fn(&mut Runner),
    exit: i32,
    state: &'static str,
    reason: &'static str,
}

fn sound() -> World {
    small().to_damage()
}

fn without_flag() -> World {
    let world = sound();
    fs::remove_file(world.passed_flag("layer3", "6B")).unwrap();
    world
}

fn with_contradicting_flag() -> World {
    let world = sound();
    let flag = format!("sha256_hex = {}\n", "0".repeat(64));
    fs::write(world.passed_flag("layer3", "6B"), flag).unwrap();
    world
}

fn with_seal(status: Option<&str>) -> World {
    let world = sound();
    let path = world.root.join("_SEALED.json");
    let text = fs::read_to_string(&path).unwrap();
    match status {
        Some(status) => fs::write(path, text.replace("SEALED_OK", status)).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
    world
}

fn with_pack_manifest(change: fn(&str) -> String) -> World {
    let world = sound();
    let path = world.root.join("_oracle_pack_manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, change(&text)).unwrap();
    world
}

const CASES: &[Case] = &[
    Case {
        name: "a proven world",
        world: sound,
        prepare: |_| {},
        exit: 0,
        state: "READY",
        reason: "",
    },
    Case {
        name: "a caller who is not on the list",
        world: sound,
        prepare: |runner| {
            runner.wire(
                "auth_mode: disabled",
                "auth_mode: allowlist\nauth_allowlist: [ops]",
            )
        },
        exit: 3,
        state: "FAILED",
        reason: "AUTH_DENIED",
    },
    Case {
        name: "an output no catalogue knows",
        world: sound,
        prepare: |runner| runner.flag("--output-id", "no_such_output"),
        exit: 1,
        state: "FAILED",
        reason: "UNKNOWN_OUTPUT_ID",
    },
    Case {
        name: "a missing engine root",
        world: sound,
        prepare: |runner| runner.move_the_world_away(),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_ROOT_MISSING",
    },
    Case {
        name: "a gate that has not passed yet",
        world: without_flag,
        prepare: |_| {},
        exit: 1,
        state: "WAITING_EVIDENCE",
        reason: "EVIDENCE_WAITING",
    },
    Case {
        name: "a gate that has not passed in time",
        world: without_flag,
        prepare: |runner| runner.policy("evidence_wait_seconds: 600", "evidence_wait_seconds: 0"),
        exit: 3,
        state: "FAILED",
        reason: "EVIDENCE_MISSING_DEADLINE",
    },
    Case {
        name: "a flag that contradicts its bundle",
        world: with_contradicting_flag,
        prepare: |_| {},
        exit: 3,
        state: "QUARANTINED",
        reason: "EVIDENCE_CONFLICT",
    },
    Case {
        name: "a pack manifest that is none",
        world: || with_pack_manifest(|_| "{}".to_owned()),
        prepare: |_| {},
        exit: 3,
        state: "FAILED",
        reason: "ORACLE_PACK_INVALID",
    },
    Case {
        name: "the pack manifest of another world",
        world: || {
            let (world, other) = (sound(), World::generate(40, 12, 1));
            other.pack();
            for name in ["_oracle_pack_manifest.json", "_SEALED.json"] {
                fs::copy(other.root.join(name), world.root.join(name)).unwrap();
            }
            world
        },
        prepare: |_| {},
        exit: 3,
        state: "FAILED",
        reason: "ORACLE_PACK_MISMATCH",
    },
    Case {
        name: "an unsealed world in a strict profile",
        world: || with_seal(None),
        prepare: |runner| runner.wire("profile_id: local", "profile_id: dev"),
        exit: 1,
        state: "WAITING_EVIDENCE",
        reason: "PACK_NOT_SEALED",
    },
    Case {
        name: "a world sealed as failed",
        world: || with_seal(Some("SEALED_FAILED")),
        prepare: |_| {},
        exit: 3,
        state: "FAILED",
        reason: "PACK_SEALED_FAILED",
    },
    Case {
        name: "an engine nobody configured",
        world: sound,
        prepare: |runner| runner.flag("--strategy", "FORCE_INVOKE"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_COMMAND_MISSING",
    },
    Case {
        name: "an engine command with an unknown token",
        world: sound,
        prepare: |runner| runner.engine("[/bin/echo, '{no_such_token}']"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_COMMAND_TEMPLATE_UNRESOLVED",
    },
    Case {
        name: "an engine that fails",
        world: sound,
        prepare: |runner| runner.engine("[/bin/false]"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_EXIT_NONZERO",
    },
    Case {
        name: "an engine that is not there",
        world: sound,
        prepare: |runner| runner.engine("[/no/such/engine]"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_FAILED",
    },
    Case {
        name: "an engine that never ends",
        world: sound,
        prepare: |runner| runner.engine("[/bin/sleep, '30']\nengine_command_timeout_seconds: 1"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_TIMEOUT",
    },
    Case {
        name: "an engine that leaves no receipt",
        world: || {
            let world = sound();
            fs::remove_file(world.root.join("run_receipt.json")).unwrap();
            world
        },
        prepare: |runner| runner.engine("[/bin/true]"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_RECEIPT_MISSING",
    },
    Case {
        name: "an engine that leaves a broken receipt",
        world: || {
            let world = sound();
            fs::write(world.root.join("run_receipt.json"), "{}").unwrap();
            world
        },
        prepare: |runner| runner.engine("[/bin/true]"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_RECEIPT_INVALID",
    },
    Case {
        name: "an engine that made another run",
        world: sound,
        prepare: |runner| runner.engine("[/bin/true]"),
        exit: 1,
        state: "FAILED",
        reason: "ENGINE_RECEIPT_MISMATCH",
    },
];

#[test]
fn every_ending_of_a_scenario_run_is_told_by_state_reason_and_sentence() {
    for case in CASES {
        let world = (case.world)();
        let site = Site::new();
        let mut runner = Runner::new(&site, &world, "endings");
        (case.prepare)(&mut runner);
        let finished = runner.submit(&["--format", "table"]);
        let told = format!("{}: {}", case.name, finished.everything());
        assert_eq!(finished.code, Some(case.exit), "{told}");
        assert_contains(&finished.stdout, case.state, &told);
        assert_contains(&finished.stdout, case.reason, &told);
        if case.state != "READY" {
            assert_is_sentence(&finished.stderr, &told);
        }
        let published = fs::read_dir(runner.run_root().join("control_bus/fp.bus.control.v1"));
        let published = published.map_or(0, Iterator::count);
        assert_eq!(published, usize::from(case.state == "READY"), "{told}");
    }
}

#[test]
fn a_catalogue_that_needs_a_gate_nobody_knows_is_refused_before_a_run_begins() {
    let (site, world) = (Site::new(), sound());
    let mut runner = Runner::new(&site, &world, "gateless");
    runner.catalogue("gate.layer3.6B.validation", "gate.layer9.9Z.validation");
    runner.submit(&[]).refused(1, "UNKNOWN_GATE_ID");
    assert!(!runner.status("gateless").exists());
}

#[test]
fn a_waiting_run_becomes_ready_when_the_evidence_comes_and_stays_ready() {
    let world = sound();
    let flag = world.passed_flag("layer3", "6B");
    let kept = fs::read(&flag).unwrap();
    fs::remove_file(&flag).unwrap();
    let site = Site::new();
    let runner = Runner::new(&site, &world, "waits");
    assert_eq!(runner.submit(&[]).json()["state"], "WAITING_EVIDENCE");
    assert_eq!(runner.submit(&[]).json()["state"], "WAITING_EVIDENCE");
    fs::write(&flag, kept).unwrap();
    assert_eq!(runner.submit(&[]).ok().json()["state"], "READY");
    let signal = runner
        .sr()
        .join(format!("ready_signal/{}.json", run_id_of("waits")));
    let before = fs::read(&signal).unwrap();
    assert_eq!(runner.submit(&[]).ok().json()["state"], "READY");
    assert_eq!(fs::read(&signal).unwrap(), before, "READY is said once");
    let kinds = record_of(&runner, "waits");
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "READY_COMMITTED")
            .count(),
        1
    );
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "PLAN_COMMITTED")
            .count(),
        1
    );
}

#[test]
fn one_key_never_stands_for_two_intents() {
    let (site, world) = (Site::new(), sound());
    let runner = Runner::new(&site, &world, "shared");
    runner.submit(&[]).ok();
    let other = runner.submit(&["--window-end", "2026-01-03T00:00:00Z"]);
    other.refused(3, "EQUIV_KEY_COLLISION");
    assert_eq!(read_json(runner.status("shared"))["state"], "READY");
}

#[test]
fn a_request_that_is_none_is_refused_before_anything_is_written() {
    let (site, world) = (Site::new(), sound());
    let runner = Runner::new(&site, &world, "nonsense");
    let reversed = ["--window-end", "2025-01-01T00:00:00Z"];
    runner.submit(&reversed).refused(1, "RUN_REQUEST_INVALID");
    let naive = ["--window-start", "2026-01-01T00:00:00"];
    runner.submit(&naive).refused(1, "RUN_REQUEST_INVALID");
    assert!(!runner.status("nonsense").exists());
}

#[test]
fn a_run_somebody_else_works_on_is_left_alone() {
    let (site, world) = (Site::new(), without_flag());
    let runner = Runner::new(&site, &world, "leased");
    runner.submit(&[]);
    runner.lease(&run_id_of("leased"));
    let busy = runner.submit(&[]);
    assert_eq!(busy.code, Some(1), "{}", busy.everything());
    assert_contains(
        &busy.stderr,
        "Lease held by another runner",
        &busy.everything(),
    );
    let shown = runner.submit(&["--format", "table"]);
    assert_contains(&shown.stdout, "LEASE_BUSY", &shown.everything());
}

#[test]
fn stored_documents_are_never_replaced_by_different_ones() {
    for (folder, code) in [
        ("run_facts_view", "FACTS_VIEW_DRIFT"),
        ("ready_signal", "READY_SIGNAL_DRIFT"),
        ("run_plan", "PLAN_DRIFT"),
    ] {
        let (site, world) = (Site::new(), sound());
        let runner = Runner::new(&site, &world, "drifts");
        let path = runner
            .sr()
            .join(folder)
            .join(format!("{}.json", run_id_of("drifts")));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"somebody\":\"else\"}\n").unwrap();
        let finished = runner.submit(&[]);
        assert_ne!(finished.code, Some(0), "{code}: {}", finished.everything());
        assert_contains(&finished.everything(), code, &finished.everything());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"somebody\":\"else\"}\n"
        );
    }
}

#[test]
fn a_proof_that_was_changed_after_it_was_given_is_refused() {
    let (site, world) = (Site::new(), sound());
    let first = Runner::new(&site, &world, "proves");
    first.submit(&[]).ok();
    let mut folder = first
        .sr()
        .join("instance_receipts/output_id=s3_event_stream_with_fraud_6B");
    while !folder.join("instance_receipt.json").is_file() {
        folder = fs::read_dir(&folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
    }
    let path = folder.join("instance_receipt.json");
    let mut receipt = read_json(&path);
    receipt["target_digest"]["hex"] = serde_json::json!("f".repeat(64));
    fs::write(&path, receipt.to_string()).unwrap();
    let second = first.submit(&["--run-equivalence-key", "proves-again", "--format", "table"]);
    assert_eq!(second.code, Some(3), "{}", second.everything());
    assert_contains(
        &second.stdout,
        "INSTANCE_RECEIPT_DRIFT",
        &second.everything(),
    );
}

#[test]
fn a_ready_that_cannot_be_published_is_kept_and_published_later() {
    let (site, world) = (Site::new(), sound());
    let runner = Runner::new(&site, &world, "outbox");
    let bus = runner.run_root().join("control_bus");
    fs::create_dir_all(runner.run_root()).unwrap();
    fs::write(&bus, "in the way").unwrap();
    let first = runner.submit(&[]);
    assert_eq!(first.code, Some(1), "{}", first.everything());
    assert!(record_of(&runner, "outbox").contains(&"READY_PUBLISH_FAILED".to_owned()));
    fs::remove_file(&bus).unwrap();
    runner.submit(&[]).ok();
    assert!(record_of(&runner, "outbox").contains(&"READY_PUBLISHED".to_owned()));
    assert_eq!(
        fs::read_dir(bus.join("fp.bus.control.v1")).unwrap().count(),
        1
    );
}
