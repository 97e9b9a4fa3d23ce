//! Memory for filters and block indexes of runs, shared by every index that is open.
//!
//! A table is filled by every run of traffic, so each index has memory of its own for it. Filters grow with the
//! keys admitted so far: one long run needs many, several short ones need few. Whoever comes first takes what it
//! needs of the pool; what finds no room is read from the file instead, which is slower and as right.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that leases are taken from.
#[derive(Debug)]
pub struct ResidentPool {
    capacity: usize,
    used: AtomicUsize,
}

/// Some bytes of a pool, given back when dropped.
#[derive(Debug)]
pub struct ResidentLease {
    pool: Arc<ResidentPool>,
    bytes: usize,
}

impl ResidentPool {
    /// A pool of so many bytes.
    pub fn of(capacity: usize) -> Arc<ResidentPool> {
        Arc::new(ResidentPool {
            capacity,
            used: AtomicUsize::new(0),
        })
    }

    /// Leases the first of `wanted` sizes that leaves at least its `spare` bytes free, given as `(bytes, spare)`.
    /// `going` bytes are held by runs that are about to be replaced and count as free: for as long as a lookup
    /// still reads them the pool is overdrawn by that much. The last resort is a lease of nothing.
    pub fn lease(
        self: &Arc<ResidentPool>,
        wanted: &[(usize, usize)],
        going: usize,
    ) -> ResidentLease {
        let limit = self.capacity.saturating_add(going);
        let fitting = |used: usize| {
            let free = limit.saturating_sub(used);
            let fits = |(bytes, spare): &&(usize, usize)| bytes.saturating_add(*spare) <= free;
            wanted.iter().find(fits).map_or(0, |(bytes, _)| *bytes)
        };
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used + fitting(used))
            });
        let (Ok(before) | Err(before)) = taken;
        ResidentLease {
            pool: Arc::clone(self),
            bytes: fitting(before),
        }
    }

    /// Bytes that nobody leases when `going` bytes are given back.
    pub fn free(&self, going: usize) -> usize {
        let limit = self.capacity.saturating_add(going);
        limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Bytes that are leased.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl ResidentLease {
    /// How many bytes it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for ResidentLease {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_leased_and_comes_back() {
        let pool = ResidentPool::of(100);
        let first = pool.lease(&[(40, 40), (10, 0)], 0);
        assert_eq!(first.bytes(), 40);
        let second = pool.lease(&[(40, 40), (10, 0)], 0);
        assert_eq!(second.bytes(), 10, "the second choice");
        assert_eq!(pool.lease(&[(51, 0)], 0).bytes(), 0, "nothing fits");
        drop(first);
        assert_eq!(pool.used(), 10);
        assert_eq!(pool.lease(&[(40, 40)], 0).bytes(), 40);
        assert_eq!(pool.used(), 10);
    }

    #[test]
    fn what_is_about_to_go_counts_as_free() {
        let pool = ResidentPool::of(100);
        let going = pool.lease(&[(90, 0)], 0);
        let merged = pool.lease(&[(80, 0)], going.bytes());
        assert_eq!((merged.bytes(), pool.used()), (80, 170));
        assert_eq!(pool.lease(&[(1, 0)], 0).bytes(), 0, "overdrawn");
        drop(going);
        assert_eq!(pool.used(), 80);
    }
}
