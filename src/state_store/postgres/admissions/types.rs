//! What the ledger takes and gives.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::decision::{ReceiptContext, RowRef};
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::time_text::Micros;

/// Reason code of everything a fenced or expired writer asks for.
pub const WRITER_FENCED: &str = "WRITER_FENCED";

/// One generation of one admission shard of one run on one node; the number is its fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub i64);

/// A writer that may claim, and the segment numbers it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its number.
    pub writer: WriterId,
    /// The segments.
    pub block: SegmentBlock,
}

/// Segment numbers nobody else of the run and shard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBlock {
    /// The first.
    pub first_segment: u32,
    /// How many.
    pub segments: u32,
}

/// A flush: one segment of one shard of one run. Its rows count from 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushKey {
    /// The run.
    pub run: PlatformRunId,
    /// Admission shard.
    pub shard: u16,
    /// Segment.
    pub segment: u32,
}

/// A place in a stream shard: everything up to and including `sequence` is known. `None`: nothing is, the
/// shard is read from its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// Stream name.
    pub stream: String,
    /// The stream's shard.
    pub shard_id: String,
    /// Last sequence number known, as the stream writes it.
    pub sequence: Option<String>,
}

/// What a flush's row says of it.
#[derive(Clone, Copy, Debug)]
pub struct FlushHead<'a> {
    /// Whose flush it is.
    pub writer: WriterId,
    /// Its place.
    pub key: &'a FlushKey,
    /// Rows of the flush, claims and other decisions.
    pub rows: u32,
    /// Where reconciliation starts to read.
    pub positions: &'a [StreamPosition],
    /// `admitted_at_utc` and `published_at_utc` of every row.
    pub decided_at: Micros,
    /// Absolute reference of the segment object; a row's receipt is `<segment_ref>#<row>`.
    pub segment_ref: &'a str,
    /// Absolute form of the run's `ig/quarantine` prefix, without a slash at its end.
    pub quarantine_root: &'a str,
}

/// One flush's claims.
#[derive(Clone, Copy, Debug)]
pub struct ClaimBatch<'a> {
    /// The flush.
    pub flush: FlushHead<'a>,
    /// What the claims refer to.
    pub contexts: &'a [Arc<ReceiptContext>],
    /// The claims, in any order.
    pub claims: &'a [Claim<'a>],
}

/// One event that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Row in the flush.
    pub row: u32,
    /// Index into [`ClaimBatch::contexts`].
    pub context: u16,
    /// Event id.
    pub event_id: &'a str,
    /// Envelope `ts_utc` as received.
    pub ts_utc: &'a str,
    /// Uniqueness (V11).
    pub dedupe_key: Hash32,
    /// Payload hash (V12).
    pub payload_hash: Hash32,
    /// Partition key (V14).
    pub partition_key: Hash32,
}

/// What became of each claim, in the order of [`ClaimBatch::claims`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimOutcome {
    /// One result per claim.
    pub results: Vec<ClaimResult>,
}

/// What became of one claim.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimResult {
    /// The key is ours: publish.
    Won,
    /// Somebody has the key.
    Taken(Holder),
}

/// The row that has a key already.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Payload hash of the holder (V12).
    pub payload_hash: Hash32,
    /// Where its decision lies; `None` for a row another program wrote.
    pub row: Option<RowRef>,
    /// How far it is.
    pub state: HolderState,
}

/// How far a row is.
#[derive(Clone, Debug, PartialEq)]
pub enum HolderState {
    /// Claimed by this writer, not admitted yet.
    InFlight {
        /// Who.
        writer: WriterId,
        /// False once the writer is fenced or its time is over: settle it.
        writer_lives: bool,
    },
    /// `PUBLISH_AMBIGUOUS`, as another program leaves it: nobody knows.
    Ambiguous,
    /// Admitted here.
    Admitted {
        /// Its place on the bus.
        place: BusPlace,
        /// When, as it is written.
        admitted_at_utc: String,
        /// Reference of its receipt; may be empty in rows of other programs.
        receipt_ref: String,
    },
    /// A state that is none.
    Invalid {
        /// What stands there.
        state: String,
    },
}

/// A record's place on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusPlace {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition: the number of the stream's shard.
    pub partition: u32,
    /// Place in the partition.
    pub offset: BusOffset,
}

/// A claim that is on the bus now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The claim's key.
    pub dedupe_key: Hash32,
    /// Where it is.
    pub place: BusPlace,
}

