//! Every finding of the checker on an engine run root, provoked on a copy of the fixture world.

use super::*;
use crate::world_files::test_world::{SCENARIO, TestWorld};
use std::fs;
use wellspring_domain::world::checker::CheckStatus;
use wellspring_domain::world::pack::PACK_MANIFEST_FILE;
use wellspring_domain::world::seal::{SEAL_FILE, SealStatus};
use wellspring_domain::world::world_key::RUN_RECEIPT_FILE;

fn check_with<'a>(world: &'a TestWorld, change: impl FnOnce(&mut WorldCheck<'a>)) -> CheckReport {
    let mut check = WorldCheck {
        engine_run_root: world.name(),
        scenario_id: None,
        output_ids: None,
        seal_rule: SealRule::Lenient,
        require_gate_pass: true,
    };
    change(&mut check);
    check_world(&world.store, &world.contract, &check).unwrap()
}

fn check(world: &TestWorld) -> CheckReport {
    check_with(world, |_| {})
}

fn codes(report: &CheckReport) -> Vec<&'static str> {
    report.issues().iter().map(|issue| issue.code).collect()
}

fn json_of(report: &CheckReport) -> Value {
    serde_json::from_str(&report.to_json().unwrap()).unwrap()
}

#[test]
fn a_packed_world_is_ok_and_the_report_names_it() {
    let world = TestWorld::copy();
    world.pack(SealStatus::Ok);
    let report = check_with(&world, |check| check.seal_rule = SealRule::Strict);
    assert_eq!((report.status(), codes(&report)), (CheckStatus::Ok, vec![]));
    let details = &json_of(&report)["details"];
    assert_eq!(details["world_key"]["seed"], 7);
    assert_eq!(details["world_key"]["scenario_id"], SCENARIO);
    assert_eq!(details["pack_manifests"][0]["engine_release"], "local");
    assert_eq!(details["engine_run_root"], world.name());
    assert_eq!(details["gates_missing"], json!([]));
}

#[test]
fn an_unpacked_world_is_a_warning_or_under_strict_rules_an_error() {
    let world = TestWorld::copy();
    let lenient = check(&world);
    assert_eq!(
        codes(&lenient),
        ["PACK_NOT_SEALED", "PACK_MANIFEST_MISSING"]
    );
    assert_eq!(lenient.status(), CheckStatus::Warn);
    let strict = check_with(&world, |check| check.seal_rule = SealRule::Strict);
    assert_eq!(strict.status(), CheckStatus::Fail);
    assert_eq!(json_of(&strict)["errors"], json!(["PACK_NOT_SEALED"]));
}

#[test]
fn a_missing_or_garbled_run_receipt_ends_the_check() {
    let world = TestWorld::copy();
    world.write(RUN_RECEIPT_FILE, b"{");
    assert_eq!(codes(&check(&world)), ["RUN_RECEIPT_UNREADABLE"]);
    world.write(RUN_RECEIPT_FILE, b"{}");
    assert_eq!(codes(&check(&world)), ["RUN_RECEIPT_INVALID"]);
    fs::remove_file(world.root.join(RUN_RECEIPT_FILE)).unwrap();
    assert_eq!(codes(&check(&world)), ["RUN_RECEIPT_UNREADABLE"]);
    assert_eq!(json_of(&check(&world))["details"]["world_key"], Value::Null);
}

#[test]
fn a_scenario_that_cannot_be_told_ends_the_check() {
    let world = TestWorld::copy();
    world
        .store
        .put("config/scenario_id=another/x", b"")
        .unwrap();
    let report = check(&world);
    assert_eq!(codes(&report), ["SCENARIO_ID_AMBIGUOUS"]);
    assert_eq!(
        report.issues()[0].detail.as_deref(),
        Some("another,baseline_v1")
    );
    let told = check_with(&world, |check| check.scenario_id = Some(SCENARIO));
    assert_eq!(told.status(), CheckStatus::Warn);
    fs::remove_dir_all(world.root.join("data")).unwrap();
    fs::remove_dir_all(world.root.join("config")).unwrap();
    assert_eq!(codes(&check(&world)), ["SCENARIO_ID_MISSING"]);
}

#[test]
fn a_missing_flag_is_a_missing_pass_under_both_names() {
    let world = TestWorld::copy();
    let gate = world
        .contract
        .gate_map
        .gate("gate.layer1.2B.validation")
        .unwrap();
    let flag = gate.paths(&world.tokens()).unwrap().passed_flag;
    fs::remove_file(world.root.join(&flag)).unwrap();
    let report = check(&world);
    assert_eq!(report.status(), CheckStatus::Fail);
    assert_eq!(
        report.reason_codes()[..2],
        ["GATE_PASS_MISSING", "GATE_RECEIPT_MISSING"]
    );
    let path = format!("{}/{flag}", world.name());
    let expected = json!([{"gate_id": "gate.layer1.2B.validation", "path": path}]);
    let detail = report.issues()[0].detail.as_deref().unwrap();
    assert_eq!(serde_json::from_str::<Value>(detail).unwrap(), expected);
    let unchecked = check_with(&world, |check| check.require_gate_pass = false);
    assert_eq!(unchecked.status(), CheckStatus::Warn);
}

