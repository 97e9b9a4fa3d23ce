//! Decisions of the gate as they are made durable: one [`Flush`] is one journal frame.
//!
//! The types here are what an admission shard hands to its decision log. A row holds everything its
//! receipt needs (contract 7.7); what many rows share stands once in a [`ReceiptContext`].

use super::line_memory::LineMemory;
use crate::ids::Hash32;
use crate::run_paths::PlatformRunId;
use crate::time_text::Micros;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// What the gate decided about an event (contract 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Decision {
    /// Published once, receipt written.
    Admit,
    /// The event was admitted before.
    Duplicate,
    /// Refused and recorded.
    Quarantine,
}

impl Decision {
    /// The contract's word, also used in `receipt_id` (V13).
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Admit => "ADMIT",
            Decision::Duplicate => "DUPLICATE",
            Decision::Quarantine => "QUARANTINE",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a decision lies: shard, journal segment and 0-based row in that segment. Fixed when the
/// decision is made and never changed, so a receipt reference stays valid for ever.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RowRef {
    /// Admission shard.
    pub shard: u16,
    /// Journal segment of that shard.
    pub segment: u32,
    /// Row in the segment.
    pub row: u32,
}

/// What the index knows of an admitted event.
///
/// Its size is a multiple of eight: copied in pieces that overlap, as 44 bytes are, the next copy of it has to wait until
/// the one before has reached the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub struct IndexEntry {
    /// Payload hash the event was admitted with (V12).
    pub payload_hash: Hash32,
    /// The ADMIT row.
    pub row: RowRef,
}

/// Who pushed (contract 7.2). `principal` is a label, never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// `SYSTEM::…` or `HUMAN::…`.
    pub actor_id: String,
    /// Always `SYSTEM` at the gate.
    pub source_type: String,
    /// `disabled`, `api_key` or `service_token`.
    pub auth_mode: String,
    /// Label of the caller.
    pub principal: String,
}

/// Revision of the policy a decision was made under (contract 7.7).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyRev {
    /// `ig_policy`.
    pub policy_id: String,
    /// Revision from the profile.
    pub revision: String,
    /// Digest of the policy files (V20).
    pub content_digest: String,
}

/// What many receipts of a run share: written once per journal segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiptContext {
    /// Envelope `event_type`.
    pub event_type: String,
    /// Class from the class map (contract 7.5).
    pub event_class: String,
    /// Envelope `manifest_fingerprint`.
    pub manifest_fingerprint: String,
    /// Envelope pins without nulls: a JSON object (contract 7.7).
    pub pins: Value,
    /// Run of the platform the receipt is filed under.
    pub platform_run_id: String,
    /// Envelope `scenario_run_id`, else its `run_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario_run_id: Option<String>,
    /// Envelope `schema_version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// Envelope `producer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// Bus topic the class is routed to.
    pub topic: String,
    /// Partitioning profile (contract 7.5).
    pub partitioning_profile_id: String,
    /// Caller.
    pub actor: Actor,
    /// Policy in force.
    pub policy_rev: PolicyRev,
    /// Provenance block (contract 1.5).
    pub provenance: Value,
}

/// A part of [`Flush::arena`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Length in bytes.
    pub length: u32,
}

impl Span {
    /// The bytes in the arena.
    pub fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..(self.start + self.length) as usize]
    }
}

/// The part of a row that depends on the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOutcome {
    /// Published: `append` is the index into [`Flush::appends`], `offset` the record's bus offset.
    Admit {
        /// Index into [`Flush::appends`].
        append: u16,
        /// Bus offset in that partition.
        offset: u64,
    },
    /// A copy of the event admitted in row `original`.
    Duplicate {
        /// The ADMIT row.
        original: RowRef,
    },
    /// Refused with `code`; `record` is the CJ of the quarantine record (contract 7.8).
    Quarantine {
        /// Contract reason code.
        code: &'static str,
        /// The quarantine record in the arena.
        record: Span,
    },
}

/// One decision. Fixed-size but for what lies in the flush's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    /// Index into [`Flush::contexts`].
    pub context: u16,
    /// Event id in the arena (the literal `unknown` when missing).
    pub event_id: Span,
    /// Envelope `ts_utc` in the arena, as received.
    pub ts_utc: Span,
    /// Uniqueness (V11); zero when it could not be computed.
    pub dedupe_key: Hash32,
    /// Payload hash (V12); zero when it could not be computed.
    pub payload_hash: Hash32,
    /// Partition key (V14); zero unless admitted.
    pub partition_key: Hash32,
    /// Outcome with its own data.
    pub outcome: RowOutcome,
}

impl DecisionRow {
    /// Which decision this is.
    pub fn decision(&self) -> Decision {
        match self.outcome {
            RowOutcome::Admit { .. } => Decision::Admit,
            RowOutcome::Duplicate { .. } => Decision::Duplicate,
            RowOutcome::Quarantine { .. } => Decision::Quarantine,
        }
    }
}

/// Bus lines for one topic partition: complete JSONL lines as contract 8 writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAppend {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Offset of the first line.
    pub first_offset: u64,
    /// Number of lines.
    pub events: u32,
    /// The lines, each ending in a newline.
    pub bytes: LineMemory,
}

/// Decisions that become durable together: bus lines first, then one journal frame.
#[derive(Clone, Debug)]
pub struct Flush {
    /// Run the decisions belong to.
    pub run: PlatformRunId,
    /// Row number of `rows[0]`; rows are consecutive in one segment. A new segment number starts a new
    /// segment file.
    pub first_row: RowRef,
    /// `admitted_at_utc`, `received_at_utc` and `published_at_utc` of every row (T-off when written).
    pub decided_at: Micros,
    /// Contexts the rows refer to.
    pub contexts: Vec<Arc<ReceiptContext>>,
    /// Bus lines by partition.
    pub appends: Vec<PartitionAppend>,
    /// Decisions in order.
    pub rows: Vec<DecisionRow>,
    /// Texts the rows refer to.
    pub arena: Vec<u8>,
}
