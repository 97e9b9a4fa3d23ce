//! Re-emission (contract 5.10): what is published again, and every refusal with its code.

use std::fs;

use serde_json::json;

use crate::support::Site;
use crate::support::finished::assert_is_sentence;
use crate::support::scenario::{Runner, record_of, run_id_of};
use crate::support::site::assert_contains;
use crate::support::world::small;

const OTHER_RUN: &str = "platform_20200101T000000Z";

/// How the run ended before, what is asked, and what must be said.
struct Case {
    name: &'static str,
    flagless: bool,
    wiring: Option<(&'static str, &'static str)>,
    args: &'static [&'static str],
    exit: i32,
    code: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "READY again",
        flagless: false,
        wiring: None,
        args: &["--kind", "READY_ONLY"],
        exit: 0,
        code: "",
    },
    Case {
        name: "nothing but words",
        flagless: false,
        wiring: None,
        args: &["--kind", "BOTH", "--dry-run"],
        exit: 0,
        code: "",
    },
    Case {
        name: "the end of a run that is READY",
        flagless: false,
        wiring: None,
        args: &["--kind", "TERMINAL_ONLY"],
        exit: 3,
        code: "REEMIT_TERMINAL_ONLY_MISMATCH",
    },
    Case {
        name: "a run that has not ended",
        flagless: true,
        wiring: None,
        args: &["--kind", "BOTH"],
        exit: 3,
        code: "REEMIT_NOT_APPLICABLE",
    },
    Case {
        name: "READY of a run that is not READY",
        flagless: true,
        wiring: None,
        args: &["--kind", "READY_ONLY"],
        exit: 3,
        code: "REEMIT_NOT_APPLICABLE",
    },
    Case {
        name: "another platform run without approval",
        flagless: false,
        wiring: Some((
            "reemit_same_platform_run_only: false",
            "reemit_same_platform_run_only: true",
        )),
        args: &["--emit-platform-run-id", OTHER_RUN],
        exit: 3,
        code: "CROSS_RUN_OVERRIDE_REQUIRED",
    },
    Case {
        name: "another platform run for a reason that is not allowed",
        flagless: false,
        wiring: Some((
            "reemit_same_platform_run_only: false",
            "reemit_same_platform_run_only: true\nreemit_cross_run_reason_allowlist: [DRILL]",
        )),
        args: &[
            "--emit-platform-run-id",
            OTHER_RUN,
            "--cross-run-override-json",
            "override.json",
        ],
        exit: 3,
        code: "CROSS_RUN_OVERRIDE_REASON_NOT_ALLOWED",
    },
    Case {
        name: "a caller who is not on the list",
        flagless: false,
        wiring: Some((
            "auth_mode: disabled",
            "auth_mode: allowlist\nreemit_allowlist: [ops]",
        )),
        args: &["--requested-by", "stranger"],
        exit: 3,
        code: "AUTH_DENIED",
    },
];

fn write_override(site: &Site) {
    let approval = json!({
        "override_id": "o-1", "reason_code": "whim", "evidence_ref": "ticket",
        "approved_by": "somebody", "approved_at_utc": "2026-01-01T00:00:00+00:00"
    });
    fs::write(site.path().join("override.json"), approval.to_string()).unwrap();
}

#[test]
fn every_reemit_is_published_or_refused_by_name() {
    for case in CASES {
        let (site, world) = (Site::new(), small().to_damage());
        if case.flagless {
            fs::remove_file(world.passed_flag("layer3", "6B")).unwrap();
        }
        write_override(&site);
        let mut runner = Runner::new(&site, &world, "again");
        runner.submit(&[]);
        if let Some((from, to)) = case.wiring {
            runner.wire(from, to);
        }
        let finished = runner.reemit(&[case.args, &["--format", "table"]].concat());
        let told = format!("{}: {}", case.name, finished.everything());
        assert_eq!(finished.code, Some(case.exit), "{told}");
        assert_contains(&finished.stdout, case.code, &told);
        if !case.code.is_empty() && case.code != "AUTH_DENIED" {
            assert_is_sentence(&finished.stderr, &told);
        }
    }
}

