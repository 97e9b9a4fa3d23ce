//! Hands batches to the gate and gives them back in order, each once every event in it is decided.
//!
//! Up to the gate's window of batches may be unanswered. When an answer leaves something undecided the
//! sender stops taking batches, waits for all other answers, and sends the undecided events again, in
//! their order and one batch at a time, so that nothing overtakes them (contract 6.8). The bytes of an
//! event never change.

use super::batch::StreamBatch;
use super::progress::{OutputProgress, Tally};
use crate::runtime::{Jitter, StageFailure};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use wellspring_domain::ports::{
    BoxFuture, EnvelopeBatch, GateClient, ItemOutcome, PendingOutcomes, PushError,
};
use wellspring_domain::stream::retry::{NextAttempt, RetryPolicy, RetryState};

/// What the sender has to say.
#[derive(Debug)]
pub enum SenderEvent {
    /// The gate took a batch over; there may be room for the next.
    Taken,
    /// The oldest batch is decided. Batches come back in the order they were pushed.
    Decided(StreamBatch),
}

/// Sends batches of one output.
pub struct GateSender {
    gate: Arc<dyn GateClient>,
    policy: RetryPolicy,
    jitter: Jitter,
    progress: Arc<OutputProgress>,
    batches: VecDeque<Entry>,
    recovery: Recovery,
    retry: RetryState,
}

/// One batch that is not decided yet.
struct Entry {
    batch: StreamBatch,
    /// Events still undecided, by index; all of them before the first answer.
    open: Vec<u32>,
    state: EntryState,
    tally: Tally,
    first_submit: Instant,
    rejected: Option<StageFailure>,
}

enum EntryState {
    /// The gate has not taken it yet.
    Submitting(BoxFuture<'static, Result<PendingOutcomes, PushError>>),
    /// The gate has it.
    Pending(PendingOutcomes),
    /// Answered; what is left in `open` must be sent again.
    Answered,
}

/// Whether undecided events are being sent again.
enum Recovery {
    /// Everything goes its way.
    None,
    /// Something was left undecided: no new batch is taken.
    Gathering(Cause),
    /// Waiting before the oldest undecided events go out again.
    Waiting(Pin<Box<Sleep>>),
    /// The oldest undecided events are on their way again.
    Resending,
}

/// Why events are undecided; backpressure wins, because its wait is what the gate asked for.
#[derive(Clone, Debug)]
enum Cause {
    Failure { reason: String },
    Backpressure { reason: String, wait_ms: u64 },
}

impl GateSender {
    /// A sender with nothing on its way.
    pub fn new(
        gate: Arc<dyn GateClient>,
        policy: RetryPolicy,
        jitter: Jitter,
        progress: Arc<OutputProgress>,
    ) -> Self {
        GateSender {
            gate,
            policy,
            jitter,
            progress,
            batches: VecDeque::new(),
            recovery: Recovery::None,
            retry: RetryState::default(),
        }
    }

    /// Whether a batch may be pushed now.
    pub fn has_room(&self) -> bool {
        let submitting = |entry: &Entry| matches!(entry.state, EntryState::Submitting(_));
        matches!(self.recovery, Recovery::None)
            && self.batches.len() < self.gate.window().max(1)
            && !self.batches.back().is_some_and(submitting)
    }

    /// Whether everything pushed is decided.
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty()
    }

    /// Starts to hand a batch over; only when there is room. `late` is how late it is.
    pub fn push(&mut self, batch: StreamBatch, late: Duration) {
        assert!(self.has_room(), "a batch is pushed only when there is room");
        self.progress.submitted(batch.events(), late);
        let open = (0..batch.envelopes.len() as u32).collect();
        let state = EntryState::Submitting(self.submit(batch.envelopes.clone()));
        self.batches.push_back(Entry {
            batch,
            open,
            state,
            tally: Tally::default(),
            first_submit: Instant::now(),
            rejected: None,
        });
    }

    /// Works until there is something to say; waits for ever while nothing is on its way. May be
    /// dropped and called again at any time.
    pub async fn next(&mut self) -> Result<SenderEvent, StageFailure> {
        loop {
            if let Some(event) = self.pop_decided()? {
                return Ok(event);
            }
            self.advance_recovery()?;
            if let Recovery::Waiting(wait) = &mut self.recovery {
                wait.as_mut().await;
                self.resend_oldest();
                continue;
            }
            let Some(at) = self.oldest_on_its_way() else {
                return std::future::pending().await;
            };
            match self.drive(at).await {
                Driven::Taken(at, pending) => {
                    self.batches[at].state = EntryState::Pending(pending);
                    return Ok(SenderEvent::Taken);
                }
                Driven::Answered(at, answer) => self.answered(at, answer),
            }
        }
    }

