//! Keeps this node's writers alive, and knows at once when one was fenced.
//!
//! One thread renews all writers of the process. A writer that is not among the renewed ones was taken
//! over; its log refuses to go on. When the ledger cannot be reached for a whole lease, every writer counts
//! as lost, because another node may have settled its claims by then.

use crate::state_store::postgres::admissions::{AdmissionLedger, WRITER_FENCED, WriterId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use wellspring_domain::ports::{Clock, StoreError};

/// Renewals within one lease.
const RENEWALS_PER_LEASE: u32 = 3;

/// A writer of this process; dropping it ends the renewals.
pub struct HeldWriter {
    writer: WriterId,
    /// Monotonic time until which the writer certainly lives; 0 when it was fenced.
    lives_until: Arc<AtomicU64>,
    leases: Weak<WriterLeases>,
    clock: Arc<dyn Clock>,
}

impl HeldWriter {
    /// Refuses when the writer may have been taken over.
    pub fn check(&self) -> Result<(), StoreError> {
        let until = self.lives_until.load(Ordering::Acquire);
        if self.clock.monotonic_micros() < until {
            return Ok(());
        }
        Err(StoreError::Refused {
            code: WRITER_FENCED,
            key: format!("writer {}", self.writer.0),
            cause: "its lease has ended or was taken over; a new writer goes on".to_owned(),
        })
    }
}

impl Drop for HeldWriter {
    fn drop(&mut self) {
        if let Some(leases) = self.leases.upgrade() {
            leases.held().remove(&self.writer);
        }
    }
}

/// The writers of this process.
pub struct WriterLeases {
    ledger: AdmissionLedger,
    lease: Duration,
    clock: Arc<dyn Clock>,
    held: Mutex<BTreeMap<WriterId, Arc<AtomicU64>>>,
    /// Dropped with the last owner: the thread ends.
    _ends: Mutex<Option<Sender<()>>>,
}

impl WriterLeases {
    /// Starts the thread.
    pub fn start(
        ledger: AdmissionLedger,
        lease: Duration,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Arc<WriterLeases>> {
        let (ends, ended) = channel::<()>();
        let leases = Arc::new(WriterLeases {
            ledger,
            lease,
            clock,
            held: Mutex::default(),
            _ends: Mutex::new(Some(ends)),
        });
        let weak = Arc::downgrade(&leases);
        let pause = lease / RENEWALS_PER_LEASE;
        std::thread::Builder::new()
            .name("writer-leases".to_owned())
            .spawn(move || {
                while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    let Some(leases) = weak.upgrade() else {
                        return;
                    };
                    leases.renew();
                }
            })?;
        Ok(leases)
    }

    /// Holds a writer that was opened just now.
    pub fn hold(self: &Arc<Self>, writer: WriterId) -> HeldWriter {
        let lives_until = Arc::new(AtomicU64::new(self.lease_end()));
        self.held().insert(writer, lives_until.clone());
        HeldWriter {
            writer,
            lives_until,
            leases: Arc::downgrade(self),
            clock: self.clock.clone(),
        }
    }

    fn renew(&self) {
        let held = self.held().clone();
        if held.is_empty() {
            return;
        }
        // The time before the question: the ledger's lease ends later than this one.
        let until = self.lease_end();
        let writers: Vec<WriterId> = held.keys().copied().collect();
        match self.ledger.renew_writers(&writers, self.lease) {
            Ok(alive) => {
                for (writer, lives_until) in held {
                    let until = if alive.contains(&writer) { until } else { 0 };
                    lives_until.store(until, Ordering::Release);
                }
            }
            Err(error) => tracing::warn!(%error, "writers were not renewed"),
        }
    }

    fn lease_end(&self) -> u64 {
        self.clock.monotonic_micros() + self.lease.as_micros() as u64
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<WriterId, Arc<AtomicU64>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
