//! How fast each shard may be written: a token bucket of records and one of bytes per shard.
//!
//! A shard takes so many records and bytes a second and refuses the rest; a refused record costs a whole
//! round trip, so the sender holds it back itself. A bucket holds a quarter of a second's worth, because the
//! service counts whole seconds and a full bucket comes on top of what flows in. What is larger than a
//! full bucket may go when the bucket is full, and leaves it in debt.

use std::ops::RangeInclusive;

use super::put_lanes::Admission;
use super::shard_tree::ShardTree;

const MICROS_PER_SECOND: i128 = 1_000_000;
/// Buckets hold this part of a second's worth.
const PARTS_OF_A_SECOND: i128 = 4;

/// What a shard takes per second; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardRates {
    /// Records.
    pub records_per_second: u64,
    /// Bytes of data and partition keys.
    pub bytes_per_second: u64,
}

impl ShardRates {
    /// True when nothing is limited.
    pub fn are_off(&self) -> bool {
        self.records_per_second == 0 && self.bytes_per_second == 0
    }
}

/// Tokens of one kind. The level is kept in micro-tokens, so that no refill is lost to rounding.
#[derive(Clone, Debug)]
struct Bucket {
    per_second: u64,
    level: i128,
    at: u64,
}

impl Bucket {
    fn full(per_second: u64, now: u64) -> Bucket {
        Bucket {
            per_second,
            level: Self::most(per_second),
            at: now,
        }
    }

    fn most(per_second: u64) -> i128 {
        i128::from(per_second) * MICROS_PER_SECOND / PARTS_OF_A_SECOND
    }

    fn refill(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.at);
        let gained = i128::from(self.per_second) * i128::from(elapsed);
        self.level = (self.level + gained).min(Self::most(self.per_second));
        self.at = self.at.max(now);
    }

    /// When `amount` may be taken; `now` or earlier means at once.
    fn ready_at(&self, amount: u64) -> u64 {
        if self.per_second == 0 {
            return self.at;
        }
        let cost = i128::from(amount) * MICROS_PER_SECOND;
        let missing = cost.min(Self::most(self.per_second)) - self.level;
        let rate = i128::from(self.per_second);
        self.at + ((missing.max(0) + rate - 1) / rate) as u64
    }

    fn take(&mut self, amount: u64) {
        if self.per_second > 0 {
            self.level -= i128::from(amount) * MICROS_PER_SECOND;
        }
    }
}

struct ShardBucket {
    id: String,
    hashes: RangeInclusive<u128>,
    records: Bucket,
    bytes: Bucket,
}

/// The buckets of a stream's open shards, by the hashes they take.
pub struct ShardBuckets {
    shards: Vec<ShardBucket>,
}

impl ShardBuckets {
    /// Full buckets for the open shards of `tree`.
    pub fn new(tree: &ShardTree, rates: ShardRates, now_micros: u64) -> ShardBuckets {
        let mut shards: Vec<ShardBucket> = tree
            .open()
            .map(|shard| ShardBucket {
                id: shard.id.clone(),
                hashes: shard.hashes.clone(),
                records: Bucket::full(rates.records_per_second, now_micros),
                bytes: Bucket::full(rates.bytes_per_second, now_micros),
            })
            .collect();
        shards.sort_by_key(|shard| *shard.hashes.start());
        ShardBuckets { shards }
    }

    /// Takes the tokens of one record whose partition key hashes to `hash`, or says when there are enough.
    /// A hash no shard is known to take is let through: the service decides.
    pub fn admit(&mut self, hash: u128, bytes: u32, now_micros: u64) -> Admission {
        let behind = self
            .shards
            .partition_point(|shard| *shard.hashes.start() <= hash);
        let Some(shard) = behind.checked_sub(1).map(|at| &mut self.shards[at]) else {
            return Admission::Now;
        };
        if !shard.hashes.contains(&hash) {
            return Admission::Now;
        }
        shard.records.refill(now_micros);
        shard.bytes.refill(now_micros);
        let ready = shard
            .records
            .ready_at(1)
            .max(shard.bytes.ready_at(u64::from(bytes)));
        if ready > now_micros {
            return Admission::At(ready);
        }
        shard.records.take(1);
        shard.bytes.take(u64::from(bytes));
        Admission::Now
    }

