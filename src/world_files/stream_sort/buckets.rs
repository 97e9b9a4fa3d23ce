//! Cuts the key range into buckets of about equal size, from an even sample of all leading keys.

use super::error::SortError;
use super::keys::KeyPlan;
use super::source::{Source, Unit};

const SAMPLE_MAX: usize = 65_536;
const BUCKETS_MAX: u64 = 4_096;

/// Boundaries between buckets, rising.
pub(super) struct Buckets(Vec<u64>);

impl Buckets {
    /// Samples every row group's first key column and cuts at the quantiles.
    pub(super) fn plan(
        source: &Source,
        keys: &KeyPlan,
        units: &[Unit],
        wanted: u64,
    ) -> Result<Self, SortError> {
        let Some(column) = keys.first_column() else {
            return Ok(Self(Vec::new()));
        };
        let mut sample = Sample::default();
        for unit in units {
            for values in source.read_column(*unit, column)? {
                keys.leading_of_first(&values?)?
                    .into_iter()
                    .for_each(|key| sample.offer(key));
            }
        }
        Ok(Self(
            sample.quantiles(wanted.clamp(1, BUCKETS_MAX) as usize),
        ))
    }

    /// Number of buckets.
    pub(super) fn count(&self) -> usize {
        self.0.len() + 1
    }

    /// The bucket of a leading key.
    pub(super) fn of(&self, key: u64) -> usize {
        self.0.partition_point(|boundary| *boundary <= key)
    }
}

/// Every n-th value of a sequence of unknown length; n doubles whenever the sample is full.
struct Sample {
    kept: Vec<u64>,
    stride: u64,
    seen: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            kept: Vec::with_capacity(SAMPLE_MAX),
            stride: 1,
            seen: 0,
        }
    }
}

impl Sample {
    fn offer(&mut self, value: u64) {
        if self.seen.is_multiple_of(self.stride) {
            if self.kept.len() == SAMPLE_MAX {
                let mut index = 0;
                self.kept.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.stride *= 2;
            }
            // After doubling, this position may no longer be on the stride.
            if self.seen.is_multiple_of(self.stride) {
                self.kept.push(value);
            }
        }
        self.seen += 1;
    }

    fn quantiles(mut self, buckets: usize) -> Vec<u64> {
        self.kept.sort_unstable();
        let mut cuts: Vec<u64> = (1..buckets)
            .filter_map(|bucket| self.kept.get(bucket * self.kept.len() / buckets).copied())
            .collect();
        cuts.dedup();
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_long_sequence_cut_it_evenly() {
        let mut sample = Sample::default();
        let total = 1_000_000u64;
        (0..total)
            .map(|n| n * 7 % total)
            .for_each(|key| sample.offer(key));
        assert!(sample.kept.len() > SAMPLE_MAX / 2 - 1);
        let buckets = Buckets(sample.quantiles(10));
        assert_eq!(buckets.count(), 10);
        let mut sizes = vec![0u64; 10];
        (0..total).for_each(|key| sizes[buckets.of(key)] += 1);
        assert!(
            sizes.iter().all(|size| (90_000..110_000).contains(size)),
            "{sizes:?}"
        );
    }

    #[test]
    fn equal_keys_never_fall_into_two_buckets() {
        let mut sample = Sample::default();
        (0..100).for_each(|_| sample.offer(5));
        let buckets = Buckets(sample.quantiles(4));
        assert_eq!((buckets.of(5), buckets.of(4)), (1, 0));
        assert_eq!(buckets.count(), 2);
    }
}
