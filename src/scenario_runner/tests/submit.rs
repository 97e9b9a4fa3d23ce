//! Submitting runs: every way evidence can turn out, and submitting again.

use std::fs;

use serde_json::{Value, json};
use wellspring_domain::scenario::control::RunVerdict;
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::facts_view::{OutputRole, RunFactsView};
use wellspring_domain::scenario::ready::ReadySignal;
use wellspring_domain::scenario::state_machine::RunState;
use wellspring_domain::time_text::Micros;

use super::support::{Bench, PLATFORM_RUN, RUN_ID, contract_files, receipt, write, write_gate};

#[test]
fn a_complete_world_becomes_ready_with_all_its_documents() {
    let bench = Bench::new();
    let response = bench.submit(json!({})).unwrap();
    assert_eq!(response.verdict, RunVerdict::Ready);
    let prefix = format!("fraud-platform/{PLATFORM_RUN}/sr");
    assert_eq!(
        serde_json::to_value(&response).unwrap(),
        json!({
            "run_id": RUN_ID, "state": "READY",
            "status_ref": format!("{prefix}/run_status/{RUN_ID}.json"),
            "record_ref": format!("{prefix}/run_record/{RUN_ID}.jsonl"),
            "facts_view_ref": format!("{prefix}/run_facts_view/{RUN_ID}.json"),
            "message": "READY published."
        })
    );
    let facts = RunFactsView::from_value(bench.document("run_facts_view")).unwrap();
    assert_eq!(
        facts.intended_outputs,
        Some(vec!["context".to_owned(), "traffic".to_owned()])
    );
    let roles = facts.output_roles.as_ref().unwrap();
    assert_eq!(roles["traffic"], OutputRole::BusinessTraffic);
    assert_eq!(roles["context"], OutputRole::NonTraffic);
    assert!(facts.gate_passed("gate.top") && facts.gate_passed("gate.base"));
    assert_eq!(facts.instance_receipts.as_ref().unwrap().len(), 2);
    assert_eq!(facts.delivery_mode().as_deref(), Some("STREAM"));
    assert_eq!(facts.evidence_notes.as_ref().unwrap().len(), 2);
    let bus = bench.bus();
    assert_eq!(bus.len(), 1);
    let ready = ReadySignal::from_value(bus[0]["payload"].clone()).unwrap();
    assert_eq!(
        bus[0]["payload"],
        bench.document("ready_signal"),
        "published as stored"
    );
    assert_eq!(
        bus[0]["attributes"],
        json!({"kind": "READY", "run_id": RUN_ID})
    );
    assert_eq!(bus[0]["partition_key"], RUN_ID);
    assert_eq!(bus[0]["message_id"], ready.message_id);
    assert_eq!(ready.bundle_hash, facts.bundle_hash);
    assert_eq!(
        ready.plan_hash.as_deref(),
        bench.document("run_plan")["plan_hash"].as_str()
    );
}

#[test]
fn the_record_holds_each_fact_once_and_the_index_names_them() {
    let bench = Bench::new();
    for _ in 0..3 {
        bench.submit(json!({})).unwrap();
    }
    let facts = bench.facts();
    let kinds = [
        "RUN_ACCEPTED",
        "PLAN_COMMITTED",
        "GOV_POLICY_REV",
        "GOV_PLAN_HASH",
        "READY_COMMITTED",
        "GOV_BUNDLE_HASH",
        "GOV_RUN_IDENTITY_SOURCES",
        "READY_PUBLISHED",
    ];
    assert_eq!(facts.len(), kinds.len());
    assert!(kinds.iter().all(|kind| facts[*kind] == 1), "{facts:?}");
    let mut ids: Vec<Value> = bench
        .record()
        .iter()
        .map(|event| event["event_id"].clone())
        .collect();
    ids.sort_by_key(|id| id.as_str().map(str::to_owned));
    assert_eq!(bench.document("run_record_index")["event_ids"], json!(ids));
}

#[test]
fn a_ready_run_submitted_again_is_answered_and_not_changed() {
    let bench = Bench::new();
    bench.submit(json!({})).unwrap();
    let before = (bench.document("run_status"), bench.document("ready_signal"));
    bench.clock.pass_seconds(1_000);
    fs::remove_dir_all(bench.world()).unwrap();
    let again = bench.submit(json!({})).unwrap();
    assert_eq!(again.verdict, RunVerdict::Ready, "{}", again.message);
    assert_eq!(
        before,
        (bench.document("run_status"), bench.document("ready_signal"))
    );
    assert_eq!(bench.bus().len(), 1);
}

