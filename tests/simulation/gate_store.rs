//! The gate's durable state over the simulated disk.

use crate::disk::{Decided, Frame, FrameState, Place};
use crate::faults::{Fault, Lie};
use crate::ledger::{open_shared, settle_writers};
use crate::sim::{Sim, unavailable};
use std::collections::BTreeMap;
use std::sync::Arc;
use wellspring_actors::ingestion_gate::handle::GateProofs;
use wellspring_actors::ingestion_gate::projector::Projection;
use wellspring_domain::admission::commit_report::CommitReport;
use wellspring_domain::admission::decision::{Flush, IndexEntry, RowRef};
use wellspring_domain::admission::flush_builder::SegmentRule;
use wellspring_domain::admission::intake::ProofState;
use wellspring_domain::admission::routing::index_shard_of;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{
    AdmissionIndex, DecisionLog, GateStore, OpenRun, OpenShard, PartitionEnd, RunLayout, StoreError,
};
use wellspring_domain::run_paths::PlatformRunId;

/// Opens runs of the simulated disk.
pub struct SimGateStore(pub Arc<Sim>);

impl SimGateStore {
    fn open_shard(
        &self,
        run: &PlatformRunId,
        shard: u16,
        recovered: Vec<(Hash32, IndexEntry)>,
    ) -> Result<OpenShard, StoreError> {
        let mut disk = self.0.disk();
        let is_free = disk.writers.insert((run.to_string(), shard));
        let next_row = disk.run(run.as_str()).next_row(shard);
        drop(disk);
        if !is_free {
            self.0
                .broken(format!("shard {shard} of {run} has two writers"));
        }
        if self.0.plan.shared_backends {
            return Ok(open_shared(&self.0, run, shard));
        }
        let log = SimLog {
            sim: self.0.clone(),
            run: run.clone(),
            shard,
            next_row,
            failed: false,
        };
        Ok(OpenShard {
            log: Box::new(log),
            next_row,
            segments: SegmentRule::Rows,
            recovered,
        })
    }

    /// What recovery found is committed: readers may see it, receipts are given out.
    fn learn(&self, run: &PlatformRunId, shard: Option<u16>) {
        let mut disk = self.0.disk();
        let mut judge = self.0.judge();
        let state = disk.run(run.as_str());
        let wanted = |of: &u16| shard.is_none_or(|shard| shard == *of);
        let journals = state.journals.iter_mut().filter(|(of, _)| wanted(of));
        for frame in journals.flat_map(|(_, frames)| frames) {
            if !frame.told {
                judge.committed(run.as_str(), frame);
                frame.told = true;
            }
        }
        if shard.is_none() {
            judge.still_there(run.as_str(), state);
        }
    }

    fn recover(&self, run: &PlatformRunId, shard: Option<u16>) {
        let wrong = self.0.disk().run(run.as_str()).recover(shard);
        for wrong in wrong {
            self.0.broken(wrong);
        }
    }
}

impl GateStore for SimGateStore {
    fn open_run(&self, run: &PlatformRunId, layout: &RunLayout) -> Result<OpenRun, StoreError> {
        self.0.fails(Fault::RunOpenFails, "open", run.as_str())?;
        let busy = |(open, _): &(String, u16)| open == run.as_str();
        if self.0.disk().writers.iter().any(busy) {
            // Its last writer has not heard yet that the run was closed.
            let key = run.to_string();
            return Err(StoreError::Locked { key });
        }
        self.recover(run, None);
        settle_writers(&self.0, run, None);
        self.learn(run, None);
        self.0.note(format!("open {run}"));
        let mut index = vec![SimIndex::new(&self.0); usize::from(layout.index_shards)];
        let shared = self.0.plan.shared_backends;
        for frame in self.0.disk().run(run.as_str()).frames() {
            // The ledger is asked at the commit; until then every key counts as free.
            for (key, entry) in frame.admitted().filter(|_| !shared) {
                let owner = index_shard_of(&key, layout.index_shards);
                index[usize::from(owner)].keys.insert(key, entry);
            }
        }
        let shards = 0..layout.admission_shards;
        let shards = shards.map(|shard| self.open_shard(run, shard, Vec::new()));
        let shards = shards.collect::<Result<_, _>>()?;
        // A gate with shared backends has no partitions of its own.
        let boxed = |index| Box::new(index) as Box<dyn AdmissionIndex>;
        Ok(OpenRun {
            shards,
            index: index.into_iter().map(boxed).collect(),
            ends: self.0.disk().run(run.as_str()).ends(),
        })
    }

