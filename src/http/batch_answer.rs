//! The answer to a batch, written as it goes: `{"results":[...]}` in canonical form (contract 7.3).
//!
//! A batch has hundreds of items whose references differ in a row number only, so no JSON value is made of
//! them and what they share is put together once.

use super::answer::Refusal;
use super::ingest::refusal_of;
use super::references::{OUTCOME_BYTES, References};
use super::state::HttpParts;
use wellspring_actors::ingestion_gate::handle::{Answered, RETRY_AFTER_MS};
use wellspring_actors::ingestion_gate::messages::Verdict;
use wellspring_domain::admission::intake::JudgedBatch;
use wellspring_domain::canonical_json::push_cj;

/// Who answers one item of the batch: the decision of a judged item, or a refusal.
#[derive(Clone, Copy)]
enum Source {
    Judged(usize),
    Immediate(usize),
}

/// The body of the answer: one result per event, in order.
pub fn batch_answer(state: &HttpParts, answered: &Answered) -> Vec<u8> {
    let judged = &*answered.judged;
    let mut body = Vec::with_capacity(32 + OUTCOME_BYTES * answered.answers.len());
    let mut references = References::new(&state.runs_root, state.layout, judged);
    body.extend_from_slice(b"{\"results\":[");
    for (place, from) in in_order(judged).into_iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        match from {
            Source::Judged(at) => {
                let (item, answer) = (&judged.items[at], &answered.answers[at]);
                match answer.verdict {
                    Verdict::Retry { code } => {
                        let refusal = Refusal::new(503, code).retry_after_ms(RETRY_AFTER_MS);
                        push_cj(&mut body, &refusal.item());
                    }
                    _ => references.push_outcome(&mut body, judged, item, answer),
                }
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
