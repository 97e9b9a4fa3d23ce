//! A whole world in a bucket: copied, packed, checked and sorted there as it is in a folder.

use super::{options, root};
use crate::support;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use wellspring::object_store::ObjectStores;
use wellspring::world_files::parquet_reader::PartReader;
use wellspring::world_files::part_location::PartLocation;
use wellspring_domain::ports::ObjectStore;
use wellspring_domain::world::stream_view::{self, SortKeyOverrides};

const SCENARIO: &str = "baseline_v1";
const OUTPUTS: [&str; 2] = [
    "s2_event_stream_baseline_6B",
    "s3_event_stream_with_fraud_6B",
];

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// A folder with a copy of the fixture world in it.
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/w40k");
        copy(&fixture, &folder.path().join("world"));
        Site { folder }
    }

    fn world(&self) -> String {
        self.folder
            .path()
            .join("world")
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
        let keys = support::aws_keys();
        command
            .args(arguments)
            .args(["--format", "json"])
            .current_dir(self.folder.path())
            .env_clear()
            .env("TMPDIR", self.folder.path())
            .env("AWS_ACCESS_KEY_ID", keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key)
            .env("OBJECT_STORE_ENDPOINT", support::s3_endpoint())
            .env("OBJECT_STORE_REGION", support::region())
            .env("SR_S3_PATH_STYLE", "true");
        command.output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn pack(&self, root: &str) -> Value {
        let at = ["--engine-run-root", root, "--scenario-id", SCENARIO];
        self.json(&[&["oracle", "pack"][..], &at].concat())
    }

    fn check(&self, root: &str) -> Value {
        let at = [
            "--engine-run-root",
            root,
            "--scenario-id",
            SCENARIO,
            "--strict-seal",
        ];
        self.json(&[&["oracle", "check"][..], &at].concat())
    }

    fn sort(&self, root: &str, more: &[&str]) -> Value {
        let at = ["--engine-run-root", root, "--scenario-id", SCENARIO];
        let outputs = ["--output-id", OUTPUTS[0], "--output-id", OUTPUTS[1]];
        self.json(&[&["oracle", "sort"][..], &at, &outputs, more].concat())
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => std::fs::copy(entry.path(), &target).map(drop).unwrap(),
        }
    }
}

/// The same report whatever the root is called.
fn without_root(report: &Value, root: &str) -> Value {
    serde_json::from_str(&report.to_string().replace(root, "ROOT")).unwrap()
}

#[test]
fn a_world_in_a_bucket_is_packed_checked_and_sorted_like_the_same_world_in_a_folder() {
    let site = Site::new();
    let local = site.world();
    let remote = root("world");
    let synced = site.json(&["oracle", "sync", "--from", &local, "--to", &remote]);
    assert!(synced["copied"].as_u64().unwrap() > 5, "{synced}");

    let (here, there) = (site.pack(&local), site.pack(&remote));
    assert_eq!(here["oracle_pack_id"], there["oracle_pack_id"]);
    assert_eq!(
        site.pack(&remote),
        there,
        "packed alike: nothing is written"
    );
    let (here, there) = (site.check(&local), site.check(&remote));
    assert_eq!(here["status"], "OK", "{here}");
    assert_eq!(without_root(&here, &local), without_root(&there, &remote));

    let here = site.sort(&local, &[]);
    let there = site.sort(&remote, &["--memory-limit", "16MiB"]);
    for (at, output_id) in OUTPUTS.iter().enumerate() {
        let (here, there) = (&here[at], &there[at]);
        for member in ["raw_stats", "sorted_stats", "sort_keys", "status"] {
            assert_eq!(here[member], there[member], "{output_id} {member}");
        }
        let keys = stream_view::sort_keys(output_id, &SortKeyOverrides::default());
        let id = stream_view::stream_view_id(&remote, SCENARIO, output_id, &keys, "flat");
        assert_eq!(there["stream_view_id"], json!(id), "of the exact root");
        assert_ne!(here["stream_view_id"], there["stream_view_id"]);
    }
    assert_eq!(site.sort(&remote, &[]), there, "sorted: nothing is written");
    rows_are_the_same_from_anywhere(&local, &remote);

    let back = site.folder.path().join("back").to_str().unwrap().to_owned();
    let returned = site.json(&["oracle", "sync", "--from", &remote, "--to", &back]);
    let again = site.json(&["oracle", "sync", "--from", &back, "--to", &remote]);
    assert_eq!(returned["content_digest"], again["content_digest"]);
    assert_eq!(
        (&again["copied"], &again["bytes_copied"]),
        (&json!(0), &json!(0))
    );
    assert!(!PathBuf::from(&back).join("stream_view").exists());
}

fn part(root: &str, output_id: &str) -> PartLocation {
    let store: Arc<dyn ObjectStore> = ObjectStores::with_s3(options()).open(root).unwrap();
    let folder = format!("stream_view/ts_utc/output_id={output_id}");
    PartLocation::new(store, format!("{folder}/part-000000.parquet"))
}

fn rows_are_the_same_from_anywhere(local: &str, remote: &str) {
    for start in [0, 1, 12_345, 1_000_000] {
        let rows = |root: &str| -> Vec<String> {
            let batches = PartReader::open(&part(root, OUTPUTS[1]), 1_000, start).unwrap();
            let rows = batches.flat_map(|batch| {
                let batch = batch.unwrap();
                let first = usize::try_from(batch.first_row).unwrap();
                // Batches may end elsewhere; rows are picked by their number in the part.
                let picked = (first..first + batch.rows.num_rows()).filter(|row| row % 97 == 0);
                let rows: Vec<String> = picked
                    .map(|row| format!("{row} {:?}", batch.rows.slice(row - first, 1)))
                    .collect();
                rows
            });
            rows.collect()
        };
        assert_eq!(rows(local), rows(remote), "from {start}");
    }
}

#[test]
fn an_object_that_differs_stops_a_copy_and_is_left_as_it_is() {
    let site = Site::new();
    let remote = root("differs");
    let store = ObjectStores::with_s3(options()).open(&remote).unwrap();
    store.put("run_receipt.json", b"{}").unwrap();
    let output = site.run(&["oracle", "sync", "--from", &site.world(), "--to", &remote]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("SYNC_TARGET_DIFFERS"), "{said}");
    assert_eq!(store.get("run_receipt.json").unwrap().unwrap(), b"{}");
}

#[test]
fn parts_without_a_receipt_are_refused_and_never_read() {
    let site = Site::new();
    let world = site.world();
    let base = root("partial");
    let store = ObjectStores::with_s3(options()).open(&base).unwrap();
    let part = format!("output_id={}/part-000000.parquet", OUTPUTS[0]);
    store.put(&part, b"half").unwrap();
    let at = ["--engine-run-root", &world, "--scenario-id", SCENARIO];
    let to = ["--output-id", OUTPUTS[0], "--stream-view-root", &base];
    let output = site.run(&[&["oracle", "sort"][..], &at, &to].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("STREAM_VIEW_PARTIAL_EXISTS"), "{said}");
}
