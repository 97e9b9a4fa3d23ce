//! What all parts of an open run share: the lock, the options, partition ends and their owners.

use super::disk::{Faults, create_folder, failed};
use super::frame_decode::ConfirmedEnd;
use super::layout;
use crate::state_store::embedded::index::IndexMemoryCap;
use crate::state_store::embedded::prune::PrunedTopics;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// How much of what is written to the bus stays in the page cache: nothing, because a page costs more there than a
/// follower saves who reads it once.
pub const CACHED_BYTES_DEFAULT: u64 = 0;

/// What readers of a journal, first of all the gate's own projections, may lag behind and still read from memory.
const JOURNAL_CACHED_BYTES: u64 = 64 << 20;

/// How the embedded log works. [`LogOptions::default`] is what production uses.
#[derive(Clone)]
pub struct LogOptions {
    /// Partitions of topics that are created now (`wiring.event_bus.partitions`).
    pub partitions: PartitionCounts,
    /// Shortest time between two publications of heads.
    pub head_interval: Duration,
    /// Longest time a commit waits for a sync mark.
    pub mark_interval: Duration,
    /// Journal and bus bytes after which a sync mark is written.
    pub mark_bytes: u64,
    /// Bytes behind the end of a partition file that stay in the page cache (`wiring.event_bus.cached_bytes`).
    /// With none, large appends go around it.
    pub cached_bytes: u64,
    /// Bytes behind the end of a journal segment that stay in the page cache.
    pub journal_cached_bytes: u64,
    /// Memory for admitted keys, of all runs that are open.
    pub index_memory: IndexMemoryCap,
    /// Injected disk faults; none in production.
    pub faults: Faults,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            partitions: PartitionCounts::all(1),
            head_interval: Duration::from_millis(40),
            mark_interval: Duration::from_secs(1),
            mark_bytes: 64 << 20,
            cached_bytes: CACHED_BYTES_DEFAULT,
            journal_cached_bytes: JOURNAL_CACHED_BYTES,
            index_memory: IndexMemoryCap {
                bytes: 128 << 20,
                shards_max: 8,
            },
            faults: None,
        }
    }
}

/// How many partitions a topic gets when it is created. The count never changes for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionCounts {
    /// Topics with a count of their own.
    pub by_topic: BTreeMap<String, u32>,
    /// Every other topic.
    pub default: u32,
}

impl PartitionCounts {
    /// The same count for all topics.
    pub fn all(count: u32) -> PartitionCounts {
        PartitionCounts {
            by_topic: BTreeMap::new(),
            default: count,
        }
    }

    /// The count of a topic; at least one.
    pub fn of(&self, topic: &str) -> u32 {
        self.by_topic
            .get(topic)
            .copied()
            .unwrap_or(self.default)
            .max(1)
    }
}

/// A topic and a partition.
pub type PartitionKey = (Arc<str>, u32);

/// An end of a partition: offset and byte of the next line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineEnd {
    /// Offset of the next record.
    pub next_offset: u64,
    /// Where the next line starts.
    pub next_byte: u64,
}

/// Ends by partition; merging keeps the farther one, because ends never step back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndMap(BTreeMap<PartitionKey, LineEnd>);

impl EndMap {
    /// Takes an end unless a farther one is known.
    pub fn advance(&mut self, end: &ConfirmedEnd) {
        let known = self
            .0
            .entry((end.topic.clone(), end.partition))
            .or_default();
        if end.next_byte >= known.next_byte {
            *known = LineEnd {
                next_offset: end.next_offset,
                next_byte: end.next_byte,
            };
        }
    }

