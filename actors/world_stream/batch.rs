//! A batch on its way from the framing thread to the gate.

use crate::runtime::StageFailure;
use std::sync::Arc;
use wellspring_domain::ports::EnvelopeBatch;
use wellspring_domain::stream::source::PartName;
use wellspring_domain::time_text::Micros;

/// Envelopes of consecutive rows of one part, and what a checkpoint needs to know about them.
#[derive(Clone, Debug)]
pub struct StreamBatch {
    /// The envelopes, in row order.
    pub envelopes: EnvelopeBatch,
    /// The part the rows come from.
    pub part: Arc<PartName>,
    /// Row number, within the part, of the last envelope.
    pub last_row: u64,
    /// Event time of the last envelope: when it is due, the whole batch is.
    pub last_ts: Micros,
    /// Whether the part ends with this batch.
    pub ends_part: PartEnd,
}

impl StreamBatch {
    /// Number of events.
    pub fn events(&self) -> u64 {
        self.envelopes.len() as u64
    }
}

/// Whether a batch is the last of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartEnd {
    /// More rows of the part follow.
    No,
    /// The part is complete with this batch.
    Yes,
}

/// How framing ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameEnd {
    /// The view has no more rows.
    ViewComplete,
    /// As many events as allowed were framed (contract 6.6 step 6).
    CapReached,
    /// A row cannot be read or framed; the batches before it are good.
    Failed(StageFailure),
}

/// What comes out of the framing thread.
#[derive(Clone, Debug)]
pub enum Framed {
    /// The next batch.
    Batch(StreamBatch),
    /// Nothing follows.
    End(FrameEnd),
}
