//! Which runs are merged, and how: neighbours of like size, the newer entry of a key wins.

use super::rests::Turns;
use super::run_file::{Run, RunScan};
use super::run_writer::RunWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wellspring_domain::admission::index_format::Slot;
use wellspring_domain::ports::StoreError;

/// Runs of one size class that are merged into one of the next.
const MERGE_WIDTH: usize = 4;
/// Entries between two looks at the stop flag.
const STOP_CHECK_EVERY: u64 = 4096;

/// A run this many times as large as the newer ones beside it is of another size than they are.
const OTHER_SIZE: u64 = 2;

/// The runs to merge next, given their sizes oldest first: the newest group of at least [`MERGE_WIDTH`] neighbours of
/// like size. An older run that is smaller than its newer neighbours goes with them.
pub fn pick(sizes: &[u64]) -> Option<Range<usize>> {
    let mut end = sizes.len();
    while end > 0 {
        let alike = alike_from(&sizes[..end]);
        if alike >= MERGE_WIDTH {
            return Some(end - alike..end);
        }
        end -= alike;
    }
    None
}

/// How many of the newest runs are of like size: each at most [`OTHER_SIZE`] times the mean of those newer than it.
fn alike_from(sizes: &[u64]) -> usize {
    let (mut sum, mut count) = (0, 0);
    for size in sizes.iter().rev() {
        if count > 0 && size * count >= OTHER_SIZE * sum {
            break;
        }
        sum += size;
        count += 1;
    }
    count as usize
}

/// Whether others wait for a merge: more runs have come together than one needs, or as many are `behind` it.
pub fn is_waited_for(together: usize, behind: usize) -> bool {
    together > MERGE_WIDTH || behind >= MERGE_WIDTH
}

/// Writes the merge of `runs` (oldest first) to `path`, in turns unless `in_a_hurry` says otherwise. False when stopped
/// before the end.
pub fn merge(
    runs: &[Arc<Run>],
    path: &Path,
    buffer_bytes: usize,
    in_a_hurry: impl Fn() -> bool,
    stop: &AtomicBool,
) -> Result<bool, StoreError> {
    let entries_max = runs.iter().map(|run| run.entries()).sum();
    let mut writer = RunWriter::create(path, entries_max, buffer_bytes)?;
    let mut merged = MergedScan::new(runs, buffer_bytes)?;
    let mut turns = Turns::new(in_a_hurry);
    let mut count = 0u64;
    while let Some(slot) = merged.next()? {
        writer.push(&slot)?;
        turns.step();
        count += 1;
        if count.is_multiple_of(STOP_CHECK_EVERY) && stop.load(Ordering::Relaxed) {
            writer.abandon();
            return Ok(false);
        }
    }
    writer.finish()?;
    Ok(true)
}

/// All entries of several runs in key order, one per key.
pub struct MergedScan {
    /// Oldest first.
    scans: Vec<RunScan>,
    /// The leading bytes of each run's next key, which nearly always decide; none behind its last.
    prefixes: Vec<Option<u64>>,
}

impl MergedScan {
    /// Starts at the smallest key; `runs` are oldest first.
    pub fn new(runs: &[Arc<Run>], buffer_bytes: usize) -> Result<MergedScan, StoreError> {
        let scan = |run: &Arc<Run>| RunScan::new(Arc::clone(run), buffer_bytes);
        let scans = runs.iter().map(scan).collect::<Result<Vec<_>, _>>()?;
        Ok(MergedScan {
            prefixes: scans.iter().map(prefix_of).collect(),
            scans,
        })
    }

    /// The next entry; of equal keys the newest run's.
    pub fn next(&mut self) -> Result<Option<Slot>, StoreError> {
        let Some((prefix, newest)) = self.least() else {
            return Ok(None);
        };
        let slot = self.take(newest)?;
        for older in 0..newest {
            let same = self.prefixes[older] == Some(prefix)
                && self.scans[older].next().map(|next| &next.key) == slot.as_ref().map(|s| &s.key);
            if same {
                self.take(older)?;
            }
        }
        Ok(slot)
    }

    /// The run with the smallest key, and the leading bytes of that; of equal keys the newest.
    fn least(&self) -> Option<(u64, usize)> {
        let key = |run: usize| self.scans[run].next().map(|slot| &slot.key);
        let mut least: Option<(u64, usize)> = None;
        for (run, prefix) in self.prefixes.iter().enumerate().rev() {
            let Some(prefix) = *prefix else {
                continue;
            };
            let is_less = least.is_none_or(|(than, other)| {
                prefix < than || (prefix == than && key(run) < key(other))
            });
            if is_less {
                least = Some((prefix, run));
            }
        }
        least
    }

    fn take(&mut self, run: usize) -> Result<Option<Slot>, StoreError> {
        let slot = self.scans[run].take()?;
        self.prefixes[run] = prefix_of(&self.scans[run]);
        Ok(slot)
    }
}

fn prefix_of(scan: &RunScan) -> Option<u64> {
    scan.next().map(|slot| slot.key.leading_u64())
}

#[cfg(test)]
mod tests {
    use super::pick;
    use proptest::prelude::*;

    #[test]
    fn four_neighbours_of_like_size_are_merged_newest_group_first() {
        assert_eq!(pick(&[]), None);
        assert_eq!(pick(&[10, 10, 10]), None);
        assert_eq!(pick(&[10, 10, 10, 10]), Some(0..4));
        assert_eq!(pick(&[40, 10, 10, 12, 10]), Some(1..5));
        assert_eq!(pick(&[40, 41, 42, 44, 10]), Some(0..4));
        assert_eq!(pick(&[40, 41, 160, 44, 10]), None);
        assert_eq!(
            pick(&[3, 80, 90, 100]),
            Some(0..4),
            "a small one goes along"
        );
    }

    /// Most runs there are at once while runs of these sizes are written and merged.
    fn most_runs(written: impl Iterator<Item = u64>) -> usize {
        let mut sizes: Vec<u64> = Vec::new();
        let mut most = 0;
        for size in written {
            sizes.push(size);
            while let Some(group) = pick(&sizes) {
                let sum = sizes[group.clone()].iter().sum();
                sizes.splice(group, [sum]);
            }
            most = most.max(sizes.len());
        }
        most
    }

    #[test]
    fn the_number_of_runs_grows_with_the_logarithm_of_the_keys() {
        let even = most_runs(std::iter::repeat_n(10, 4096));
        assert!(even <= 19, "{even} runs");
        let around_a_power_of_four = most_runs((0..4096).map(|n| 63 + n % 3));
        assert!(
            around_a_power_of_four <= 19,
            "{around_a_power_of_four} runs"
        );
    }

    proptest! {
        /// Tables grow and shrink with what other runs of traffic leave, and the last one is cut short.
        #[test]
        fn runs_of_any_sizes_stay_few(sizes in prop::collection::vec(1u64..1000, 2000)) {
            let most = most_runs(sizes.into_iter());
            prop_assert!(most <= 30, "{} runs", most);
        }
    }
}
