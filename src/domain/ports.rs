//! Ports: what rules and actors need from the outside, as small traits with real adapters behind them.
//!
//! All ports but [`GateClient`] block. They are called from own OS threads, from blocking tasks or from
//! commands, never from an actor's handler.

use crate::admission::commit_report::CommitReport;
use crate::admission::decision::{Flush, IndexEntry, RowRef};
use crate::admission::flush_builder::SegmentRule;
use crate::ids::Hash32;
use crate::run_paths::PlatformRunId;
use crate::time_text::Micros;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future, so that async ports can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Time, injected: nothing else in the rules or actors reads a clock.
pub trait Clock: Send + Sync {
    /// Wall clock, UTC.
    fn now(&self) -> Micros;
    /// Microseconds that never step back, from an arbitrary origin.
    fn monotonic_micros(&self) -> u64;
}

/// Why a store operation failed. `code` is the contract's reason code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store could not be reached or answered with an error; the same call may succeed later.
    #[error("{operation} {key}: {cause}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// Key or path.
        key: String,
        /// The library's text, without secrets.
        cause: String,
    },
    /// What is stored cannot be what we wrote: wrong magic, version, checksum or shape.
    #[error("{key} is damaged at byte {offset}: {cause}")]
    Damaged {
        /// Key or path.
        key: String,
        /// First byte that is wrong.
        offset: u64,
        /// What was expected.
        cause: String,
    },
    /// A file of our own format has a version this program does not know.
    #[error("{key} has format version {found}, this program knows {known}")]
    UnknownVersion {
        /// Key or path.
        key: String,
        /// Version in the file.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// Another process holds the lock.
    #[error("{key} is locked by another process")]
    Locked {
        /// Lock file.
        key: String,
    },
    /// What is asked for contradicts what is stored.
    #[error("{key}: {cause}")]
    Refused {
        /// Stable reason code.
        code: &'static str,
        /// Key or path.
        key: String,
        /// Why, and the way out.
        cause: String,
    },
    /// The key is not allowed (empty, absolute, or with `..`).
    #[error("key is not allowed: {key}")]
    InvalidKey {
        /// The key as given.
        key: String,
    },
}

impl StoreError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::Unavailable { .. } => "STORE_UNAVAILABLE",
            StoreError::Damaged { .. } => "STORE_DAMAGED",
            StoreError::UnknownVersion { .. } => "FORMAT_VERSION_UNKNOWN",
            StoreError::Locked { .. } => "STORE_LOCKED",
            StoreError::Refused { code, .. } => code,
            StoreError::InvalidKey { .. } => "STORE_KEY_INVALID",
        }
    }
}

/// Outcome of a write-once put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is ours.
    Created,
    /// An object was there already; nothing was written.
    AlreadyExists,
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Key relative to the store's root.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Something that changes when the object does (etag, or modification time).
    pub version: Option<String>,
}

/// The end of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectTail {
    /// Size of the whole object.
    pub size: u64,
    /// Its last bytes: as many as were asked for, or all.
    pub bytes: Vec<u8>,
}

/// What a writer does when its object is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The first writer wins, like `put_if_absent`.
    Once,
    /// The last writer wins, like `put`.
    Replace,
}

/// Writes a big object piece by piece. Nothing is visible before `finish`, and nothing stays when it is
/// dropped before.
pub trait ObjectWriter: Write + Send {
    /// Makes the object visible as a whole.
    fn finish(self: Box<Self>) -> Result<PutOutcome, StoreError>;
}

/// Objects by key below one root: a folder or a bucket (contract 3.8). Keys use `/` and are relative.
pub trait ObjectStore: Send + Sync {
    /// Creates the object unless one exists; never exposes partial content.
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<PutOutcome, StoreError>;
    /// Creates or atomically replaces the object.
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError>;
    /// Appends `line` and a newline in one write.
    fn append_line(&self, key: &str, line: &[u8]) -> Result<(), StoreError>;
    /// The whole object, `None` when absent.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// `length` bytes from `start`; shorter at the end of the object.
    fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Vec<u8>, StoreError>;
    /// The last `length` bytes, or all of a shorter object, and how big it is; `None` when absent.
    fn get_tail(&self, key: &str, length: u64) -> Result<Option<ObjectTail>, StoreError> {
        let Some(meta) = self.head(key)? else {
            return Ok(None);
        };
        let start = meta.size.saturating_sub(length);
        Ok(Some(ObjectTail {
            size: meta.size,
            bytes: self.get_range(key, start, length)?,
        }))
    }
    /// A writer of a big object.
    fn open_writer(&self, key: &str, mode: WriteMode) -> Result<Box<dyn ObjectWriter>, StoreError>;
    /// The file behind a key, when objects are files of this machine.
    fn local_file(&self, key: &str) -> Option<PathBuf> {
        let _not_a_file = key;
        None
    }
    /// A reader over the whole object, for big ones.
    fn open_reader(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError>;
    /// What is known of the object, `None` when absent.
    fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError>;
    /// All objects below `prefix`, recursive, sorted by key.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError>;
    /// The absolute form of a key: `runs/fraud-platform/…` or `s3://…` (contract 7.7).
    fn absolute(&self, key: &str) -> String;
}

/// One envelope found on the control bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// File name or sequence number: where the record lies.
    pub position: String,
    /// The envelope's bytes (SJ).
    pub bytes: Vec<u8>,
}

