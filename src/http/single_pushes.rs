//! Events that are pushed alone, gathered into batches.
//!
//! A request waits for its own answer, so hundreds of connections have hundreds of requests under way. Judged,
//! claimed and answered together they cost a fraction of what each would cost alone; which of them are is for the
//! [`Gatherer`] to say. Every event is answered as soon as its own decision is durable. Durable: nothing; an event in here was not answered yet, and a caller
//! whose answer is lost sends it again.

use super::answer::Refusal;
use super::answer_form::AnswerForm;
use super::body::RoomedBody;
use super::ingest::refusal_of;
use super::push_gatherer::Gatherer;
use super::receipt_view::ReceiptView;
use super::references::OUTCOME_BYTES;
use super::state::HttpState;
use bytes::Bytes;
use futures::future::{Either, select};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use wellspring_actors::ingestion_gate::handle::{RETRY_AFTER_MS, Ticket};
use wellspring_actors::ingestion_gate::messages::{Answer, Verdict};
use wellspring_actors::runtime::credit::Credit;
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::admission::receipt::RECEIPT_BYTES;
use wellspring_domain::lent_buffers::LentBuffers;
use wellspring_domain::ports::EnvelopeBatch;

/// Most events of one batch.
pub(super) const EVENTS_MAX: usize = 512;

/// Bytes behind which a batch takes no further event.
const BYTES_MAX: usize = 1 << 20;

/// Bytes an event may be longer than the first of its batch before the batch's memory has to grow.
const ROOM_BESIDE: usize = 32;

/// Bytes of answers that share one piece of memory. Allocators keep pieces of this size when they are let go of; larger
/// ones would be fresh pages every time, which cost more than what is written to them.
const ANSWERS_BYTES: usize = 32 * 1024;

/// The body of an answer, or why there is none.
pub type PushAnswer = Result<Bytes, Refusal>;

/// Where requests hand their events over.
pub struct SinglePushes {
    pushes: mpsc::Sender<SinglePush>,
}

/// An event that was handed over.
pub(super) struct SinglePush {
    body: RoomedBody,
    caller: Arc<Actor>,
    reply: Reply,
}

/// Where an answer goes, and what it holds.
struct Reply {
    to: oneshot::Sender<PushAnswer>,
    form: AnswerForm,
}

impl SinglePushes {
    /// A way in, and who stands at its end.
    pub fn new() -> (SinglePushes, Gatherer) {
        let (pushes, receiver) = mpsc::channel(2 * EVENTS_MAX);
        (SinglePushes { pushes }, Gatherer::new(receiver))
    }

    /// Hands an event over. The receiver fails when the outcome is not known.
    pub async fn push(
        &self,
        body: RoomedBody,
        caller: Arc<Actor>,
        form: AnswerForm,
    ) -> oneshot::Receiver<PushAnswer> {
        let (to, answer) = oneshot::channel();
        // Without a gatherer the reply is dropped with the event, and the caller told to send it again.
        let push = SinglePush {
            body,
            caller,
            reply: Reply { to, form },
        };
        let _ = self.pushes.send(push).await;
        answer
    }
}

/// Events of one caller that are decided together.
pub(super) struct Batch {
    caller: Arc<Actor>,
    bytes: Vec<u8>,
    ranges: Vec<std::ops::Range<u32>>,
    credit: Credit,
    replies: Vec<Option<Reply>>,
}

/// Puts events of one caller together, in the order they came.
pub(super) fn batches(
    pushes: impl Iterator<Item = SinglePush>,
    buffers: &mut LentBuffers,
) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut left = pushes.size_hint().0;
    for push in pushes {
        let of_caller = |batch: &&mut Batch| batch.takes(&push);
        match batches.iter_mut().rev().find(of_caller) {
            Some(batch) => batch.add(push),
            // Of many callers each has but a few of the events.
            None => {
                let count = left / (batches.len() + 1);
                batches.push(Batch::of(push, count, buffers.take()));
            }
        }
        left = left.saturating_sub(1);
    }
    batches
}

impl Batch {
    /// Begins with one event, and makes room for as many like it as may follow.
    fn of(push: SinglePush, count: usize, mut bytes: Vec<u8>) -> Batch {
        let room = (push.body.bytes.len() + ROOM_BESIDE).saturating_mul(count.max(1));
        bytes.clear();
        bytes.reserve(room.min(BYTES_MAX));
        let mut batch = Batch {
            caller: push.caller.clone(),
            bytes,
            ranges: Vec::with_capacity(count),
            credit: push.body.credit,
            replies: Vec::with_capacity(count),
        };
        batch.append(&push.body.bytes, push.reply);
        batch
    }

    fn takes(&self, push: &SinglePush) -> bool {
        self.bytes.len() < BYTES_MAX && self.caller == push.caller
    }

    fn add(&mut self, push: SinglePush) {
        self.append(&push.body.bytes, push.reply);
        self.credit.merge(push.body.credit);
    }