    fn reopen_shard(
        &self,
        run: &PlatformRunId,
        shard: u16,
        from: RowRef,
    ) -> Result<(OpenShard, Vec<PartitionEnd>), StoreError> {
        self.0
            .fails(Fault::RecoveryFails, "recover", run.as_str())?;
        self.recover(run, Some(shard));
        settle_writers(&self.0, run, Some(shard));
        self.learn(run, Some(shard));
        self.0.note(format!("reopen {run} shard {shard}"));
        if self.0.plan.shared_backends {
            return Ok((self.open_shard(run, shard, Vec::new())?, Vec::new()));
        }
        let recovered = {
            let mut disk = self.0.disk();
            let frames = disk.run(run.as_str()).journals.get(&shard).cloned();
            let admitted = frames.into_iter().flatten();
            let admitted = admitted.flat_map(|frame| frame.admitted().collect::<Vec<_>>());
            admitted.filter(|(_, entry)| entry.row >= from).collect()
        };
        let ends = self.0.disk().run(run.as_str()).ends();
        Ok((self.open_shard(run, shard, recovered)?, ends))
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(u64::MAX)
    }
}

/// The writer of one shard.
struct SimLog {
    sim: Arc<Sim>,
    run: PlatformRunId,
    shard: u16,
    next_row: RowRef,
    failed: bool,
}

impl Drop for SimLog {
    fn drop(&mut self) {
        let key = (self.run.to_string(), self.shard);
        self.sim.disk().writers.remove(&key);
    }
}

impl SimLog {
    fn commit_flush(&mut self, flush: &Flush) -> Result<(), StoreError> {
        let key = self.run.to_string();
        self.sim.alive("write", &key)?;
        if self.sim.strikes(Fault::WriterFenced) {
            return Err(StoreError::Refused {
                code: "WRITER_FENCED",
                key,
                cause: "simulated".to_owned(),
            });
        }
        self.sim.dies(Fault::DiesBeforeLines, "write", &key)?;
        let ends = self.write_lines(flush)?;
        self.sim.dies(Fault::DiesBeforeLineSync, "write", &key)?;
        self.sim.fails(Fault::LineSyncFails, "fsync", &key)?;
        self.sync_lines(&ends);
        self.sim.dies(Fault::DiesBeforeFrame, "write", &key)?;
        if self.sim.lies(Lie::FrameForgotten) {
            return Ok(());
        }
        self.write_frame(flush, ends)?;
        self.sim.dies(Fault::DiesBeforeFrameSync, "write", &key)?;
        self.sim.fails(Fault::FrameSyncFails, "fsync", &key)?;
        self.sync_frame();
        self.sim.dies(Fault::DiesAfterCommit, "write", &key)?;
        self.sim.fails(Fault::CommitAnswerLost, "write", &key)
    }

    /// Where each partition ends behind the flush.
    fn write_lines(&self, flush: &Flush) -> Result<Vec<(Place, usize, u64)>, StoreError> {
        let mut ends = Vec::new();
        let confirmed = self.sim.disk().run(self.run.as_str()).confirmed();
        for append in &flush.appends {
            let place = (append.topic.clone(), append.partition);
            let stops = self.sim.strikes(Fault::DiskFull);
            let kept = match stops {
                true => self.sim.below(append.bytes.len() as u64) as usize,
                false => append.bytes.len(),
            };
            let mut disk = self.sim.disk();
            let run = disk.run(self.run.as_str());
            let (byte, offset) = confirmed.get(&place).copied().unwrap_or_default();
            run.owners.insert(place.clone(), self.shard);
            let file = run.partitions.entry(place.clone()).or_default();
            let fits = file.bytes.len() == byte && offset == append.first_offset;
            file.bytes.extend_from_slice(&append.bytes[..kept]);
            let end = file.bytes.len();
            drop(disk);
            if !fits {
                let first = append.first_offset;
                let wrong = format!("{place:?} goes on at {first}, it ends at {offset}");
                self.sim.broken(wrong);
            }
            if stops {
                return Err(unavailable("write", self.run.as_str(), "no space left"));
            }
            ends.push((place, end, offset + u64::from(append.events)));
        }
        Ok(ends)
    }

