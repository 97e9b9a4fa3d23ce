//! Waiting between tries: doubling with jitter, up to a moment after which the caller gives up.

use std::cell::RefCell;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use wellspring_domain::event_bus::backoff::Backoff;

/// The tries of one piece of work.
pub(super) struct Tries<'a> {
    backoff: Backoff,
    jitter: &'a Jitter,
    deadline: Instant,
    failed: u32,
}

/// Random numbers of one call, from a seed.
pub(super) struct Jitter(RefCell<SmallRng>);

impl Jitter {
    /// Numbers that follow from `seed`.
    pub(super) fn from_seed(seed: u64) -> Jitter {
        Jitter(RefCell::new(SmallRng::seed_from_u64(seed)))
    }
}

impl<'a> Tries<'a> {
    /// No try has failed yet.
    pub(super) fn until(deadline: Instant, backoff: Backoff, jitter: &'a Jitter) -> Tries<'a> {
        Tries {
            backoff,
            jitter,
            deadline,
            failed: 0,
        }
    }

    /// Counts a failed try and waits; false when the next one would begin after the deadline.
    pub(super) async fn again(&mut self) -> bool {
        self.failed += 1;
        let jitter = self.jitter.0.borrow_mut().random::<f64>();
        let wait = Duration::from_millis(self.backoff.wait_ms(self.failed, jitter));
        self.pause(wait).await
    }

    /// Waits without a failure; false when the wait would end after the deadline.
    pub(super) async fn pause(&self, wait: Duration) -> bool {
        if Instant::now() + wait >= self.deadline {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    /// Forgets failures: something went well.
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// The moment after which nothing is tried any more.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}
