//! What a crash or a failing disk may leave behind, and what recovery makes of it.

use super::fixture::{Feeder, Plan, TOPICS, TestRun};
use crate::event_bus::embedded_log::disk::DiskFaults;
use crate::event_bus::embedded_log::format::SEGMENT_HEADER_BYTES;
use crate::event_bus::embedded_log::journal_recovery::InspectedJournal;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ports::StoreError;

/// A run with two flushes of three events, as a crash would leave it; lengths after each flush.
fn two_flushes() -> (TestRun, u64, u64) {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    open.shards[0]
        .log
        .commit(&feeder.flush(&Plan::admit(3)))
        .unwrap();
    let first = length(&run.segment(0, 0));
    open.shards[0]
        .log
        .commit(&feeder.flush(&Plan::admit(3)))
        .unwrap();
    let second = length(&run.segment(0, 0));
    (run.image(), first, second)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn cut(path: &Path, bytes: u64) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    let at = at as usize;
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).unwrap();
}

fn assert_first_flush_survives(run: &TestRun) {
    let open = run.open(1);
    assert_eq!(
        open.shards[0].next_row,
        RowRef {
            shard: 0,
            segment: 1,
            row: 0
        }
    );
    drop(open);
    assert_eq!(run.rows(0).len(), 3);
    let bus = run.check_bus_equals_journal();
    assert_eq!(bus.values().map(Vec::len).sum::<usize>(), 3);
}

#[test]
fn a_frame_cut_at_any_byte_is_as_if_it_had_never_been_written() {
    let (run, first, second) = two_flushes();
    for bytes in (first..second).rev() {
        cut(&run.segment(0, 0), bytes);
        let found = InspectedJournal::inspect(&run.paths(), 0).unwrap();
        assert_eq!(
            (found.end.rows, found.end.bytes),
            (3, first),
            "cut at {bytes}"
        );
    }
    let (run, first, second) = two_flushes();
    for bytes in [second - 1, first + 13, first + 1, first] {
        cut(&run.segment(0, 0), bytes);
        assert_first_flush_survives(&run.image());
    }
}

#[test]
fn a_tail_of_zeros_is_cut() {
    let (run, first, second) = two_flushes();
    cut(&run.segment(0, 0), first);
    cut(&run.segment(0, 0), second + 4096);
    assert_first_flush_survives(&run);
    let (run, first, second) = two_flushes();
    cut(&run.segment(0, 0), first + 20);
    cut(&run.segment(0, 0), second);
    assert_first_flush_survives(&run);
}

#[test]
fn a_last_frame_with_a_wrong_length_or_a_wrong_bit_is_cut() {
    for (place, bytes) in [(4, [0xff; 4]), (4, [0; 4]), (0, [7; 4]), (100, [0xa5; 4])] {
        let (run, first, _) = two_flushes();
        overwrite(&run.segment(0, 0), first + place, &bytes);
        assert_first_flush_survives(&run);
    }
}

#[test]
fn garbage_behind_the_last_frame_is_cut_but_the_frame_stays() {
    let (run, _, second) = two_flushes();
    let path = run.segment(0, 0);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"WSFM and then something that is no frame at all")
        .unwrap();
    let open = run.open(1);
    assert_eq!(open.shards[0].next_row.segment, 1);
    assert_eq!(length(&path), second);
    assert_eq!(run.rows(0).len(), 6);
}

#[test]
fn bus_lines_no_frame_confirms_are_cut() {
    let (run, _, _) = two_flushes();
    let path = run.partition(TOPICS[0], 0);
    let confirmed = length(&path);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"partition_key\":\"k\",\"payload\":{}}\n{\"half")
        .unwrap();
    drop(run.open(1));
    assert_eq!(length(&path), confirmed);
    run.check_bus_equals_journal();
}

#[test]
fn the_first_lines_of_a_topic_that_no_frame_confirms_are_cut() {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    open.shards[0]
        .log
        .commit(&feeder.flush(&Plan::admit(3)))
        .unwrap();
    let image = run.image();
    cut(&image.segment(0, 0), SEGMENT_HEADER_BYTES as u64 + 5);
    let mut open = image.open(1);
    assert_eq!(open.shards[0].next_row, RowRef::default());
    assert!(open.ends.iter().all(|end| end.next_offset == 0));
    assert_eq!(length(&image.partition(TOPICS[0], 0)), 0);
    let mut feeder = Feeder::new(&image, &open, 0);
    open.shards[0]
        .log
        .commit(&feeder.flush(&Plan::admit(2)))
        .unwrap();
    drop(open);
    assert_eq!(image.rows(0).len(), 2);
}

