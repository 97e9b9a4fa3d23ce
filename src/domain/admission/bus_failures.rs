//! Commits that failed in a row: whether the bus takes what the gate publishes (contract 7.10).

use crate::time_text::Micros;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Counted where commits end, read by the health probe. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct BusFailures {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    in_a_row: AtomicU64,
    last_at: AtomicI64,
}

impl BusFailures {
    /// A commit failed.
    pub fn failed(&self, now: Micros) {
        self.inner.last_at.store(now.0, Ordering::Relaxed);
        self.inner.in_a_row.fetch_add(1, Ordering::Release);
    }

    /// A commit succeeded.
    pub fn succeeded(&self) {
        // Read first: a store by every shard at every commit would pass the line around for nothing.
        if self.inner.in_a_row.load(Ordering::Relaxed) > 0 {
            self.inner.in_a_row.store(0, Ordering::Release);
        }
    }

    /// Whether the bus counts as unhealthy. Nothing is published while it does, so after `retry_micros`
    /// without a failure publishing is tried again; one more failure is enough to stop it.
    pub fn unhealthy(&self, threshold: u64, now: Micros, retry_micros: i64) -> bool {
        let in_a_row = self.inner.in_a_row.load(Ordering::Acquire);
        let last_at = self.inner.last_at.load(Ordering::Relaxed);
        in_a_row >= threshold && now.0.saturating_sub(last_at) < retry_micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_make_the_bus_unhealthy_and_a_success_resets_them() {
        let failures = BusFailures::default();
        let unhealthy = || failures.unhealthy(3, Micros(12), 100);
        failures.failed(Micros(10));
        failures.failed(Micros(11));
        assert!(!unhealthy());
        failures.succeeded();
        failures.failed(Micros(12));
        assert!(!unhealthy());
        failures.failed(Micros(12));
        failures.failed(Micros(12));
        assert!(unhealthy());
    }

    #[test]
    fn an_unhealthy_bus_is_tried_again_and_one_failure_stops_it() {
        let failures = BusFailures::default();
        (0..3).for_each(|at| failures.failed(Micros(at)));
        assert!(failures.unhealthy(3, Micros(101), 100));
        assert!(!failures.unhealthy(3, Micros(102), 100));
        failures.failed(Micros(103));
        assert!(failures.unhealthy(3, Micros(104), 100));
    }
}
