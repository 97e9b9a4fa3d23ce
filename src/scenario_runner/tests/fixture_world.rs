//! The fixture world of another generator, with the shipped catalogue, gate map and policy.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use wellspring_domain::scenario::control::RunVerdict;
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::facts_view::RunFactsView;

use super::support::Bench;
use crate::world_files::contract_files::ContractFiles;

#[test]
fn the_fixture_world_is_proven_by_all_ten_gates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = |path: &str| std::fs::read(root.join("config/platform").join(path)).unwrap();
    let mut bench = Bench::new();
    bench.contract_files = Arc::new(
        ContractFiles::parse(
            &config("oracle/outputs_catalogue_v0.yaml"),
            &config("oracle/gate_map_v0.yaml"),
        )
        .unwrap(),
    );
    bench.policy = serde_yaml_ng::from_slice(&config("sr/policy_v0.yaml")).unwrap();
    let world = root.join("tests/fixtures/w40k");
    let request = json!({
        "manifest_fingerprint":
            "edd8a70db3e62f89e121c2adc4f8d9c1f7f9cdac34f4b597eb50f7a85139a613",
        "parameter_hash": "d2625c2b362213284e501309573a2e41b2a4132fa6660fa94290201f0d8cd732",
        "seed": 7, "engine_run_root": world.display().to_string()
    });
    let response = bench.submit(request).unwrap();
    assert_eq!(response.verdict, RunVerdict::Ready, "{}", response.message);
    let facts = RunFactsView::from_value(bench.document("run_facts_view")).unwrap();
    assert_eq!(facts.gate_receipts.len(), 10);
    for output in ["arrival_events_5B", "s3_event_stream_with_fraud_6B"] {
        assert!(
            facts
                .locator(output)
                .is_some_and(|l| l.content_digest.is_some()),
            "{output}"
        );
    }
    assert_eq!(facts.locators.len(), bench.policy.default_outputs().len());
}
