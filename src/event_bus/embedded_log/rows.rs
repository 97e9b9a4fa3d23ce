//! Journal rows as readers get them: everything a receipt is rendered from (contract 7.7).

use std::sync::Arc;
use wellspring_domain::admission::decision::{Decision, ReceiptContext, RowRef};
use wellspring_domain::ids::Hash32;
use wellspring_domain::time_text::Micros;

/// One decision, read from the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalRow {
    /// Where the row lies; fixed for ever.
    pub row_ref: RowRef,
    /// `admitted_at_utc`, `received_at_utc` and `published_at_utc` of the decision.
    pub decided_at: Micros,
    /// What the row shares with others.
    pub context: Arc<ReceiptContext>,
    /// Event id, `unknown` when the envelope had none.
    pub event_id: String,
    /// Envelope `ts_utc` as received.
    pub ts_utc: String,
    /// Uniqueness (V11); zero when it could not be computed.
    pub dedupe_key: Hash32,
    /// Payload hash (V12); zero when it could not be computed.
    pub payload_hash: Hash32,
    /// Partition key (V14); zero unless admitted.
    pub partition_key: Hash32,
    /// Outcome with its own data.
    pub outcome: JournalOutcome,
}

/// The part of a row that depends on the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalOutcome {
    /// Published.
    Admit {
        /// Bus topic.
        topic: Arc<str>,
        /// Bus partition.
        partition: u32,
        /// Bus offset.
        offset: u64,
    },
    /// A copy of an admitted event.
    Duplicate {
        /// The ADMIT row.
        original: RowRef,
    },
    /// Refused and recorded.
    Quarantine {
        /// Contract reason code.
        code: Arc<str>,
        /// The quarantine record, CJ (contract 7.8).
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
}
