//! Appends large enough to be written around the page cache, and small ones between them.

use super::fixture::{Feeder, Plan, TOPICS, TestRun};
use std::fs;

/// Events of one append; about eighty bytes each.
const SIZES: [usize; 7] = [1, 8_000, 3, 4_000, 4_000, 1, 15_000];

fn assert_lines_are_those_of_the_flushes(cached_bytes: u64) {
    let mut run = TestRun::new();
    run.options.cached_bytes = cached_bytes;
    let mut lines = Vec::new();
    // What is at the end of the file the second time was written by an earlier process.
    for _process in 0..2 {
        let mut open = run.open(1);
        let mut feeder = Feeder::new(&run, &open, 0);
        for events in SIZES {
            let flush = feeder.flush(&Plan::admit(events));
            open.shards[0].log.commit(&flush).unwrap();
            lines.extend_from_slice(&flush.appends[0].bytes);
            assert!(fs::read(run.partition(TOPICS[0], 0)).unwrap() == lines);
        }
    }
    drop(run.open(1));
    run.check_bus_equals_journal();
}

#[test]
fn lines_written_around_the_cache_are_those_of_the_flushes() {
    assert_lines_are_those_of_the_flushes(0);
}

#[test]
fn so_are_lines_that_stay_in_the_cache() {
    assert_lines_are_those_of_the_flushes(1 << 20);
}