/// One flush's outcome.
#[derive(Clone, Debug)]
pub struct MarkBatch<'a> {
    /// The flush, as in the claim.
    pub flush: FlushHead<'a>,
    /// Claims that are on the bus: every claim won by this flush and not released since.
    pub admitted: &'a [Admitted],
    /// What the decisions refer to.
    pub contexts: &'a [Arc<ReceiptContext>],
    /// Decisions that publish nothing.
    pub decisions: &'a [DecisionRecord<'a>],
    /// Last sequence number by stream shard, now known.
    pub positions: &'a [StreamPosition],
}

/// A DUPLICATE or QUARANTINE row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionRecord<'a> {
    /// Row in the flush.
    pub row: u32,
    /// Index into [`MarkBatch::contexts`].
    pub context: u16,
    /// Event id.
    pub event_id: &'a str,
    /// Envelope `ts_utc` as received.
    pub ts_utc: &'a str,
    /// Uniqueness (V11); zero when it could not be computed.
    pub dedupe_key: Hash32,
    /// Payload hash (V12); zero when it could not be computed.
    pub payload_hash: Hash32,
    /// Which decision, with its own data.
    pub outcome: DecisionOutcome<'a>,
}

/// The part of a decision that publishes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionOutcome<'a> {
    /// A copy of the event admitted in row `original`.
    Duplicate {
        /// The ADMIT row.
        original: RowRef,
    },
    /// Refused.
    Quarantine {
        /// Contract reason code.
        code: &'a str,
        /// CJ of the quarantine record (contract 7.8).
        record: &'a str,
    },
}

/// How far a flush is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushState {
    /// Keys are claimed.
    Claimed,
    /// Decided and stored as rows.
    Marked,
    /// Its segment is an object.
    Stored,
    /// Its writer died and nothing of it was on the bus.
    Released,
}

/// A flush as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct FlushInfo {
    /// Which.
    pub key: FlushKey,
    /// Who wrote it.
    pub writer: WriterId,
    /// Rows it was to have; a settled flush may have gaps.
    pub rows: u32,
    /// Where reconciliation starts to read.
    pub positions: Vec<StreamPosition>,
    /// When it was decided.
    pub decided_at: Micros,
    /// Absolute reference of its segment object.
    pub segment_ref: String,
    /// How far it is.
    pub state: FlushState,
}

/// A flush whose outcome is unknown, with what it claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsettledFlush {
    /// The flush.
    pub flush: FlushInfo,
    /// Claims still in flight, by row.
    pub claims: Vec<UnsettledClaim>,
}

/// A claim whose outcome is unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsettledClaim {
    /// Row in the flush.
    pub row: u32,
    /// What it shares with other rows; names the topic.
    pub context: Arc<ReceiptContext>,
    /// Event id: how the record is recognised on the bus.
    pub event_id: String,
    /// Envelope `ts_utc` as received.
    pub ts_utc: String,
    /// Uniqueness (V11).
    pub dedupe_key: Hash32,
    /// Payload hash (V12).
    pub payload_hash: Hash32,
    /// Partition key (V14).
    pub partition_key: Hash32,
}

/// What settling a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Claims admitted now.
    pub admitted: u64,
    /// Claims given up now.
    pub released: u64,
}

/// A writer whose work somebody must settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredWriter {
    /// Its number.
    pub writer: WriterId,
    /// Where it ran.
    pub node: String,
    /// Its run.
    pub run: PlatformRunId,
    /// Its shard.
    pub shard: u16,
    /// True when it was fenced already and settling was not finished.
    pub fenced: bool,
}

/// Decisions of a run by kind, and admitted events by topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// Admitted events by topic, sorted.
    pub admitted: Vec<(String, u64)>,
    /// Claims whose outcome is open.
    pub in_flight: u64,
    /// DUPLICATE decisions.
    pub duplicates: u64,
    /// QUARANTINE decisions.
    pub quarantined: u64,
}

/// Takes pages of admitted rows; an error ends the reading.
pub type RowVisitor<'a> = dyn FnMut(Vec<JournalRow>) -> Result<(), StoreError> + 'a;

/// The text of a sequence number, when it is one.
pub fn sequence_of(position: &StreamPosition) -> Option<SequenceNumber> {
    SequenceNumber::parse(position.sequence.as_deref()?)
}
