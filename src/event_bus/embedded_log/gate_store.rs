//! Opens the embedded durable state of a run: lock, recovery, index, writers.

use super::bus_recovery::{InspectedPartition, all_partitions, topics};
use super::decision_log::EmbeddedDecisionLog;
use super::disk::{create_folder, failed};
use super::head::TopicDescription;
use super::journal_reader::JournalReader;
use super::journal_recovery::InspectedJournal;
use super::journal_writer::JournalEnd;
use super::layout;
use super::run_state::{EndMap, LogOptions, PartitionKey, RunState, lock};
use super::synced_mark::SyncedMark;
use crate::state_store::embedded::index::{self, IndexMemory};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use wellspring_domain::admission::decision::{Decision, IndexEntry, RowRef};
use wellspring_domain::admission::flush_builder::SegmentRule;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{
    AdmissionIndex, GateStore, OpenRun, OpenShard, PartitionEnd, RunLayout, StoreError,
};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// Opens the admission index of a run, brought up to the end of its journals.
pub type OpenIndex = dyn Fn(&RunPaths, &RunLayout, &JournalReader) -> Result<Vec<Box<dyn AdmissionIndex>>, StoreError>
    + Send
    + Sync;

/// The gate's durable state in a folder of this machine.
pub struct EmbeddedGateStore {
    runs_root: String,
    options: LogOptions,
    open_index: Box<OpenIndex>,
    open_runs: Mutex<BTreeMap<PlatformRunId, Weak<RunState>>>,
}

impl EmbeddedGateStore {
    /// A store of runs below `runs_root`, with the embedded admission index.
    pub fn in_folder(runs_root: &str, options: LogOptions) -> EmbeddedGateStore {
        let memory = IndexMemory::of(options.index_memory);
        let open_index = move |run: &RunPaths, layout: &RunLayout, journal: &JournalReader| {
            index::open(run, layout, journal, &memory)
        };
        EmbeddedGateStore::new(runs_root, options, Box::new(open_index))
    }

    /// A store of runs below `runs_root` whose index is opened by `open_index`.
    pub fn new(
        runs_root: &str,
        options: LogOptions,
        open_index: Box<OpenIndex>,
    ) -> EmbeddedGateStore {
        EmbeddedGateStore {
            runs_root: runs_root.to_owned(),
            options,
            open_index,
            open_runs: Mutex::default(),
        }
    }

    fn paths(&self, run: &PlatformRunId) -> RunPaths {
        RunPaths::new(&self.runs_root, run)
    }

    fn lock_run(&self, run: &PlatformRunId) -> Result<Arc<RunState>, StoreError> {
        let state = Arc::new(RunState::lock(&self.paths(run), &self.options)?);
        let mut open_runs = lock(&self.open_runs);
        open_runs.retain(|_, open| open.strong_count() > 0);
        open_runs.insert(run.clone(), Arc::downgrade(&state));
        Ok(state)
    }

    fn open_state(&self, run: &PlatformRunId) -> Option<Arc<RunState>> {
        lock(&self.open_runs).get(run).and_then(Weak::upgrade)
    }
}

impl GateStore for EmbeddedGateStore {
    fn open_run(&self, run: &PlatformRunId, layout: &RunLayout) -> Result<OpenRun, StoreError> {
        let state = self.lock_run(run)?;
        check_topics(&state)?;
        let journals = recover_run(&state)?;
        let reader = JournalReader::new(state.run());
        let index = (self.open_index)(state.run(), layout, &reader)?;
        let mut shards = Vec::with_capacity(usize::from(layout.admission_shards));
        for shard in 0..layout.admission_shards {
            let end = journals.get(&shard).copied();
            let end = end.unwrap_or_else(|| JournalEnd::empty(shard));
            shards.push(OpenShard {
                log: Box::new(EmbeddedDecisionLog::open(state.clone(), shard, end)?),
                next_row: end.next_row,
                segments: SegmentRule::Rows,
                recovered: Vec::new(),
            });
        }
        let index = index.into_iter().map(|shard| locked(shard, &state));
        Ok(OpenRun {
            shards,
            index: index.collect(),
            ends: partition_ends(&state.ends(), |_| true),
        })
    }

