//! Opens the gate's state on shared backends: settles what is left of a run, then opens writers.
//!
//! Nothing of a run is locked for a node: claims decide about each event, and a writer's lease about who
//! may still finish its claims.

use super::decision_log::{ManagedDecisionLog, ManagedLogParts};
use super::reconcile::Reconciler;
use super::substrate::Substrate;
use super::writer_leases::WriterLeases;
use crate::state_store::postgres::admissions::WriterId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::flush_builder::SegmentRule;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{
    AdmissionIndex, Clock, GateStore, OpenRun, OpenShard, PartitionEnd, RunLayout, StoreError,
};
use wellspring_domain::run_paths::PlatformRunId;

/// The gate's durable state on PostgreSQL, Kinesis and an object store.
pub struct ManagedGateStore {
    substrate: Substrate,
    clock: Arc<dyn Clock>,
    reconciler: Reconciler,
    leases: Arc<WriterLeases>,
    /// The last writer of each shard of each run of this process.
    writers: Mutex<BTreeMap<(PlatformRunId, u16), WriterId>>,
}

impl ManagedGateStore {
    /// A store over these backends; starts the thread that keeps its writers alive.
    pub fn start(substrate: Substrate, clock: Arc<dyn Clock>) -> std::io::Result<ManagedGateStore> {
        let leases = WriterLeases::start(substrate.ledger.clone(), substrate.lease, clock.clone())?;
        Ok(ManagedGateStore {
            reconciler: Reconciler::new(substrate.clone()),
            substrate,
            clock,
            leases,
            writers: Mutex::default(),
        })
    }

    fn open_shard(&self, run: &PlatformRunId, shard: u16) -> Result<OpenShard, StoreError> {
        let parts = ManagedLogParts {
            substrate: self.substrate.clone(),
            clock: self.clock.clone(),
            reconciler: self.reconciler.clone(),
            leases: self.leases.clone(),
        };
        let log = ManagedDecisionLog::open(parts, run, shard)?;
        self.writers().insert((run.clone(), shard), log.writer());
        Ok(OpenShard {
            next_row: RowRef {
                shard,
                segment: log.first_segment(),
                row: 0,
            },
            segments: SegmentRule::Flush,
            log: Box::new(log),
            recovered: Vec::new(),
        })
    }

    /// The writer this process had for a shard has ended: its thread was joined before.
    fn settle_own(&self, run: &PlatformRunId, shard: u16) -> Result<(), StoreError> {
        let key = (run.clone(), shard);
        let last = self.writers().get(&key).copied();
        if let Some(writer) = last {
            self.reconciler.settle_fenced(writer)?;
            self.writers().remove(&key);
        }
        Ok(())
    }

    fn writers(&self) -> std::sync::MutexGuard<'_, BTreeMap<(PlatformRunId, u16), WriterId>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateStore for ManagedGateStore {
    fn open_run(&self, run: &PlatformRunId, layout: &RunLayout) -> Result<OpenRun, StoreError> {
        self.reconciler.settle_run(run)?;
        let mut shards = Vec::with_capacity(usize::from(layout.admission_shards));
        for shard in 0..layout.admission_shards {
            self.settle_own(run, shard)?;
            shards.push(self.open_shard(run, shard)?);
        }
        let index =
            (0..layout.index_shards).map(|_| Box::new(SharedLedger) as Box<dyn AdmissionIndex>);
        Ok(OpenRun {
            shards,
            index: index.collect(),
            ends: Vec::new(),
        })
    }

    fn reopen_shard(
        &self,
        run: &PlatformRunId,
        shard: u16,
        _from: RowRef,
    ) -> Result<(OpenShard, Vec<PartitionEnd>), StoreError> {
        self.settle_own(run, shard)?;
        Ok((self.open_shard(run, shard)?, Vec::new()))
    }

    /// Nothing of the gate's state is on this machine's disks.
    fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(u64::MAX)
    }
}

/// The index of admitted keys is the ledger, and it is asked when a flush is committed: until then every
/// key counts as free.
struct SharedLedger;

impl AdmissionIndex for SharedLedger {
    fn lookup(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError> {
        found.clear();
        found.resize(keys.len(), None);
        Ok(())
    }

    fn insert(
        &mut self,
        _entries: &[(Hash32, IndexEntry)],
        _through: RowRef,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