#[test]
fn a_segment_whose_creation_was_interrupted_is_removed_and_its_number_used_again() {
    for bytes in [0, 10, SEGMENT_HEADER_BYTES as u64] {
        let (run, _, _) = two_flushes();
        drop(run.open(1));
        let mut open = run.open(1);
        let mut feeder = Feeder::new(&run, &open, 0);
        open.shards[0]
            .log
            .commit(&feeder.flush(&Plan::admit(1)))
            .unwrap();
        let image = run.image();
        drop(open);
        cut(&image.segment(0, 1), bytes);
        let mut open = image.open(1);
        assert_eq!(
            open.shards[0].next_row,
            RowRef {
                shard: 0,
                segment: 1,
                row: 0
            }
        );
        let mut feeder = Feeder::new(&image, &open, 0);
        open.shards[0]
            .log
            .commit(&feeder.flush(&Plan::admit(2)))
            .unwrap();
        drop(open);
        assert_eq!(image.rows(0).len(), 8);
        image.check_bus_equals_journal();
        drop(image.open(1));
    }
}

#[test]
fn a_lost_sync_mark_only_means_reading_more() {
    let (run, _, _) = two_flushes();
    drop(run.open(1));
    let mark = super::super::layout::synced_mark_path(&run.paths(), 0);
    fs::write(&mark, b"{\"versi").unwrap();
    drop(run.open(1));
    fs::remove_file(&mark).unwrap();
    let open = run.open(1);
    assert_eq!(open.shards[0].next_row.segment, 1);
    assert_eq!(open.ends.iter().map(|end| end.next_offset).max(), Some(6));
}

/// Makes one operation on files whose name contains `name` fail.
struct FailingDisk {
    name: &'static str,
    fails_at: usize,
    writes: bool,
    seen: AtomicUsize,
}

impl FailingDisk {
    fn is_due(&self, path: &Path) -> bool {
        path.to_string_lossy().contains(self.name)
            && self.seen.fetch_add(1, Ordering::Relaxed) == self.fails_at
    }
}

impl DiskFaults for FailingDisk {
    fn write_stops_after(&self, path: &Path, length: usize) -> Option<usize> {
        (self.writes && self.is_due(path)).then_some(length / 2)
    }

    fn sync_fails(&self, path: &Path) -> bool {
        !self.writes && self.is_due(path)
    }
}

#[test]
fn a_full_disk_or_failed_sync_ends_the_log_and_loses_nothing_that_was_committed() {
    for name in ["partition=", "segment-"] {
        for writes in [true, false] {
            for fails_at in 1..5 {
                let disk = FailingDisk {
                    name,
                    fails_at,
                    writes,
                    seen: AtomicUsize::new(0),
                };
                let plan = Plan {
                    admits: vec![(0, 0), (1, 1), (0, 0)],
                    ..Plan::default()
                };
                commit_until_the_disk_fails(disk, &plan);
            }
        }
    }
}

#[test]
fn so_does_a_disk_that_is_full_in_the_middle_of_a_large_append() {
    // An append is written up to a block boundary first, then in two parts.
    for fails_at in 0..5 {
        let disk = FailingDisk {
            name: "partition=",
            fails_at,
            writes: true,
            seen: AtomicUsize::new(0),
        };
        commit_until_the_disk_fails(disk, &Plan::admit(10_000));
    }
}

fn commit_until_the_disk_fails(disk: FailingDisk, plan: &Plan) {
    let writes = disk.writes;
    let run = TestRun::with_faults(Some(Arc::new(disk)));
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    let events = plan.admits.len();
    let mut committed = 0;
    let failure = loop {
        match open.shards[0].log.commit(&feeder.flush(plan)) {
            Ok(_) => committed += events,
            Err(failure) => break failure,
        }
        let noticed = committed < 100 * events;
        assert!(noticed, "the failed operation was never noticed");
    };
    let StoreError::Unavailable { operation, .. } = &failure else {
        panic!("unexpected error {failure}");
    };
    assert_eq!(*operation, if writes { "write" } else { "fsync" });
    let again = open.shards[0].log.commit(&feeder.flush(plan));
    assert!(again.unwrap_err().to_string().contains("must be recovered"));
    drop(open);
    let mut image = run.image();
    image.options.faults = None;
    drop(image.open(1));
    let rows = image.rows(0).len();
    let may_be_whole = if writes {
        committed
    } else {
        committed + events
    };
    assert!(
        (committed..=may_be_whole).contains(&rows),
        "{rows} of {committed}"
    );
    image.check_bus_equals_journal();
}
