//! READY messages over real files: every end of contract 6.2 and what it leaves behind.

use super::claims::Claim;
use super::ready_claims::ReadyClaims;
use super::*;
use crate::clock::SystemClock;
use crate::control_bus::FileControlBus;
use crate::object_store::LocalFiles;
use crate::settings::layers::Layers;
use crate::settings::{ProfileSource, Settings};
use crate::world_files::test_world::{SCENARIO, TestWorld};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use wellspring_actors::world_stream::ready_desk::{PreparedRun, ReadyDesk, ReadyOutcome, TakeUp};
use wellspring_actors::world_stream::result::StreamResult;
use wellspring_domain::canonical_json::to_sj;
use wellspring_domain::ports::{ControlBus, ObjectStore, StoreError};
use wellspring_domain::scenario::ready::CONTROL_TOPIC;
use wellspring_domain::stream::ready_decision::ReadyStatus;
use wellspring_domain::world::seal::SealStatus;

const RUN: &str = "platform_20260101T000000Z";
const OTHER_RUN: &str = "platform_20260102T000000Z";

/// A runs root with one READY on its control bus.
struct Site {
    folder: tempfile::TempDir,
    world: TestWorld,
    facts: Value,
    ready: Value,
    environment: Vec<(String, String)>,
    profile: &'static str,
}

impl Site {
    fn new() -> Self {
        let world = TestWorld::copy();
        world.pack(SealStatus::Ok);
        let receipt = world.receipt();
        let run_id = "1".repeat(32);
        let pack = json!({"engine_run_root": world.name(), "scenario_id": SCENARIO});
        let pins = json!({
            "manifest_fingerprint": receipt.manifest_fingerprint,
            "parameter_hash": receipt.parameter_hash, "seed": receipt.seed,
            "scenario_id": SCENARIO, "run_id": run_id,
            "platform_run_id": RUN, "scenario_run_id": run_id,
        });
        let facts = json!({
            "run_id": run_id, "platform_run_id": RUN, "scenario_run_id": run_id, "pins": pins,
            "locators": [], "gate_receipts": [], "bundle_hash": "a".repeat(64),
            "policy_rev": {"policy_id": "sr_policy", "revision": "v0"},
            "plan_ref": "p", "record_ref": "r", "status_ref": "s", "oracle_pack_ref": pack,
        });
        let ready = json!({
            "run_id": run_id, "platform_run_id": RUN, "scenario_run_id": run_id,
            "facts_view_ref": format!("fraud-platform/{RUN}/sr/run_facts_view/{run_id}.json"),
            "bundle_hash": "a".repeat(64), "message_id": "b".repeat(64),
            "run_config_digest": "c".repeat(64), "scenario_id": SCENARIO,
            "manifest_fingerprint": receipt.manifest_fingerprint,
            "parameter_hash": receipt.parameter_hash,
        });
        let site = Site {
            folder: tempfile::tempdir().unwrap(),
            world,
            facts,
            ready,
            environment: Vec::new(),
            profile: "local",
        };
        site.activate(RUN);
        site
    }

    fn runs(&self) -> PathBuf {
        self.folder.path().join("runs")
    }

    fn activate(&self, run: &str) {
        let file = self.runs().join("fraud-platform/ACTIVE_RUN_ID");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{run}\n")).unwrap();
    }

    fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn settings(&self) -> Settings {
        let mut layers = Layers::of(self.environment.clone());
        layers.set_flag("wiring.object_store.root", self.runs().to_str().unwrap());
        Settings::load(&ProfileSource::find(self.profile).unwrap(), &layers).unwrap()
    }

    fn desk(&self) -> FileReadyDesk {
        let store = Arc::new(LocalFiles::new(self.runs()));
        let clock = Arc::new(SystemClock::new());
        let streamer = WorldStreamer::new(Arc::new(self.settings()), store, clock).unwrap();
        FileReadyDesk::new(
            Arc::new(streamer),
            StreamOptions::default(),
            ReadyClaims::Files,
        )
    }