    fn submit(
        &self,
        envelopes: EnvelopeBatch,
    ) -> BoxFuture<'static, Result<PendingOutcomes, PushError>> {
        let gate = self.gate.clone();
        Box::pin(async move { gate.submit(envelopes).await })
    }

    /// The oldest batch if it is decided, or the failure that ends the output with it.
    fn pop_decided(&mut self) -> Result<Option<SenderEvent>, StageFailure> {
        let decided = |entry: &Entry| {
            matches!(entry.state, EntryState::Answered)
                && (entry.open.is_empty() || entry.rejected.is_some())
        };
        if !self.batches.front().is_some_and(decided) {
            return Ok(None);
        }
        let entry = self.batches.pop_front().expect("there is a front");
        if let Some(rejected) = entry.rejected {
            return Err(rejected);
        }
        self.progress
            .answered(entry.tally, entry.first_submit.elapsed());
        Ok(Some(SenderEvent::Decided(entry.batch)))
    }

    /// Decides whether undecided events go out again now, after a wait, or never.
    fn advance_recovery(&mut self) -> Result<(), StageFailure> {
        let Recovery::Gathering(cause) = &self.recovery else {
            return Ok(());
        };
        if self.oldest_on_its_way().is_some() {
            return Ok(()); // all answers first: the order of what is sent again must be known
        }
        let cause = cause.clone();
        let jitter = (self.jitter)();
        let next = match &cause {
            Cause::Failure { .. } => self.retry.after_failure(&self.policy, jitter),
            Cause::Backpressure { wait_ms, .. } => {
                self.retry.after_backpressure(&self.policy, *wait_ms)
            }
        };
        match next {
            NextAttempt::Exhausted => Err(StageFailure::transient(
                "IG_PUSH_RETRY_EXHAUSTED",
                cause.reason(),
            )),
            NextAttempt::After { wait_ms } => {
                self.warn_of_retry(&cause, wait_ms);
                let wait = tokio::time::sleep(Duration::from_millis(wait_ms));
                self.recovery = Recovery::Waiting(Box::pin(wait));
                Ok(())
            }
        }
    }

    fn warn_of_retry(&self, cause: &Cause, delay_ms: u64) {
        if let Cause::Backpressure { reason, .. } = cause {
            tracing::debug!(delay_ms, %reason, "the gate asked to wait");
            return;
        }
        let first = self.batches.iter().find(|entry| !entry.open.is_empty());
        let event =
            first.map(|entry| event_id(entry.batch.envelopes.envelope(entry.open[0] as usize)));
        tracing::warn!(
            attempt = self.retry.attempts_failed(), delay_ms, reason = %cause.reason(),
            event_id = event.unwrap_or_default(), "push is retried"
        );
    }

    /// Sends the undecided events of the oldest undecided batch again, the same bytes in their order.
    fn resend_oldest(&mut self) {
        self.recovery = Recovery::None;
        let undecided = |entry: &Entry| !entry.open.is_empty() && entry.rejected.is_none();
        let Some(at) = self.batches.iter().position(undecided) else {
            return;
        };
        let entry = &self.batches[at];
        let again = match entry.open.len() == entry.batch.envelopes.len() {
            true => entry.batch.envelopes.clone(),
            false => subset(&entry.batch.envelopes, &entry.open),
        };
        self.batches[at].state = EntryState::Submitting(self.submit(again));
        self.recovery = Recovery::Resending;
    }

    fn oldest_on_its_way(&self) -> Option<usize> {
        self.batches
            .iter()
            .position(|entry| !matches!(entry.state, EntryState::Answered))
    }

    /// Waits for whatever happens first: the newest batch is taken, or the oldest answered. The
    /// newest matters because the gate may be waiting to take it while older answers are ready.
    async fn drive(&mut self, oldest: usize) -> Driven {
        let newest = self.batches.len() - 1;
        let (older, newer) = self.batches.make_contiguous().split_at_mut(newest);
        let Some(oldest_entry) = older.get_mut(oldest) else {
            return newer[0].drive(newest).await;
        };
        match &mut newer[0].state {
            EntryState::Submitting(submit) => tokio::select! {
                biased;
                driven = oldest_entry.drive(oldest) => driven,
                taken = submit => Driven::of_submit(newest, taken),
            },
            EntryState::Pending(_) | EntryState::Answered => oldest_entry.drive(oldest).await,
        }
    }

    /// Takes the answers of one batch in.
    fn answered(&mut self, at: usize, answer: Result<Vec<ItemOutcome>, PushError>) {
        let entry = &mut self.batches[at];
        entry.state = EntryState::Answered;
        let before = entry.open.len();
        let cause = match answer {
            Ok(outcomes) => entry.take_outcomes(outcomes),
            Err(error) => entry.take_error(error),
        };
        let progressed = entry.open.len() < before;
        if progressed {
            self.retry.progressed();
        }
        match (cause, &mut self.recovery) {
            (Some(cause), Recovery::Gathering(known)) => known.join(cause),
            (Some(cause), _) => {
                self.recovery = Recovery::Gathering(cause);
                self.take_back_submit();
            }
            (None, Recovery::Resending) => self.recovery = self.next_recovery(),
            (None, _) => {}
        }
    }

    /// A batch the gate has not taken yet waits behind the undecided ones. What the gate may have seen of
    /// it is sent again with the rest, the same bytes.
    fn take_back_submit(&mut self) {
        for entry in &mut self.batches {
            if let EntryState::Submitting(_) = entry.state {
                entry.state = EntryState::Answered;
            }
        }
    }

    /// After undecided events were decided: the next undecided batch goes out at once.
    fn next_recovery(&self) -> Recovery {
        let undecided = |entry: &Entry| !entry.open.is_empty() && entry.rejected.is_none();
        match self.batches.iter().any(undecided) {
            true => Recovery::Waiting(Box::pin(tokio::time::sleep(Duration::ZERO))),
            false => Recovery::None,
        }
    }
}

