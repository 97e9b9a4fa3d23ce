//! The answer to a batch, written as it goes: `{"results":[...]}` in canonical form (contract 7.3).
//!
//! A batch has hundreds of items whose references differ in a row number only, so no JSON value is made of
//! them and what they share is put together once.

use super::answer::Refusal;
use super::ingest::refusal_of;
use super::receipt_view::decision_of;
use super::references::References;
use super::state::HttpParts;
use wellspring_actors::ingestion_gate::handle::{Answered, RETRY_AFTER_MS};
use wellspring_actors::ingestion_gate::messages::{Answer, Verdict};
use wellspring_domain::admission::intake::{JudgedBatch, JudgedItem};
use wellspring_domain::canonical_json::{push_cj, push_string};
use wellspring_domain::ids::receipt_id;

/// Bytes of a usual item, so that the answer is not moved while it grows.
const ITEM_BYTES: usize = 192;

/// Who answers one item of the batch: the decision of a judged item, or a refusal.
#[derive(Clone, Copy)]
enum Source {
    Judged(usize),
    Immediate(usize),
}

/// The body of the answer: one result per event, in order.
pub fn batch_answer(state: &HttpParts, answered: &Answered) -> Vec<u8> {
    let judged = &*answered.judged;
    let mut body = Vec::with_capacity(32 + ITEM_BYTES * answered.answers.len());
    let mut references = References::new(&state.runs_root, state.layout, judged);
    body.extend_from_slice(b"{\"results\":[");
    for (place, from) in in_order(judged).into_iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        match from {
            Source::Judged(at) => {
                push_item(
                    &mut body,
                    judged,
                    &mut references,
                    &judged.items[at],
                    &answered.answers[at],
                );
            }
            Source::Immediate(at) => {
                push_cj(&mut body, &refusal_of(&judged.immediate[at].1).item());
            }
        }
    }
    body.extend_from_slice(b"]}");
    body
}

/// Every item of the batch has one answer; here they are in the order of the batch.
fn in_order(judged: &JudgedBatch) -> Vec<Source> {
    let mut order = vec![Source::Judged(0); judged.items.len() + judged.immediate.len()];
    for (at, item) in judged.items.iter().enumerate() {
        order[item.index as usize] = Source::Judged(at);
    }
    for (at, (index, _)) in judged.immediate.iter().enumerate() {
        order[*index as usize] = Source::Immediate(at);
    }
    order
}

fn push_item(
    body: &mut Vec<u8>,
    judged: &JudgedBatch,
    references: &mut References,
    item: &JudgedItem,
    answer: &Answer,
) {
    if let Verdict::Retry { code } = answer.verdict {
        let refusal = Refusal::new(503, code).retry_after_ms(RETRY_AFTER_MS);
        return push_cj(body, &refusal.item());
    }
    body.extend_from_slice(b"{\"decision\":");
    push_string(body, decision_of(answer).as_str());
    if let Verdict::Quarantined { code } = answer.verdict {
        body.extend_from_slice(b",\"reason_code\":");
        push_string(body, code);
    }
    body.extend_from_slice(b",\"receipt_ref\":");
    references.push(body, item.run, answer.row, || {
        let event_id = String::from_utf8_lossy(judged.text(&item.event_id));
        receipt_id(decision_of(answer).as_str(), &event_id)
    });
    body.push(b'}');
}