    /// Writes the facts, publishes READY and takes it up once.
    fn take_up(&self) -> Result<TakeUp, StoreError> {
        if !self.facts.is_null() {
            let key = self.ready["facts_view_ref"].as_str().unwrap();
            let text = self.facts.to_string();
            LocalFiles::new(self.runs())
                .put(key, text.as_bytes())
                .unwrap();
        }
        let message_id = self.ready["message_id"].as_str().unwrap();
        let envelope = json!({
            "topic": CONTROL_TOPIC, "message_id": message_id, "published_at_utc": "t",
            "attributes": {"kind": "READY"}, "partition_key": "k", "payload": self.ready,
        });
        let bus = FileControlBus::new(self.runs().join("bus"));
        let bytes = to_sj(&envelope).unwrap();
        bus.publish(CONTROL_TOPIC, message_id, "k", bytes.as_bytes())
            .unwrap();
        let record = bus.poll(CONTROL_TOPIC, 10).unwrap().remove(0);
        self.desk().take_up(&record)
    }

    fn ended(&self) -> ReadyOutcome {
        match self.take_up().unwrap() {
            TakeUp::Ended(outcome) => *outcome,
            TakeUp::Stream(_) => panic!("it would be streamed"),
            TakeUp::NotReady { why } => panic!("it is no READY: {why}"),
        }
    }

    fn prepared(&self) -> PreparedRun {
        match self.take_up().unwrap() {
            TakeUp::Stream(prepared) => *prepared,
            TakeUp::Ended(outcome) => panic!("it ended: {outcome:?}"),
            TakeUp::NotReady { why } => panic!("it is no READY: {why}"),
        }
    }

    fn reason(&self) -> (ReadyStatus, String) {
        let outcome = self.ended();
        (outcome.status, outcome.reason.unwrap())
    }

