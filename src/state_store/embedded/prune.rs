//! `run prune`: gives the disk space of a finished run's bus back and keeps all that is needed to
//! verify it.
//!
//! The bus goes first, and only after it was verified: a stub `eb/<topic>/pruned.json` with offsets,
//! counts and digests is made durable, then the partition files are removed. Journals and receipts
//! stay, so lookups still answer and `bus verify` checks the receipts against the recorded digests.
//! The index can only follow the bus: as long as records can be read, copies of them must be known.
//! Every step can be repeated after a crash. A pruned run cannot be opened for admission again.

use super::index::index_folder;
use super::verify::{BusReport, KEYS_MAX, TopicFingerprint, fingerprint_files, verify_bus};
use crate::event_bus::embedded_log::disk::{
    Durability, damaged, entry_names, failed, replace_file, sync_folder,
};
use crate::event_bus::embedded_log::{RunLock, bus_partitions, layout};
use crate::failpoints::{Artefact, Operation, Step, around};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

const FORMAT: &str = "wellspring.bus.pruned";
const VERSION: u32 = 1;

/// What is kept of a pruned topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedTopic {
    format: String,
    version: u32,
    /// Topic.
    pub topic: String,
    /// Partitions in order.
    pub partitions: Vec<PrunedPartition>,
    /// What the topic held.
    pub fingerprint: TopicFingerprint,
}

/// What is kept of a pruned partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedPartition {
    /// Partition.
    pub partition: u32,
    /// Offset behind its last record.
    pub next_offset: u64,
    /// Bytes its file had.
    pub bytes: u64,
}

/// The pruned topics of a run.
#[derive(Clone, Debug, Default)]
pub struct PrunedTopics {
    topics: BTreeMap<String, PrunedTopic>,
}

impl PrunedTopics {
    /// Reads the stubs of a run.
    pub fn load(paths: &RunPaths) -> Result<PrunedTopics, StoreError> {
        let mut topics = BTreeMap::new();
        for topic in entry_names(Path::new(&paths.eb()))? {
            let path = stub_path(paths, &topic);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(failed("read", &path)(error)),
            };
            let stub: PrunedTopic = serde_json::from_slice(&bytes)
                .map_err(|error| damaged(&path, 0, error.to_string()))?;
            if stub.version != VERSION {
                return Err(StoreError::UnknownVersion {
                    key: path.display().to_string(),
                    found: stub.version,
                    known: VERSION,
                });
            }
            topics.insert(topic, stub);
        }
        Ok(PrunedTopics { topics })
    }

    /// True when nothing was pruned.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The stub of a topic.
    pub fn topic(&self, topic: &str) -> Option<&PrunedTopic> {
        self.topics.get(topic)
    }

    /// The stub of a partition.
    pub fn partition(&self, topic: &str, partition: u32) -> Option<&PrunedPartition> {
        let partitions = &self.topics.get(topic)?.partitions;
        partitions.iter().find(|stub| stub.partition == partition)
    }

    /// All stubs.
    pub fn topics(&self) -> impl Iterator<Item = &PrunedTopic> {
        self.topics.values()
    }
}

/// What pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Topics whose data is gone now, also those of earlier calls.
    pub topics: Vec<String>,
    /// Records that can no longer be read.
    pub records: u64,
    /// Bytes given back by this call.
    pub freed_bytes: u64,
    /// True when the index is gone as well.
    pub index_pruned: bool,
}

/// Why pruning was refused.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The bus does not verify; nothing was removed.
    #[error("the bus does not agree with its receipts in {} places, nothing was pruned", .0.differences.count)]
    NotVerified(Box<BusReport>),
    /// Bus data is still there.
    #[error("the index is never pruned before the bus: {topics} topics still have data")]
    IndexBeforeBus {
        /// How many.
        topics: usize,
    },
    /// The run is in use, or its files could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PruneError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            PruneError::NotVerified(_) => "PRUNE_NOT_VERIFIED",
            PruneError::IndexBeforeBus { .. } => "PRUNE_INDEX_BEFORE_BUS",
            PruneError::Store(error) => error.code(),
        }
    }
}

