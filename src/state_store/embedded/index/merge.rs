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

/// The runs to merge next, given their sizes oldest first: the newest group of at least
/// [`MERGE_WIDTH`] neighbours of one size class. `base` is the size of a freshly written run.
pub fn pick(sizes: &[u64], base: u64) -> Option<Range<usize>> {
    let mut end = sizes.len();
    while end > 0 {
        let class = size_class(sizes[end - 1], base);
        let same = sizes[..end]
            .iter()
            .rev()
            .take_while(|size| size_class(**size, base) == class)
            .count();
        if same >= MERGE_WIDTH {
            return Some(end - same..end);
        }
        end -= same;
    }
    None
}

fn size_class(size: u64, base: u64) -> u32 {
    (size / base.max(1)).max(1).ilog(MERGE_WIDTH as u64)
}

/// Writes the merge of `runs` (oldest first) to `path`, in turns unless more of them have come together than a merge
/// needs. False when stopped before the end.
pub fn merge(
    runs: &[Arc<Run>],
    path: &Path,
    buffer_bytes: usize,
    stop: &AtomicBool,
) -> Result<bool, StoreError> {
    let entries_max = runs.iter().map(|run| run.entries()).sum();
    let mut writer = RunWriter::create(path, entries_max, buffer_bytes)?;
    let mut merged = MergedScan::new(runs, buffer_bytes)?;
    let mut turns = Turns::new(|| runs.len() > MERGE_WIDTH);
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

    #[test]
    fn four_neighbours_of_one_size_class_are_merged_newest_group_first() {
        assert_eq!(pick(&[], 10), None);
        assert_eq!(pick(&[10, 10, 10], 10), None);
        assert_eq!(pick(&[10, 10, 10, 10], 10), Some(0..4));
        assert_eq!(pick(&[40, 10, 10, 12, 10], 10), Some(1..5));
        assert_eq!(pick(&[40, 41, 42, 44, 10], 10), Some(0..4));
        assert_eq!(pick(&[40, 41, 160, 44, 10], 10), None);
    }

    #[test]
    fn the_number_of_runs_grows_with_the_logarithm_of_the_keys() {
        let mut sizes: Vec<u64> = Vec::new();
        let mut most = 0;
        for _ in 0..4096 {
            sizes.push(10);
            while let Some(group) = pick(&sizes, 10) {
                let sum = sizes[group.clone()].iter().sum();
                sizes.splice(group, [sum]);
            }
            most = most.max(sizes.len());
        }
        assert!(most <= 19, "{most} runs");
    }
}
