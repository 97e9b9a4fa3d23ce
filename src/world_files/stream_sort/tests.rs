//! Promises of one sort: order, equality, idempotency, and every refusal by its code.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use wellspring_domain::ports::Clock;
use wellspring_domain::time_text::Micros;
use wellspring_domain::world::stream_view::{MANIFEST_FILE, RECEIPT_FILE, SortKeyOverrides};
use wellspring_domain::world::world_key::WorldKey;

use super::*;
use crate::world_files::parquet_reader::PartReader;
use crate::world_files::parquet_reader::row_count;

pub(super) struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Micros {
        Micros(1_767_225_600_000_000)
    }

    fn monotonic_micros(&self) -> u64 {
        0
    }
}

fn world_key() -> WorldKey {
    WorldKey {
        manifest_fingerprint: "a".repeat(64),
        parameter_hash: "b".repeat(64),
        scenario_id: "baseline_v1".into(),
        seed: 7,
    }
}

pub(super) fn request(root: &Path, output_id: &str) -> SortRequest {
    let root = root.to_str().unwrap();
    let mut request = SortRequest::new(
        root,
        "c".repeat(32),
        world_key(),
        output_id,
        "data/x/part-*.parquet",
    );
    request.stats_retry_delay = Duration::ZERO;
    request
}

pub(super) fn sort(request: &SortRequest) -> Result<SortOutcome, SortError> {
    sort_output(request, &FixedClock, &|_| {})
}

/// A part with times and a running number that tells rows apart.
fn write_part(root: &Path, name: &str, columns: &[(&str, ArrayRef)]) {
    let path = root.join("data/x").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let columns = columns
        .iter()
        .map(|(name, column)| (*name, column.clone(), true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn numbers(values: std::ops::Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn timed_part(root: &Path, name: &str, times: &[&str], first: i64) {
    let count = times.len() as i64;
    write_part(
        root,
        name,
        &[
            ("ts_utc", texts(times)),
            ("n", numbers(first..first + count)),
        ],
    );
}

pub(super) fn view_rows(request: &SortRequest) -> Vec<RecordBatch> {
    let mut parts = parts_of(request);
    parts.sort();
    let read = |part: &PathBuf| {
        PartReader::open(&PartLocation::of_file(part), 4_096, 0)
            .unwrap()
            .map(|b| b.unwrap().rows)
    };
    parts.iter().flat_map(read).collect()
}

pub(super) fn parts_of(request: &SortRequest) -> Vec<PathBuf> {
    let entries = fs::read_dir(request.view_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect()
}

fn ints(batches: &[RecordBatch], column: &str) -> Vec<i64> {
    let values = batches.iter().flat_map(|batch| {
        batch
            .column_by_name(column)
            .unwrap()
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    });
    values.collect()
}

fn code(result: Result<SortOutcome, SortError>) -> String {
    result.unwrap_err().coded()
}

const EARLY: &str = "2026-01-01T00:00:01.000000Z";
const LATE: &str = "2026-01-03T12:00:00.500000Z";

#[test]
fn equal_times_keep_the_order_of_part_path_and_row() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-2.parquet", &[LATE, EARLY, EARLY], 200);
    timed_part(dir.path(), "part-10.parquet", &[EARLY, LATE, EARLY], 100);
    let request = request(dir.path(), "events");
    let outcome = sort(&request).unwrap();
    // `part-10` sorts before `part-2`: paths are compared byte by byte.
    assert_eq!(
        ints(&view_rows(&request), "n"),
        [100, 102, 201, 202, 101, 200]
    );
    assert!(outcome.built);
    assert_eq!(
        outcome.receipt["raw_stats"],
        outcome.receipt["sorted_stats"]
    );
    assert_eq!(outcome.receipt["raw_stats"]["row_count"], 6);
    assert_eq!(
        outcome.receipt["raw_stats"]["min_ts_utc"],
        "2026-01-01T00:00:01"
    );
    assert_eq!(
        outcome.receipt["raw_stats"]["max_ts_utc"],
        "2026-01-03T12:00:00.500000"
    );
}

#[test]
fn mixed_forms_of_time_are_ordered_as_instants_and_kept_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let times = [
        "2026-01-01T02:00:00+00:00",
        "2026-01-01T02:30:00+02:00",
        "2026-01-01 01:00:00.5",
    ];
    timed_part(dir.path(), "part-0.parquet", &times, 0);
    let request = request(dir.path(), "events");
    sort(&request).unwrap();
    let rows = view_rows(&request);
    assert_eq!(ints(&rows, "n"), [1, 2, 0]);
    assert_eq!(
        rows[0]
            .column_by_name("ts_utc")
            .unwrap()
            .as_string::<i32>()
            .value(0),
        times[1]
    );
}

#[test]
fn manifest_and_receipt_have_the_members_of_the_contract_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[EARLY], 0);
    let request = request(dir.path(), "events");
    sort(&request).unwrap();
    let read = |name| {
        let bytes = fs::read(Path::new(&request.view_dir()).join(name)).unwrap();
        assert_eq!(bytes.last(), Some(&b'\n'));
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let members = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let manifest = read(MANIFEST_FILE);
    assert_eq!(
        members(&manifest),
        [
            "created_utc",
            "engine_run_id",
            "engine_run_root",
            "output_id",
            "output_ids",
            "partition_granularity",
            "scenario_id",
            "sort_keys",
            "stream_view_id",
            "stream_view_root",
            "world_key",
        ]
    );
    assert_eq!(
        manifest["sort_keys"],
        json!(["ts_utc", "filename", "file_row_number"])
    );
    assert_eq!(manifest["world_key"]["seed"], 7);
    assert_eq!(manifest["created_utc"], "2026-01-01T00:00:00+00:00");
    let receipt = read(RECEIPT_FILE);
    assert_eq!(
        members(&receipt),
        [
            "created_utc",
            "engine_run_root",
            "output_id",
            "output_ids",
            "partition_granularity",
            "raw_stats",
            "sort_keys",
            "sorted_stats",
            "source_locator_digest",
            "status",
            "stream_view_id",
            "stream_view_root",
        ]
    );
    let expected =
        stream_view::expected_stream_view_id(&request.engine_run_root, "baseline_v1", "events");
    assert_eq!(receipt["stream_view_id"], expected);
    let names: Vec<String> = fs::read_dir(dir.path().join("stream_view/ts_utc"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        names,
        ["output_id=events"],
        "nothing of the staging folder is left"
    );
}

#[test]
fn a_second_sort_writes_nothing_and_gives_the_same_receipt() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[LATE, EARLY], 0);
    let request = request(dir.path(), "events");
    let first = sort(&request).unwrap();
    let second = sort(&request).unwrap();
    assert!(!second.built);
    assert_eq!(first.receipt, second.receipt);
}

#[test]
fn a_sort_refuses_what_it_did_not_build() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[LATE, EARLY], 0);
    let request = request(dir.path(), "events");
    sort(&request).unwrap();
    timed_part(dir.path(), "part-1.parquet", &[EARLY], 9);
    assert_eq!(code(sort(&request)), "STREAM_RECEIPT_MISMATCH");
    let view = PathBuf::from(request.view_dir());
    fs::remove_file(view.join(RECEIPT_FILE)).unwrap();
    assert_eq!(code(sort(&request)), "STREAM_RECEIPT_MISSING");
    fs::remove_file(view.join(MANIFEST_FILE)).unwrap();
    assert_eq!(code(sort(&request)), "STREAM_VIEW_PARTIAL_EXISTS");
    fs::remove_dir_all(&view).unwrap();
    assert!(sort(&request).unwrap().built);
}

