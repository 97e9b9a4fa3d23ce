//! `wellspring world generate` and `wellspring oracle sort` as an operator meets them: what they print,
//! and every refusal of contract 3.7 that files and flags can provoke. The four codes that need a
//! disk which loses what was written (STREAM_SORT_STATS_EMPTY, STREAM_SORT_STATS_RETRY_FAILED,
//! STREAM_SORT_OUTPUT_EMPTY, STREAM_SORT_VALIDATION_FAILED) are provoked beside the code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const TRAFFIC: &str = "s3_event_stream_with_fraud_6B";

/// A folder with a small generated world in `world`.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let made = stage.run(&[
            "world", "generate", "--out", "world", "--events", "2000", "--parts", "2",
        ]);
        assert!(made.status.success(), "{}", stderr(&made));
        stage
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
        command.current_dir(self.dir.path()).env_clear().args(args);
        command.output().expect("the program runs")
    }

    fn sort(&self, args: &[&str]) -> Output {
        let mut all = vec!["oracle", "sort", "--engine-run-root", "world"];
        all.extend(args);
        self.run(&all)
    }

    /// Sorts and gives the receipts.
    fn receipts(&self, args: &[&str]) -> Vec<Value> {
        let output = self.sort(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Sorts, and expects exit 1, this code in front of a sentence, and nothing on stdout.
    fn refused(&self, args: &[&str], code: &str) {
        let output = self.sort(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.contains(&format!("error: {code}: ")),
            "{args:?} said {said}, not {code}"
        );
        assert!(output.stdout.is_empty());
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn view(&self, output_id: &str) -> PathBuf {
        self.path(&format!("world/stream_view/ts_utc/output_id={output_id}"))
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_default_is_the_profiles_traffic_and_a_second_sort_changes_nothing() {
    let stage = Stage::new();
    let first = stage.receipts(&[]);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["output_id"], TRAFFIC);
    assert_eq!(first[0]["status"], "OK");
    assert_eq!(first[0]["raw_stats"]["row_count"], 2_000);
    assert_eq!(
        first[0]["engine_run_root"], "world",
        "the root is kept as it was given"
    );
    assert_eq!(
        names(&stage.view(TRAFFIC)),
        [
            "_stream_sort_receipt.json",
            "_stream_view_manifest.json",
            "part-000000.parquet"
        ]
    );
    assert_eq!(stage.receipts(&[]), first);
}

#[test]
fn all_sorts_every_output_with_a_time_or_a_key_of_its_own() {
    let stage = Stage::new();
    let receipts = stage.receipts(&["--all", "--memory-limit", "16MiB"]);
    assert_eq!(receipts.len(), 11);
    for receipt in receipts {
        assert_eq!(receipt["raw_stats"], receipt["sorted_stats"]);
    }
}

#[test]
fn a_list_file_and_repeated_ids_choose_the_outputs() {
    let stage = Stage::new();
    let ids = |receipts: Vec<Value>| -> Vec<String> {
        receipts
            .iter()
            .map(|receipt| receipt["output_id"].as_str().unwrap().to_owned())
            .collect()
    };
    fs::write(stage.path("list.yaml"), "output_ids: [arrival_events_5B]\n").unwrap();
    assert_eq!(
        ids(stage.receipts(&["--output-ids-ref", "list.yaml"])),
        ["arrival_events_5B"]
    );
    let two = [
        "--output-id",
        "s1_session_index_6B",
        "--output-id",
        "s4_case_timeline_6B",
    ];
    assert_eq!(
        ids(stage.receipts(&two)),
        ["s1_session_index_6B", "s4_case_timeline_6B"]
    );
}

#[test]
fn windows_of_days_give_several_parts() {
    let stage = Stage::new();
    stage.receipts(&["--chunk-days", "3"]);
    let parts = names(&stage.view(TRAFFIC))
        .into_iter()
        .filter(|name| name.ends_with(".parquet"));
    assert_eq!(parts.count(), 3);
}

#[test]
fn what_is_asked_for_wrongly_is_refused_by_name() {
    let stage = Stage::new();
    fs::write(stage.path("empty.yaml"), "output_ids: []\n").unwrap();
    stage.refused(&["--output-ids-ref", "empty.yaml"], "OUTPUT_IDS_MISSING");
    stage.refused(
        &["--output-id", "unknown_9Z"],
        "OUTPUT_TEMPLATE_MISSING:unknown_9Z",
    );
    let unsupported = ["--partition-granularity", "day"];
    stage.refused(&unsupported, "PARTITION_GRANULARITY_UNSUPPORTED");
    let by_time = [
        "--output-id",
        "s4_flow_truth_labels_6B",
        "--time-column",
        "ts_utc",
    ];
    stage.refused(&by_time, "MISSING_TS_UTC:s4_flow_truth_labels_6B");
    stage.refused(
        &["--sort-keys", "a,b"],
        &format!("MISSING_SORT_KEY:{TRAFFIC}:a,b"),
    );
    let by_flow = [
        "--output-id",
        "s4_flow_truth_labels_6B",
        "--chunk-days",
        "1",
    ];
    stage.refused(&by_flow, "STREAM_SORT_TS_RANGE_MISSING");
    stage.refused(
        &["--scenario-id", "other"],
        &format!("OUTPUT_PATHS_EMPTY:{TRAFFIC}"),
    );
    assert!(
        !stage
            .path("world/stream_view/ts_utc")
            .join(TRAFFIC)
            .exists()
    );
}

#[test]
fn a_template_token_without_a_value_is_refused_by_name() {
    let stage = Stage::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/platform/oracle/outputs_catalogue_v0.yaml");
    let text = fs::read_to_string(shipped).unwrap();
    let changed = text.replacen(
        "scenario_id={scenario_id}/part-",
        "utc_day={utc_day}/part-",
        1,
    );
    assert_ne!(text, changed);
    fs::create_dir_all(stage.path("config/platform/oracle")).unwrap();
    fs::write(
        stage.path("config/platform/oracle/outputs_catalogue_v0.yaml"),
        changed,
    )
    .unwrap();
    let arrivals = ["--output-id", "arrival_events_5B"];
    stage.refused(
        &arrivals,
        "TEMPLATE_TOKEN_MISSING:arrival_events_5B:utc_day",
    );
}

#[test]
fn what_another_attempt_left_is_refused_and_kept() {
    let stage = Stage::new();
    stage.receipts(&[]);
    let view = stage.view(TRAFFIC);
    let receipt = view.join("_stream_sort_receipt.json");
    let text = fs::read_to_string(&receipt).unwrap();
    fs::write(
        &receipt,
        text.replace("\"status\":\"OK\"", "\"status\":\"FAILED\""),
    )
    .unwrap();
    stage.refused(&[], "STREAM_RECEIPT_MISMATCH");
    fs::remove_file(&receipt).unwrap();
    stage.refused(&[], "STREAM_RECEIPT_MISSING");
    fs::remove_file(view.join("_stream_view_manifest.json")).unwrap();
    stage.refused(&[], "STREAM_VIEW_PARTIAL_EXISTS");
    fs::rename(view.join("part-000000.parquet"), view.join("note.txt")).unwrap();
    stage.refused(&[], "STREAM_VIEW_PART_RENAME_COLLISION");
    assert_eq!(names(&view), ["note.txt"]);
    fs::remove_dir_all(&view).unwrap();
    stage.receipts(&[]);
}

#[test]
fn a_world_is_written_once() {
    let stage = Stage::new();
    let before = names(&stage.path("world"));
    let again = stage.run(&["world", "generate", "--out", "world", "--events", "2000"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("WORLD_DIR_NOT_EMPTY"),
        "{}",
        stderr(&again)
    );
    assert_eq!(names(&stage.path("world")), before);
    assert_eq!(
        names(stage.dir.path()),
        ["world"],
        "no staging folder is left"
    );
}