/// The control bus (contract 5.9).
pub trait ControlBus: Send + Sync {
    /// Publishes an envelope; `AlreadyExists` when this message id was published before.
    fn publish(
        &self,
        topic: &str,
        message_id: &str,
        partition_key: &str,
        envelope: &[u8],
    ) -> Result<PutOutcome, StoreError>;
    /// Every record of the topic that is not settled, oldest first, at most `max`.
    fn poll(&self, topic: &str, max: usize) -> Result<Vec<ControlRecord>, StoreError>;
    /// Marks a record as done with: it need not be delivered again.
    fn settle(&self, topic: &str, record: &ControlRecord) -> Result<(), StoreError>;
}

/// Where an output stream stands (contract 6.7). `last_row_index` is the last accepted row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Checkpoint pack key (V19).
    pub pack_key: String,
    /// Output the cursor belongs to.
    pub output_id: String,
    /// Full path of the part file.
    pub last_file: String,
    /// 0-based row in that file.
    pub last_row_index: u64,
    /// Event time of that row, T-env.
    pub last_ts_utc: Option<String>,
    /// Identity of the stream view the cursor was taken in; checked when the cursor is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_view_id: Option<String>,
    /// The part's file name, so that a moved view still resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_name: Option<String>,
}

/// Stream checkpoints (contract 6.7).
pub trait CheckpointStore: Send + Sync {
    /// The last saved cursor.
    fn load(&self, pack_key: &str, output_id: &str) -> Result<Option<Cursor>, StoreError>;
    /// Saves the cursor; durable when this returns. `updated_at` stamps the record.
    fn save(&self, cursor: &Cursor, updated_at: Micros) -> Result<(), StoreError>;
}

/// A granted lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Opaque token that proves ownership.
    pub token: String,
    /// Grows with each grant of the same key: a fencing token.
    pub epoch: u64,
    /// When it ends.
    pub expires_at: Micros,
}

/// Leases with fencing (contract 5.3).
pub trait Leases: Send + Sync {
    /// Grants the lease when it is free or expired; `None` when another holds it.
    fn acquire(
        &self,
        key: &str,
        owner: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError>;
    /// Extends a lease that is still ours; `None` when it was lost.
    fn renew(
        &self,
        key: &str,
        token: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError>;
    /// True while the token matches and has not expired.
    fn holds(&self, key: &str, token: &str) -> Result<bool, StoreError>;
    /// Gives the lease back; a lost lease is no error.
    fn release(&self, key: &str, token: &str) -> Result<(), StoreError>;
}

/// What a run equivalence key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EquivalenceOutcome {
    /// The key stands for this run, now or since before.
    Resolved {
        /// The run.
        run_id: String,
    },
    /// The key stands for another intent.
    Collision {
        /// The intent fingerprint it stands for.
        intent_fingerprint: String,
    },
    /// The key was taken and its row is gone.
    Vanished,
}

/// Which run a run equivalence key stands for (contract 5.3).
pub trait RunEquivalence: Send + Sync {
    /// Binds the key to the run unless it is bound already.
    fn resolve(
        &self,
        run_equivalence_key: &str,
        run_id: &str,
        intent_fingerprint: &str,
    ) -> Result<EquivalenceOutcome, StoreError>;
}

/// Envelopes on their way to a gate: one contiguous buffer and the byte range of each envelope.
#[derive(Clone, Debug, Default)]
pub struct EnvelopeBatch {
    /// JSON texts, one after the other.
    pub bytes: Arc<Vec<u8>>,
    /// Where each envelope lies in `bytes`.
    pub ranges: Vec<Range<u32>>,
}

impl EnvelopeBatch {
    /// Number of envelopes.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True when the batch holds no envelope.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The bytes of one envelope.
    pub fn envelope(&self, index: usize) -> &[u8] {
        let range = &self.ranges[index];
        &self.bytes[range.start as usize..range.end as usize]
    }
}

/// What the gate answered for one envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Admitted: durable on the bus, receipt written.
    Admitted,
    /// The same event was admitted before; nothing was published.
    Duplicate,
    /// Recorded as refused, with its evidence; accepted from the sender's point of view.
    Quarantined {
        /// Contract reason code.
        code: String,
    },
    /// Not decided: send the same bytes again.
    Retry {
        /// Why.
        code: String,
        /// How long the gate asks to wait.
        retry_after_ms: u64,
    },
    /// Refused for good; sending it again will not help.
    Rejected {
        /// HTTP status of the answer.
        status: u16,
        /// Contract reason code.
        code: String,
        /// At most 256 characters of the answer.
        detail: String,
    },
}

