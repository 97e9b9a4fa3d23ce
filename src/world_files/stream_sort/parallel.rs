//! Contiguous runs of row groups, one per thread, and their results in order.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::SortError;
use super::source::Unit;

/// Row groups cut into contiguous runs of about equal row counts.
pub(super) struct Runs<'a>(Vec<&'a [Unit]>);

impl<'a> Runs<'a> {
    /// At most `threads` runs; fewer when there are fewer row groups.
    pub(super) fn split(units: &'a [Unit], threads: usize) -> Self {
        let total: u64 = units.iter().map(|unit| unit.rows).sum();
        let threads = threads.max(1) as u64;
        let mut runs = Vec::new();
        let (mut start, mut rows) = (0, 0);
        for (at, unit) in units.iter().enumerate() {
            rows += unit.rows;
            let filled = rows * threads >= total * (runs.len() as u64 + 1);
            if filled && (runs.len() as u64) + 1 < threads {
                runs.push(&units[start..=at]);
                start = at + 1;
            }
        }
        if start < units.len() {
            runs.push(&units[start..]);
        }
        Self(runs)
    }

    /// Number of runs.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Set when one run has failed and the others may as well stop.
pub(super) struct Stop(AtomicBool);

impl Stop {
    /// True when the work is no longer wanted.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Works on every run in its own thread; results are in the order of the runs.
pub(super) fn run_all<R: Send>(
    runs: &Runs<'_>,
    work: impl Fn(&[Unit], &Stop) -> Result<R, SortError> + Sync,
) -> Result<Vec<R>, SortError> {
    let stop = Stop(AtomicBool::new(false));
    let guarded = |run: &[Unit]| {
        let result = work(run, &stop);
        if result.is_err() {
            stop.0.store(true, Ordering::Relaxed);
        }
        result
    };
    std::thread::scope(|scope| {
        let guarded = &guarded;
        let threads: Vec<_> = runs
            .0
            .iter()
            .map(|run| scope.spawn(move || guarded(run)))
            .collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All threads are joined before the first error is returned.
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_contiguous_and_cover_every_row_group() {
        let unit = |group, rows| Unit {
            part: 0,
            group,
            rows,
        };
        let units = [
            unit(0, 10),
            unit(1, 10),
            unit(2, 100),
            unit(3, 10),
            unit(4, 10),
        ];
        for threads in 1..8 {
            let runs = Runs::split(&units, threads);
            assert!(runs.count() <= threads);
            let groups: Vec<usize> = runs
                .0
                .iter()
                .flat_map(|run| run.iter().map(|u| u.group))
                .collect();
            assert_eq!(groups, [0, 1, 2, 3, 4]);
        }
        assert_eq!(Runs::split(&[], 2).count(), 0);
    }
}