    fn append(&mut self, event: &[u8], reply: Reply) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(event);
        self.ranges.push(start..self.bytes.len() as u32);
        self.replies.push(Some(reply));
    }

    /// How many events.
    pub(super) fn events(&self) -> usize {
        self.ranges.len()
    }

    /// Its bytes, to be lent to [`decide`](Batch::decide).
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Has the events decided and answers each as soon as its decision is durable. When the patience of its
    /// callers ends they are told so, and what was handed over is decided all the same.
    pub(super) async fn decide(self, bytes: Arc<Vec<u8>>, state: HttpState) {
        let mut replies = Replies(self.replies);
        let batch = EnvelopeBatch {
            bytes,
            ranges: self.ranges,
        };
        let late = pin!(tokio::time::sleep(state.limits.request_timeout));
        let accepting = pin!(state.gate.accept(batch, &self.caller, self.credit));
        let (ticket, late) = match select(accepting, late).await {
            Either::Left(in_time) => in_time,
            Either::Right(((), accepting)) => {
                replies.give_up();
                accepting.await;
                return;
            }
        };
        let view = ReceiptView::new(state.clone(), ticket.judged().clone());
        let mut answering = Answering { view, replies };
        let is_late = {
            let all = pin!(answering.all(ticket));
            matches!(select(all, late).await, Either::Right(_))
        };
        if is_late {
            answering.replies.give_up();
        }
    }
}

/// Where the answers go, by place in the batch; each goes once.
struct Replies(Vec<Option<Reply>>);

impl Replies {
    fn send(&mut self, index: u32, answer: PushAnswer) {
        if let Some(reply) = self.0[index as usize].take() {
            // A caller that is gone does not need its answer; the decision stands.
            let _ = reply.to.send(answer);
        }
    }

    /// Whether an event's caller asked for the receipt itself.
    fn wants_receipt(&self, index: u32) -> bool {
        let reply = &self.0[index as usize];
        reply
            .as_ref()
            .is_some_and(|reply| reply.form == AnswerForm::Receipt)
    }

    /// Tells all who have no answer yet to send the same bytes again later.
    fn give_up(&mut self) {
        for reply in self.0.iter_mut().filter_map(Option::take) {
            let late = Refusal::new(503, "PUBLISH_IN_FLIGHT_RETRY");
            let _ = reply.to.send(Err(late.retry_after_ms(RETRY_AFTER_MS)));
        }
    }
}

/// Bodies of answers that go out together: one piece of memory, and each answer holds a part of it.
struct Bodies {
    text: Vec<u8>,
    parts: Vec<(u32, Result<Range<usize>, Refusal>)>,
    /// How many may still come.
    left: usize,
    /// Bytes one of them has, about.
    length: usize,
}

impl Bodies {
    /// For so many of about so many bytes.
    fn new(count: usize, length: usize) -> Bodies {
        Bodies {
            text: Vec::new(),
            parts: Vec::new(),
            left: count,
            length,
        }
    }

    /// Adds the body that `write` appends for an event of the batch; sends all when no other fits.
    fn add(
        &mut self,
        index: u32,
        replies: &mut Replies,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Refusal>,
    ) {
        if self.text.len() + self.length > self.text.capacity() {
            self.send(replies);
            let bodies = (ANSWERS_BYTES / self.length).clamp(1, self.left.max(1));
            self.text.reserve(bodies * self.length);
        }
        self.left = self.left.saturating_sub(1);
        let start = self.text.len();
        let written = write(&mut self.text);
        let part = written.map(|()| start..self.text.len());
        self.parts.push((index, part));
    }

    /// Sends all of them.
    fn send(&mut self, replies: &mut Replies) {
        let text = Bytes::from(std::mem::take(&mut self.text));
        for (index, part) in self.parts.drain(..) {
            replies.send(index, part.map(|part| text.slice(part)));
        }
    }
}

struct Answering {
    view: ReceiptView,
    replies: Replies,
}

impl Answering {
    async fn all(&mut self, mut ticket: Ticket) {
        for (index, immediate) in &ticket.judged().immediate {
            self.replies.send(*index, Err(refusal_of(immediate)));
        }
        while let Some(mut answers) = ticket.next().await {
            answers.retain(|(position, answer)| !self.refuses(*position, answer));
            let (receipts, references): (Vec<_>, Vec<_>) = answers
                .into_iter()
                .partition(|(position, _)| self.replies.wants_receipt(self.view.index(*position)));
            self.answer_with_references(&references);
            let (copies, others) = receipts.into_iter().partition(is_duplicate);
            self.answer_with_receipts(others, std::iter::repeat_with(|| Ok(None)));
            self.answer_duplicates(copies).await;
        }
    }

    /// Tells the caller when nothing was decided; false when something was.
    fn refuses(&mut self, position: u32, answer: &Answer) -> bool {
        let Verdict::Retry { code } = answer.verdict else {
            return false;
        };
        let item = &self.view.judged().items[position as usize];
        let event_id = String::from_utf8_lossy(self.view.judged().text(&item.event_id));
        let refusal = Refusal::new(503, code).detail(event_id);
        let again = refusal.retry_after_ms(RETRY_AFTER_MS);
        self.replies.send(item.index, Err(again));
        true
    }

