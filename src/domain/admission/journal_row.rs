//! A decision as it is read back from the journal: everything its receipt needs (contract 7.7).

use super::bus_offset::BusOffset;
use super::decision::{Decision, ReceiptContext, RowRef};
use crate::ids::{Hash32, receipt_id};
use crate::time_text::Micros;
use std::sync::Arc;

/// One decided row, read back. What an admission shard wrote as a
/// [`DecisionRow`](super::decision::DecisionRow), with its references resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalRow {
    /// Where the row lies.
    pub row_ref: RowRef,
    /// When its flush was decided: `admitted_at_utc`, `received_at_utc`, `published_at_utc`.
    pub decided_at: Micros,
    /// What it shares with other rows.
    pub context: Arc<ReceiptContext>,
    /// Event id (the literal `unknown` when the envelope had none).
    pub event_id: String,
    /// Envelope `ts_utc` as received.
    pub ts_utc: String,
    /// Uniqueness (V11); zero when it could not be computed.
    pub dedupe_key: Hash32,
    /// Payload hash (V12); zero when it could not be computed.
    pub payload_hash: Hash32,
    /// Partition key (V14); zero unless admitted.
    pub partition_key: Hash32,
    /// The decision with its own data.
    pub outcome: JournalOutcome,
}

/// The part of a read-back row that depends on the decision.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalOutcome {
    /// Published at this place of the bus.
    Admit {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: u32,
        /// Place in the partition.
        offset: BusOffset,
    },
    /// A copy of the event admitted in row `original`.
    Duplicate {
        /// The ADMIT row.
        original: RowRef,
    },
    /// Refused with `code`.
    Quarantine {
        /// Contract reason code.
        code: Arc<str>,
        /// CJ of the quarantine record (contract 7.8).
        record: Vec<u8>,
    },
}

impl JournalRow {
    /// Which decision this is.
    pub fn decision(&self) -> Decision {
        match self.outcome {
            JournalOutcome::Admit { .. } => Decision::Admit,
            JournalOutcome::Duplicate { .. } => Decision::Duplicate,
            JournalOutcome::Quarantine { .. } => Decision::Quarantine,
        }
    }

    /// `receipt_id` of the row (V13).
    pub fn receipt_id(&self) -> String {
        receipt_id(self.decision().as_str(), &self.event_id)
    }
}