    /// True when a shard of this name has a bucket; if not, the stream was resharded.
    pub fn knows(&self, shard_id: &str) -> bool {
        self.shards.iter().any(|shard| shard.id == shard_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::bus_offset::SequenceNumber;
    use crate::event_bus::shard_tree::Shard;

    const SECOND: u64 = 1_000_000;
    const HALF: u128 = 1 << 127;

    fn buckets(rates: ShardRates) -> ShardBuckets {
        let ranges = [HALF..=u128::MAX, 0..=HALF - 1];
        let shards = ranges
            .into_iter()
            .enumerate()
            .map(|(number, hashes)| Shard {
                id: format!("shardId-{number:012}"),
                partition: number as u32,
                parents: Vec::new(),
                hashes,
                first: SequenceNumber::default(),
                open: true,
            });
        ShardBuckets::new(&shards.collect(), rates, SECOND)
    }

    #[test]
    fn each_shard_lets_its_own_records_through_and_says_when_the_next_may_go() {
        let mut buckets = buckets(ShardRates {
            records_per_second: 40,
            bytes_per_second: 0,
        });
        for _ in 0..10 {
            assert_eq!(buckets.admit(0, 1, SECOND), Admission::Now);
        }
        let next = SECOND + SECOND / 40;
        assert_eq!(buckets.admit(0, 1, SECOND), Admission::At(next));
        assert_eq!(buckets.admit(HALF, 1, SECOND), Admission::Now);
        assert_eq!(buckets.admit(0, 1, next - 1), Admission::At(next));
        assert_eq!(buckets.admit(0, 1, next), Admission::Now);
    }

    #[test]
    fn a_record_larger_than_a_full_bucket_goes_when_it_is_full_and_is_paid_for_later() {
        let mut buckets = buckets(ShardRates {
            records_per_second: 0,
            bytes_per_second: 1_000,
        });
        assert_eq!(buckets.admit(0, 3_000, SECOND), Admission::Now);
        // 2,750 in debt: 2.75 s back to nothing, then 0.2 s for the 200 bytes.
        let next = SECOND + 2_950_000;
        assert_eq!(buckets.admit(0, 200, SECOND), Admission::At(next));
        assert_eq!(buckets.admit(0, 200, next), Admission::Now);
    }

    #[test]
    fn no_rate_means_no_limit_and_a_clock_that_stands_still_gives_nothing() {
        let mut open = buckets(ShardRates::default());
        for _ in 0..10_000 {
            assert_eq!(open.admit(7, u32::MAX, SECOND), Admission::Now);
        }
        let mut slow = buckets(ShardRates {
            records_per_second: 4,
            bytes_per_second: 0,
        });
        assert_eq!(slow.admit(0, 1, SECOND), Admission::Now);
        assert_eq!(slow.admit(0, 1, 0), Admission::At(SECOND + SECOND / 4));
        assert!(slow.knows("shardId-000000000001") && !slow.knows("shardId-000000000002"));
    }

    #[test]
    fn over_a_long_time_no_more_passes_than_the_rate_and_one_bucket() {
        let mut buckets = buckets(ShardRates {
            records_per_second: 1_000,
            bytes_per_second: 1 << 20,
        });
        let (mut passed, mut bytes) = (0u64, 0u64);
        for millisecond in 0..10_000 {
            for _ in 0..3 {
                if buckets.admit(5, 700, SECOND + millisecond * 1_000) == Admission::Now {
                    passed += 1;
                    bytes += 700;
                }
            }
        }
        assert!((10_200..=10_250).contains(&passed), "{passed}");
        assert!(bytes <= 11 << 20);
    }
}
