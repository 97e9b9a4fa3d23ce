//! Producers: each sends its own events in order, to a gate of this process or over a connection.

use super::http_connection::{
    Answers, HttpConnection, HttpError, HttpGateAddress, batch_answer, single_answer,
};
use super::recorder::{Answered, Outcome, Recording};
use super::schedule::{Pace, Schedule, Step};
use super::source::EventSource;
use super::synthetic::Batch;
use crate::http::answer_form::AnswerForm;
use crate::http::gate_service::PUSH_ROUTE;
use crate::machine::thread_nanos;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wellspring_domain::ports::{
    EnvelopeBatch, GateClient, ItemOutcome, PendingOutcomes, PushError,
};

/// How long a producer without a plan waits when the gate turns a batch away.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Failed connections in a row after which a producer gives up.
const FAILURES_MAX: u32 = 20;
const FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// Batches from this size on are metered each, smaller ones now and then.
const METERED_EVENTS: u64 = 32;
const METERED_EVERY: u64 = 64;

const BATCH_ROUTE: &str = "/v1/ingest/push_batch";

/// What a producer's events go through.
#[derive(Clone)]
pub struct Lane {
    /// Which producer.
    pub producer: u64,
    /// Of how many.
    pub producers: u64,
    /// What it sends, and when.
    pub schedule: Schedule,
    /// Where it writes down what became of them.
    pub recording: Arc<Recording>,
    /// When the load began.
    pub origin: Instant,
    /// Nothing before this is measured, nanoseconds.
    pub measured_from: u64,
}

/// One producer.
pub struct Producer {
    lane: Lane,
    source: EventSource,
    stop: watch::Receiver<bool>,
    sent: u64,
}

/// Events to be sent now.
struct Turn {
    first: u64,
    sent_at: u64,
    batch: Batch,
}