#[test]
fn missing_evidence_waits_and_a_later_submission_finds_it() {
    let bench = Bench::new();
    let hidden = bench.world().join("data/context");
    fs::rename(&hidden, bench.world().join("hidden")).unwrap();
    let waiting = bench.submit(json!({})).unwrap();
    assert_eq!(waiting.verdict, RunVerdict::Waiting);
    assert_eq!(bench.reason(), "EVIDENCE_WAITING");
    let plan = bench.document("run_plan");
    let missing = &bench.record().last().unwrap()["details"]["missing"].clone();
    assert_eq!(*missing, json!(["context", "instance_proof:context"]));
    bench.clock.pass_seconds(30);
    fs::rename(bench.world().join("hidden"), hidden).unwrap();
    assert_eq!(bench.submit(json!({})).unwrap().verdict, RunVerdict::Ready);
    assert_eq!(bench.document("run_plan"), plan, "the stored plan is used");
    assert_eq!(bench.facts()["EVIDENCE_WAITING"], 1);
}

#[test]
fn evidence_still_missing_at_the_deadline_fails_the_run_for_good() {
    let bench = Bench::new();
    fs::remove_dir_all(bench.world().join("data/top")).unwrap();
    assert_eq!(
        bench.submit(json!({})).unwrap().verdict,
        RunVerdict::Waiting
    );
    bench.clock.pass_seconds(599);
    assert_eq!(
        bench.submit(json!({})).unwrap().verdict,
        RunVerdict::Waiting
    );
    bench.clock.pass_seconds(1);
    assert_eq!(bench.submit(json!({})).unwrap().verdict, RunVerdict::Failed);
    assert_eq!(bench.reason(), "EVIDENCE_MISSING_DEADLINE");
    write_gate(&bench.world(), "top", b"too late");
    let again = bench.submit(json!({})).unwrap();
    assert_eq!(
        (again.verdict, again.state),
        (RunVerdict::Failed, RunState::Failed)
    );
    assert_eq!(bench.bus(), Vec::<Value>::new());
}

#[test]
fn a_gate_that_contradicts_itself_quarantines_the_run() {
    let bench = Bench::new();
    let bundle = format!("data/base/{}", "a".repeat(64));
    write(
        &bench.world(),
        &format!("{bundle}/report.json"),
        b"edited after the flag",
    );
    let response = bench.submit(json!({})).unwrap();
    assert_eq!(response.verdict, RunVerdict::Quarantined);
    let file = bench.document("quarantine");
    assert_eq!(file["reason"], "EVIDENCE_CONFLICT");
    assert_eq!(file["missing"], json!(["gate.base"]));
    assert_eq!(file["status_ref"].as_str(), response.status_ref.as_deref());
    assert_eq!(bench.document("run_status")["state"], "QUARANTINED");
    let listed =
        super::super::list_quarantined(&bench.runs(), &format!("fraud-platform/{PLATFORM_RUN}"));
    assert_eq!(listed.unwrap()[0].run_id, RUN_ID);
    assert_eq!(bench.bus(), Vec::<Value>::new());
}

#[test]
fn an_optional_output_may_be_absent_and_is_proven_when_it_is_there() {
    let bench = Bench::new();
    let outputs = json!({"output_ids": ["traffic", "extra"]});
    assert_eq!(
        bench.submit(outputs.clone()).unwrap().verdict,
        RunVerdict::Ready
    );
    let facts = RunFactsView::from_value(bench.document("run_facts_view")).unwrap();
    assert!(facts.locator("extra").is_none());
    let bench = Bench::new();
    write(&bench.world(), "data/extra/part-0.parquet", b"extra");
    bench.submit(outputs).unwrap();
    let facts = RunFactsView::from_value(bench.document("run_facts_view")).unwrap();
    assert!(facts.locator("extra").is_some());
    let proven = facts.instance_receipts.unwrap();
    assert!(
        proven.iter().all(|receipt| receipt.output_id != "extra"),
        "fingerprint scope only"
    );
}

/// What is done to the bench, the request's changes, and the reason the run fails for.
type FailingCase = (&'static str, fn(&mut Bench), Value, &'static str);

