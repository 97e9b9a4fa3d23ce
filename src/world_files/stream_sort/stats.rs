//! Statistics of rows: counted while reading the source, and again from the written parts.

use wellspring_domain::world::stream_view::SortStats;

use super::error::SortError;
use super::keys::KeyPlan;
use super::parallel::{Runs, run_all};
use super::row_hash::HashSums;
use super::source::{CompactRows, Source, Unit};

/// Sums and the range of leading keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowStats {
    pub(super) sums: HashSums,
    /// Smallest and largest leading key.
    pub(super) range: Option<(u64, u64)>,
}

impl RowStats {
    /// Counts rows.
    pub(super) fn add_rows(&mut self, rows: &CompactRows, leading: &[u64]) {
        self.sums.add_rows(&rows.hashes);
        for key in leading {
            self.range = Some(match self.range {
                Some((low, high)) => (low.min(*key), high.max(*key)),
                None => (*key, *key),
            });
        }
    }

    /// Joins the statistics of other rows.
    pub(super) fn add(&mut self, other: &RowStats) {
        self.sums.add(&other.sums);
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }

    /// As they stand in a receipt (contract 3.7).
    pub(super) fn to_receipt(self, keys: &KeyPlan) -> SortStats {
        let time = |key: u64| keys.time_of(key).map(|time| time.format_naive());
        SortStats {
            row_count: self.sums.rows,
            hash_sum: self.sums.sum.to_string(),
            hash_sum2: self.sums.sum2.to_string(),
            min_ts_utc: self.range.and_then(|(low, _)| time(low)),
            max_ts_utc: self.range.and_then(|(_, high)| time(high)),
        }
    }
}

/// What was found in the written parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reread {
    pub(super) stats: RowStats,
    pub(super) is_ordered: bool,
}

/// Reads all rows of the written parts again.
pub(super) fn reread(source: &Source, keys: &KeyPlan, threads: usize) -> Result<Reread, SortError> {
    let units = source.units();
    let runs = Runs::split(&units, threads);
    let found = run_all(&runs, |run, stop| {
        let mut found = Found::default();
        for unit in run {
            if stop.is_set() {
                break;
            }
            found.add_unit(source, keys, *unit)?;
        }
        Ok(found)
    })?;
    let mut stats = RowStats::default();
    let mut is_ordered = true;
    let mut last = 0;
    for run in found {
        stats.add(&run.stats);
        is_ordered &= !run.is_disordered && run.first.is_none_or(|first| first >= last);
        last = run.last.max(last);
    }
    Ok(Reread { stats, is_ordered })
}

/// One run of row groups as it was read.
#[derive(Debug, Default)]
struct Found {
    stats: RowStats,
    is_disordered: bool,
    first: Option<u64>,
    last: u64,
}

impl Found {
    fn add_unit(&mut self, source: &Source, keys: &KeyPlan, unit: Unit) -> Result<(), SortError> {
        let mut reader = source.read(unit)?;
        while let Some(rows) = reader.next_rows()? {
            let leading = keys.leading(&rows.rows)?;
            self.stats.add_rows(&rows, &leading);
            let (Some(first), Some(last)) = (leading.first(), leading.last()) else {
                continue;
            };
            self.is_disordered |= !leading.is_sorted() || *first < self.last;
            self.first = self.first.or(Some(*first));
            self.last = *last;
        }
        Ok(())
    }
}

/// The first member in which two statistics differ.
pub(super) fn difference(raw: &SortStats, sorted: &SortStats) -> Option<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let members = |stats: &SortStats| {
        [
            ("row_count", stats.row_count.to_string()),
            ("hash_sum", stats.hash_sum.clone()),
            ("hash_sum2", stats.hash_sum2.clone()),
            ("min_ts_utc", text(&stats.min_ts_utc)),
            ("max_ts_utc", text(&stats.max_ts_utc)),
        ]
    };
    let pairs = members(raw).into_iter().zip(members(sorted));
    let mut differing = pairs.filter(|((_, raw), (_, sorted))| raw != sorted);
    differing
        .next()
        .map(|((member, raw), (_, sorted))| format!("{member} is {sorted}, was {raw}"))
}