impl Lane {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Writes down what a batch was answered.
    fn answered<'a>(
        &self,
        first: u64,
        sent_at: u64,
        outcomes: impl ExactSizeIterator<Item = Outcome<'a>>,
    ) {
        let events = outcomes.len() as u64;
        let batch = Answered {
            sent_at,
            answered_at: self.now(),
            measured_from: self.measured_from,
        };
        let ((), nanos) = metered(first, events, || {
            let events = outcomes.enumerate().map(|(at, outcome)| {
                let sent = first + at as u64;
                let number = self.producer + sent * self.producers;
                (number, self.schedule.due(sent), outcome)
            });
            self.recording.part(self.producer).answered(&batch, events);
        });
        if nanos > 0 {
            self.recording.part(self.producer).worked(nanos);
        }
    }

    fn all_refused(&self, first: u64, sent_at: u64, events: usize, code: &str) {
        let outcomes = std::iter::repeat_n(Outcome::Refused(code), events);
        self.answered(first, sent_at, outcomes);
    }

    /// Without a plan there is no hurry to be turned away again; a plan is kept.
    async fn pause_after_refusal(&self) {
        if self.schedule.pace == Pace::Closed {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

/// Does something and tells the processor time it took; an estimate for small batches, whose own measuring
/// would cost as much.
fn metered<T>(turn: u64, events: u64, work: impl FnOnce() -> T) -> (T, u64) {
    let weight = match events {
        METERED_EVENTS.. => 1,
        _ if turn.is_multiple_of(METERED_EVERY) => METERED_EVERY,
        _ => return (work(), 0),
    };
    let began = thread_nanos();
    let done = work();
    (done, (thread_nanos() - began) * weight)
}

impl Producer {
    /// A producer that has sent nothing yet.
    pub fn new(lane: Lane, source: EventSource, stop: watch::Receiver<bool>) -> Producer {
        Producer {
            lane,
            source,
            stop,
            sent: 0,
        }
    }

    /// Waits for the next events to be sent; `None` when there are none left.
    async fn turn(&mut self) -> Option<Turn> {
        let count = self.due().await?;
        let first = self.sent;
        let (batch, nanos) = match &mut self.source {
            EventSource::Synthetic(events) => metered(first, count, || events.batch(first, count)),
            EventSource::World(rows) => (rows.batch(count).await?, 0),
        };
        let events = batch.envelopes.len() as u64;
        self.sent += events;
        let mut part = self.lane.recording.part(self.lane.producer);
        part.sent(&batch.composition, events, nanos);
        drop(part);
        Some(Turn {
            first,
            sent_at: self.lane.now(),
            batch,
        })
    }

    async fn due(&mut self) -> Option<u64> {
        loop {
            if *self.stop.borrow() {
                return None;
            }
            match self.lane.schedule.step(self.sent, self.lane.now()) {
                Step::Send(count) => return Some(count),
                Step::End => return None,
                Step::WaitUntil(moment) => {
                    let moment = self.lane.origin + Duration::from_nanos(moment);
                    let stopped = async { self.stop.wait_for(|stop| *stop).await.is_ok() };
                    tokio::select! {
                        () = tokio::time::sleep_until(moment.into()) => {}
                        // When nobody can ask for a stop any more, only the clock counts.
                        true = stopped => {}
                    }
                }
            }
        }
    }

    /// Pushes into a gate of this process, with at most `window` batches unanswered.
    pub async fn push_in_process(mut self, gate: Arc<dyn GateClient>, window: usize) {
        let room = Arc::new(Semaphore::new(window));
        loop {
            let permit = room.clone().acquire_owned().await;
            let Some(turn) = self.turn().await else {
                break;
            };
            let (first, sent_at, events) = (turn.first, turn.sent_at, turn.batch.envelopes.len());
            let batch = EnvelopeBatch {
                bytes: turn.batch.lines,
                ranges: turn.batch.envelopes,
            };
            match gate.submit(batch).await {
                Ok(pending) => {
                    let lane = self.lane.clone();
                    tokio::spawn(async move {
                        settle(&lane, first, sent_at, events, pending).await;
                        drop::<Option<OwnedSemaphorePermit>>(permit.ok());
                    });
                }
                Err(error) => {
                    self.lane
                        .all_refused(first, sent_at, events, name_of(&error));
                    self.lane.pause_after_refusal().await;
                }
            }
        }
        // Every permit is back when every batch is answered.
        let _ = room.acquire_many(window as u32).await;
    }

    /// Pushes over one connection, one request at a time: a later event never overtakes an earlier one.
    pub async fn push_http(mut self, address: Arc<HttpGateAddress>, kind: PushKind) {
        let head = match kind {
            PushKind::Single(form) => address.head(PUSH_ROUTE, "application/json", form),
            PushKind::Batch => {
                address.head(BATCH_ROUTE, "application/x-ndjson", AnswerForm::Reference)
            }
        };
        let mut connection = None;
        let mut failures = 0;
        while failures < FAILURES_MAX {
            let Some(turn) = self.turn().await else {
                return;
            };
            match self
                .exchange(&mut connection, &address, &head, &turn, kind)
                .await
            {
                Ok(true) => failures = 0,
                Ok(false) => {
                    failures = 0;
                    self.lane.pause_after_refusal().await;
                }
                Err(error) => {
                    connection = None;
                    failures += 1;
                    let events = turn.batch.envelopes.len();
                    self.lane
                        .all_refused(turn.first, turn.sent_at, events, error.name());
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    /// One request; false when the gate turned it away.
    async fn exchange(
        &self,
        kept: &mut Option<HttpConnection>,
        address: &HttpGateAddress,
        head: &[u8],
        turn: &Turn,
        kind: PushKind,
    ) -> Result<bool, HttpError> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => HttpConnection::open(address).await?,
        };
        let lines = &turn.batch.lines;
        let events = turn.batch.envelopes.len();
        let body = match kind {
            PushKind::Single(_) => &lines[..lines.len() - 1],
            PushKind::Batch => &lines[..],
        };
        let status = connection.post(head, body).await?;
        let answers = match kind {
            PushKind::Single(_) => single_answer(status, connection.body()),
            PushKind::Batch => batch_answer(status, connection.body(), events),
        };
        match answers {
            Answers::Each(outcomes) => {
                self.lane
                    .answered(turn.first, turn.sent_at, outcomes.into_iter());
            }
            Answers::All(outcome) => {
                let outcomes = std::iter::repeat_n(outcome, events);
                self.lane.answered(turn.first, turn.sent_at, outcomes);
            }
        }
        if !connection.closed {
            *kept = Some(connection);
        }
        Ok(status < 400)
    }
}

/// How events go over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushKind {
    /// One event in a request, answered in this form.
    Single(AnswerForm),
    /// A batch in a request.
    Batch,
}

async fn settle(lane: &Lane, first: u64, sent_at: u64, events: usize, pending: PendingOutcomes) {
    match pending.await {
        Ok(outcomes) => {
            let outcomes = outcomes.iter().map(outcome_of);
            lane.answered(first, sent_at, outcomes);
        }
        Err(error) => lane.all_refused(first, sent_at, events, name_of(&error)),
    }
}

fn outcome_of(outcome: &ItemOutcome) -> Outcome<'_> {
    match outcome {
        ItemOutcome::Admitted => Outcome::Admitted,
        ItemOutcome::Duplicate => Outcome::Duplicate,
        ItemOutcome::Quarantined { .. } => Outcome::Quarantined,
        ItemOutcome::Retry { code, .. } | ItemOutcome::Rejected { code, .. } => {
            Outcome::Refused(code)
        }
    }
}

fn name_of(error: &PushError) -> &str {
    match error {
        PushError::Backpressure { code, .. } => code,
        PushError::Transient { detail } => detail,
        PushError::Rejected { .. } => "rejected",
    }
}
