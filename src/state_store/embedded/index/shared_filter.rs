//! One filter over many small runs.
//!
//! Nearly every key that comes is new, and each run whose filter is asked for it costs a wait for a line of memory. So
//! runs that were tables a moment ago have a filter together: it is asked once, and only keys that pass are looked for
//! in each of them. It lives in memory only; without it (no room, or after a start) each run is asked by itself.

use super::merge::MERGE_WIDTH;
use super::resident_pool::{ResidentLease, ResidentPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wellspring_domain::admission::index_format::{
    FILTER_LINE, filter_line_of, filter_lines, filter_probes,
};
use wellspring_domain::ids::Hash32;

/// Filter bits per key when it is full.
const BITS_PER_KEY: u64 = 16;
/// It has room for so many tables as large as the first: they are merged together, and then have no use for it.
const TABLES: u64 = MERGE_WIDTH as u64;
/// Words of a line.
const WORDS: usize = FILTER_LINE / size_of::<u64>();

type Line = [AtomicU64; WORDS];

/// A filter that grows while it is asked. One thread adds to it.
pub struct SharedFilter {
    lines: Box<[Line]>,
    /// Keys it still has room for.
    room: AtomicU64,
    lease: ResidentLease,
}

impl SharedFilter {
    /// A filter for a table of so many keys and some more like it; none when memory is short.
    pub fn with_room(table_keys: u64, pool: &Arc<ResidentPool>) -> Option<SharedFilter> {
        let room = table_keys * TABLES;
        let lines = filter_lines(room, BITS_PER_KEY) as usize;
        let bytes = lines * FILTER_LINE;
        let lease = pool.lease(&[(bytes, bytes)], 0);
        (lease.bytes() == bytes).then(|| SharedFilter {
            lines: (0..lines).map(|_| Line::default()).collect(),
            room: AtomicU64::new(room),
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
        let filter = SharedFilter::with_room(2_500, &pool).unwrap();
        assert!(filter.reserve(20_000));
        assert!(!filter.reserve(1), "it is full");
        (0..20_000).for_each(|number| filter.add(&key(number)));
        assert!((0..20_000).all(|number| filter.may_hold(&key(number))));
        let passed = (20_000..40_000).filter(|number| filter.may_hold(&key(*number)));
        assert!(passed.count() < 80);
        assert_eq!(filter.memory_bytes(), pool.used());
    }

    #[test]
    fn without_memory_there_is_none() {
        let pool = ResidentPool::of(64);
        assert!(SharedFilter::with_room(10, &pool).is_none());
        assert_eq!(pool.used(), 0);
    }
}
