//! The checker on an engine run root (contract 4, 4.1): every code, its severity, exit code and way out.

use std::fs;

use serde_json::Value;

use crate::support::Finished;
use crate::support::world::{TRAFFIC, World, small};

/// A damage, the arguments of the check, and what it must say.
struct Case {
    name: &'static str,
    damage: fn(&World),
    args: &'static [&'static str],
    exit: i32,
    status: &'static str,
    codes: &'static [&'static str],
}

const NOTHING: fn(&World) = |_| {};

fn remove(world: &World, name: &str) {
    fs::remove_file(world.root.join(name)).unwrap();
}

const CASES: &[Case] = &[
    Case {
        name: "a sound world",
        damage: NOTHING,
        args: &["--strict-seal"],
        exit: 0,
        status: "OK",
        codes: &[],
    },
    Case {
        name: "no run receipt",
        damage: |world| remove(world, "run_receipt.json"),
        args: &[],
        exit: 1,
        status: "FAIL",
        codes: &["RUN_RECEIPT_UNREADABLE"],
    },
    Case {
        name: "a run receipt without a world key",
        damage: |world| fs::write(world.root.join("run_receipt.json"), "{\"run_id\":1}").unwrap(),
        args: &[],
        exit: 1,
        status: "FAIL",
        codes: &["RUN_RECEIPT_INVALID"],
    },
    Case {
        name: "a missing gate flag",
        damage: |world| fs::remove_file(world.passed_flag("layer3", "6B")).unwrap(),
        args: &[],
        exit: 1,
        status: "FAIL",
        codes: &["GATE_PASS_MISSING", "GATE_RECEIPT_MISSING"],
    },
    Case {
        name: "missing parts",
        damage: |world| fs::remove_dir_all(world.raw_parts(TRAFFIC)).unwrap(),
        args: &["--output-ids", TRAFFIC],
        exit: 1,
        status: "FAIL",
        codes: &["LOCATOR_MISSING", "OUTPUT_MISSING"],
    },
    Case {
        name: "an output no catalogue knows",
        damage: NOTHING,
        args: &["--output-ids", "no_such_output"],
        exit: 1,
        status: "FAIL",
        codes: &["OUTPUT_UNKNOWN"],
    },
    Case {
        name: "no seal where it must be",
        damage: |world| remove(world, "_SEALED.json"),
        args: &["--strict-seal"],
        exit: 1,
        status: "FAIL",
        codes: &["PACK_NOT_SEALED"],
    },
    Case {
        name: "no seal where it may be",
        damage: |world| remove(world, "_SEALED.json"),
        args: &["--allow-unsealed"],
        exit: 0,
        status: "WARN",
        codes: &["PACK_NOT_SEALED"],
    },
    Case {
        name: "no pack manifest",
        damage: |world| remove(world, "_oracle_pack_manifest.json"),
        args: &[],
        exit: 0,
        status: "WARN",
        codes: &["PACK_MANIFEST_MISSING"],
    },
    Case {
        name: "a pack manifest that is none",
        damage: |world| {
            fs::write(
                world.root.join("_oracle_pack_manifest.json"),
                "{\"version\":\"v0\"}",
            )
            .unwrap();
        },
        args: &[],
        exit: 1,
        status: "FAIL",
        codes: &["PACK_MANIFEST_INVALID"],
    },
];

fn issue_codes(report: &Value) -> Vec<&str> {
    let issues = report["issues"].as_array().unwrap();
    issues
        .iter()
        .map(|issue| issue["code"].as_str().unwrap())
        .collect()
}

