//! Promises of a whole generated world, read back from its files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt64Type};

use super::*;
use crate::world_files::parquet_reader::PartReader;
use crate::world_files::part_location::PartLocation;

fn world(events: u64, parts: u32) -> (tempfile::TempDir, WorldSummary) {
    let dir = tempfile::tempdir().unwrap();
    let options = GenerateOptions::new(dir.path().join("world"), events, 7, parts);
    let summary = generate(&options, &|_| {}).unwrap();
    (dir, summary)
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

fn rows_of(summary: &WorldSummary, output: layout::Output) -> Vec<RecordBatch> {
    let pins = Pins {
        seed: summary.seed,
        manifest_fingerprint: summary.manifest_fingerprint.clone(),
        parameter_hash: summary.parameter_hash.clone(),
        scenario_id: summary.scenario_id.clone(),
    };
    let dir = summary.engine_run_root.join(output.dir(&pins));
    let mut parts: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    parts.sort();
    let read = |part: &PathBuf| {
        PartReader::open(&PartLocation::of_file(part), 1024, 0)
            .unwrap()
            .map(|b| b.unwrap().rows)
    };
    parts.iter().flat_map(read).collect()
}

fn ints(batches: &[RecordBatch], column: &str) -> Vec<i64> {
    let values = batches.iter().flat_map(|batch| {
        let column = batch
            .column_by_name(column)
            .unwrap()
            .as_primitive::<Int64Type>();
        column.values().to_vec()
    });
    values.collect()
}

fn texts(batches: &[RecordBatch], column: &str) -> Vec<Option<String>> {
    let values = batches.iter().flat_map(|batch| {
        let column = batch.column_by_name(column).unwrap().as_string::<i32>();
        column
            .iter()
            .map(|text| text.map(str::to_owned))
            .collect::<Vec<_>>()
    });
    values.collect()
}

fn bools(batches: &[RecordBatch], column: &str) -> Vec<bool> {
    let values = batches.iter().flat_map(|batch| {
        let column = batch.column_by_name(column).unwrap().as_boolean();
        column
            .iter()
            .map(|value| value.unwrap())
            .collect::<Vec<_>>()
    });
    values.collect()
}

#[test]
fn the_same_options_give_the_same_bytes_on_one_thread_and_on_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = GenerateOptions::new(dir.path().join("one"), 4_000, 9, 3);
    options.threads = 1;
    generate(&options, &|_| {}).unwrap();
    let (one, two) = (options.out.clone(), dir.path().join("two"));
    let options = GenerateOptions {
        out: two.clone(),
        threads: 2,
        ..options
    };
    generate(&options, &|_| {}).unwrap();
    assert!(files(&one) == files(&two), "two runs differ");
}

#[test]
fn the_rows_do_not_depend_on_the_number_of_parts() {
    let (_one_dir, one) = world(4_000, 1);
    let (_many_dir, many) = world(4_000, 5);
    for output in [layout::Output::EventsWithFraud, layout::Output::Sessions] {
        let column = if output == layout::Output::Sessions {
            "session_id"
        } else {
            "flow_id"
        };
        assert_eq!(
            ints(&rows_of(&one, output), column),
            ints(&rows_of(&many, output), column)
        );
    }
}

#[test]
fn every_output_has_the_rows_the_summary_says() {
    let (_dir, summary) = world(4_000, 3);
    for (output, counted) in layout::OUTPUTS.iter().zip(&summary.outputs) {
        let rows: usize = rows_of(&summary, *output)
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert_eq!(
            (output.id(), rows as u64),
            (counted.output_id, counted.rows)
        );
    }
    assert_eq!(
        summary.outputs[layout::Output::EventsWithFraud as usize].rows,
        4_000
    );
    assert_eq!(
        summary.outputs[layout::Output::Arrivals as usize].rows,
        2_000
    );
}

#[test]
fn events_anchors_and_labels_join_on_the_flow() {
    let (_dir, summary) = world(4_000, 2);
    let anchors = rows_of(&summary, layout::Output::AnchorsWithFraud);
    let events = rows_of(&summary, layout::Output::EventsWithFraud);
    let truth = rows_of(&summary, layout::Output::TruthLabels);
    let flows: BTreeSet<i64> = ints(&anchors, "flow_id").into_iter().collect();
    assert_eq!(flows.len(), 2_000);
    let event_flows: BTreeSet<i64> = ints(&events, "flow_id").into_iter().collect();
    assert_eq!(flows, event_flows);
    let flagged = bools(&anchors, "fraud_flag");
    let campaigns = texts(&anchors, "campaign_id");
    assert!(
        flagged
            .iter()
            .zip(&campaigns)
            .all(|(flag, campaign)| *flag == campaign.is_some())
    );
    assert_eq!(flagged, bools(&truth, "is_fraud_truth"));
    assert!(flagged.iter().any(|flag| *flag));
}