    fn answer_with_references(&mut self, answers: &[(u32, Answer)]) {
        let mut bodies = Bodies::new(answers.len(), OUTCOME_BYTES);
        for (position, answer) in answers {
            let index = self.view.index(*position);
            bodies.add(index, &mut self.replies, |body| {
                self.view.push_outcome(body, *position, answer);
                Ok(())
            });
        }
        bodies.send(&mut self.replies);
    }

    /// Answers with whole receipts; `originals` are the ADMIT rows of duplicates.
    fn answer_with_receipts(
        &mut self,
        answers: Vec<(u32, Answer)>,
        originals: impl Iterator<Item = Result<Option<JournalRow>, Refusal>>,
    ) {
        let ids = self.view.receipt_ids(&answers);
        let mut bodies = Bodies::new(answers.len(), RECEIPT_BYTES);
        for (((position, answer), id), original) in answers.into_iter().zip(ids).zip(originals) {
            let index = self.view.index(position);
            let view = &mut self.view;
            bodies.add(index, &mut self.replies, |body| {
                view.push_decision(body, position, &answer, &id, original?.as_ref())
            });
        }
        bodies.send(&mut self.replies);
    }

    /// Their receipts tell of the first event's admission, which has to be read from its journal.
    async fn answer_duplicates(&mut self, copies: Vec<(u32, Answer)>) {
        if copies.is_empty() {
            return;
        }
        let originals = self.view.read_originals(&copies).await;
        self.answer_with_receipts(copies, originals.into_iter());
    }
}

fn is_duplicate((_, answer): &(u32, Answer)) -> bool {
    matches!(answer.verdict, Verdict::Duplicate { .. })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use wellspring_actors::runtime::credit::{CreditLimits, Credits};

    pub fn push(credits: &Credits, caller: &str, bytes: Vec<u8>) -> SinglePush {
        let credit = credits.try_take(1, bytes.len() as u32).expect("room");
        SinglePush {
            body: RoomedBody {
                bytes: bytes.into(),
                credit,
            },
            caller: Arc::new(Actor {
                actor_id: format!("SYSTEM::{caller}"),
                source_type: "SYSTEM".to_owned(),
                auth_mode: "api_key".to_owned(),
                principal: caller.to_owned(),
            }),
            reply: Reply {
                to: oneshot::channel().0,
                form: AnswerForm::Receipt,
            },
        }
    }

    #[test]
    fn a_batch_has_one_caller_keeps_the_order_and_ends_by_size() {
        let credits = Credits::new(CreditLimits {
            events_max: 100,
            bytes_max: 8 << 20,
        });
        let large = vec![b'x'; BYTES_MAX];
        let pushes = [
            push(&credits, "a", b"1".to_vec()),
            push(&credits, "b", b"22".to_vec()),
            push(&credits, "a", b"333".to_vec()),
            push(&credits, "b", large.clone()),
            push(&credits, "b", b"4".to_vec()),
        ];
        let batches = batches(pushes.into_iter(), &mut LentBuffers::default());
        let seen: Vec<(&str, Vec<&[u8]>, u32)> = batches
            .iter()
            .map(|batch| {
                let events = batch.ranges.iter();
                let event = |range: &std::ops::Range<u32>| {
                    &batch.bytes[range.start as usize..range.end as usize]
                };
                let caller = batch.caller.principal.as_str();
                (caller, events.map(event).collect(), batch.credit.events())
            })
            .collect();
        let expected: [(&str, Vec<&[u8]>, u32); 3] = [
            ("a", vec![b"1", b"333"], 2),
            ("b", vec![b"22", &large], 2),
            ("b", vec![b"4"], 1),
        ];
        assert_eq!(seen, expected);
        drop(batches);
        assert_eq!(credits.gauges().events_in_use, 0);
    }

    #[test]
    fn answers_share_pieces_of_memory_and_each_is_sent_to_its_own_caller() {
        const COUNT: usize = 200;
        let body = |index: usize| format!("{index}-").repeat(index % 150);
        let mut replies = Replies(Vec::new());
        let mut callers = Vec::new();
        for _ in 0..COUNT {
            let (to, answer) = oneshot::channel();
            let form = AnswerForm::Receipt;
            replies.0.push(Some(Reply { to, form }));
            callers.push(answer);
        }
        // Some are longer than said.
        let mut bodies = Bodies::new(COUNT, 300);
        for index in 0..COUNT {
            bodies.add(index as u32, &mut replies, |text| {
                text.extend_from_slice(body(index).as_bytes());
                match index % 7 {
                    0 => Err(Refusal::new(503, "INTERNAL_ERROR")),
                    _ => Ok(()),
                }
            });
            // One that does not fit doubles it.
            assert!(bodies.text.capacity() <= 2 * ANSWERS_BYTES);
        }
        bodies.send(&mut replies);
        for (index, mut answer) in callers.into_iter().enumerate() {
            match (index % 7, answer.try_recv().expect("an answer")) {
                (0, answer) => assert!(answer.is_err()),
                (_, answer) => assert!(answer.is_ok_and(|answer| answer == body(index))),
            }
        }
    }
}