    /// Where the partition ends; at its start when nothing is known of it.
    pub fn get(&self, key: &PartitionKey) -> LineEnd {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// True when something is known of the partition.
    pub fn contains(&self, key: &PartitionKey) -> bool {
        self.0.contains_key(key)
    }

    /// Makes the partition known, also when it has no lines.
    pub fn learn_partition(&mut self, (key, end): (&PartitionKey, LineEnd)) {
        self.0.entry(key.clone()).or_insert(end);
    }

    /// All ends in order of topic and partition.
    pub fn confirmed(&self) -> impl Iterator<Item = ConfirmedEnd> + '_ {
        self.0.iter().map(|((topic, partition), end)| ConfirmedEnd {
            topic: topic.clone(),
            partition: *partition,
            next_offset: end.next_offset,
            next_byte: end.next_byte,
        })
    }
}

/// An open run: holds the lock until the last part is dropped.
pub struct RunState {
    run: RunPaths,
    options: LogOptions,
    ends: Mutex<EndMap>,
    owners: Mutex<BTreeMap<PartitionKey, u16>>,
    _lock: File,
}

impl RunState {
    /// Takes the run's lock; creates the folder of a new run.
    pub fn lock(run: &RunPaths, options: &LogOptions) -> Result<RunState, StoreError> {
        refuse_pruned(run)?;
        create_folder(Path::new(&run.ig()))?;
        Ok(RunState {
            _lock: take_lock(Path::new(&layout::lock_path(run)))?,
            run: run.clone(),
            options: options.clone(),
            ends: Mutex::default(),
            owners: Mutex::default(),
        })
    }

    /// Where the run lies.
    pub fn run(&self) -> &RunPaths {
        &self.run
    }

    /// How the log works.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Partition ends as recovered.
    pub fn ends(&self) -> EndMap {
        lock(&self.ends).clone()
    }

    /// Learns recovered ends.
    pub fn advance_ends(&self, ends: &EndMap) {
        let mut known = lock(&self.ends);
        for end in ends.confirmed() {
            known.advance(&end);
        }
    }

    /// Makes `shard` the only writer of a partition for as long as the run is open.
    pub fn claim(&self, key: &PartitionKey, shard: u16) -> Result<(), StoreError> {
        let owner = *lock(&self.owners).entry(key.clone()).or_insert(shard);
        if owner == shard {
            return Ok(());
        }
        Err(StoreError::Unavailable {
            operation: "append",
            key: layout::partition_path(&self.run, &key.0, key.1),
            cause: format!("shard {shard} may not write what shard {owner} writes"),
        })
    }

    /// True unless another shard has written the partition since the run was opened.
    pub fn may_write(&self, key: &PartitionKey, shard: u16) -> bool {
        let owners = lock(&self.owners);
        owners.get(key).is_none_or(|owner| *owner == shard)
    }

    /// Partitions `shard` has written since the run was opened.
    pub fn owned_by(&self, shard: u16) -> Vec<PartitionKey> {
        let owners = lock(&self.owners);
        let owned = owners.iter().filter(|(_, owner)| **owner == shard);
        owned.map(|(key, _)| key.clone()).collect()
    }
}

/// A lock whose holder panicked still guards plain data.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Offsets of a pruned run cannot be continued: its partition files are gone.
fn refuse_pruned(run: &RunPaths) -> Result<(), StoreError> {
    match PrunedTopics::load(run)?.topics().next() {
        None => Ok(()),
        Some(stub) => Err(StoreError::Unavailable {
            operation: "open run for admission",
            key: layout::topic_folder(run, &stub.topic),
            cause: "the bus data of this run was pruned".to_owned(),
        }),
    }
}

/// The lock of a run for work on its files while no gate has it open. Given back when dropped.
pub struct RunLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl RunLock {
    /// Takes the lock; `Locked` when a gate, or other work, has the run.
    pub fn take(run: &RunPaths) -> Result<RunLock, StoreError> {
        create_folder(Path::new(&run.ig()))?;
        take_lock(Path::new(&layout::lock_path(run))).map(RunLock)
    }
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed("open", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Locked {
                key: path.display().to_string(),
            });
        }
        Err(TryLockError::Error(cause)) => return Err(failed("lock", path)(cause)),
    }
    // The number is for people; the lock itself is what counts.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed("write", path))?;
    Ok(file)
}
