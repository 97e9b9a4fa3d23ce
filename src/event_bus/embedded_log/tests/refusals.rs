//! What recovery refuses: nothing is skipped silently, and a refused run is left as it was.

use super::fixture::{Feeder, Plan, TOPICS, TestRun};
use crate::event_bus::embedded_log::format::SEGMENT_HEADER_BYTES;
use crate::event_bus::embedded_log::{PartitionCounts, layout};
use std::fs;
use std::path::{Path, PathBuf};
use wellspring_domain::ports::{GateStore, StoreError};

/// A run with two segments of two flushes each, closed cleanly, and the mark of its last segment.
fn closed_run() -> TestRun {
    let run = TestRun::new();
    for _ in 0..2 {
        let mut open = run.open(1);
        let mut feeder = Feeder::new(&run, &open, 0);
        for _ in 0..2 {
            open.shards[0]
                .log
                .commit(&feeder.flush(&Plan::admit(3)))
                .unwrap();
        }
    }
    run
}

/// The same run without a mark: all frames of the last segment are read at the start.
fn crashed_run() -> TestRun {
    let run = closed_run();
    fs::remove_file(layout::synced_mark_path(&run.paths(), 0)).unwrap();
    run
}

fn refusal(run: &TestRun) -> StoreError {
    let before = snapshot(Path::new(&run.paths().run_root()));
    let refusal = run.try_open(1).err().expect("the run is refused");
    assert_eq!(
        before,
        snapshot(Path::new(&run.paths().run_root())),
        "nothing was changed"
    );
    refusal
}

fn assert_damaged(run: &TestRun, path: &Path, at: u64) {
    match refusal(run) {
        StoreError::Damaged { key, offset, .. } => {
            assert_eq!((Path::new(&key), offset), (path, at));
        }
        other => panic!("unexpected refusal {other}"),
    }
}

fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else if !path.ends_with("gate.lock") {
            let bytes = fs::read(&path).unwrap();
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

fn flip_bit(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn shorten(path: &Path, by: u64) -> u64 {
    let bytes = fs::read(path).unwrap();
    let length = bytes.len() as u64 - by;
    fs::write(path, &bytes[..length as usize]).unwrap();
    length
}

#[test]
fn a_wrong_bit_before_the_last_frame_is_refused_with_its_frame() {
    for place in [0, 5, 9, 30, 200] {
        let run = crashed_run();
        let first_frame = SEGMENT_HEADER_BYTES as u64;
        flip_bit(&run.segment(0, 1), first_frame + place);
        // The first segment is not read at the start, the second one is.
        assert_damaged(&run, &run.segment(0, 1), first_frame);
    }
}

#[test]
fn a_reader_refuses_a_wrong_bit_in_an_old_segment() {
    let run = closed_run();
    flip_bit(&run.segment(0, 0), SEGMENT_HEADER_BYTES as u64 + 300);
    let reader = crate::event_bus::embedded_log::JournalReader::new(&run.paths());
    let first = reader.rows_from(Default::default()).unwrap().next();
    assert!(matches!(
        first,
        Some(Err(StoreError::Damaged { offset: 80, .. }))
    ));
}

#[test]
fn a_bus_file_shorter_than_the_journal_is_refused() {
    let run = closed_run();
    let path = run.partition(TOPICS[0], 0);
    let length = shorten(&path, 1);
    assert_damaged(&run, &path, length);
    fs::remove_file(&path).unwrap();
    assert_damaged(&run, &path, 0);
}

#[test]
fn bus_lines_that_do_not_match_their_checksum_are_refused() {
    let run = crashed_run();
    let path = run.partition(TOPICS[0], 0);
    let last_flush_starts = {
        let bytes = fs::read(&path).unwrap();
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        ends.map(|(place, _)| place as u64 + 1).nth(8).unwrap()
    };
    flip_bit(&path, last_flush_starts + 3);
    assert_damaged(&run, &path, last_flush_starts);
}

#[test]
fn a_missing_segment_is_refused() {
    let run = closed_run();
    fs::remove_file(run.segment(0, 0)).unwrap();
    assert_damaged(&run, &run.segment(0, 0), 0);
    let run = closed_run();
    fs::remove_file(run.segment(0, 1)).unwrap();
    assert_damaged(&run, &run.segment(0, 1), 0);
}

#[test]
fn a_journal_shorter_than_its_mark_or_its_successor_says_is_refused() {
    for segment in [0, 1] {
        let run = closed_run();
        let length = shorten(&run.segment(0, segment), 1);
        assert_damaged(&run, &run.segment(0, segment), length);
    }
}

#[test]
fn unknown_versions_are_refused_by_name() {
    let run = closed_run();
    let segment = run.segment(0, 1);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 2;
    fs::write(&segment, bytes).unwrap();
    assert_unknown_version(&run, &segment);
    let run = closed_run();
    let topic = PathBuf::from(layout::topic_description_path(&run.paths(), TOPICS[0]));
    fs::write(&topic, b"{\"version\":2,\"partitions\":4}").unwrap();
    assert_unknown_version(&run, &topic);
    let run = closed_run();
    let mark = PathBuf::from(layout::synced_mark_path(&run.paths(), 0));
    fs::write(&mark, b"{\"version\":2}").unwrap();
    assert_unknown_version(&run, &mark);
}

fn assert_unknown_version(run: &TestRun, path: &Path) {
    let refusal = refusal(run);
    assert_eq!(refusal.code(), "FORMAT_VERSION_UNKNOWN");
    let expected = StoreError::UnknownVersion {
        key: path.display().to_string(),
        found: 2,
        known: 1,
    };
    assert_eq!(refusal, expected);
}

#[test]
fn a_file_that_is_no_segment_or_belongs_to_another_run_is_refused() {
    let run = closed_run();
    flip_bit(&run.segment(0, 1), 0);
    assert_damaged(&run, &run.segment(0, 1), 0);
    let run = closed_run();
    let header_of_segment_0 = fs::read(run.segment(0, 0)).unwrap();
    fs::write(run.segment(0, 1), header_of_segment_0).unwrap();
    assert_damaged(&run, &run.segment(0, 1), 0);
}

#[test]
fn a_second_writer_is_refused_by_the_lock() {
    let run = TestRun::new();
    let store = run.store();
    let open = run.open(1);
    let layout = wellspring_domain::ports::RunLayout {
        admission_shards: 1,
        index_shards: 0,
    };
    let refusal = store.open_run(&run.id(), &layout).err().unwrap();
    let key = layout::lock_path(&run.paths());
    assert_eq!(refusal, StoreError::Locked { key });
    drop(open);
    assert!(store.open_run(&run.id(), &layout).is_ok());
}

#[test]
fn a_bus_folder_of_another_program_is_never_cut() {
    let run = TestRun::new();
    let path = run.partition(TOPICS[0], 0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::create_dir_all(run.paths().ig()).unwrap();
    fs::write(&path, b"{\"partition_key\":\"k\",\"payload\":{}}\n").unwrap();
    assert_damaged(&run, &path, 0);
}

#[test]
fn a_partition_the_topic_does_not_have_is_refused() {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    let plan = Plan {
        admits: vec![(0, 4)],
        ..Plan::default()
    };
    let refusal = open.shards[0].log.commit(&feeder.flush(&plan)).unwrap_err();
    assert_eq!(refusal.code(), "STORE_KEY_INVALID");
}

#[test]
fn a_flush_that_does_not_follow_the_last_one_is_refused() {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    open.shards[0]
        .log
        .commit(&feeder.flush(&Plan::admit(1)))
        .unwrap();
    let skipped = feeder.flush(&Plan::admit(1));
    let mut wrong_offset = feeder.flush(&Plan::admit(1));
    wrong_offset.first_row = skipped.first_row;
    let refusal = open.shards[0].log.commit(&wrong_offset).unwrap_err();
    assert_eq!(refusal.code(), "STORE_DAMAGED");
    drop(open);
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    let mut wrong_row = feeder.flush(&Plan::admit(1));
    wrong_row.first_row.row += 1;
    let refusal = open.shards[0].log.commit(&wrong_row).unwrap_err();
    assert!(
        refusal
            .to_string()
            .contains("the journal goes on at segment 1 row 0")
    );
    drop(open);
    drop(run.open(1));
    assert_eq!(run.rows(0).len(), 1);
}

#[test]
fn two_shards_may_not_write_one_partition() {
    let run = TestRun::new();
    let mut open = run.open(2);
    let mut first = Feeder::new(&run, &open, 0);
    let mut second = Feeder::new(&run, &open, 1);
    open.shards[0]
        .log
        .commit(&first.flush(&Plan::admit(1)))
        .unwrap();
    let refusal = open.shards[1]
        .log
        .commit(&second.flush(&Plan::admit(1)))
        .unwrap_err();
    assert!(refusal.to_string().contains("may not write"));
}

#[test]
fn another_partition_count_than_the_run_was_created_with_is_refused() {
    let mut run = closed_run();
    run.options.partitions = PartitionCounts::all(2);
    let refusal = refusal(&run);
    assert!(
        refusal
            .to_string()
            .contains("4 partitions in this run and 2 in the settings")
    );
    run.options
        .partitions
        .by_topic
        .insert(TOPICS[0].to_owned(), 4);
    assert!(run.try_open(1).is_ok());
}
