//! A lease while it is held: checked and renewed before every write, given back at the end
//! (contract 5.3, W18, W30).

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use wellspring_domain::ports::{Clock, LeaseGrant, Leases};

use super::error::RunError;

/// A lease this runner holds; given back when dropped.
pub struct HeldLease<'a> {
    leases: &'a dyn Leases,
    clock: &'a dyn Clock,
    key: String,
    ttl_seconds: u64,
    grant: LeaseGrant,
    renewed_at: u64,
}

impl<'a> HeldLease<'a> {
    /// Takes the lease; `None` when another holds it.
    pub fn acquire(
        leases: &'a dyn Leases,
        clock: &'a dyn Clock,
        key: &str,
        owner: &str,
        ttl_seconds: u64,
    ) -> Result<Option<HeldLease<'a>>, RunError> {
        let renewed_at = clock.monotonic_micros();
        let grant = leases.acquire(key, owner, ttl_seconds)?;
        Ok(grant.map(|grant| HeldLease {
            leases,
            clock,
            key: key.to_owned(),
            ttl_seconds,
            grant,
            renewed_at,
        }))
    }

    /// Checks that the lease is still ours and extends it. The monotonic clock decides first: however
    /// the wall clock is set, a lease that was not renewed in time is over (W30).
    pub fn keep(&mut self) -> Result<(), RunError> {
        if self.grant.token.is_empty() {
            return Err(RunError::LeaseTokenMissing {
                key: self.key.clone(),
            });
        }
        let lost = || RunError::LeaseLost {
            key: self.key.clone(),
        };
        let now = self.clock.monotonic_micros();
        let ttl_micros = self.ttl_seconds.saturating_mul(1_000_000);
        if now.saturating_sub(self.renewed_at) >= ttl_micros {
            return Err(lost());
        }
        if !self.leases.holds(&self.key, &self.grant.token)? {
            return Err(lost());
        }
        self.grant = self
            .leases
            .renew(&self.key, &self.grant.token, self.ttl_seconds)?
            .ok_or_else(lost)?;
        self.renewed_at = now;
        Ok(())
    }

    /// Keeps the lease while `work` runs for long without writing, for example while a big world is
    /// hashed: it is renewed every `interval` from a thread of its own.
    pub fn keep_while<T>(
        &mut self,
        interval: Duration,
        work: impl FnOnce() -> T,
    ) -> Result<T, RunError> {
        self.keep()?;
        let (done, until_done) = mpsc::sync_channel::<()>(1);
        let (leases, clock) = (self.leases, self.clock);
        let (key, token, ttl_seconds) = (&self.key, &self.grant.token, self.ttl_seconds);
        let renew = move || {
            let mut renewed_at = None;
            while until_done.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let now = clock.monotonic_micros();
                // One failure is no loss yet: the next write checks the lease again.
                match leases.renew(key, token, ttl_seconds) {
                    Ok(Some(_)) => renewed_at = Some(now),
                    Ok(None) => break,
                    Err(error) => tracing::warn!(lease = %key, %error, "lease was not renewed"),
                }
            }
            renewed_at
        };
        let (result, renewed_at) = std::thread::scope(|scope| {
            let renewer = scope.spawn(renew);
            let result = work();
            drop(done);
            (result, renewer.join().unwrap_or_default())
        });
        self.renewed_at = renewed_at.unwrap_or(self.renewed_at);
        Ok(result)
    }
}

impl Drop for HeldLease<'_> {
    fn drop(&mut self) {
        // A lease that cannot be given back runs out by itself.
        if let Err(error) = self.leases.release(&self.key, &self.grant.token) {
            tracing::warn!(lease = %self.key, %error, "lease was not released");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use wellspring_domain::ports::StoreError;
    use wellspring_domain::time_text::Micros;

    /// Counts renewals; its clock tells how many there were, in minutes.
    #[derive(Default)]
    struct Counting(AtomicU64);

    impl Clock for Counting {
        fn now(&self) -> Micros {
            Micros(0)
        }
        fn monotonic_micros(&self) -> u64 {
            self.0.load(Ordering::SeqCst) * 60_000_000
        }
    }

    impl Leases for Counting {
        fn acquire(&self, _: &str, _: &str, _: u64) -> Result<Option<LeaseGrant>, StoreError> {
            Ok(Some(LeaseGrant {
                token: "t".to_owned(),
                epoch: 1,
                expires_at: Micros(0),
            }))
        }
        fn renew(&self, _: &str, _: &str, _: u64) -> Result<Option<LeaseGrant>, StoreError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.acquire("", "", 0)
        }
        fn holds(&self, _: &str, _: &str) -> Result<bool, StoreError> {
            Ok(true)
        }
        fn release(&self, _: &str, _: &str) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn a_lease_outlives_work_that_takes_longer_than_it_lasts() {
        let counting = Counting::default();
        let lease = HeldLease::acquire(&counting, &counting, "run", "owner", 300);
        let mut lease = lease.unwrap().unwrap();
        // The work ends when twenty minutes of renewals have passed.
        let work = || {
            while counting.0.load(Ordering::SeqCst) < 20 {
                std::thread::yield_now()
            }
        };
        lease.keep_while(Duration::from_micros(100), work).unwrap();
        lease.keep().unwrap();
        counting.0.fetch_add(5, Ordering::SeqCst);
        assert_eq!(
            lease.keep().unwrap_err().code(),
            "LEASE_LOST",
            "nobody renewed it"
        );
    }
}