    fn lines(&self, run: &str, file: &str) -> Vec<Value> {
        let path = self.runs().join("fraud-platform").join(run).join(file);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn records(&self, run: &str) -> Vec<Value> {
        self.lines(run, &format!("wsp/ready_runs/{}.jsonl", "b".repeat(64)))
    }

    fn families(&self, run: &str) -> Vec<String> {
        let facts = self.lines(run, "obs/governance/events.jsonl");
        facts
            .iter()
            .map(|fact| fact["event_family"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn streamed(emitted: u64) -> StreamResult {
    StreamResult {
        emitted,
        ..StreamResult::of_outputs("/world", SCENARIO, Vec::new())
    }
}

#[test]
fn a_good_ready_is_prepared_with_the_identities_of_ready_and_receipt() {
    let site = Site::new();
    let prepared = site.prepared();
    let ids: Vec<&str> = prepared
        .request
        .outputs
        .iter()
        .map(|output| output.output_id.as_str())
        .collect();
    let expected = [
        "arrival_events_5B",
        "s1_arrival_entities_6B",
        "s3_flow_anchor_with_fraud_6B",
        "s3_event_stream_with_fraud_6B",
    ];
    assert_eq!(ids, expected);
    let pins = &prepared.request.outputs[0].pins;
    assert_eq!(
        pins.scenario_run_id,
        "1".repeat(32),
        "the Scenario Runner's run (T15)"
    );
    assert_eq!(
        pins.run_id,
        site.world.receipt().run_id,
        "the engine's run (T15)"
    );
    assert_eq!(prepared.request.speedup, 600.0);
}

#[test]
fn a_streamed_ready_is_written_down_told_and_then_a_duplicate() {
    let site = Site::new();
    let outcome = (site.prepared().finish)(&streamed(7));
    assert_eq!(
        (outcome.status, outcome.emitted, outcome.attempt),
        (ReadyStatus::Streamed, 7, 1)
    );
    let records = site.records(RUN);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["status"], "STREAMED");
    assert_eq!(records[0]["reason"], Value::Null);
    assert_eq!(
        site.families(RUN),
        ["RUN_READY_SEEN", "RUN_STARTED", "RUN_ENDED"]
    );
    let session = site.lines(RUN, "session.jsonl");
    let kinds: Vec<&str> = session
        .iter()
        .map(|event| event["event_kind"].as_str().unwrap())
        .collect();
    let expected = [
        "ready_received",
        "engine_world_selected",
        "stream_start",
        "engine_world_streamed",
        "stream_complete",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(site.ended().status, ReadyStatus::SkippedDuplicate);
    assert_eq!(site.records(RUN).len(), 1);
}

#[test]
fn a_success_after_a_failure_is_a_fact_of_its_own() {
    let site = Site::new();
    let failed = StreamResult::refused(None, None, "IG_PUSH_REJECTED", "no".to_owned());
    (site.prepared().finish)(&failed);
    let outcome = (site.prepared().finish)(&streamed(1));
    assert_eq!(outcome.attempt, 2);
    let families = site.families(RUN);
    assert_eq!(
        families
            .iter()
            .filter(|family| *family == "RUN_ENDED")
            .count(),
        2
    );
    assert_eq!(
        families
            .iter()
            .filter(|family| *family == "RUN_STARTED")
            .count(),
        1
    );
}

#[test]
fn a_ready_of_another_run_is_skipped_once_in_the_active_run_and_never_streamed() {
    let site = Site::new();
    site.activate(OTHER_RUN);
    let skipped = (
        ReadyStatus::SkippedOutOfScope,
        "PLATFORM_RUN_SCOPE_MISMATCH".to_owned(),
    );
    assert_eq!(site.reason(), skipped);
    assert_eq!(site.records(OTHER_RUN)[0]["status"], "SKIPPED_OUT_OF_SCOPE");
    assert_eq!(site.families(OTHER_RUN), ["RUN_CANCELLED"]);
    assert_eq!(site.ended().status, ReadyStatus::SkippedDuplicate);
    assert!(site.records(RUN).is_empty());
}

#[test]
fn every_other_end_before_the_stream_is_reachable_and_written_down() {
    type Damage = fn(&mut Site);
    let table: [(Damage, &str); 6] = [
        (|site| site.facts = Value::Null, "RUN_FACTS_INVALID"),
        (
            |site| site.facts["surprise"] = json!(1),
            "RUN_FACTS_INVALID",
        ),
        (
            |site| site.facts["platform_run_id"] = json!(OTHER_RUN),
            "PLATFORM_RUN_ID_MISMATCH",
        ),
        (
            |site| site.facts["scenario_run_id"] = json!("2".repeat(32)),
            "SCENARIO_RUN_ID_MISMATCH",
        ),
        (
            |site| site.facts["evidence_notes"] = json!(["traffic_delivery_mode=PULL"]),
            "TRAFFIC_DELIVERY_MODE_UNSUPPORTED",
        ),
        (
            |site| {
                site.facts
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("oracle_pack_ref");
            },
            "ENGINE_ROOT_MISSING",
        ),
    ];
    for (damage, reason) in table {
        let mut site = Site::new();
        damage(&mut site);
        assert_eq!(site.reason(), (ReadyStatus::Failed, reason.to_owned()));
        assert_eq!(site.records(RUN)[0]["reason"], reason);
    }
}

#[test]
fn what_the_preflight_refuses_fails_the_ready_with_its_code() {
    type Damage = fn(&mut Site);
    let table: [(Damage, &str); 4] = [
        (
            |site| fs::remove_file(site.world.root.join("run_receipt.json")).unwrap(),
            "RUN_RECEIPT_UNREADABLE",
        ),
        (
            |site| {
                let seal = site.world.root.join("_SEALED.json");
                let text = fs::read_to_string(&seal).unwrap();
                fs::write(seal, text.replace("SEALED_OK", "SEALED_FAILED")).unwrap();
            },
            "PACK_SEALED_FAILED",
        ),
        (
            |site| site.facts["pins"]["scenario_id"] = json!("another"),
            "WORLD_KEY_MISMATCH",
        ),
        (
            |site| {
                let world = site.world.receipt().manifest_fingerprint;
                let bundle = format!("data/layer3/6B/validation/manifest_fingerprint={world}");
                let flag = format!("{bundle}/_passed.flag");
                let lie = format!("sha256_hex = {}\n", "0".repeat(64));
                site.world.write(&flag, lie.as_bytes());
            },
            "GATE_PASS_MISSING",
        ),
    ];
    for (damage, reason) in table {
        let mut site = Site::new();
        damage(&mut site);
        assert_eq!(site.reason(), (ReadyStatus::Failed, reason.to_owned()));
        let last = site.families(RUN).pop();
        assert_eq!(last.as_deref(), Some("RUN_ENDED"));
    }
}

#[test]
fn lanes_and_unknown_outputs_are_refused() {
    let lanes = Site::new().with_environment("WSP_LANE_COUNT", "2");
    assert_eq!(lanes.reason().1, "WSP_LANE_CONFIG_INVALID");
    let unknown = Site::new().with_environment("WSP_CONTEXT_OUTPUT_IDS", "nobody_knows");
    assert_eq!(unknown.reason().1, "CONTEXT_OUTPUT_UNKNOWN");
    let truth = Site::new().with_environment("WSP_TRAFFIC_OUTPUT_IDS", "s4_event_labels_6B");
    assert_eq!(truth.reason().1, "NO_TRAFFIC_OUTPUTS");
}

#[test]
fn a_ready_waits_for_its_packs_without_a_record_and_streams_when_they_live() {
    let mut site = Site::new();
    let pack = site.folder.path().join("rtdl.yaml");
    fs::write(&pack, "version: 1\npack_id: rtdl\nprocesses: [{id: ieg}]\n").unwrap();
    site = site.with_environment("WSP_READY_REQUIRED_PACKS", pack.to_str().unwrap());
    let deferred = (
        ReadyStatus::DeferredDownstreamNotReady,
        "PACK_STATE_MISSING:rtdl".to_owned(),
    );
    assert_eq!(site.reason(), deferred);
    assert!(site.records(RUN).is_empty());

    let pid = u64::from(std::process::id());
    let created = processes::created_at(pid).unwrap();
    let state = json!({
        "pack_id": "rtdl", "active_platform_run_id": RUN,
        "processes": {"ieg": {"pid": pid, "pid_create_time": created}},
    });
    let file = site.runs().join("fraud-platform/operate/rtdl/state.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, state.to_string()).unwrap();
    site.prepared();
}

#[test]
fn a_ready_another_living_process_streams_is_left_to_it() {
    let site = Site::new();
    let parent = u64::from(std::os::unix::process::parent_id());
    let claim = Claim {
        pid: parent,
        pid_create_time: processes::created_at(parent).unwrap(),
        claimed_at_utc: "t".to_owned(),
    };
    let key = format!(
        "fraud-platform/{RUN}/wsp/ready_runs/{}.claim-1.json",
        "b".repeat(64)
    );
    let text = serde_json::to_string(&claim).unwrap();
    LocalFiles::new(site.runs())
        .put(&key, text.as_bytes())
        .unwrap();
    let held = (
        ReadyStatus::DeferredClaimedElsewhere,
        "READY_CLAIMED".to_owned(),
    );
    assert_eq!(site.reason(), held);
    assert!(site.records(RUN).is_empty());
}

#[test]
fn a_stopped_stream_leaves_no_record_and_a_cancelled_one_is_not_tried_again() {
    use wellspring_actors::world_stream::result::StreamStatus;
    let site = Site::new();
    let stopped = StreamResult {
        status: StreamStatus::Stopped,
        ..streamed(3)
    };
    let outcome = (site.prepared().finish)(&stopped.clone());
    assert_eq!(outcome.status, ReadyStatus::Interrupted);
    assert!(site.records(RUN).is_empty());

    let outcome = (site.prepared().finish)(&stopped.cancelled());
    assert_eq!(outcome.status, ReadyStatus::Cancelled);
    assert_eq!(site.records(RUN)[0]["status"], "FAILED");
    assert_eq!(site.records(RUN)[0]["reason"], "RUN_CANCELLED");
    assert_eq!(site.ended().status, ReadyStatus::SkippedDuplicate);
}

#[test]
fn a_message_that_is_no_ready_is_passed_over() {
    let mut site = Site::new();
    site.ready["status_state"] = json!("FAILED");
    assert!(matches!(site.take_up().unwrap(), TakeUp::NotReady { .. }));
}
