//! The register of durable steps: what is made durable, and how.

use std::fmt;

/// What a step makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Artefact {
    /// Lines of a partition file.
    BusLines,
    /// A new, empty partition file.
    PartitionFile,
    /// `_topic.json`.
    TopicDescription,
    /// `head.json`.
    Head,
    /// A new journal segment with its header.
    JournalSegment,
    /// A journal frame: the commit.
    JournalFrame,
    /// `synced.json`.
    SyncMark,
    /// A sorted run of the admission index.
    IndexRun,
    /// `MANIFEST.json` of an index shard.
    IndexManifest,
    /// A lookup sidecar.
    LookupSidecar,
    /// An object in a folder.
    Object,
    /// A big object in a folder, written in pieces.
    BigObject,
    /// A line appended to an object in a folder.
    ObjectLine,
    /// `cursor.json` of an output.
    Checkpoint,
    /// `cursor.jsonl` beside it.
    CheckpointLog,
    /// A quarantine record.
    QuarantineRecord,
    /// A receipt object.
    ReceiptObject,
    /// The cursor of a projection.
    ProjectionCursor,
    /// A READY message on the control bus.
    ReadyMessage,
    /// Whose a READY is.
    ReadyClaim,
    /// What became of a READY: this settles it.
    ReadyRecord,
    /// What stays of a pruned topic.
    PruneStub,
    /// The partition file of a pruned topic.
    PrunedPartition,
    /// Rows a flush claims in the shared ledger.
    LedgerClaim,
    /// Records a flush puts on the streams.
    StreamRecords,
    /// The mark that commits a flush in the shared ledger.
    LedgerMark,
    /// Objects of a flush on shared backends.
    FlushObjects,
    /// The receipt segment of a flush on shared backends.
    ReceiptSegment,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Bytes are handed to the system.
    Write,
    /// They are put on the disk.
    Sync,
    /// The entry of its folder is put on the disk.
    FolderSync,
    /// It gets its name.
    Rename,
    /// What no commit confirms is cut off.
    Cut,
    /// What was not proven to be on the disk is written again.
    Rewrite,
    /// It is removed.
    Remove,
    /// It is stored whole, by steps of its own.
    Put,
}

/// Before or after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing of it is done.
    Before,
    /// All of it is done.
    After,
}

/// One durable step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub Artefact, pub Operation);

use Artefact as A;
use Operation as O;

/// Steps of a file that is replaced through a temporary one.
const REPLACED: &[O] = &[O::Write, O::Sync, O::Rename, O::FolderSync];

/// Every step there is. A step that is not here cannot be armed.
const STEPS: &[(A, &[O])] = &[
    (A::BusLines, &[O::Write, O::Sync, O::Cut, O::Rewrite]),
    (A::PartitionFile, &[O::Sync, O::FolderSync]),
    (A::TopicDescription, REPLACED),
    (A::Head, &[O::Write, O::Rename]),
    (
        A::JournalSegment,
        &[O::Write, O::Sync, O::FolderSync, O::Remove],
    ),
    (A::JournalFrame, &[O::Write, O::Sync, O::Cut, O::Rewrite]),
    (A::SyncMark, &[O::Write, O::Rename]),
    (A::IndexRun, REPLACED),
    (A::IndexManifest, REPLACED),
    (A::LookupSidecar, &[O::Write, O::Sync, O::Rename]),
    (A::Object, REPLACED),
    (A::BigObject, &[O::Write, O::Sync]),
    (A::ObjectLine, &[O::Write, O::Sync, O::FolderSync]),
    (A::Checkpoint, &[O::Write, O::Sync, O::Rename]),
    (A::CheckpointLog, &[O::Write]),
    (A::QuarantineRecord, &[O::Put]),
    (A::ReceiptObject, &[O::Put]),
    (A::ProjectionCursor, &[O::Put]),
    (A::ReadyMessage, &[O::Put]),
    (A::ReadyClaim, &[O::Put]),
    (A::ReadyRecord, &[O::Put]),
    (A::PruneStub, REPLACED),
    (A::PrunedPartition, &[O::Remove]),
    (A::LedgerClaim, &[O::Put]),
    (A::StreamRecords, &[O::Put]),
    (A::LedgerMark, &[O::Put]),
    (A::FlushObjects, &[O::Put]),
    (A::ReceiptSegment, &[O::Put]),
];

/// Every step, in order.
pub fn all_steps() -> impl Iterator<Item = Step> {
    let steps = STEPS.iter();
    steps.flat_map(|(artefact, operations)| operations.iter().map(|done| Step(*artefact, *done)))
}

/// Names of all points, in order.
pub fn point_names() -> impl Iterator<Item = String> {
    all_steps().flat_map(|step| [Moment::Before, Moment::After].map(|at| point_name(step, at)))
}

/// The name of a point.
pub fn point_name(step: Step, moment: Moment) -> String {
    let moment = match moment {
        Moment::Before => "before",
        Moment::After => "after",
    };
    format!("{step}.{moment}")
}

impl Step {
    /// What an error of the step calls the operation. `fsync` ends the process (contract 8).
    pub fn operation(self) -> &'static str {
        match self.1 {
            O::Write | O::Rewrite => "write",
            O::Sync | O::FolderSync => "fsync",
            O::Rename => "rename",
            O::Cut => "truncate",
            O::Remove => "remove",
            O::Put => "put",
        }
    }

    /// True for steps that hand over bytes of a length the step knows.
    pub fn writes(self) -> bool {
        self.1 == O::Write
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let artefact = match self.0 {
            A::BusLines => "bus_lines",
            A::PartitionFile => "partition_file",
            A::TopicDescription => "topic_description",
            A::Head => "head",
            A::JournalSegment => "journal_segment",
            A::JournalFrame => "journal_frame",
            A::SyncMark => "sync_mark",
            A::IndexRun => "index_run",
            A::IndexManifest => "index_manifest",
            A::LookupSidecar => "lookup_sidecar",
            A::Object => "object",
            A::BigObject => "big_object",
            A::ObjectLine => "object_line",
            A::Checkpoint => "checkpoint",
            A::CheckpointLog => "checkpoint_log",
            A::QuarantineRecord => "quarantine_record",
            A::ReceiptObject => "receipt_object",
            A::ProjectionCursor => "projection_cursor",
            A::ReadyMessage => "ready_message",
            A::ReadyClaim => "ready_claim",
            A::ReadyRecord => "ready_record",
            A::PruneStub => "prune_stub",
            A::PrunedPartition => "pruned_partition",
            A::LedgerClaim => "ledger_claim",
            A::StreamRecords => "stream_records",
            A::LedgerMark => "ledger_mark",
            A::FlushObjects => "flush_objects",
            A::ReceiptSegment => "receipt_segment",
        };
        let operation = match self.1 {
            O::Write => "write",
            O::Sync => "sync",
            O::FolderSync => "folder_sync",
            O::Rename => "rename",
            O::Cut => "cut",
            O::Rewrite => "rewrite",
            O::Remove => "remove",
            O::Put => "put",
        };
        write!(out, "{artefact}.{operation}")
    }
}
