//! The decision on one event as its pusher sees it: with the whole receipt.

use super::answer::Refusal;
use super::references::References;
use super::state::HttpState;
use std::sync::Arc;
use wellspring_actors::ingestion_gate::messages::{Answer, Verdict};
use wellspring_domain::admission::decision::{Decision, RowRef};
use wellspring_domain::admission::intake::{JudgedBatch, JudgedItem};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{RECEIPT_BYTES, ReceiptPlaces};
use wellspring_domain::admission::receipt_writer::{SharedMembers, push_receipt_with};
use wellspring_domain::canonical_json::push_string;

/// Answers to the events of one batch. What their receipts share is written once.
pub struct ReceiptView {
    state: HttpState,
    judged: Arc<JudgedBatch>,
    references: References,
    /// By context of the batch.
    shared: Vec<SharedMembers>,
}

impl ReceiptView {
    /// Of a judged batch.
    pub fn new(state: HttpState, judged: Arc<JudgedBatch>) -> ReceiptView {
        let contexts = judged.contexts.iter();
        ReceiptView {
            references: References::new(&state.runs_root, state.layout, &judged),
            shared: contexts.map(|context| SharedMembers::of(context)).collect(),
            state,
            judged,
        }
    }

    /// The batch.
    pub fn judged(&self) -> &JudgedBatch {
        &self.judged
    }

    /// The ADMIT rows of duplicates, in their order.
    pub async fn read_originals(
        &self,
        copies: &[(u32, Answer)],
    ) -> Vec<Result<Option<JournalRow>, Refusal>> {
        let wanted: Vec<(u16, RowRef)> = copies
            .iter()
            .filter_map(|(position, answer)| match answer.verdict {
                Verdict::Duplicate { original } => {
                    Some((self.judged.items[*position as usize].run, original))
                }
                _ => None,
            })
            .collect();
        let (state, judged) = (self.state.clone(), self.judged.clone());
        let read = move |(run, row): (u16, RowRef)| {
            let run = &judged.runs[usize::from(run)];
            let row = state.lookups.row(run, row);
            row.map_err(|error| unavailable(&error.to_string()))
        };
        let reading =
            tokio::task::spawn_blocking(move || wanted.into_iter().map(read).collect::<Vec<_>>());
        let failed = || Err(Refusal::new(500, "INTERNAL_ERROR"));
        reading
            .await
            .unwrap_or_else(|_| copies.iter().map(|_| failed()).collect())
    }

    /// `{"decision", "receipt", "receipt_ref"}` of an item (contract 7.1). A duplicate needs its ADMIT row.
    pub fn decision(
        &mut self,
        position: u32,
        answer: &Answer,
        original: Option<&JournalRow>,
    ) -> Result<Vec<u8>, Refusal> {
        let item = &self.judged.items[position as usize];
        let row = journal_row(&self.judged, item, answer);
        let places = ReceiptPlaces {
            paths: self.references.paths(item.run),
            layout: self.state.layout,
        };
        let shared = &self.shared[usize::from(item.context)];
        let mut body = Vec::with_capacity(RECEIPT_BYTES);
        body.extend_from_slice(b"{\"decision\":");
        push_string(&mut body, row.decision().as_str());
        body.extend_from_slice(b",\"receipt\":");
        push_receipt_with(shared, &mut body, &row, original, &places)
            .map_err(|error| unavailable(&error.to_string()))?;
        body.extend_from_slice(b",\"receipt_ref\":");
        let references = &mut self.references;
        references.push(&mut body, item.run, answer.row, || row.receipt_id());
        body.push(b'}');
        Ok(body)
    }
}

fn unavailable(error: &str) -> Refusal {
    tracing::error!(error, "receipt cannot be rendered");
    Refusal::new(500, "RECEIPT_UNAVAILABLE")
        .detail("the decision stands; its receipt can be looked up later")
}

/// The row as the journal holds it, from what is still in memory.
fn journal_row(judged: &JudgedBatch, item: &JudgedItem, answer: &Answer) -> JournalRow {
    let context = judged.contexts[usize::from(item.context)].clone();
    let text = |reference| String::from_utf8_lossy(judged.text(reference)).into_owned();
    let outcome = match answer.verdict {
        Verdict::Admitted { partition, offset } => JournalOutcome::Admit {
            topic: Arc::from(context.topic.as_str()),
            partition,
            offset,
        },
        Verdict::Duplicate { original } => JournalOutcome::Duplicate { original },
        Verdict::Quarantined { code } | Verdict::Retry { code } => JournalOutcome::Quarantine {
            code: Arc::from(code),
            record: Vec::new(),
        },
    };
    JournalRow {
        row_ref: answer.row,
        decided_at: answer.decided_at,
        context,
        event_id: text(&item.event_id),
        ts_utc: text(&item.ts_utc),
        dedupe_key: item.dedupe_key,
        payload_hash: item.payload_hash,
        partition_key: item.partition_key,
        outcome,
    }
}

/// The decision an answer stands for; what asks to send the event again has none.
pub(super) fn decision_of(answer: &Answer) -> Decision {
    match answer.verdict {
        Verdict::Admitted { .. } => Decision::Admit,
        Verdict::Duplicate { .. } => Decision::Duplicate,
        Verdict::Quarantined { .. } | Verdict::Retry { .. } => Decision::Quarantine,
    }
}
