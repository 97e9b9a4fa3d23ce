//! Memory for tables of keys, shared by the shards of every index that is open.
//!
//! The larger a table, the fewer runs are written, merged and looked up. One busy run should have nearly all of the
//! memory, and another that begins later should find some. So each time a table is full, its shard takes two thirds of
//! what is free then: equally busy shards end up with equal parts, and half of such a part stays free for whoever comes
//! next. A fixed part of the memory is out of this game: each shard that may be open has a reserve nobody else is given.

use std::sync::{Arc, Mutex, MutexGuard};
use wellspring_domain::admission::index_format::PAGE;

/// The reserve of a shard is so many times smaller than an equal part would be.
const RESERVE_PART: usize = 4;
/// Buffers a shard writes and merges runs with.
const BUFFERS: usize = 8;
/// Largest buffer.
const BUFFER_MAX: usize = 64 * PAGE;

/// Bytes for tables, given to shards in turns.
#[derive(Debug)]
pub struct TablePool {
    capacity: usize,
    reserve: usize,
    shards_max: usize,
    given: Mutex<Given>,
}

/// What was given to whom is in the leases; this is the sum.
#[derive(Debug, Default)]
struct Given {
    bytes: usize,
    shards: usize,
}

/// The tables of one shard: the one being filled, and the one before it until it is written.
#[derive(Debug)]
pub struct TableLease {
    pool: Arc<TablePool>,
    bytes: usize,
}

impl TablePool {
    /// A pool of so many bytes, buffers of shards included, for at most so many shards at once.
    pub fn of(capacity: usize, shards_max: usize) -> Arc<TablePool> {
        let shards_max = shards_max.max(1);
        Arc::new(TablePool {
            capacity,
            reserve: capacity / shards_max / RESERVE_PART,
            shards_max,
            given: Mutex::default(),
        })
    }

    /// Bytes of one read or write buffer of a shard; all its buffers take half of its reserve at most, unless that is
    /// less than a page for each.
    pub fn buffer_bytes(&self) -> usize {
        (self.reserve / (2 * BUFFERS)).clamp(PAGE, BUFFER_MAX) / PAGE * PAGE
    }

    /// A shard that begins with an empty table, and the bytes that table may take.
    pub fn lease(self: &Arc<TablePool>) -> (TableLease, usize) {
        self.given().shards += 1;
        let mut lease = TableLease {
            pool: Arc::clone(self),
            bytes: 0,
        };
        let table = lease.next_table(0);
        (lease, table)
    }

    /// Bytes of the smallest table: half of what a reserve holds beside the largest buffers.
    fn least_table(&self) -> usize {
        self.reserve / 4
    }

    /// Bytes for shards that may still come when so many are open.
    fn kept_back(&self, shards: usize) -> usize {
        self.shards_max.saturating_sub(shards) * self.reserve
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.given
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl TableLease {
    /// Bytes the next table may take beside one of `full` bytes, which is full and waits to be written.
    pub fn next_table(&mut self, full: usize) -> usize {
        let pool = &self.pool;
        // Beside the first table nothing is full; room for the least is kept, or the one after it would have none.
        let full = full.max(pool.least_table());
        let mut given = pool.given();
        let others = given.bytes - self.bytes + pool.kept_back(given.shards);
        let free = pool.capacity.saturating_sub(others);
        // Both tables of a shard share what it takes.
        let share = (free / 3 * 2).max(pool.reserve);
        let buffers = BUFFERS * pool.buffer_bytes();
        let next = (share.saturating_sub(buffers) / 2).min(free.saturating_sub(full + buffers));
        // Less than this is left only while more shards are open than should be: then the pool is overdrawn.
        let next = next.max(pool.least_table());
        let bytes = (full + next + buffers).max(pool.reserve);
        given.bytes = given.bytes - self.bytes + bytes;
        drop(given);
        self.bytes = bytes;
        next
    }
}

impl Drop for TableLease {
    fn drop(&mut self) {
        let mut given = self.pool.given();
        given.bytes -= self.bytes;
        given.shards -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    /// A shard and the tables it has.
    struct Shard {
        lease: TableLease,
        active: usize,
    }

    impl Shard {
        fn open(pool: &Arc<TablePool>) -> Shard {
            let (lease, active) = pool.lease();
            Shard { lease, active }
        }

        fn fill(&mut self) {
            self.active = self.lease.next_table(self.active);
        }
    }

    #[test]
    fn busy_shards_share_evenly_and_half_a_part_stays_free() {
        let pool = TablePool::of(576 * MIB, 8);
        let mut shards = [Shard::open(&pool), Shard::open(&pool)];
        for _ in 0..20 {
            shards.iter_mut().for_each(Shard::fill);
        }
        let [first, second] = shards.map(|shard| shard.active / MIB);
        assert!(first.abs_diff(second) <= 1, "{first} and {second}");
        assert!((91..=93).contains(&first), "{first} MiB each");
    }

    #[test]
    fn one_that_comes_late_has_its_reserve_at_once_and_its_part_soon() {
        let pool = TablePool::of(576 * MIB, 8);
        let mut early: Vec<Shard> = (0..7).map(|_| Shard::open(&pool)).collect();
        for shard in &mut early {
            (0..20).for_each(|_| shard.fill());
        }
        let mut late = Shard::open(&pool);
        assert!(late.active >= pool.reserve / 4, "{}", late.active);
        for _ in 0..20 {
            early.iter_mut().for_each(Shard::fill);
            late.fill();
        }
        let parts = early.iter().map(|shard| shard.active / MIB);
        let equal = late.active / MIB;
        assert!(parts.into_iter().all(|part| part.abs_diff(equal) <= 1));
        drop((early, late));
        assert_eq!(pool.given().bytes, 0);
        assert_eq!(pool.given().shards, 0);
    }

    proptest! {
        /// Whoever comes, fills tables and leaves in whatever order: no more is given than there is, and each shard
        /// has a table of some size.
        #[test]
        fn no_more_is_given_than_there_is(
            capacity in (4 * MIB)..(64 * MIB),
            steps in prop::collection::vec((0usize..8, 0u8..8), 1..200),
        ) {
            let pool = TablePool::of(capacity, 8);
            let mut shards: Vec<Option<Shard>> = (0..8).map(|_| None).collect();
            for (number, step) in steps {
                let place = &mut shards[number];
                match (step, place.as_mut()) {
                    (0, _) => *place = None,
                    (_, Some(shard)) => {
                        let full = shard.active;
                        shard.fill();
                        prop_assert!(full + shard.active <= shard.lease.bytes);
                    }
                    (_, None) => *place = Some(Shard::open(&pool)),
                }
                let open = shards.iter().flatten();
                prop_assert_eq!(open.clone().map(|shard| shard.lease.bytes).sum::<usize>(), pool.given().bytes);
                prop_assert!(pool.given().bytes + pool.kept_back(open.clone().count()) <= capacity);
                prop_assert!(open.clone().all(|shard| shard.active >= pool.reserve / 4));
            }
        }
    }
}
