//! Every code of contract 6.4, each in its place.

use super::*;
use crate::stream::output_plan::{ListSource, OutputRole};
use crate::time_text::Micros;
use crate::world::pack::ContractDigests;
use crate::world::seal::{Seal, SealStatus};
use serde_json::{Value, json};

/// A world and a configuration; each test breaks something.
struct Inputs {
    receipt: Result<RunReceipt, RunReceiptError>,
    scenario: Option<String>,
    manifest: Result<Option<PackManifest>, String>,
    seal: Result<SealState, String>,
    unproven: Option<String>,
    allowlist: Result<String, String>,
}

fn receipt() -> RunReceipt {
    RunReceipt {
        run_id: "c".repeat(32),
        manifest_fingerprint: "a".repeat(64),
        parameter_hash: "b".repeat(64),
        seed: 42,
    }
}

fn manifest(scenario_id: &str) -> PackManifest {
    let digests = ContractDigests {
        catalogue: "d".repeat(64),
        gate_map: "e".repeat(64),
    };
    PackManifest::new(
        receipt().world_key(scenario_id),
        "local",
        &digests,
        Micros(0),
    )
}

fn sealed(status: SealStatus) -> SealState {
    SealState::Sealed(Seal::new(&"f".repeat(64), status, Micros(0)))
}

impl Inputs {
    fn good() -> Self {
        Inputs {
            receipt: Ok(receipt()),
            scenario: Some("s".to_owned()),
            manifest: Ok(Some(manifest("s"))),
            seal: Ok(sealed(SealStatus::Ok)),
            unproven: None,
            allowlist: Ok("# who may stream\n\nsvc:world_stream_producer\n".to_owned()),
        }
    }
}

impl SelectionInputs for Inputs {
    fn offered_role(&self, output_id: &str) -> Option<OutputRole> {
        (output_id == "traffic").then_some(OutputRole::BusinessTraffic)
    }
    fn list_file(&self, _reference: &str) -> Result<Value, String> {
        Err("no file".to_owned())
    }
}

impl PreflightInputs for Inputs {
    fn run_receipt(&self) -> Result<RunReceipt, RunReceiptError> {
        self.receipt.clone()
    }
    fn only_scenario(&self) -> Option<String> {
        self.scenario.clone()
    }
    fn pack_manifest(&self) -> Result<Option<PackManifest>, String> {
        self.manifest.clone()
    }
    fn seal(&self) -> Result<SealState, String> {
        self.seal.clone()
    }
    fn output(&self, output_id: &str) -> Option<OutputEntry> {
        let entry = json!({
            "output_id": output_id, "scope": "scope_seed", "path_template": "data/part-*",
            "primary_key": ["id"], "read_requires_gates": ["gate.layer3.6B.validation"],
        });
        serde_json::from_value(entry).ok()
    }
    fn unproven_gate(&self, gate_ids: &[String], _tokens: &WorldTokens) -> Option<String> {
        assert_eq!(gate_ids, ["gate.layer3.6B.validation"]);
        self.unproven.clone()
    }
    fn allowlist(&self, _reference: &str) -> Result<String, String> {
        self.allowlist.clone()
    }
}

fn request() -> PreflightRequest {
    PreflightRequest {
        engine_run_root: Some("/world".to_owned()),
        platform_run_id: Some("platform_20260101T000000Z".to_owned()),
        scenario_id: None,
        seal: SealStrictness::Strict,
        gates: GateProof::Required,
        selection: SelectionSources {
            traffic_env: ListSource::from_env(Some("traffic"), None),
            ..SelectionSources::default()
        },
        producer_id: Some("svc:world_stream_producer".to_owned()),
        allowlist_ref: Some("allowlist.txt".to_owned()),
        checkpoint: CheckpointChoice::File,
    }
}

fn code(request: &PreflightRequest, inputs: &Inputs) -> &'static str {
    preflight(request, inputs).map_or_else(|refusal| refusal.code, |_| "CLEARED")
}

#[test]
fn a_sealed_world_is_cleared_with_everything_its_envelopes_need() {
    let cleared = preflight(&request(), &Inputs::good()).unwrap();
    assert_eq!(cleared.pack_key, manifest("s").oracle_pack_id);
    assert_eq!(cleared.engine_release.as_deref(), Some("local"));
    assert_eq!(cleared.scenario_id, "s");
    assert_eq!(cleared.outputs[0].primary_key, ["id"]);
}

#[test]
fn an_unpacked_world_streams_under_lenient_rules_with_the_fallback_pack_key() {
    let lenient = PreflightRequest {
        seal: SealStrictness::Lenient,
        ..request()
    };
    let inputs = Inputs {
        manifest: Ok(None),
        seal: Ok(SealState::Absent),
        ..Inputs::good()
    };
    let cleared = preflight(&lenient, &inputs).unwrap();
    assert_eq!(cleared.pack_key, fallback_pack_key("/world"));
    assert_eq!(cleared.engine_release, None);
    assert_eq!(code(&request(), &inputs), "PACK_MANIFEST_MISSING");
}

