//! Any sequence of commits, cut anywhere behind the last clean close, comes back as a prefix of the
//! commits: never a part of one, and the bus equals the journal.

use super::fixture::{Feeder, Plan, TestRun};
use proptest::prelude::*;
use std::fs::{self, OpenOptions};
use std::path::Path;

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (
        prop::collection::vec((0..2usize, 0..4u32), 0..6),
        0..3usize,
        0..3usize,
        prop::bool::weighted(0.2),
    );
    let plan = plan.prop_map(|(admits, duplicates, quarantines, new_segment)| Plan {
        admits,
        duplicates,
        quarantines,
        new_segment,
    });
    prop::collection::vec(plan, 1..8)
}

fn rows_of(plan: &Plan) -> usize {
    plan.admits.len() + plan.duplicates + plan.quarantines
}

fn cut_tail(path: &Path, share: f64, floor: u64) {
    let length = fs::metadata(path).unwrap().len();
    let kept = floor + ((length - floor) as f64 * share) as u64;
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(kept)
        .unwrap();
}

/// Commits `plans`; `close_after` of them before a clean close. Rows after each commit.
fn commit_all(run: &TestRun, plans: &[Plan], close_after: usize) -> (Vec<usize>, TestRun) {
    let mut totals = vec![0];
    let mut total = 0;
    let mut open = run.open(1);
    let mut feeder = Feeder::new(run, &open, 0);
    for (index, plan) in plans.iter().enumerate() {
        if index == close_after {
            drop(open);
            open = run.open(1);
            feeder = Feeder::new(run, &open, 0);
        }
        open.shards[0].log.commit(&feeder.flush(plan)).unwrap();
        total += rows_of(plan);
        totals.push(total);
    }
    (totals, run.image())
}

fn newest_segment(run: &TestRun) -> u32 {
    let existing = (0u32..).take_while(|segment| run.segment(0, *segment).exists());
    existing.last().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn recovery_yields_a_prefix_of_the_commits(
        plans in plans(),
        close_after in 0..8usize,
        share in 0.0..1.0f64,
    ) {
        let run = TestRun::new();
        let (totals, image) = commit_all(&run, &plans, close_after);
        let closed = close_after.min(plans.len());
        let segment = newest_segment(&image);
        let path = image.segment(0, segment);
        if path.exists() {
            let mark = super::super::synced_mark::SyncedMark::read(&image.paths(), 0).unwrap();
            let floor = mark.filter(|mark| mark.segment == segment).map_or(0, |mark| mark.bytes);
            cut_tail(&path, share, floor);
        }
        drop(image.open(1));
        let rows = image.rows(0).len();
        prop_assert!(totals.contains(&rows), "{} rows of {:?}", rows, totals);
        if closed < plans.len() {
            prop_assert!(rows >= totals[closed], "what was closed cleanly is never cut");
        }
        image.check_bus_equals_journal();
        // A second recovery finds nothing to do and the run goes on.
        let mut open = image.open(1);
        let mut feeder = Feeder::new(&image, &open, 0);
        open.shards[0].log.commit(&feeder.flush(&Plan::admit(2))).unwrap();
        drop(open);
        prop_assert_eq!(image.rows(0).len(), rows + 2);
        image.check_bus_equals_journal();
    }
}