    fn sync_lines(&self, ends: &[(Place, usize, u64)]) {
        let mut disk = self.sim.disk();
        let run = disk.run(self.run.as_str());
        for (place, end, _) in ends {
            if let Some(file) = run.partitions.get_mut(place) {
                file.synced = *end;
            }
        }
    }

    fn write_frame(&self, flush: &Flush, ends: Vec<(Place, usize, u64)>) -> Result<(), StoreError> {
        let stops = self.sim.strikes(Fault::DiskFull);
        let state = match stops {
            true => FrameState::Torn,
            false => FrameState::Written,
        };
        let asked = |row| Some(Decided::as_asked(flush, row));
        let frame = Frame {
            flush: Arc::new(flush.clone()),
            decided: flush.rows.iter().map(asked).collect(),
            ends,
            state,
            told: false,
        };
        let mut disk = self.sim.disk();
        let run = disk.run(self.run.as_str());
        run.journals.entry(self.shard).or_default().push(frame);
        match stops {
            true => Err(unavailable("write", self.run.as_str(), "no space left")),
            false => Ok(()),
        }
    }

    fn sync_frame(&self) {
        let mut disk = self.sim.disk();
        let run = disk.run(self.run.as_str());
        let frames = run.journals.entry(self.shard).or_default();
        if let Some(frame) = frames.last_mut() {
            if !self.sim.lies(Lie::SyncForgotten) {
                frame.state = FrameState::Synced;
            }
            self.sim.judge().committed(self.run.as_str(), frame);
            frame.told = true;
        }
    }
}

impl DecisionLog for SimLog {
    fn commit(&mut self, flush: &Flush) -> Result<CommitReport, StoreError> {
        if self.failed {
            self.sim
                .broken("a writer went on behind a failed commit".to_owned());
        }
        if flush.run != self.run || flush.first_row != self.next_row {
            let (found, wanted) = (flush.first_row, self.next_row);
            self.sim
                .broken(format!("a flush begins at {found:?}, not at {wanted:?}"));
        }
        let result = self.commit_flush(flush);
        self.failed = result.is_err();
        self.next_row.row += flush.rows.len() as u32;
        let (shard, rows) = (self.shard, flush.rows.len());
        let told = result
            .as_ref()
            .map_or_else(|e| e.to_string(), |()| "ok".into());
        self.sim.note(format!(
            "commit {} shard {shard} rows {rows} {told}",
            self.run
        ));
        result.map(|()| CommitReport::as_asked())
    }
}

/// Admitted keys in memory: a projection of the journals, as the real one is.
#[derive(Clone)]
struct SimIndex {
    sim: Arc<Sim>,
    keys: BTreeMap<Hash32, IndexEntry>,
}

impl SimIndex {
    fn new(sim: &Arc<Sim>) -> SimIndex {
        SimIndex {
            sim: sim.clone(),
            keys: BTreeMap::new(),
        }
    }
}

impl AdmissionIndex for SimIndex {
    fn lookup(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError> {
        self.sim.fails(Fault::IndexLookupFails, "read", "index")?;
        found.clear();
        let known = |key| {
            self.keys
                .get(key)
                .filter(|_| !self.sim.lies(Lie::KeyForgotten))
        };
        found.extend(keys.iter().map(|key| known(key).copied()));
        Ok(())
    }

    fn insert(
        &mut self,
        entries: &[(Hash32, IndexEntry)],
        _through: RowRef,
    ) -> Result<(), StoreError> {
        self.sim.fails(Fault::IndexInsertFails, "write", "index")?;
        if !self.sim.plan.shared_backends {
            self.keys.extend(entries.iter().copied());
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

/// A projection that has nothing to do and fails at it.
pub struct SimProjection(pub Arc<Sim>);

impl Projection for SimProjection {
    fn catch_up(&self, run: &PlatformRunId) -> Result<u64, StoreError> {
        self.0
            .fails(Fault::ProjectionFails, "project", run.as_str())?;
        if self.0.strikes(Fault::ProjectionPanics) {
            panic!("simulated");
        }
        Ok(0)
    }
}

/// No event type of the simulation needs a proof.
pub struct NoProofs;

impl GateProofs for NoProofs {
    fn known(&self, _run: &str, _scenario_run: &str) -> ProofState {
        ProofState::Absent
    }

    fn load(&self, _run: &str, _scenario_run: &str) {}
}
