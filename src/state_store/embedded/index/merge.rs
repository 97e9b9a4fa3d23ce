//! Which runs are merged, and how: neighbours of like size, the newer entry of a key wins.

use super::rests::Turns;
use super::run_file::{Run, RunScan};
use super::run_writer::RunWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wellspring_domain::admission::index_format::{EntryBytes, key_of};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

/// Runs of one size class that are merged into one of the next.
const MERGE_WIDTH: usize = 8;
/// Entries between two looks at the stop flag.
const STOP_CHECK_EVERY: u64 = 4096;

/// A run this many times as large as the newer ones beside it is of another size than they are.
const OTHER_SIZE: u64 = 4;

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
    free_bytes: usize,
    buffer_bytes: usize,
    in_a_hurry: impl Fn() -> bool,
    stop: &AtomicBool,
) -> Result<bool, StoreError> {
    let entries_max = runs.iter().map(|run| run.entries()).sum();
    let mut writer = RunWriter::create(path, entries_max, free_bytes, buffer_bytes)?;
    let mut merged = MergedScan::new(runs, buffer_bytes)?;
    let mut turns = Turns::new(in_a_hurry);
    let mut count = 0u64;
    while let Some(entry) = merged.current() {
        writer.push(entry)?;
        merged.advance()?;
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

/// All entries of several runs in key order, one per key: of equal keys the newest run's.
pub struct MergedScan {
    /// Those that are not at their end, oldest first.
    scans: Vec<RunScan>,
    /// The leading bytes of each scan's next key, which nearly always decide.
    prefixes: Vec<u64>,
    /// Which scan has the next entry.
    least: usize,
    /// Whether another one may have the same key.
    is_tied: bool,
}

impl MergedScan {
    /// Starts at the smallest key; `runs` are oldest first.
    pub fn new(runs: &[Arc<Run>], buffer_bytes: usize) -> Result<MergedScan, StoreError> {
        let mut merged = MergedScan {
            scans: Vec::with_capacity(runs.len()),
            prefixes: Vec::with_capacity(runs.len()),
            least: 0,
            is_tied: false,
        };
        for run in runs {
            let scan = RunScan::new(Arc::clone(run), buffer_bytes)?;
            if let Some(entry) = scan.current() {
                merged.prefixes.push(prefix_of(entry));
                merged.scans.push(scan);
            }
        }
        merged.find_least();
        Ok(merged)
    }

    /// The next entry, `None` behind the last one.
    #[inline]
    pub fn current(&self) -> Option<&EntryBytes> {
        self.scans.get(self.least)?.current()
    }

    /// Goes behind the next entry and others of its key.
    #[inline]
    pub fn advance(&mut self) -> Result<(), StoreError> {
        if self.is_tied {
            self.pass_older()?;
        }
        self.pass(self.least)?;
        self.find_least();
        Ok(())
    }

    /// Finds the scan with the smallest key; of equal keys the newest.
    fn find_least(&mut self) {
        let (mut least, mut prefix) = (0, u64::MAX);
        let mut is_tied = false;
        for (scan, other) in self.prefixes.iter().enumerate() {
            is_tied |= *other == prefix;
            (least, prefix) = if *other <= prefix {
                (scan, *other)
            } else {
                (least, prefix)
            };
        }
        (self.least, self.is_tied) = (least, is_tied);
        if is_tied {
            self.find_least_of_tied(prefix);
        }
    }

    #[cold]
    fn find_least_of_tied(&mut self, prefix: u64) {
        let tied = (0..self.scans.len())
            .rev()
            .filter(|scan| self.prefixes[*scan] == prefix);
        let least = tied.min_by_key(|scan| self.scans[*scan].current().map(key_of));
        self.least = least.unwrap_or(self.least);
    }

    /// Goes behind the next entry's key in scans older than its own.
    #[cold]
    fn pass_older(&mut self) -> Result<(), StoreError> {
        for older in (0..self.least).rev() {
            let key = |scan: usize| self.scans[scan].current().map(key_of);
            if key(older) == key(self.least) {
                let scans = self.scans.len();
                self.pass(older)?;
                self.least -= scans - self.scans.len();
            }
        }
        Ok(())
    }

    /// Advances one scan; it goes when it is at its end.
    fn pass(&mut self, scan: usize) -> Result<(), StoreError> {
        self.scans[scan].advance()?;
        match self.scans[scan].current() {
            Some(entry) => self.prefixes[scan] = prefix_of(entry),
            None => {
                self.scans.remove(scan);
                self.prefixes.remove(scan);
            }
        }
        Ok(())
    }
}

fn prefix_of(entry: &EntryBytes) -> u64 {
    Hash32(*key_of(entry)).leading_u64()
}

#[cfg(test)]
mod tests {
    use super::pick;
    use proptest::prelude::*;

    #[test]
    fn eight_neighbours_of_like_size_are_merged_newest_group_first() {
        assert_eq!(pick(&[]), None);
        assert_eq!(pick(&[10; 7]), None);
        assert_eq!(pick(&[10; 8]), Some(0..8));
        assert_eq!(pick(&[80, 10, 10, 12, 10, 9, 11, 10, 10]), Some(1..9));
        assert_eq!(pick(&[40, 41, 42, 44, 40, 41, 42, 44, 10]), Some(0..8));
        assert_eq!(pick(&[40, 41, 42, 44, 320, 41, 42, 44, 10]), None);
        assert_eq!(
            pick(&[3, 80, 90, 100, 80, 90, 100, 100]),
            Some(0..8),
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
        assert!(even <= 29, "{even} runs");
        let around_a_power_of_two = most_runs((0..4096).map(|n| 63 + n % 3));
        assert!(around_a_power_of_two <= 29, "{around_a_power_of_two} runs");
    }

    proptest! {
        /// Tables grow and shrink with what other runs of traffic leave, and the last one is cut short.
        #[test]
        fn runs_of_any_sizes_stay_few(sizes in prop::collection::vec(1u64..1000, 2000)) {
            let most = most_runs(sizes.into_iter());
            prop_assert!(most <= 40, "{} runs", most);
        }
    }
}