#[test]
fn kinds_are_exactly_three() {
    let (site, world) = (Site::new(), small().to_damage());
    let runner = Runner::new(&site, &world, "kinds");
    for wrong in ["ready", "READY", "", "ready_only"] {
        assert_eq!(runner.reemit(&["--kind", wrong]).code, Some(2), "{wrong}");
    }
    for right in ["READY_ONLY", "TERMINAL_ONLY", "BOTH"] {
        let finished = runner.reemit(&["--kind", right]);
        assert_eq!(finished.code, Some(1), "{}", finished.everything());
        assert_contains(&finished.stderr, "Run not found.", &finished.everything());
    }
}

#[test]
fn an_operator_who_is_already_at_it_keeps_the_others_out() {
    let (site, world) = (Site::new(), small().to_damage());
    let runner = Runner::new(&site, &world, "busy");
    runner.submit(&[]).ok();
    runner.lease(&format!("reemit:{}:READY_ONLY", run_id_of("busy")));
    let finished = runner.reemit(&["--kind", "READY_ONLY"]);
    assert_eq!(finished.code, Some(1), "{}", finished.everything());
    assert_contains(&finished.stderr, "another operator", &finished.everything());
}

#[test]
fn reemits_are_counted_against_their_limit_and_recorded() {
    let (site, world) = (Site::new(), small().to_damage());
    let mut runner = Runner::new(&site, &world, "limited");
    runner.wire(
        "auth_mode: disabled",
        "auth_mode: disabled\nreemit_rate_limit_max: 2",
    );
    runner.submit(&[]).ok();
    for _ in 0..2 {
        runner.reemit(&["--kind", "READY_ONLY"]).ok();
    }
    let third = runner.reemit(&["--kind", "READY_ONLY", "--format", "table"]);
    assert_eq!(third.code, Some(3), "{}", third.everything());
    assert_contains(&third.stdout, "REEMIT_RATE_LIMIT", &third.everything());
    let kinds = record_of(&runner, "limited");
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "REEMIT_PUBLISHED")
            .count(),
        2,
        "{kinds:?}"
    );
    assert!(kinds.contains(&"REEMIT_FAILED".to_owned()), "{kinds:?}");
    // The same READY, so the same message: nothing is streamed twice.
    let bus = runner.run_root().join("control_bus/fp.bus.control.v1");
    assert_eq!(fs::read_dir(bus).unwrap().count(), 1);
}

#[test]
fn facts_that_are_gone_cannot_be_spoken_of_again() {
    let (site, world) = (Site::new(), small().to_damage());
    let runner = Runner::new(&site, &world, "gone");
    runner.submit(&[]).ok();
    fs::remove_file(
        runner
            .sr()
            .join(format!("run_facts_view/{}.json", run_id_of("gone"))),
    )
    .unwrap();
    let finished = runner.reemit(&["--kind", "READY_ONLY", "--format", "table"]);
    assert_ne!(finished.code, Some(0), "{}", finished.everything());
    assert_contains(
        &finished.everything(),
        "FACTS_VIEW_MISSING",
        &finished.everything(),
    );
}

#[test]
fn the_end_of_a_failed_run_is_told_and_never_taken_for_ready() {
    let (site, world) = (Site::new(), small().to_damage());
    let mut runner = Runner::new(&site, &world, "failed");
    runner.flag("--output-id", "no_such_output");
    runner.submit(&[]);
    let ready = runner.reemit(&["--kind", "READY_ONLY", "--format", "table"]);
    assert_eq!(ready.code, Some(3), "{}", ready.everything());
    assert_contains(
        &ready.stdout,
        "REEMIT_READY_ONLY_MISMATCH",
        &ready.everything(),
    );
    let finished = runner.reemit(&["--kind", "TERMINAL_ONLY"]).ok();
    assert_eq!(finished.json()["published"], json!(["TERMINAL"]));
    let bus = runner.run_root().join("control_bus/fp.bus.control.v1");
    let file = fs::read_dir(bus).unwrap().next().unwrap().unwrap().path();
    let envelope = crate::support::site::read_json(file);
    assert_eq!(envelope["attributes"]["kind"], "TERMINAL_REEMIT");
    assert_eq!(envelope["payload"]["status_state"], "FAILED");
    assert!(envelope["payload"].get("bundle_hash").is_none());
}