#[test]
fn every_code_is_reachable_by_the_request() {
    let none = || None;
    type Change = fn(&mut PreflightRequest);
    let changes: [(Change, &str); 9] = [
        (|r| r.engine_run_root = None, "ENGINE_ROOT_MISSING"),
        (
            |r| r.platform_run_id = Some(String::new()),
            "PLATFORM_RUN_ID_MISSING",
        ),
        (
            |r| r.selection.traffic_env.output_ids.clear(),
            "NO_TRAFFIC_OUTPUTS",
        ),
        (
            |r| r.selection.context_env.output_ids = vec!["x".into()],
            "CONTEXT_OUTPUT_UNKNOWN",
        ),
        (|r| r.producer_id = Some(" ".into()), "PRODUCER_ID_MISSING"),
        (|r| r.allowlist_ref = None, "PRODUCER_ALLOWLIST_MISSING"),
        (
            |r| r.allowlist_ref = Some("s3://b/k".into()),
            "PRODUCER_ALLOWLIST_UNSUPPORTED",
        ),
        (
            |r| r.producer_id = Some("svc:invalid".into()),
            "PRODUCER_NOT_ALLOWED",
        ),
        (
            |r| r.checkpoint = CheckpointChoice::PostgresWithoutDsn,
            "CHECKPOINT_DSN_MISSING",
        ),
    ];
    for (change, expected) in changes {
        let mut request = request();
        change(&mut request);
        assert_eq!(code(&request, &Inputs::good()), expected);
    }
    let no_scenario = Inputs {
        scenario: none(),
        ..Inputs::good()
    };
    assert_eq!(code(&request(), &no_scenario), "SCENARIO_ID_MISSING");
}

#[test]
fn every_code_is_reachable_by_the_world() {
    let unreadable = RunReceiptError::Unreadable {
        reason: "gone".to_owned(),
    };
    let invalid = RunReceiptError::Invalid { field: "seed" };
    let good = Inputs::good;
    let table = [
        (
            Inputs {
                receipt: Err(unreadable),
                ..good()
            },
            "RUN_RECEIPT_UNREADABLE",
        ),
        (
            Inputs {
                receipt: Err(invalid),
                ..good()
            },
            "WORLD_KEY_MISSING",
        ),
        (
            Inputs {
                manifest: Err("cut".to_owned()),
                ..good()
            },
            "PACK_MANIFEST_INVALID",
        ),
        (
            Inputs {
                manifest: Ok(Some(manifest("other"))),
                ..good()
            },
            "WORLD_KEY_MISMATCH",
        ),
        (
            Inputs {
                seal: Ok(SealState::Absent),
                ..good()
            },
            "PACK_NOT_SEALED",
        ),
        (
            Inputs {
                seal: Ok(sealed(SealStatus::Failed)),
                ..good()
            },
            "PACK_SEALED_FAILED",
        ),
        (
            Inputs {
                unproven: Some("flag is missing".to_owned()),
                ..good()
            },
            "GATE_PASS_MISSING",
        ),
        (
            Inputs {
                allowlist: Err("gone".to_owned()),
                ..good()
            },
            "PRODUCER_ALLOWLIST_UNREADABLE",
        ),
        (
            Inputs {
                allowlist: Ok("# nobody\n".to_owned()),
                ..good()
            },
            "PRODUCER_ALLOWLIST_EMPTY",
        ),
    ];
    for (inputs, expected) in table {
        assert_eq!(code(&request(), &inputs), expected);
    }
}

#[test]
fn a_failed_seal_is_refused_under_lenient_rules_too() {
    let lenient = PreflightRequest {
        seal: SealStrictness::Lenient,
        ..request()
    };
    let failed = Inputs {
        seal: Ok(sealed(SealStatus::Failed)),
        ..Inputs::good()
    };
    assert_eq!(code(&lenient, &failed), "PACK_SEALED_FAILED");
}

#[test]
fn gates_are_not_looked_at_when_they_are_not_required() {
    let lenient = PreflightRequest {
        gates: GateProof::NotRequired,
        ..request()
    };
    let inputs = Inputs {
        unproven: Some("missing".to_owned()),
        ..Inputs::good()
    };
    assert_eq!(code(&lenient, &inputs), "CLEARED");
}

#[test]
fn earlier_checks_win_over_later_ones() {
    let mut everything_wrong = request();
    everything_wrong.producer_id = None;
    everything_wrong.checkpoint = CheckpointChoice::PostgresWithoutDsn;
    let mut inputs = Inputs {
        receipt: Err(RunReceiptError::Invalid { field: "seed" }),
        scenario: None,
        manifest: Err("bad".to_owned()),
        seal: Ok(SealState::Absent),
        unproven: Some("missing".to_owned()),
        allowlist: Ok(String::new()),
    };
    assert_eq!(code(&everything_wrong, &inputs), "SCENARIO_ID_MISSING");
    inputs.scenario = Some("s".to_owned());
    assert_eq!(code(&everything_wrong, &inputs), "WORLD_KEY_MISSING");
    inputs.receipt = Ok(receipt());
    assert_eq!(code(&everything_wrong, &inputs), "PACK_MANIFEST_INVALID");
    inputs.manifest = Ok(Some(manifest("s")));
    assert_eq!(code(&everything_wrong, &inputs), "PACK_NOT_SEALED");
    inputs.seal = Ok(sealed(SealStatus::Ok));
    assert_eq!(code(&everything_wrong, &inputs), "GATE_PASS_MISSING");
    inputs.unproven = None;
    assert_eq!(code(&everything_wrong, &inputs), "PRODUCER_ID_MISSING");
}
