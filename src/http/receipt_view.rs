//! The decision on one event as its pusher sees it: with the whole receipt.

use super::answer::Refusal;
use super::state::{HttpParts, HttpState};
use std::sync::Arc;
use wellspring_actors::ingestion_gate::messages::{Answer, Verdict};
use wellspring_domain::admission::decision::{Decision, RowRef};
use wellspring_domain::admission::intake::{JudgedBatch, JudgedItem};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{RECEIPT_BYTES, ReceiptPlaces};
use wellspring_domain::admission::receipt_writer::push_receipt;
use wellspring_domain::canonical_json::push_string;
use wellspring_domain::ids::receipt_id;
use wellspring_domain::run_paths::RunPaths;

/// `{"decision", "receipt", "receipt_ref"}` of a single push (contract 7.1).
pub async fn decision_with_receipt(
    state: &HttpState,
    judged: Arc<JudgedBatch>,
    answer: Answer,
) -> Result<Vec<u8>, Refusal> {
    match answer.verdict {
        // The ADMIT row of an earlier event has to be read from its journal.
        Verdict::Duplicate { original } => {
            let state = state.clone();
            let reading = tokio::task::spawn_blocking(move || {
                rendered(&state, &judged, &answer, Some(original))
            });
            reading
                .await
                .map_err(|_| Refusal::new(500, "INTERNAL_ERROR"))?
        }
        _ => rendered(state, &judged, &answer, None),
    }
}

fn rendered(
    state: &HttpParts,
    judged: &JudgedBatch,
    answer: &Answer,
    original: Option<RowRef>,
) -> Result<Vec<u8>, Refusal> {
    let failed = |error: String| {
        tracing::error!(error, "receipt cannot be rendered");
        Refusal::new(500, "RECEIPT_UNAVAILABLE")
            .detail("the decision stands; its receipt can be looked up later")
    };
    let Some(item) = judged.items.first() else {
        return Err(failed("no item".to_owned()));
    };
    let run = &judged.runs[usize::from(item.run)];
    let paths = RunPaths::new(&state.runs_root, run);
    let original = match original {
        Some(row) => state
            .lookups
            .row(run, row)
            .map_err(|error| failed(error.to_string()))?,
        None => None,
    };
    let row = journal_row(judged, item, answer);
    let places = ReceiptPlaces {
        paths: &paths,
        layout: state.layout,
    };
    let decision = row.decision().as_str();
    let mut body = Vec::with_capacity(RECEIPT_BYTES);
    body.extend_from_slice(b"{\"decision\":");
    push_string(&mut body, decision);
    body.extend_from_slice(b",\"receipt\":");
    push_receipt(&mut body, &row, original.as_ref(), &places)
        .map_err(|error| failed(error.to_string()))?;
    body.extend_from_slice(b",\"receipt_ref\":");
    let reference = places.receipt_ref(answer.row, &receipt_id(decision, &row.event_id));
    push_string(&mut body, &reference);
    body.push(b'}');
    Ok(body)
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