#[test]
fn a_foreign_file_in_the_target_is_a_collision_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[EARLY], 0);
    let request = request(dir.path(), "events");
    fs::create_dir_all(request.view_dir()).unwrap();
    let note = Path::new(&request.view_dir()).join("note.txt");
    fs::write(&note, b"x").unwrap();
    assert_eq!(code(sort(&request)), "STREAM_VIEW_PART_RENAME_COLLISION");
    assert!(note.exists());
    assert!(parts_of(&request).is_empty());
}

#[test]
fn a_sort_in_progress_keeps_a_second_one_out() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[EARLY], 0);
    let request = request(dir.path(), "events");
    let staging = view_target::staging_path(Path::new(&request.view_dir()));
    let claim = crate::world_files::staging::StagingDir::claim(&staging).unwrap();
    assert_eq!(code(sort(&request)), "STREAM_SORT_BUSY");
    drop(claim);
    assert!(sort(&request).unwrap().built);
}

#[test]
fn missing_sources_columns_and_values_have_their_own_codes() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), "events");
    assert_eq!(code(sort(&request)), "OUTPUT_PATHS_EMPTY:events");
    write_part(dir.path(), "part-0.parquet", &[("n", numbers(0..2))]);
    assert_eq!(code(sort(&request)), "MISSING_TS_UTC:events");
    timed_part(dir.path(), "part-0.parquet", &[EARLY, "soon"], 0);
    assert_eq!(code(sort(&request)), "MISSING_TS_UTC:events");
    let with_null: ArrayRef = Arc::new(StringArray::from(vec![Some(EARLY), None]));
    write_part(dir.path(), "part-0.parquet", &[("ts_utc", with_null)]);
    assert_eq!(code(sort(&request)), "MISSING_TS_UTC:events");
    let mut by_flow = request.clone();
    by_flow.key_overrides = SortKeyOverrides {
        keys: Some(vec!["a".into(), "b".into()]),
        time_column: None,
    };
    assert_eq!(code(sort(&by_flow)), "MISSING_SORT_KEY:events:a,b");
    let mut by_day = request.clone();
    by_day.partition_granularity = "day".into();
    assert_eq!(code(sort(&by_day)), "PARTITION_GRANULARITY_UNSUPPORTED");
    fs::write(dir.path().join("data/x/part-0.parquet"), b"not parquet").unwrap();
    assert_eq!(code(sort(&request)), "STREAM_SORT_SOURCE_UNREADABLE");
    assert!(
        !Path::new(&request.view_dir()).exists(),
        "a refused sort leaves nothing"
    );
}