#[track_caller]
fn assert_report(case: &Case, finished: &Finished) {
    let told = format!("{}: {}", case.name, finished.everything());
    assert_eq!(finished.code, Some(case.exit), "{told}");
    let report = finished.json();
    assert_eq!(report["status"], case.status, "{told}");
    let codes = issue_codes(&report);
    for code in case.codes {
        let listed = report["reason_codes"].as_array().unwrap();
        assert!(listed.iter().any(|own| own == code), "{code}: {told}");
    }
    if case.codes.is_empty() {
        assert!(codes.is_empty(), "{told}");
    }
    // Spaced canonical JSON on one line: what other readers of this command parse.
    assert_eq!(finished.stdout.trim_end().lines().count(), 1, "{told}");
    assert!(finished.stdout.starts_with("{\"details\": "), "{told}");
}

#[test]
fn every_code_of_the_engine_root_check_is_told_with_its_status() {
    for case in CASES {
        let world = small().to_damage();
        (case.damage)(&world);
        assert_report(case, &world.oracle("check", case.args));
    }
}

#[test]
fn every_code_comes_with_a_sentence_and_a_way_out_for_people() {
    for case in CASES.iter().filter(|case| !case.codes.is_empty()) {
        let world = small().to_damage();
        (case.damage)(&world);
        let table = world.oracle("check", &[case.args, &["--format", "table"]].concat());
        assert_eq!(table.code, Some(case.exit), "{}", table.everything());
        let row = table
            .stdout
            .lines()
            .find(|line| line.contains(case.codes[0]));
        let row = row.unwrap_or_else(|| panic!("{}: {}", case.name, table.everything()));
        let words = row
            .split_whitespace()
            .filter(|word| word.chars().all(char::is_lowercase));
        assert!(words.count() >= 3, "no way out in {row:?}");
    }
}

#[test]
fn a_scenario_is_found_when_there_is_one_and_asked_for_otherwise() {
    let world = small().to_damage();
    let site = crate::support::Site::new();
    let root = world.root_text();
    let check = ["oracle", "check", "--engine-run-root", &root];
    assert_eq!(site.run(&check).ok().json()["status"], "OK");
    let second = world.root.join("data/layer3/6B/x/scenario_id=second");
    fs::create_dir_all(&second).unwrap();
    fs::write(second.join("part-00000.parquet"), "").unwrap();
    let ambiguous = site.run(&check);
    assert_eq!(issue_codes(&ambiguous.json()), ["SCENARIO_ID_AMBIGUOUS"]);
    assert_eq!(ambiguous.code, Some(1));
    fs::remove_dir_all(world.root.join("data")).unwrap();
    let missing = site.run(&check);
    assert_eq!(issue_codes(&missing.json()), ["SCENARIO_ID_MISSING"]);
    assert_eq!(missing.code, Some(1));
}

#[test]
fn a_catalogue_that_names_no_path_or_an_unknown_token_is_told_by_name() {
    let damaged = [
        ("path_template: ''", "OUTPUT_TEMPLATE_MISSING"),
        (
            "path_template: data/{no_such_token}/part-*.parquet",
            "TEMPLATE_TOKEN_MISSING",
        ),
    ];
    let shipped = crate::support::world::repository()
        .join("config/platform/oracle/outputs_catalogue_v0.yaml");
    let shipped = fs::read_to_string(shipped).unwrap();
    for (template, code) in damaged {
        let at = shipped.find(&format!("output_id: {TRAFFIC}")).unwrap();
        let start = at + shipped[at..].find("path_template:").unwrap();
        let end = start + shipped[start..].find("\n    partitions").unwrap();
        let yaml = format!("{}{template}{}", &shipped[..start], &shipped[end..]);
        let site = crate::support::Site::new();
        fs::write(site.path().join("catalogue.yaml"), yaml).unwrap();
        let mut args = vec![
            "oracle",
            "check",
            "--set",
            "wiring.engine_catalogue_path=catalogue.yaml",
        ];
        let world = small().args();
        args.extend(world.iter().map(String::as_str));
        args.extend(["--output-ids", TRAFFIC]);
        let finished = site.run(&args);
        assert_eq!(finished.code, Some(1), "{}", finished.everything());
        assert_eq!(
            issue_codes(&finished.json()),
            [code],
            "{}",
            finished.everything()
        );
    }
}
