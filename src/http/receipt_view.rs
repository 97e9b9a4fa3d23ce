//! The decision on one event as its pusher sees it: with the whole receipt, or with where that is.

use super::answer::Refusal;
use super::references::References;
use super::state::HttpState;
use std::sync::{Arc, OnceLock};
use wellspring_actors::ingestion_gate::messages::{Answer, Verdict};
use wellspring_domain::admission::decision::{Decision, ReceiptContext, RowRef};
use wellspring_domain::admission::intake::{JudgedBatch, JudgedItem};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::ReceiptPlaces;
use wellspring_domain::admission::receipt_writer::{SharedMembers, push_receipt_with};
use wellspring_domain::canonical_json::push_string;
use wellspring_domain::ids::{receipt_id_of, receipt_id_text};
use wellspring_domain::sha256::HashBatch;

/// Answers to the events of one batch. What their receipts share is written once.
pub struct ReceiptView {
    state: HttpState,
    judged: Arc<JudgedBatch>,
    references: References,
    /// By context of the batch; made for the first receipt.
    shared: OnceLock<Vec<ContextMembers>>,
    hashes: HashBatch,
}

/// What the receipts of one context share.
struct ContextMembers {
    members: SharedMembers,
    topic: Arc<str>,
}

/// Digits of a receipt id.
pub type ReceiptId = [u8; 32];

impl ReceiptView {
    /// Of a judged batch.
    pub fn new(state: HttpState, judged: Arc<JudgedBatch>) -> ReceiptView {
        ReceiptView {
            references: References::new(&state.runs_root, state.layout, &judged),
            shared: OnceLock::new(),
            hashes: HashBatch::default(),
            state,
            judged,
        }
    }

    /// Appends the decision on an item and where its receipt is.
    pub fn push_outcome(&mut self, body: &mut Vec<u8>, position: u32, answer: &Answer) {
        let item = &self.judged.items[position as usize];
        self.references
            .push_outcome(body, &self.judged, item, answer);
    }

    /// The receipt ids that belong to some answers, in their order.
    pub fn receipt_ids(&mut self, answers: &[(u32, Answer)]) -> Vec<ReceiptId> {
        for (position, answer) in answers {
            let event_id = self
                .judged
                .text(&self.judged.items[*position as usize].event_id);
            let decision = decision_of(answer).as_str().as_bytes();
            self.hashes.push(&receipt_id_text(decision, event_id));
        }
        let mut digests = Vec::new();
        self.hashes.finish(&mut digests);
        digests.iter().map(receipt_id_of).collect()
    }

    /// The batch.
    pub fn judged(&self) -> &JudgedBatch {
        &self.judged
    }

    /// The place of an item among the events as they came.
    pub fn index(&self, position: u32) -> u32 {
        self.judged.items[position as usize].index
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

    /// Appends `{"decision", "receipt", "receipt_ref"}` of an item (contract 7.1). A duplicate needs its ADMIT row.
    /// What was appended before an error is no answer.
    pub fn push_decision(
        &mut self,
        body: &mut Vec<u8>,
        position: u32,
        answer: &Answer,
        receipt_id: &ReceiptId,
        original: Option<&JournalRow>,
    ) -> Result<(), Refusal> {
        let item = &self.judged.items[position as usize];
        let contexts = self.judged.contexts.iter();
        let shared = self
            .shared
            .get_or_init(|| contexts.map(ContextMembers::of).collect());
        let shared = &shared[usize::from(item.context)];
        let row = journal_row(&self.judged, item, answer, &shared.topic);
        let places = ReceiptPlaces {
            paths: self.references.paths(item.run),
            layout: self.state.layout,
        };
        body.extend_from_slice(b"{\"decision\":");
        push_string(body, row.decision().as_str());
        body.extend_from_slice(b",\"receipt\":");
        let receipt = push_receipt_with(&shared.members, receipt_id, body, &row, original, &places);
        receipt.map_err(|error| unavailable(&error.to_string()))?;
        body.extend_from_slice(b",\"receipt_ref\":");
        let receipt_id = || String::from_utf8_lossy(receipt_id).into_owned();
        self.references.push(body, item.run, answer.row, receipt_id);
        body.push(b'}');
        Ok(())
    }
}

impl ContextMembers {
    fn of(context: &Arc<ReceiptContext>) -> ContextMembers {
        ContextMembers {
            members: SharedMembers::of(context),
            topic: Arc::from(context.topic.as_str()),
        }
    }
}

fn unavailable(error: &str) -> Refusal {
    tracing::error!(error, "receipt cannot be rendered");
    Refusal::new(500, "RECEIPT_UNAVAILABLE")
        .detail("the decision stands; its receipt can be looked up later")
}

/// The row as the journal holds it, from what is still in memory.
fn journal_row(
    judged: &JudgedBatch,
    item: &JudgedItem,
    answer: &Answer,
    topic: &Arc<str>,
) -> JournalRow {
    let context = judged.contexts[usize::from(item.context)].clone();
    // Nearly always ASCII, which is recognised many bytes at a time.
    let text = |reference| match std::str::from_utf8(judged.text(reference)) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(judged.text(reference)).into_owned(),
    };
    let outcome = match answer.verdict {
        Verdict::Admitted { partition, offset } => JournalOutcome::Admit {
            topic: topic.clone(),
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