#[test]
fn a_flag_that_says_fail_is_no_pass_and_the_report_says_why() {
    let world = TestWorld::copy();
    let gate = world
        .contract
        .gate_map
        .gate("gate.layer3.6B.validation")
        .unwrap();
    world.write(
        &gate.paths(&world.tokens()).unwrap().passed_flag,
        b"sha256_hex = FAIL\n",
    );
    let report = check(&world);
    assert_eq!(codes(&report)[..2], ["GATE_PASS_MISSING", "GATE_FAIL"]);
    let why = json_of(&report)["details"]["gates_missing"][0]["why"].clone();
    assert!(why.as_str().unwrap().contains("sha256_hex"), "{why}");
}

#[test]
fn a_requested_output_that_is_missing_is_an_error_and_another_a_warning() {
    let world = TestWorld::copy();
    let missing = "s4_case_timeline_6B";
    world.remove_output(missing);
    world.remove_output("s3_campaign_catalogue_6B");
    let report = check(&world);
    assert_eq!(
        json_of(&report)["warnings"][0],
        format!("LOCATOR_MISSING:{missing}")
    );
    assert_eq!(report.status(), CheckStatus::Warn);
    let requested = [missing.to_owned(), "arrival_events_5B".to_owned()];
    let check = WorldCheck {
        engine_run_root: world.name(),
        scenario_id: None,
        output_ids: Some(&requested),
        seal_rule: SealRule::Lenient,
        require_gate_pass: true,
    };
    let report = check_world(&world.store, &world.contract, &check).unwrap();
    assert_eq!(report.status(), CheckStatus::Fail);
    assert_eq!(
        report.reason_codes()[..2],
        ["LOCATOR_MISSING", "OUTPUT_MISSING"]
    );
    let listed = &json_of(&report)["details"]["outputs_missing"];
    assert_eq!(listed[0]["output_id"], missing);
    assert!(
        listed[0]["path"]
            .as_str()
            .unwrap()
            .ends_with("/part-*.parquet")
    );
}

#[test]
fn an_unknown_output_and_a_template_that_cannot_be_filled_have_their_codes() {
    let world = TestWorld::copy();
    let catalogue = br"
outputs:
  - {output_id: blank, scope: s, path_template: ' ', primary_key: []}
  - {output_id: daily, scope: s, path_template: 'data/{utc_day}', primary_key: []}
";
    let map = b"gates: []";
    let contract = ContractFiles::parse(catalogue, map).unwrap();
    let requested = ["ghost", "blank", "daily"].map(str::to_owned);
    let check = WorldCheck {
        engine_run_root: world.name(),
        scenario_id: Some(SCENARIO),
        output_ids: Some(&requested),
        seal_rule: SealRule::Lenient,
        require_gate_pass: true,
    };
    let report = check_world(&world.store, &contract, &check).unwrap();
    assert_eq!(
        json_of(&report)["errors"],
        json!([
            "OUTPUT_UNKNOWN:ghost",
            "OUTPUT_TEMPLATE_MISSING:blank",
            "TEMPLATE_TOKEN_MISSING:daily:utc_day"
        ])
    );
}

#[test]
fn a_seal_that_says_failed_or_nothing_readable_is_an_error_whatever_the_profile() {
    let world = TestWorld::copy();
    world.pack(SealStatus::Failed);
    assert_eq!(codes(&check(&world)), ["PACK_SEALED_FAILED"]);
    world.write(SEAL_FILE, b"sealed");
    assert_eq!(codes(&check(&world)), ["PACK_SEAL_INVALID"]);
}

#[test]
fn a_manifest_that_is_broken_or_of_another_world_is_invalid() {
    let world = TestWorld::copy();
    world.pack(SealStatus::Ok);
    let text = String::from_utf8(world.store.get(PACK_MANIFEST_FILE).unwrap().unwrap()).unwrap();
    world.write(PACK_MANIFEST_FILE, text.replace(":7", ":8").as_bytes());
    let report = check(&world);
    assert_eq!(
        json_of(&report)["errors"],
        json!(["PACK_MANIFEST_INVALID:WORLD_KEY_MISMATCH"])
    );
    world.write(PACK_MANIFEST_FILE, b"{}");
    assert_eq!(codes(&check(&world)), ["PACK_MANIFEST_INVALID"]);
}
