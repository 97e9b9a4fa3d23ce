//! Every finding of the checker on a facts view, provoked on a copy of the fixture world.

use super::*;
use crate::world_files::evidence_digest::{EvidenceDigests, LocatorOutcome};
use crate::world_files::gate_verification::verify_gate;
use crate::world_files::test_world::{SCENARIO, TestWorld};
use wellspring_domain::world::checker::CheckStatus;
use wellspring_domain::world::seal::SealStatus;

const TRAFFIC: &str = "s3_event_stream_with_fraud_6B";
const GATE: &str = "gate.layer3.6B.validation";

/// Facts over one traffic output of a world, as the Scenario Runner writes them.
fn facts_of(world: &TestWorld) -> Value {
    let tokens = world.tokens();
    let entry = world.contract.catalogue.output(TRAFFIC).unwrap();
    let digests = EvidenceDigests::default();
    let outcome = digests
        .locator_for(&world.store, world.name(), entry, &tokens)
        .unwrap();
    let LocatorOutcome::Found(found) = outcome else {
        panic!("the fixture world holds its traffic");
    };
    let gate = world.contract.gate_map.gate(GATE).unwrap();
    let gate = verify_gate(&world.store, world.name(), gate, &tokens).unwrap();
    let receipt = world.receipt();
    let (run, platform_run) = ("e".repeat(32), "platform_20260101T000000Z");
    json!({
        "run_id": run, "platform_run_id": platform_run, "scenario_run_id": run,
        "pins": {"manifest_fingerprint": receipt.manifest_fingerprint, "parameter_hash": receipt.parameter_hash,
            "seed": receipt.seed, "scenario_id": SCENARIO, "run_id": run, "platform_run_id": platform_run,
            "scenario_run_id": run},
        "locators": [found.locator], "gate_receipts": [gate.receipt().unwrap()],
        "output_roles": {TRAFFIC: "business_traffic"},
        "policy_rev": {"policy_id": "sr_policy", "revision": "v0-local"}, "bundle_hash": "f".repeat(64),
        "plan_ref": "p", "record_ref": "r", "status_ref": "s",
        "oracle_pack_ref": {"engine_run_root": world.name()},
    })
}

fn check_bytes(world: &TestWorld, facts: Option<&[u8]>, missing_digest: Severity) -> CheckReport {
    let check = FactsCheck {
        run_facts_ref: "facts",
        oracle_root: "runs/local_full_run-5",
        seal_rule: SealRule::Strict,
        missing_digest,
    };
    check_facts(facts, &world.contract, &check, &ObjectStores::folders()).unwrap()
}

fn check(world: &TestWorld, facts: &Value) -> CheckReport {
    check_bytes(world, Some(facts.to_string().as_bytes()), Severity::Error)
}

fn codes(report: &CheckReport) -> Vec<&'static str> {
    report.issues().iter().map(|issue| issue.code).collect()
}

#[test]
fn complete_facts_over_a_sealed_world_are_ok() {
    let world = TestWorld::copy();
    world.pack(SealStatus::Ok);
    let mut facts = facts_of(&world);
    let report = check(&world, &facts);
    assert_eq!((report.status(), codes(&report)), (CheckStatus::Ok, vec![]));
    let json: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(json["details"]["locators_total"], 1);
    assert_eq!(json["details"]["locators_missing"], json!([]));
    facts.as_object_mut().unwrap().remove("oracle_pack_ref");
    assert_eq!(
        codes(&check(&world, &facts)),
        Vec::<&str>::new(),
        "the root shows in the path"
    );
}

#[test]
fn facts_that_are_absent_or_not_json_are_unreadable_and_a_wrong_shape_is_invalid() {
    let world = TestWorld::copy();
    let codes_of = |facts| codes(&check_bytes(&world, facts, Severity::Error));
    assert_eq!(codes_of(None), ["RUN_FACTS_UNREADABLE"]);
    assert_eq!(codes_of(Some(b"{")), ["RUN_FACTS_UNREADABLE"]);
    assert_eq!(codes_of(Some(b"{}")), ["RUN_FACTS_INVALID"]);
    let mut open = facts_of(&world);
    open["traffic_delivery_mode"] = json!("STREAM");
    assert_eq!(codes(&check(&world, &open)), ["RUN_FACTS_INVALID"]);
}

#[test]
fn traffic_without_a_pass_of_its_gate_is_named_with_the_gate() {
    let world = TestWorld::copy();
    world.pack(SealStatus::Ok);
    let mut facts = facts_of(&world);
    facts["gate_receipts"][0]["status"] = json!("FAIL");
    let report = check(&world, &facts);
    assert_eq!(
        report.issues()[0].coded(),
        format!("GATE_PASS_MISSING:{{\"{TRAFFIC}\": [\"{GATE}\"]}}")
    );
    facts["output_roles"][TRAFFIC] = json!("non_traffic");
    assert_eq!(check(&world, &facts).status(), CheckStatus::Ok);
    facts["output_roles"] = json!({"ghost": "business_traffic"});
    facts["locators"][0]["output_id"] = json!("ghost");
    assert_eq!(codes(&check(&world, &facts)), ["OUTPUT_UNKNOWN"]);
}

#[test]
fn a_locator_without_a_digest_is_an_error_or_when_allowed_a_warning() {
    let world = TestWorld::copy();
    world.pack(SealStatus::Ok);
    let mut facts = facts_of(&world);
    facts["locators"][0]
        .as_object_mut()
        .unwrap()
        .remove("content_digest");
    let report = check(&world, &facts);
    assert_eq!(
        report.issues()[0].coded(),
        format!("DIGEST_MISSING:{TRAFFIC}")
    );
    assert_eq!(report.status(), CheckStatus::Fail);
    let allowed = check_bytes(&world, Some(facts.to_string().as_bytes()), Severity::Warn);
    assert_eq!(allowed.status(), CheckStatus::Warn);
}

#[test]
fn a_locator_whose_files_are_gone_is_missing_under_both_names() {
    let world = TestWorld::copy();
    world.pack(SealStatus::Ok);
    let facts = facts_of(&world);
    world.remove_output(TRAFFIC);
    let report = check(&world, &facts);
    assert_eq!(report.reason_codes(), ["LOCATOR_MISSING", "OUTPUT_MISSING"]);
}

#[test]
fn an_unsealed_pack_root_fails_under_strict_rules_and_a_failed_seal_always() {
    let world = TestWorld::copy();
    let facts = facts_of(&world);
    assert_eq!(codes(&check(&world, &facts)), ["PACK_NOT_SEALED"]);
    world.pack(SealStatus::Failed);
    assert_eq!(codes(&check(&world, &facts)), ["PACK_SEALED_FAILED"]);
}