#[test]
fn parts_with_different_columns_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[EARLY], 0);
    write_part(dir.path(), "part-1.parquet", &[("ts_utc", texts(&[EARLY]))]);
    assert_eq!(
        code(sort(&request(dir.path(), "events"))),
        "STREAM_SORT_SOURCE_UNREADABLE"
    );
}

#[test]
fn windows_of_days_give_one_part_each_and_empty_ones_too() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[LATE, EARLY], 0);
    let mut request = request(dir.path(), "events");
    request.chunk_days = 1;
    sort(&request).unwrap();
    let mut parts = parts_of(&request);
    parts.sort();
    let rows = |part: &PathBuf| row_count(&PartLocation::of_file(part)).unwrap();
    assert_eq!(parts.iter().map(rows).collect::<Vec<_>>(), [1, 0, 1]);
    assert!(parts[2].ends_with("part-000002.parquet"));
}

#[test]
fn windows_need_a_time_range() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "part-0.parquet", &[], 0);
    let mut request = request(dir.path(), "events");
    request.chunk_days = 1;
    assert_eq!(code(sort(&request)), "STREAM_SORT_TS_RANGE_MISSING");
    request.chunk_days = 0;
    let outcome = sort(&request).unwrap();
    assert_eq!(outcome.receipt["raw_stats"]["row_count"], 0);
    assert_eq!(outcome.receipt["raw_stats"]["min_ts_utc"], Value::Null);
    assert_eq!(parts_of(&request).len(), 1);
}

#[test]
fn parts_that_cannot_be_read_back_or_differ_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    timed_part(dir.path(), "good.parquet", &[LATE, EARLY], 0);
    timed_part(dir.path(), "empty.parquet", &[], 0);
    let request = request(dir.path(), "events");
    let keys = stream_view::sort_keys("events", &request.key_overrides);
    let part = |name: &str| PartLocation::of_file(&dir.path().join("data/x").join(name));
    let raw = |rows: u64| SortStats {
        row_count: rows,
        hash_sum: "0".into(),
        hash_sum2: "0".into(),
        min_ts_utc: None,
        max_ts_utc: None,
    };
    let check = |parts: &[PartLocation], raw: &SortStats| {
        read_back(&request, &keys, parts, raw)
            .map(|_| ())
            .map_err(|error| error.code())
    };
    assert_eq!(check(&[], &raw(2)), Err("STREAM_SORT_OUTPUT_EMPTY"));
    assert_eq!(
        check(&[part("absent")], &raw(2)),
        Err("STREAM_SORT_STATS_RETRY_FAILED")
    );
    assert_eq!(
        check(&[part("empty.parquet")], &raw(2)),
        Err("STREAM_SORT_STATS_EMPTY")
    );
    assert_eq!(
        check(&[part("good.parquet")], &raw(2)),
        Err("STREAM_SORT_VALIDATION_FAILED")
    );
    let (same, is_ordered) = stats_of_parts(&request, &keys, &[part("good.parquet")]).unwrap();
    assert!(!is_ordered);
    assert_eq!(
        check(&[part("good.parquet")], &same),
        Err("STREAM_SORT_VALIDATION_FAILED")
    );
}

#[test]
fn override_outputs_are_sorted_by_their_own_keys() {
    let dir = tempfile::tempdir().unwrap();
    let flow: ArrayRef = Arc::new(Int64Array::from(vec![5, -3, 5, 0]));
    let seq: ArrayRef = Arc::new(Int64Array::from(vec![1, 0, 0, 0]));
    let columns = [("flow_id", flow), ("event_seq", seq), ("n", numbers(0..4))];
    write_part(dir.path(), "part-0.parquet", &columns);
    let request = request(dir.path(), "s4_event_labels_6B");
    let outcome = sort(&request).unwrap();
    assert_eq!(ints(&view_rows(&request), "n"), [1, 3, 2, 0]);
    assert_eq!(outcome.receipt["raw_stats"]["min_ts_utc"], Value::Null);
    assert_eq!(outcome.receipt["sort_keys"][0], "flow_id");
}

#[test]
fn text_keys_are_compared_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let names = texts(&["customer_b", "customer", "customer_a", "alpha"]);
    write_part(
        dir.path(),
        "part-0.parquet",
        &[("name", names), ("n", numbers(0..4))],
    );
    let mut request = request(dir.path(), "named");
    request.key_overrides = SortKeyOverrides {
        keys: Some(vec!["name".into()]),
        time_column: None,
    };
    sort(&request).unwrap();
    assert_eq!(ints(&view_rows(&request), "n"), [3, 1, 2, 0]);
}
