//! Filters over all runs of a shard together.
//!
//! Nearly every key that comes is new, and each run whose filter is asked for it costs a wait for a line of memory. So the
//! keys of every table go to a filter of the shard when it is written, too, and only keys that pass one of these are
//! looked for in runs. Keys are never removed, so merges change nothing, and each filter has room for several times as
//! many keys as the one before it: there are few, however many keys there are. They live in memory only; runs that are
//! older than the start, or for which there was no room, are asked by themselves.

use super::resident_pool::{ResidentLease, ResidentPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wellspring_domain::admission::index_format::{
    FILTER_LINE, filter_line_of, filter_lines, filter_probes,
};
use wellspring_domain::ids::Hash32;

/// Filter bits per key when it is full.
const BITS_PER_KEY: u64 = 12;
/// The first filter has room for so many tables as large as the first.
const TABLES: u64 = 8;
/// Each filter has room for so many times the keys of the one before it, if memory allows.
const GROWTH: u64 = 4;
/// It leaves so many times as much memory as it takes: without a filter of its own and a block index in memory, a run
/// that no filter of the shard is over costs a read of the disk for each key.
const LEAVES: usize = 2;
/// Words of a line.
const WORDS: usize = FILTER_LINE / size_of::<u64>();

type Line = [AtomicU64; WORDS];

/// A filter that grows while it is asked. One thread adds to it.
pub struct SharedFilter {
    lines: Box<[Line]>,
    keys_max: u64,
    /// Keys it still has room for.
    room: AtomicU64,
    lease: ResidentLease,
}

impl SharedFilter {
    /// A filter for a table of so many keys and some more like it, no smaller than the `last` one; none when memory is
    /// short.
    pub fn behind(
        last: Option<&SharedFilter>,
        table_keys: u64,
        pool: &Arc<ResidentPool>,
    ) -> Option<SharedFilter> {
        let (least, most) = match last {
            Some(last) => (last.keys_max, GROWTH * last.keys_max),
            None => (table_keys, TABLES * table_keys),
        };
        std::iter::successors(Some(most), |keys| Some(keys / 2))
            .take_while(|keys| *keys >= least.max(table_keys).max(1))
            .find_map(|keys| SharedFilter::with_room(keys, pool))
    }

    fn with_room(keys_max: u64, pool: &Arc<ResidentPool>) -> Option<SharedFilter> {
        let lines = filter_lines(keys_max, BITS_PER_KEY) as usize;
        let bytes = lines * FILTER_LINE;
        let lease = pool.lease(&[(bytes, LEAVES * bytes)], 0);
        (lease.bytes() == bytes).then(|| SharedFilter {
            lines: (0..lines).map(|_| Line::default()).collect(),
            keys_max,
            room: AtomicU64::new(keys_max),
            lease,
        })
    }

    /// Takes room for so many keys, if it is there.
    pub fn reserve(&self, keys: u64) -> bool {
        let left = self.room.load(Ordering::Relaxed).checked_sub(keys);
        // No other thread takes room.
        left.inspect(|left| self.room.store(*left, Ordering::Relaxed))
            .is_some()
    }

    /// Adds a key. Whoever looks for it learns of its run after it was added.
    pub fn add(&self, key: &Hash32) {
        let line = self.line(key);
        for bit in filter_probes(key) {
            let word = &line[bit / 64];
            // No other thread writes, so nothing is lost between load and store.
            word.store(
                word.load(Ordering::Relaxed) | 1 << (bit % 64),
                Ordering::Relaxed,
            );
        }
    }

    /// False when the key is certainly in none of the runs.
    pub fn may_hold(&self, key: &Hash32) -> bool {
        let line = self.line(key);
        filter_probes(key).fold(true, |all, bit| {
            all & (line[bit / 64].load(Ordering::Relaxed) & (1 << (bit % 64)) != 0)
        })
    }

    /// Brings a key's line into the processor's cache.
    pub fn fetch(&self, key: &Hash32) -> u64 {
        self.line(key)[0].load(Ordering::Relaxed)
    }

    /// Bytes of memory in use.
    pub fn memory_bytes(&self) -> usize {
        self.lease.bytes()
    }

    fn line(&self, key: &Hash32) -> &Line {
        &self.lines[filter_line_of(key, self.lines.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Hash32 {
        Hash32::of(&number.to_be_bytes())
    }

    #[test]
    fn it_knows_all_its_keys_and_few_others() {
        let pool = ResidentPool::of(1 << 20);
        let filter = SharedFilter::behind(None, 2_500, &pool).unwrap();
        assert!(filter.reserve(20_000));
        assert!(!filter.reserve(1), "it is full");
        (0..20_000).for_each(|number| filter.add(&key(number)));
        assert!((0..20_000).all(|number| filter.may_hold(&key(number))));
        let passed = (20_000..40_000).filter(|number| filter.may_hold(&key(*number)));
        assert!(passed.count() < 100);
        assert_eq!(filter.memory_bytes(), pool.used());
    }

    #[test]
    fn the_next_one_is_larger_while_that_leaves_enough_memory_and_never_smaller() {
        let pool = ResidentPool::of(1 << 19);
        let first = SharedFilter::behind(None, 1_000, &pool).unwrap();
        let second = SharedFilter::behind(Some(&first), 1_000, &pool).unwrap();
        let third = SharedFilter::behind(Some(&second), 1_000, &pool).unwrap();
        let fourth = SharedFilter::behind(Some(&third), 1_000, &pool).unwrap();
        let keys_max = [&first, &second, &third, &fourth].map(|filter| filter.keys_max);
        assert_eq!(keys_max, [8_000, 32_000, 64_000, 64_000]);
        assert!(SharedFilter::behind(Some(&fourth), 1_000, &pool).is_none());
        assert!(SharedFilter::behind(Some(&first), 200_000, &pool).is_none());
    }

    #[test]
    fn without_memory_there_is_none() {
        let pool = ResidentPool::of(64);
        assert!(SharedFilter::behind(None, 10, &pool).is_none());
        assert_eq!(pool.used(), 0);
    }
}