#[test]
fn every_reason_a_run_can_fail_for_is_named_in_its_status() {
    let cases: Vec<FailingCase> = vec![
        (
            "no root",
            |_| {},
            json!({"engine_run_root": ""}),
            "ENGINE_ROOT_MISSING",
        ),
        (
            "absent root",
            |_| {},
            json!({"engine_run_root": "/no/such"}),
            "ENGINE_ROOT_MISSING",
        ),
        (
            "unknown output",
            |_| {},
            json!({"output_ids": ["x"]}),
            "UNKNOWN_OUTPUT_ID",
        ),
        (
            "odd request id",
            |_| {},
            json!({"request_id": ""}),
            "ENGINE_INVOCATION_INVALID",
        ),
        (
            "endless wait",
            |bench| bench.policy.evidence_wait_seconds = u64::MAX,
            json!({}),
            "PLAN_INVALID",
        ),
        (
            "no pins",
            |_| {},
            json!({"output_ids": ["unpinned"]}),
            "LOCATOR_SCHEMA_INVALID",
        ),
        (
            "no day",
            |_| {},
            json!({"output_ids": ["daily"]}),
            "INSTANCE_SCOPE_MISSING",
        ),
        (
            "failed seal",
            |bench| seal(bench, "SEALED_FAILED"),
            json!({}),
            "PACK_SEALED_FAILED",
        ),
        (
            "overlong gate id",
            |bench| bench.contract_files = contract_files(&"g".repeat(129)),
            json!({}),
            "RECEIPT_SCHEMA_INVALID",
        ),
        (
            "unreadable seal",
            |bench| write(&bench.world(), "_SEALED.json", b"{"),
            json!({}),
            "PACK_SEAL_INVALID",
        ),
        (
            "unreadable pack",
            |bench| write(&bench.world(), "_oracle_pack_manifest.json", b"{}"),
            json!({}),
            "ORACLE_PACK_INVALID",
        ),
        (
            "pack of another world",
            |bench| pack(bench, 43),
            json!({}),
            "ORACLE_PACK_MISMATCH",
        ),
    ];
    for (name, arrange, change, reason) in cases {
        let mut bench = Bench::new();
        arrange(&mut bench);
        let response = bench.submit(change).unwrap();
        assert_eq!(
            response.verdict,
            RunVerdict::Failed,
            "{name}: {}",
            response.message
        );
        assert_eq!(bench.reason(), reason, "{name}");
        assert!(
            response.message.contains(reason),
            "{name}: {}",
            response.message
        );
        assert_eq!(bench.bus(), Vec::<Value>::new(), "{name}");
    }
}

fn seal(bench: &Bench, status: &str) {
    let seal = json!({"version": "v0", "oracle_pack_id": "e".repeat(64), "seal_status": status,
                      "sealed_at_utc": "2026-01-01T00:00:00+00:00"});
    write(&bench.world(), "_SEALED.json", seal.to_string().as_bytes());
}

/// A pack manifest with an honest id, of the world with this seed.
fn pack(bench: &Bench, seed: u64) {
    use crate::object_store::LocalFiles;
    use crate::world_files::pack_files::{PackRequest, pack_world};
    use wellspring_domain::world::seal::SealStatus;
    let other = tempfile::tempdir().unwrap();
    write(
        other.path(),
        "run_receipt.json",
        receipt(&"d".repeat(32), seed).as_bytes(),
    );
    let request = PackRequest {
        scenario_id: "baseline_v1",
        engine_release: "local",
        seal_status: SealStatus::Ok,
        digests: &bench.contract_files.digests,
    };
    let pack = LocalFiles::new(bench.world());
    pack_world(&LocalFiles::new(other.path()), &pack, &request, Micros(0)).unwrap();
}

#[test]
fn a_packed_world_is_referred_to_by_its_pack() {
    let bench = Bench::new();
    pack(&bench, 42);
    bench.submit(json!({})).unwrap();
    let pack_ref = &bench.document("run_facts_view")["oracle_pack_ref"];
    assert_eq!(pack_ref["engine_release"], "local");
    assert_eq!(pack_ref["oracle_pack_id"].as_str().unwrap().len(), 64);
    assert_eq!(*pack_ref, bench.document("ready_signal")["oracle_pack_ref"]);
}

#[test]
fn strict_profiles_wait_for_a_seal_and_fail_by_its_name_at_the_deadline() {
    for profile in ["dev", "prod"] {
        let mut bench = Bench::new();
        bench.wiring.profile_id = profile.to_owned();
        assert_eq!(
            bench.submit(json!({})).unwrap().verdict,
            RunVerdict::Waiting,
            "{profile}"
        );
        assert_eq!(bench.reason(), "PACK_NOT_SEALED");
        pack(&bench, 42);
        assert_eq!(
            bench.submit(json!({})).unwrap().verdict,
            RunVerdict::Ready,
            "{profile}"
        );
    }
    let mut bench = Bench::new();
    bench.wiring.profile_id = "dev".to_owned();
    bench.submit(json!({})).unwrap();
    bench.clock.pass_seconds(600);
    assert_eq!(bench.submit(json!({})).unwrap().verdict, RunVerdict::Failed);
    assert_eq!(bench.reason(), "PACK_NOT_SEALED");
}

#[test]
fn an_output_whose_path_cannot_be_made_is_missing() {
    let bench = Bench::new();
    let response = bench.submit(json!({"output_ids": ["pathless"]})).unwrap();
    assert_eq!(response.verdict, RunVerdict::Waiting);
    assert!(
        response.message.contains("pathless"),
        "{}",
        response.message
    );
}