/// Why a whole batch has no answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The gate asks to slow down or is not ready; waiting uses no attempt (contract 6.8).
    #[error("gate is not taking work now: {code}")]
    Backpressure {
        /// Contract reason code.
        code: String,
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// The outcome is unknown or the gate could not be reached: send the same bytes again.
    #[error("push failed: {detail}")]
    Transient {
        /// `http_<status>`, `timeout` or a text.
        detail: String,
    },
    /// Refused for good.
    #[error("push rejected with HTTP {status}: {detail}")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// At most 256 characters of the answer.
        detail: String,
    },
}

/// The answers of one submitted batch, when all its items are durable or refused.
pub type PendingOutcomes = BoxFuture<'static, Result<Vec<ItemOutcome>, PushError>>;

/// A gate as an output stream sees it: in this process or behind HTTP.
pub trait GateClient: Send + Sync {
    /// Hands a batch over. Order of submits is order at the gate. The outer future resolves when the
    /// gate has taken the batch (this is where backpressure waits), the inner one with the answers.
    fn submit(&self, batch: EnvelopeBatch) -> BoxFuture<'_, Result<PendingOutcomes, PushError>>;
    /// How many submitted batches may be unanswered at once without breaking order per key.
    fn window(&self) -> usize;
    /// A client of the same gate for one ordered sender; `None` when this one can be shared.
    fn sender(&self) -> Option<Arc<dyn GateClient>> {
        None
    }
}

/// What the gate needs to know to open a run's durable state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLayout {
    /// Number of admission shards, each with its own journal.
    pub admission_shards: u16,
    /// Number of index shards.
    pub index_shards: u16,
}

/// Where a topic partition ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionEnd {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Offset of the next record.
    pub next_offset: u64,
    /// Bytes before that record where the partition is a file, 0 elsewhere.
    pub next_byte: u64,
}

/// One admission shard's durable state, recovered and open for appending.
pub struct OpenShard {
    /// The journal and the partition files this shard writes.
    pub log: Box<dyn DecisionLog>,
    /// Row number the next decision gets.
    pub next_row: RowRef,
    /// When the next segment begins.
    pub segments: SegmentRule,
    /// Admitted keys found in this shard's journal after the row the caller knew of; empty when a
    /// whole run is opened (they are in the index then).
    pub recovered: Vec<(Hash32, IndexEntry)>,
}

/// A platform run's durable gate state. The run's lock is held until all parts are dropped.
pub struct OpenRun {
    /// Admission shards in order.
    pub shards: Vec<OpenShard>,
    /// Index shards in order, holding every admitted key of the run.
    pub index: Vec<Box<dyn AdmissionIndex>>,
    /// Ends of all partitions that exist.
    pub ends: Vec<PartitionEnd>,
}

/// Opens the gate's durable state, run by run (embedded: design of the commit point in
/// `docs/file_formats.md`).
pub trait GateStore: Send + Sync {
    /// Locks, recovers and opens a run; creates it when new. Bus lines beyond the last journal frame
    /// are cut, the index is brought up to the journal.
    fn open_run(&self, run: &PlatformRunId, layout: &RunLayout) -> Result<OpenRun, StoreError>;
    /// Recovers one shard of an open run after its writer has been stopped and joined. Admitted rows at or
    /// behind `from`, the first row the caller does not know of, are returned in `recovered`. The ends of its
    /// partitions come back with it.
    fn reopen_shard(
        &self,
        run: &PlatformRunId,
        shard: u16,
        from: RowRef,
    ) -> Result<(OpenShard, Vec<PartitionEnd>), StoreError>;
    /// Free bytes on the disk that holds the runs.
    fn free_bytes(&self) -> Result<u64, StoreError>;
}

/// Makes one admission shard's decisions durable. Owned by the shard's writer thread.
pub trait DecisionLog: Send {
    /// Publishes the admitted events and makes every decision of the flush durable. When this returns
    /// `Ok` all of it survives kill -9 and power loss, and readers may see it; the report says which rows
    /// the commit itself settled otherwise. After an error the outcome is unknown: the caller must stop
    /// this generation and recover.
    fn commit(&mut self, flush: &Flush) -> Result<CommitReport, StoreError>;
}

/// Admitted keys of one index shard of one run.
pub trait AdmissionIndex: Send {
    /// Looks up `keys`; `found` is cleared and filled in the same order.
    fn lookup(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError>;
    /// Adds admitted keys. Every row of `through.shard` up to and including `through` that belongs to
    /// this index shard has been inserted when this returns.
    fn insert(
        &mut self,
        entries: &[(Hash32, IndexEntry)],
        through: RowRef,
    ) -> Result<(), StoreError>;
    /// Bytes of memory in use.
    fn memory_bytes(&self) -> usize;
}