enum Driven {
    Taken(usize, PendingOutcomes),
    Answered(usize, Result<Vec<ItemOutcome>, PushError>),
}

impl Driven {
    fn of_submit(at: usize, result: Result<PendingOutcomes, PushError>) -> Self {
        match result {
            Ok(pending) => Driven::Taken(at, pending),
            Err(error) => Driven::Answered(at, Err(error)),
        }
    }
}

impl Entry {
    /// Waits for what comes next for this batch.
    async fn drive(&mut self, at: usize) -> Driven {
        match &mut self.state {
            EntryState::Submitting(submit) => Driven::of_submit(at, submit.await),
            EntryState::Pending(answers) => Driven::Answered(at, answers.await),
            EntryState::Answered => std::future::pending().await,
        }
    }

    /// Counts decided events and keeps the rest open. Says why something is left undecided.
    fn take_outcomes(&mut self, outcomes: Vec<ItemOutcome>) -> Option<Cause> {
        if outcomes.len() != self.open.len() {
            let reason = format!("{} answers for {} events", outcomes.len(), self.open.len());
            return Some(Cause::Failure { reason });
        }
        let mut cause: Option<Cause> = None;
        let mut open = Vec::new();
        for (index, outcome) in std::mem::take(&mut self.open).into_iter().zip(outcomes) {
            match outcome {
                ItemOutcome::Admitted => self.tally.admitted += 1,
                ItemOutcome::Duplicate => self.tally.duplicate += 1,
                ItemOutcome::Quarantined { .. } => self.tally.quarantined += 1,
                ItemOutcome::Rejected {
                    status,
                    code,
                    detail,
                } => {
                    let detail = format!("http_{status} {code} {detail}");
                    self.rejected.get_or_insert_with(|| rejection(detail));
                }
                ItemOutcome::Retry {
                    code,
                    retry_after_ms,
                } => {
                    open.push(index);
                    let found = Cause::of(code, retry_after_ms);
                    match &mut cause {
                        Some(known) => known.join(found),
                        None => cause = Some(found),
                    }
                }
            }
        }
        self.open = open;
        cause
    }

    fn take_error(&mut self, error: PushError) -> Option<Cause> {
        match error {
            PushError::Backpressure {
                code,
                retry_after_ms,
            } => Some(Cause::Backpressure {
                reason: code,
                wait_ms: retry_after_ms,
            }),
            PushError::Transient { detail } => Some(Cause::Failure { reason: detail }),
            PushError::Rejected { status, detail } => {
                self.rejected = Some(rejection(format!("http_{status} {detail}")));
                None
            }
        }
    }
}

impl Cause {
    fn of(code: String, retry_after_ms: u64) -> Self {
        match retry_after_ms {
            0 => Cause::Failure { reason: code },
            wait_ms => Cause::Backpressure {
                reason: code,
                wait_ms,
            },
        }
    }

    fn reason(&self) -> String {
        match self {
            Cause::Failure { reason } | Cause::Backpressure { reason, .. } => reason.clone(),
        }
    }

    fn join(&mut self, other: Cause) {
        match (&mut *self, other) {
            (Cause::Backpressure { wait_ms, .. }, Cause::Backpressure { wait_ms: other, .. }) => {
                *wait_ms = (*wait_ms).max(other);
            }
            (Cause::Failure { .. }, other @ Cause::Backpressure { .. }) => *self = other,
            (_, Cause::Failure { .. }) => {}
        }
    }
}

fn rejection(detail: String) -> StageFailure {
    StageFailure::terminal(
        "IG_PUSH_REJECTED",
        detail.chars().take(256).collect::<String>(),
    )
}

/// The envelopes at `indexes`, one a line, in a buffer of their own.
fn subset(batch: &EnvelopeBatch, indexes: &[u32]) -> EnvelopeBatch {
    let mut bytes = Vec::new();
    let mut ranges = Vec::with_capacity(indexes.len());
    for index in indexes {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(batch.envelope(*index as usize));
        ranges.push(start..bytes.len() as u32);
        bytes.push(b'\n');
    }
    EnvelopeBatch {
        bytes: Arc::new(bytes),
        ranges,
    }
}

/// The event id of an envelope framed here, for logs.
fn event_id(envelope: &[u8]) -> String {
    const START: usize = b"{\"event_id\":\"".len();
    String::from_utf8_lossy(envelope.get(START..START + 64).unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[path = "gate_sender_tests.rs"]
mod tests;
