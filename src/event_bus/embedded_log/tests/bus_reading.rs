//! Reading the bus by offset: our own folders and those of other programs.

use super::fixture::{Feeder, Plan, TOPICS, TestRun};
use crate::event_bus::embedded_log::head::read_head;
use crate::event_bus::embedded_log::synced_mark::SyncedMark;
use crate::event_bus::embedded_log::{BusReader, JournalReader, ReadBound, bus_partitions, layout};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ports::StoreError;

fn filled(flushes: usize, events: usize) -> TestRun {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    for _ in 0..flushes {
        open.shards[0]
            .log
            .commit(&feeder.flush(&Plan::admit(events)))
            .unwrap();
    }
    drop(open);
    run
}

#[test]
fn any_offset_is_found_and_reading_ends_at_the_head() {
    let run = filled(40, 50);
    let mut reader = BusReader::open(&run.paths(), TOPICS[0], 0, ReadBound::Head).unwrap();
    assert_eq!(reader.end().unwrap(), 2000);
    let all = reader.read(0, usize::MAX).unwrap();
    assert_eq!(all.len(), 2000);
    for offset in [0, 1, 49, 50, 51, 999, 1234, 1998, 1999] {
        let read = reader.read(offset as u64, 3).unwrap();
        assert_eq!(read, all[offset..(offset + 3).min(2000)]);
    }
    assert!(reader.read(2000, 3).unwrap().is_empty());
    let head = layout::head_path(&run.paths(), TOPICS[0], 0);
    assert_eq!(fs::read(&head).unwrap(), b"{\"next_offset\":2000}");
    fs::write(&head, b"{\"next_offset\":7}").unwrap();
    assert_eq!(reader.read(5, 10).unwrap().len(), 2);
    let mut reader = BusReader::open(&run.paths(), TOPICS[0], 0, ReadBound::Journal).unwrap();
    assert_eq!(reader.read(1990, 100).unwrap().len(), 10);
}

#[test]
fn a_reader_sees_new_commits_while_the_gate_writes() {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    let mut reader = BusReader::open(&run.paths(), TOPICS[0], 0, ReadBound::Journal).unwrap();
    for number in 1..=3u64 {
        open.shards[0]
            .log
            .commit(&feeder.flush(&Plan::admit(4)))
            .unwrap();
        assert_eq!(reader.end().unwrap(), 4 * number);
        assert_eq!(reader.read(4 * number - 1, 9).unwrap().len(), 1);
    }
    drop(open);
    let mut reader = BusReader::open(&run.paths(), TOPICS[0], 0, ReadBound::Head).unwrap();
    assert_eq!(
        reader.end().unwrap(),
        12,
        "a clean close publishes the head"
    );
}

#[test]
fn a_folder_of_another_program_is_read_line_by_line() {
    let run = TestRun::new();
    let path = run.partition("other.topic", 0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"{\"a\":0}\n\n{\"a\":2}\n  \n{\"a\":4}\n{\"torn").unwrap();
    let head = layout::head_path(&run.paths(), "other.topic", 0);
    fs::write(head, b"{\"next_offset\":99}").unwrap();
    let mut reader = BusReader::open(&run.paths(), "other.topic", 0, ReadBound::Head).unwrap();
    assert_eq!(reader.end().unwrap(), 5, "the head is only a hint");
    let read = reader.read(0, 10).unwrap();
    let offsets: Vec<u64> = read.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 2, 4], "blank lines are skipped but counted");
    assert_eq!(reader.read(3, 10).unwrap()[0].line, b"{\"a\":4}");
    let wanted = [("other.topic".to_owned(), 0)];
    assert_eq!(bus_partitions(&run.paths()).unwrap(), wanted);
}

#[test]
fn a_head_without_its_log_restarts_at_zero() {
    let run = TestRun::new();
    let head = layout::head_path(&run.paths(), "other.topic", 0);
    fs::create_dir_all(Path::new(&head).parent().unwrap()).unwrap();
    fs::write(head, b"{\"next_offset\":99}").unwrap();
    let mut reader = BusReader::open(&run.paths(), "other.topic", 0, ReadBound::Head).unwrap();
    assert_eq!(reader.end().unwrap(), 0);
    assert!(reader.read(0, 10).unwrap().is_empty());
}

#[test]
fn lines_missing_below_the_head_are_an_error_not_an_end() {
    let run = filled(1, 3);
    let path = run.partition(TOPICS[0], 0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
    let mut reader = BusReader::open(&run.paths(), TOPICS[0], 0, ReadBound::Head).unwrap();
    let read: Vec<_> = reader.stream(0).unwrap().collect();
    assert_eq!(read.len(), 3);
    assert!(matches!(read[2], Err(StoreError::Damaged { .. })));
}

#[test]
fn heads_and_sync_marks_follow_commits_while_the_gate_writes() {
    let mut run = TestRun::new();
    run.options.mark_interval = Duration::ZERO;
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    for number in 1..=3 {
        open.shards[0]
            .log
            .commit(&feeder.flush(&Plan::admit(5)))
            .unwrap();
        let head = layout::head_path(&run.paths(), TOPICS[0], 0);
        wait_until(|| read_head(Path::new(&head)).unwrap() == Some(5 * number));
        let journal = fs::metadata(run.segment(0, 0)).unwrap().len();
        let mark = || SyncedMark::read(&run.paths(), 0).unwrap();
        wait_until(|| mark().is_some_and(|mark| mark.bytes == journal));
    }
}

#[test]
fn readers_beside_a_writing_gate_see_whole_commits_and_no_damage() {
    const FLUSHES: u64 = 80;
    const EVENTS: u64 = 500;
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..FLUSHES {
                let plan = Plan {
                    new_segment: number % 16 == 15,
                    ..Plan::admit(EVENTS as usize)
                };
                open.shards[0].log.commit(&feeder.flush(&plan)).unwrap();
            }
        });
        let mut reader = BusReader::open(&run.paths(), TOPICS[0], 0, ReadBound::Head).unwrap();
        let journal = JournalReader::new(&run.paths());
        let mut rows = journal.rows_from(RowRef::default()).unwrap();
        let (mut records, mut decided) = (0, 0);
        while records < EVENTS * FLUSHES || decided < EVENTS * FLUSHES {
            let stopped = writer.is_finished();
            for record in reader.stream(records).unwrap() {
                assert_eq!(record.unwrap().offset, records);
                records += 1;
            }
            for row in rows.by_ref() {
                let at = row.unwrap().row_ref;
                decided += 1;
                if decided % 100 == 0 {
                    assert!(journal.row(at).unwrap().is_some());
                }
            }
            assert_eq!(decided % EVENTS, 0, "a frame is seen whole");
            assert!(
                !stopped || decided == EVENTS * FLUSHES,
                "nothing is missing at the end"
            );
        }
    });
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it never became true"
        );
        std::thread::yield_now();
    }
}