#[test]
fn parts_are_not_sorted_by_time_and_merchants_use_the_whole_range() {
    let (_dir, summary) = world(4_000, 2);
    let arrivals = rows_of(&summary, layout::Output::Arrivals);
    let times = texts(&arrivals, "ts_utc");
    assert!(!times.is_sorted());
    let merchants: Vec<u64> = arrivals
        .iter()
        .flat_map(|b| {
            let ids = b
                .column_by_name("merchant_id")
                .unwrap()
                .as_primitive::<UInt64Type>();
            ids.values().to_vec()
        })
        .collect();
    assert!(merchants.iter().any(|id| *id > i64::MAX as u64));
}

#[test]
fn a_filled_folder_and_bad_options_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kept"), b"x").unwrap();
    let refused = generate(&GenerateOptions::new(dir.path(), 100, 1, 1), &|_| {});
    assert_eq!(refused.unwrap_err().code(), "WORLD_DIR_NOT_EMPTY");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let out = dir.path().join("new");
    let bad = [
        GenerateOptions::new(&out, 101, 1, 1),
        GenerateOptions::new(&out, 0, 1, 1),
        GenerateOptions::new(&out, 100, u64::MAX, 1),
        GenerateOptions::new(&out, 100, 1, 0),
        GenerateOptions {
            days: 0,
            ..GenerateOptions::new(&out, 100, 1, 1)
        },
        GenerateOptions {
            scenario_id: "a/b".into(),
            ..GenerateOptions::new(&out, 100, 1, 1)
        },
        GenerateOptions {
            start_date: "2026-13-01".into(),
            ..GenerateOptions::new(&out, 100, 1, 1)
        },
    ];
    for options in bad {
        assert_eq!(
            generate(&options, &|_| {}).unwrap_err().code(),
            "WORLD_OPTION_INVALID"
        );
    }
    assert!(!out.exists());
}

#[test]
fn a_world_with_more_parts_than_flows_is_complete() {
    let (_dir, summary) = world(2, 3);
    let events = rows_of(&summary, layout::Output::EventsWithFraud);
    assert_eq!(ints(&events, "event_seq"), [0, 1]);
}

#[test]
fn all_ten_gates_pass_and_a_touched_bundle_does_not() {
    use crate::object_store::local_files::LocalFiles;
    use crate::world_files::contract_files::ContractFiles;
    use crate::world_files::gate_verification::verify_gates;
    use wellspring_domain::world::catalogue::WorldTokens;

    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/platform/oracle");
    let catalogue = fs::read(config.join("outputs_catalogue_v0.yaml")).unwrap();
    let gate_map = fs::read(config.join("gate_map_v0.yaml")).unwrap();
    let contract = ContractFiles::parse(&catalogue, &gate_map).unwrap();
    let (_dir, summary) = world(200, 1);
    let root = summary.engine_run_root.to_str().unwrap();
    let tokens = WorldTokens {
        manifest_fingerprint: Some(summary.manifest_fingerprint.clone()),
        ..WorldTokens::default()
    };
    let gates: Vec<_> = contract.gate_map.gates().iter().collect();
    let store = LocalFiles::new(root);
    let passed = || {
        let outcomes = verify_gates(&store, root, &gates, &tokens);
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap().is_pass())
            .collect::<Vec<_>>()
    };
    assert_eq!(passed(), [true; 10]);
    for gate in &gates {
        let bundle = summary
            .engine_run_root
            .join(gate.paths(&tokens).unwrap().bundle_root);
        fs::write(bundle.join("validation_report.json"), b"{}").unwrap();
    }
    let still_passing = passed().into_iter().filter(|passed| *passed).count();
    // One gate hashes the digests its index lists, so it cannot see a touched member.
    assert_eq!(still_passing, 1);
}

#[test]
fn the_parts_lie_where_the_shipped_catalogue_looks_for_them() {
    use crate::world_files::contract_files::ContractFiles;
    use crate::world_files::stream_sort::{SortRequest, source_columns};
    use wellspring_domain::world::world_key::RunReceipt;

    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/platform/oracle");
    let catalogue = fs::read(config.join("outputs_catalogue_v0.yaml")).unwrap();
    let gate_map = fs::read(config.join("gate_map_v0.yaml")).unwrap();
    let catalogue = ContractFiles::parse(&catalogue, &gate_map)
        .unwrap()
        .catalogue;
    let (_dir, summary) = world(200, 2);
    let root = summary.engine_run_root.to_str().unwrap();
    let receipt = fs::read(summary.engine_run_root.join("run_receipt.json")).unwrap();
    let receipt = RunReceipt::parse(&receipt).unwrap();
    for output in &summary.outputs {
        let entry = catalogue.output(output.output_id).unwrap();
        let request = SortRequest::for_output(root, &receipt, "baseline_v1", entry).unwrap();
        let columns = source_columns(&request).unwrap();
        for key in &entry.primary_key {
            assert!(columns.contains(key), "{} has no {key}", output.output_id);
        }
    }
}
