//! The fixture world of another program, streamed whole and recomputed by an independent script.

use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;

use crate::support::recompute::judged;
use crate::support::run::{ReadyRun, outcomes};
use crate::support::world::{STREAMED, TRAFFIC, World, fixture, fixture_folder, small};

#[test]
fn the_fixture_world_arrives_whole_and_every_identity_is_recomputed() {
    let run = ReadyRun::new(fixture());
    let finished = run.up_once(&[]).ok();
    assert_eq!(
        outcomes(&finished)[0]["status"],
        "STREAMED",
        "{}",
        finished.everything()
    );
    run.verify();
    let manifest = fixture_folder().join("_world_manifest.json");
    let manifest = manifest.display().to_string();
    let found = run.recompute(&["--world-manifest", &manifest]);
    assert_eq!(found.rows(TRAFFIC), 40_000);
    assert_eq!(found.receipts("ADMIT"), 100_000);
    assert_eq!(found.summary["events"], 100_000);
    assert_eq!(found.summary["amounts"][TRAFFIC], 869_740.330_487);
    assert_rows_are_those_of_the_files(&run);
    for recipe in [
        "event_id",
        "dedupe_key",
        "payload_hash",
        "partition_key",
        "receipt_id",
        "eb_ref",
        "order_per_key",
    ] {
        assert_eq!(found.checked(recipe), 100_000, "{recipe}");
    }
    for recipe in [
        "bundle_hash",
        "ready_message_id",
        "intent_fingerprint",
        "plan_hash",
        "oracle_pack_id",
        "stream_view_id",
        "source_locator_digest",
        "checkpoint_pack_key",
        "governance_event_id",
        "gate_digest",
        "locator_content_digest",
    ] {
        assert!(found.checked(recipe) > 0, "{recipe} was never compared");
    }
    rebuild_gives_the_same(&run);
}

/// The multiset of (flow, event, amount) on the bus is the one in the raw files, read by another reader.
fn assert_rows_are_those_of_the_files(run: &ReadyRun<'_>) {
    let mut raw: Vec<String> = Vec::new();
    for part in std::fs::read_dir(fixture().raw_parts(TRAFFIC)).unwrap() {
        let file = std::fs::File::open(part.unwrap().path()).unwrap();
        for row in SerializedFileReader::new(file)
            .unwrap()
            .get_row_iter(None)
            .unwrap()
        {
            raw.push(identity(&as_json(&row.unwrap())));
        }
    }
    let records = run.records();
    let traffic = records
        .iter()
        .filter(|record| record.envelope["event_type"] == TRAFFIC);
    let mut streamed: Vec<String> = traffic
        .map(|record| identity(&record.envelope["payload"]))
        .collect();
    raw.sort_unstable();
    streamed.sort_unstable();
    assert!(
        raw == streamed,
        "{} rows in the files, {} on the bus",
        raw.len(),
        streamed.len()
    );
}

fn as_json(row: &Row) -> Value {
    let members = row.get_column_iter().map(|(name, field)| {
        let value = match field {
            Field::Long(number) => Value::from(*number),
            Field::Double(number) => Value::from(*number),
            Field::Bool(flag) => Value::from(*flag),
            Field::Str(text) => Value::from(text.as_str()),
            Field::Null => Value::Null,
            other => panic!("{name} holds {other:?}"),
        };
        (name.clone(), value)
    });
    Value::Object(members.collect())
}

fn identity(row: &Value) -> String {
    ["flow_id", "event_seq", "amount", "ts_utc", "campaign_id"]
        .map(|name| row[name].to_string())
        .join("|")
}

/// Projections are made of journal and log alone.
fn rebuild_gives_the_same(run: &ReadyRun<'_>) {
    let rebuilt = run
        .site
        .run(&["--format", "json", "bus", "verify", "--rebuild"])
        .ok()
        .json();
    assert_eq!(rebuilt["verified"], true, "{rebuilt}");
    run.verify();
}

#[test]
fn worlds_of_other_seeds_and_part_counts_are_recomputed_alike() {
    for (events, seed, parts) in [(600, 1, 1), (1_000, 99, 7), (2, 18_446_744_073_709, 1)] {
        let world = World::generate(events, seed, parts);
        world.pack();
        world.sort();
        let run = ReadyRun::new(&world);
        run.up_once(&[]).ok();
        run.verify();
        let found = run.recompute(&[]);
        assert_eq!(found.rows(TRAFFIC), events, "seed {seed}");
        for output in &STREAMED[..3] {
            assert_eq!(found.rows(output), events / 2, "{output} of seed {seed}");
        }
    }
}

/// One byte of one file of a run, changed where the text stands first.
fn change(path: &Path, text: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let found = bytes
        .windows(text.len())
        .position(|part| part == text.as_bytes());
    let at = found.unwrap_or_else(|| panic!("{} has no {text:?}", path.display())) + text.len();
    bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
    std::fs::write(path, bytes).unwrap();
}

/// The only file in a folder.
fn only_file(folder: &Path) -> PathBuf {
    std::fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
}

#[test]
fn the_recomputation_sees_a_single_changed_byte() {
    let run = ReadyRun::new(small());
    run.up_once(&[]).ok();
    run.recompute(&[]);
    let traffic = run
        .root()
        .join("eb/fp.bus.traffic.fraud.v1/partition=0.jsonl");
    let damages = [
        (traffic.clone(), "\"amount\":", "payload_hash"),
        (traffic, "\"event_id\":\"", "event_id"),
        (
            only_file(&run.root().join("sr/run_plan")),
            "\"plan_hash\":\"",
            "plan_hash",
        ),
        (
            only_file(&run.root().join("sr/run_facts_view")),
            "\"bundle_hash\":\"",
            "bundle_hash",
        ),
    ];
    for (path, text, recipe) in damages {
        let kept = std::fs::read(&path).unwrap();
        change(&path, text);
        let judged = judged(&run, &[]);
        assert_eq!(judged.code, Some(4), "{recipe}: {}", judged.everything());
        let wrong = &judged.json()["wrong"];
        assert!(
            wrong[recipe].as_u64().is_some_and(|count| count > 0),
            "{recipe}: {wrong}"
        );
        std::fs::write(&path, kept).unwrap();
    }
    run.recompute(&[]);
}