    fn reopen_shard(
        &self,
        run: &PlatformRunId,
        shard: u16,
        known: RowRef,
    ) -> Result<(OpenShard, Vec<PartitionEnd>), StoreError> {
        let state = match self.open_state(run) {
            Some(state) => state,
            None => {
                let state = self.lock_run(run)?;
                recover_run(&state)?;
                state
            }
        };
        let owned = state.owned_by(shard);
        let end = recover_shard(&state, shard, &owned)?;
        let recovered = admitted_from(&JournalReader::new(state.run()), known)?;
        // Also those it has not written since the run was opened: it may write them next.
        let ends = partition_ends(&state.ends(), |key| state.may_write(key, shard));
        let open = OpenShard {
            log: Box::new(EmbeddedDecisionLog::open(state, shard, end)?),
            next_row: end.next_row,
            segments: SegmentRule::Rows,
            recovered,
        };
        Ok((open, ends))
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        let root = Path::new(&self.runs_root);
        create_folder(root)?;
        let stat =
            rustix::fs::statvfs(root).map_err(|cause| failed("statvfs", root)(cause.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn check_topics(state: &RunState) -> Result<(), StoreError> {
    for topic in topics(state.run())? {
        if let Some(description) = TopicDescription::read(state.run(), &topic)? {
            check_partition_count(state, &topic, description.partitions())?;
        }
    }
    Ok(())
}

/// A topic keeps its partition count for a run: with another one, records of a key would move.
fn check_partition_count(state: &RunState, topic: &str, created: u32) -> Result<(), StoreError> {
    let wanted = state.options().partitions.of(topic);
    if created == wanted {
        return Ok(());
    }
    let cause = format!(
        "the topic has {created} partitions in this run and {wanted} in the settings; \
         the count never changes for a run"
    );
    Err(StoreError::Unavailable {
        operation: "open",
        key: layout::topic_description_path(state.run(), topic),
        cause,
    })
}

/// Inspects everything, then repairs: a run that is refused is left as it was.
fn recover_run(state: &RunState) -> Result<BTreeMap<u16, JournalEnd>, StoreError> {
    let shards = JournalReader::new(state.run()).shards()?;
    let inspected = shards
        .iter()
        .map(|shard| InspectedJournal::inspect(state.run(), *shard));
    let journals: Vec<InspectedJournal> = inspected.collect::<Result<_, _>>()?;
    let mut ends = EndMap::default();
    for end in journals.iter().flat_map(|journal| journal.ends.confirmed()) {
        ends.advance(&end);
    }
    let tail: Vec<_> = journals
        .iter()
        .flat_map(|journal| journal.tail.iter().cloned())
        .collect();
    let keys = all_partitions(state.run(), &ends)?;
    let inspected = keys
        .iter()
        .map(|key| InspectedPartition::inspect(state.run(), key, &ends, &tail));
    let partitions: Vec<InspectedPartition> = inspected.collect::<Result<_, _>>()?;
    for journal in &journals {
        journal.repair(&state.options().faults)?;
    }
    for partition in &partitions {
        partition.repair(state)?;
        ends.learn_partition(partition.end());
    }
    state.advance_ends(&ends);
    for journal in &journals {
        write_mark(state, journal)?;
    }
    Ok(journals
        .iter()
        .map(|journal| (journal.shard(), journal.end))
        .collect())
}

fn recover_shard(
    state: &RunState,
    shard: u16,
    owned: &[PartitionKey],
) -> Result<JournalEnd, StoreError> {
    let journal = InspectedJournal::inspect(state.run(), shard)?;
    let mut ends = state.ends();
    for end in journal.ends.confirmed() {
        ends.advance(&end);
    }
    let inspected = owned
        .iter()
        .map(|key| InspectedPartition::inspect(state.run(), key, &ends, &journal.tail));
    let partitions: Vec<InspectedPartition> = inspected.collect::<Result<_, _>>()?;
    journal.repair(&state.options().faults)?;
    for partition in &partitions {
        partition.repair(state)?;
        ends.learn_partition(partition.end());
    }
    state.advance_ends(&ends);
    write_mark(state, &journal)?;
    Ok(journal.end)
}

/// What recovery proved need not be proven again.
fn write_mark(state: &RunState, journal: &InspectedJournal) -> Result<(), StoreError> {
    if journal.end.bytes == 0 {
        return Ok(());
    }
    let ends: Vec<_> = state.ends().confirmed().collect();
    SyncedMark::new(&journal.end, &ends).write(state.run(), journal.shard())
}

fn partition_ends(ends: &EndMap, wanted: impl Fn(&PartitionKey) -> bool) -> Vec<PartitionEnd> {
    let all = ends.confirmed().map(|end| PartitionEnd {
        topic: end.topic,
        partition: end.partition,
        next_offset: end.next_offset,
        next_byte: end.next_byte,
    });
    all.filter(|end| wanted(&(end.topic.clone(), end.partition)))
        .collect()
}

/// Admitted keys of the rows from `known` on. The row `known` itself is among them: the caller may
/// know of it only that it was handed over.
fn admitted_from(
    reader: &JournalReader,
    known: RowRef,
) -> Result<Vec<(Hash32, IndexEntry)>, StoreError> {
    let mut admitted = Vec::new();
    for frame in reader.frames_from(known)? {
        let frame = frame?;
        let rows = frame.rows().filter(|row| row.row_ref() >= known);
        for row in rows.filter(|row| row.decision() == Decision::Admit) {
            let entry = IndexEntry {
                payload_hash: row.payload_hash(),
                row: row.row_ref(),
            };
            admitted.push((row.dedupe_key(), entry));
        }
    }
    Ok(admitted)
}

/// An index shard that keeps the run locked.
struct LockedIndex {
    index: Box<dyn AdmissionIndex>,
    _state: Arc<RunState>,
}

fn locked(index: Box<dyn AdmissionIndex>, state: &Arc<RunState>) -> Box<dyn AdmissionIndex> {
    Box::new(LockedIndex {
        index,
        _state: state.clone(),
    })
}

impl AdmissionIndex for LockedIndex {
    fn lookup(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError> {
        self.index.lookup(keys, found)
    }

    fn insert(
        &mut self,
        entries: &[(Hash32, IndexEntry)],
        through: RowRef,
    ) -> Result<(), StoreError> {
        self.index.insert(entries, through)
    }

    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
    }
}
