//! The lease a node streams a run under, when nodes share backends.
//!
//! One thread renews it. Whoever writes for the run asks first whether the lease is still held: a node that
//! was frozen past its end finds it lost, and writes nothing. Giving it back lets another node go on at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use wellspring_domain::ports::{LeaseGrant, Leases, StoreError};

/// Renewals within one lease.
const RENEWALS_PER_LEASE: u32 = 3;

/// A lease that is held, and renewed until it is dropped.
pub struct RunLease {
    leases: Arc<dyn Leases>,
    key: String,
    grant: LeaseGrant,
    lost: Arc<AtomicBool>,
    /// Dropped first: the renewing thread ends.
    renewing: Option<(Sender<()>, std::thread::JoinHandle<()>)>,
}

impl RunLease {
    /// Asks for a lease; `None` while another holds it.
    pub fn acquire(
        leases: Arc<dyn Leases>,
        key: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<RunLease>, StoreError> {
        let ttl_seconds = lease.as_secs().max(1);
        let Some(grant) = leases.acquire(key, owner, ttl_seconds)? else {
            return Ok(None);
        };
        let lost = Arc::new(AtomicBool::new(false));
        let (ends, ended) = channel::<()>();
        let renewal = Renewal {
            leases: leases.clone(),
            key: key.to_owned(),
            token: grant.token.clone(),
            ttl_seconds,
            lost: lost.clone(),
        };
        let pause = lease / RENEWALS_PER_LEASE;
        let thread = std::thread::Builder::new()
            .name("run-lease".to_owned())
            .spawn(move || {
                while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) && renewal.renew()
                {
                }
            })
            .map_err(|error| StoreError::Unavailable {
                operation: "renew_lease",
                key: key.to_owned(),
                cause: error.to_string(),
            })?;
        Ok(Some(RunLease {
            leases,
            key: key.to_owned(),
            grant,
            lost,
            renewing: Some((ends, thread)),
        }))
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What proves it.
    pub fn token(&self) -> &str {
        &self.grant.token
    }

    /// Refuses with `LEASE_LOST` when another may have the run by now. Asks the store.
    pub fn check(&self) -> Result<(), StoreError> {
        let lost = self.lost.load(Ordering::Acquire);
        if !lost && self.leases.holds(&self.key, &self.grant.token)? {
            return Ok(());
        }
        self.lost.store(true, Ordering::Release);
        Err(StoreError::Refused {
            code: "LEASE_LOST",
            key: self.key.clone(),
            cause: "the lease ended or another node has it; nothing was written".to_owned(),
        })
    }
}

impl Drop for RunLease {
    fn drop(&mut self) {
        if let Some((ends, thread)) = self.renewing.take() {
            drop(ends);
            let _ = thread.join();
        }
        if !self.lost.load(Ordering::Acquire)
            && let Err(error) = self.leases.release(&self.key, &self.grant.token)
        {
            tracing::warn!(key = self.key, %error, "a lease was not given back; it will end");
        }
    }
}

struct Renewal {
    leases: Arc<dyn Leases>,
    key: String,
    token: String,
    ttl_seconds: u64,
    lost: Arc<AtomicBool>,
}

impl Renewal {
    /// False when there is nothing to renew any more.
    fn renew(&self) -> bool {
        match self.leases.renew(&self.key, &self.token, self.ttl_seconds) {
            Ok(Some(_)) => true,
            Ok(None) => {
                tracing::warn!(key = self.key, "the lease of a run was lost");
                self.lost.store(true, Ordering::Release);
                false
            }
            // The store may come back before the lease ends.
            Err(error) => {
                tracing::warn!(key = self.key, %error, "a lease was not renewed");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::state_store::embedded::authority::AuthorityStore;

    fn leases(folder: &tempfile::TempDir) -> Arc<dyn Leases> {
        let path = folder.path().join("authority.db");
        Arc::new(AuthorityStore::open(&path, Arc::new(SystemClock::new())).unwrap())
    }

    #[test]
    fn a_lease_is_held_by_one_and_given_back_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let leases = leases(&folder);
        let ask = |owner| {
            RunLease::acquire(leases.clone(), "ready:m", owner, Duration::from_secs(5)).unwrap()
        };
        let first = ask("a").unwrap();
        first.check().unwrap();
        assert!(ask("b").is_none());
        drop(first);
        assert!(ask("b").is_some());
    }

    #[test]
    fn who_lost_a_lease_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let leases = leases(&folder);
        let held = RunLease::acquire(leases.clone(), "k", "a", Duration::from_secs(60))
            .unwrap()
            .unwrap();
        leases.release("k", held.token()).unwrap();
        assert_eq!(held.check().unwrap_err().code(), "LEASE_LOST");
    }
}
