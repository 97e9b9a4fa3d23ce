//! The fixture world of another program, and a generated one, through memory and through spill.

use std::fs;
use std::path::Path;

use arrow::array::AsArray;
use serde_json::Value;
use wellspring_domain::world::world_key::WorldKey;

use super::SortRequest;
use super::tests::{parts_of, request, sort, view_rows};
use crate::world_files::generator::{GenerateOptions, generate};
use arrow::datatypes::Float64Type;

fn fixture() -> (tempfile::TempDir, WorldKey) {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/w40k");
    copy(&from, dir.path());
    let receipt: Value =
        serde_json::from_slice(&fs::read(from.join("run_receipt.json")).unwrap()).unwrap();
    let text = |member: &str| receipt[member].as_str().unwrap().to_owned();
    let key = WorldKey {
        manifest_fingerprint: text("manifest_fingerprint"),
        parameter_hash: text("parameter_hash"),
        scenario_id: "baseline_v1".into(),
        seed: receipt["seed"].as_u64().unwrap(),
    };
    (dir, key)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn of_6b(root: &Path, key: &WorldKey, output_id: &str) -> SortRequest {
    let pattern = format!(
        "data/layer3/6B/{output_id}/seed={}/parameter_hash={}/manifest_fingerprint={}/scenario_id={}/part-*.parquet",
        key.seed, key.parameter_hash, key.manifest_fingerprint, key.scenario_id
    );
    SortRequest {
        source_pattern: pattern,
        world_key: key.clone(),
        ..request(root, output_id)
    }
}

fn bytes_of_parts(request: &SortRequest) -> Vec<Vec<u8>> {
    let mut parts = parts_of(request);
    parts.sort();
    parts.iter().map(|part| fs::read(part).unwrap()).collect()
}

#[test]
fn the_event_stream_of_another_program_is_sorted_and_complete() {
    let (dir, key) = fixture();
    let request = of_6b(dir.path(), &key, "s3_event_stream_with_fraud_6B");
    let outcome = sort(&request).unwrap();
    let stats = &outcome.receipt["sorted_stats"];
    assert_eq!(stats["row_count"], 40_000);
    assert_eq!(stats["min_ts_utc"], "2026-01-01T00:01:46.388760");
    assert_eq!(stats["max_ts_utc"], "2026-01-07T23:59:57.736715");
    let rows = view_rows(&request);
    let times: Vec<String> = rows
        .iter()
        .flat_map(|batch| {
            let times = batch.column_by_name("ts_utc").unwrap().as_string::<i32>();
            times
                .iter()
                .map(|time| time.unwrap().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(times.is_sorted());
    let amounts = rows.iter().flat_map(|batch| {
        batch
            .column_by_name("amount")
            .unwrap()
            .as_primitive::<Float64Type>()
            .values()
            .to_vec()
    });
    // The world's manifest sums the amounts of its flows; a flow has two events.
    assert_eq!(
        format!("{:.6}", amounts.sum::<f64>() / 2.0),
        "869740.330487"
    );
    assert_eq!(rows[0].schema().fields().len(), 11, "original columns only");
}

#[test]
fn every_output_of_the_fixture_can_be_sorted() {
    let (dir, key) = fixture();
    for (output_id, rows) in [
        ("s1_arrival_entities_6B", 20_000),
        ("s1_session_index_6B", 17_144),
        ("s2_flow_anchor_baseline_6B", 20_000),
        ("s4_event_labels_6B", 40_000),
        ("s4_flow_truth_labels_6B", 20_000),
        ("s4_case_timeline_6B", 727),
    ] {
        let outcome = sort(&of_6b(dir.path(), &key, output_id)).unwrap();
        assert_eq!(
            outcome.receipt["sorted_stats"]["row_count"], rows,
            "{output_id}"
        );
    }
}

#[test]
fn a_sort_through_spill_files_writes_the_same_bytes_as_one_in_memory() {
    let (dir, key) = fixture();
    for output_id in ["s3_event_stream_with_fraud_6B", "s4_event_labels_6B"] {
        let in_memory = of_6b(dir.path(), &key, output_id);
        let spilled = SortRequest {
            memory_limit: 1 << 18,
            stream_view_base: Some(dir.path().join("spilled").to_str().unwrap().to_owned()),
            ..in_memory.clone()
        };
        let stats = |request| sort(request).unwrap().receipt["sorted_stats"].clone();
        assert_eq!(stats(&in_memory), stats(&spilled));
        assert!(
            bytes_of_parts(&in_memory) == bytes_of_parts(&spilled),
            "{output_id}"
        );
    }
}

#[test]
fn the_number_of_threads_does_not_change_the_view() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("world");
    let world = generate(&GenerateOptions::new(&root, 20_000, 3, 5), &|_| {}).unwrap();
    let key = WorldKey {
        manifest_fingerprint: world.manifest_fingerprint,
        parameter_hash: world.parameter_hash,
        scenario_id: world.scenario_id,
        seed: world.seed,
    };
    let view = |threads, memory_limit, base: &str| {
        let base = dir.path().join(base).to_str().unwrap().to_owned();
        let request = SortRequest {
            threads,
            memory_limit,
            stream_view_base: Some(base),
            ..of_6b(&root, &key, "s2_event_stream_baseline_6B")
        };
        sort(&request).unwrap();
        bytes_of_parts(&request)
    };
    let one = view(1, 1 << 30, "one");
    assert!(one == view(3, 1 << 30, "three"));
    assert!(one == view(3, 1 << 17, "three_spilled"));
}