/// Prunes the bus of a run that no gate has open.
pub fn prune_bus(paths: &RunPaths) -> Result<PruneReport, PruneError> {
    let _lock = RunLock::take(paths)?;
    let verified = verify_bus(paths)?;
    if !verified.verified {
        return Err(PruneError::NotVerified(Box::new(verified)));
    }
    let known = PrunedTopics::load(paths)?;
    for fingerprint in fingerprint_files(paths, KEYS_MAX)? {
        if known.topic(&fingerprint.topic).is_none() {
            write_stub(paths, &verified, fingerprint)?;
        }
    }
    let freed_bytes = remove_partitions(paths)?;
    let pruned = PrunedTopics::load(paths)?;
    Ok(PruneReport {
        records: pruned.topics().map(|stub| stub.fingerprint.records).sum(),
        topics: pruned.topics.into_keys().collect(),
        freed_bytes,
        index_pruned: false,
    })
}

/// Prunes the index of a run whose bus was pruned. Its journals stay, so nothing is lost.
pub fn prune_index(paths: &RunPaths) -> Result<u64, PruneError> {
    let _lock = RunLock::take(paths)?;
    let mut topics: Vec<String> = bus_partitions(paths)?
        .into_iter()
        .map(|(topic, _)| topic)
        .collect();
    topics.dedup();
    if !topics.is_empty() || PrunedTopics::load(paths)?.is_empty() {
        return Err(PruneError::IndexBeforeBus {
            topics: topics.len(),
        });
    }
    let folder = index_folder(paths);
    let bytes = folder_bytes(&folder)?;
    match fs::remove_dir_all(&folder) {
        Err(error) if !is_absent(&error) => Err(failed("remove folder", &folder)(error).into()),
        _removed_or_absent => Ok(bytes),
    }
}

fn write_stub(
    paths: &RunPaths,
    verified: &BusReport,
    fingerprint: TopicFingerprint,
) -> Result<(), StoreError> {
    let mut partitions = Vec::new();
    let reports = verified.partitions.iter();
    for report in reports.filter(|report| report.topic == fingerprint.topic) {
        let path = PathBuf::from(layout::partition_path(
            paths,
            &report.topic,
            report.partition,
        ));
        partitions.push(PrunedPartition {
            partition: report.partition,
            next_offset: report.records,
            bytes: fs::metadata(&path).map_err(failed("stat", &path))?.len(),
        });
    }
    let path = stub_path(paths, &fingerprint.topic);
    let stub = PrunedTopic {
        format: FORMAT.to_owned(),
        version: VERSION,
        topic: fingerprint.topic.clone(),
        partitions,
        fingerprint,
    };
    let bytes =
        serde_json::to_vec_pretty(&stub).map_err(|error| damaged(&path, 0, error.to_string()))?;
    replace_file(&path, &bytes, Durability::Synced, Artefact::PruneStub)
}

/// Removes the partition files of every topic that has a stub; also what an earlier call left.
fn remove_partitions(paths: &RunPaths) -> Result<u64, StoreError> {
    let pruned = PrunedTopics::load(paths)?;
    let mut freed = 0;
    for (topic, partition) in bus_partitions(paths)? {
        if pruned.partition(&topic, partition).is_none() {
            continue;
        }
        let path = PathBuf::from(layout::partition_path(paths, &topic, partition));
        freed += fs::metadata(&path).map_err(failed("stat", &path))?.len();
        let step = Step(Artefact::PrunedPartition, Operation::Remove);
        around(step, || {
            fs::remove_file(&path).map_err(failed("remove", &path))
        })?;
        sync_folder(Path::new(&layout::topic_folder(paths, &topic)))?;
    }
    Ok(freed)
}

fn stub_path(paths: &RunPaths, topic: &str) -> PathBuf {
    Path::new(&layout::topic_folder(paths, topic)).join("pruned.json")
}

fn folder_bytes(folder: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for name in entry_names(folder)? {
        let path = folder.join(name);
        let meta = fs::metadata(&path).map_err(failed("stat", &path))?;
        bytes += match meta.is_dir() {
            true => folder_bytes(&path)?,
            false => meta.len(),
        };
    }
    Ok(bytes)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}
