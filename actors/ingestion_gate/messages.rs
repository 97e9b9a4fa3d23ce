//! What travels between the gate's actors: batches with their credit, and answers.

use crate::runtime::credit::Credit;
use std::sync::Arc;
use tokio::sync::mpsc;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::intake::JudgedBatch;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::time_text::Micros;

/// A run the gate has open.
pub type RunKey = Arc<PlatformRunId>;

/// The part of a judged batch one admission shard decides.
pub struct ShardBatch {
    /// Run of every item in `items`.
    pub run: RunKey,
    /// The whole batch, shared between shards.
    pub judged: Arc<JudgedBatch>,
    /// Positions in [`JudgedBatch::items`], ascending.
    pub items: Vec<u32>,
    /// Where answers go, in one or more portions. A closed channel means: outcome unknown.
    pub reply: mpsc::Sender<Portion>,
    /// Room of these items; given back when they are durable.
    pub credit: Credit,
}

/// Some answers of a [`ShardBatch`], all durable.
pub struct Portion {
    /// Position in [`JudgedBatch::items`] and the answer.
    pub answers: Vec<(u32, Answer)>,
}

/// What was decided about one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where the decision lies; meaningless for [`Verdict::Retry`].
    pub row: RowRef,
    /// When it was decided.
    pub decided_at: Micros,
    /// The decision.
    pub verdict: Verdict,
}

/// The decision itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Published at this place of its topic.
    Admitted {
        /// Partition of the topic.
        partition: u32,
        /// Place in that partition.
        offset: BusOffset,
    },
    /// A copy of the event admitted in row `original`.
    Duplicate {
        /// The ADMIT row.
        original: RowRef,
    },
    /// Refused and recorded.
    Quarantined {
        /// Contract reason code.
        code: &'static str,
    },
    /// Not decided: send it again.
    Retry {
        /// Contract reason code.
        code: &'static str,
    },
}

impl Answer {
    /// An answer that asks to send the event again.
    pub fn retry(code: &'static str) -> Answer {
        Answer {
            row: RowRef::default(),
            decided_at: Micros(0),
            verdict: Verdict::Retry { code },
        }
    }
}
