//! The gate as an output stream of the same process sees it.
//!
//! Batches of a sender are judged side by side, so that one output keeps all processors busy; they are handed to the
//! shards in the order of their submits. A batch that is taken is decided, whether or not its sender waits for it.

use super::handle::{GateHandle, RETRY_AFTER_MS};
use super::intake_memories::IntakeMemories;
use super::sender_order::{SenderOrder, Submission};
use super::turns::{Before, Turn, Turns};
use crate::runtime::credit::Credit;
use std::sync::Arc;
use tokio::task::JoinError;
use tokio::time::Instant;
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::ports::{
    BoxFuture, EnvelopeBatch, GateClient, ItemOutcome, PendingOutcomes, PushError,
};

/// The gate as one ordered sender of the same process uses it.
pub struct InProcessGate {
    pub(super) sender: Arc<Sender>,
    window: usize,
    pub(super) turns: Turns,
}

/// What the batches of one sender share.
pub(super) struct Sender {
    gate: GateHandle,
    actor: Actor,
    pub(super) order: Arc<SenderOrder>,
    memories: IntakeMemories,
}

impl InProcessGate {
    /// A sender of its own: `actor` is the streamer's identity, `window` the most batches unanswered at
    /// once. Order is kept among the batches of one such value.
    pub fn new(gate: GateHandle, actor: Actor, window: usize) -> Self {
        InProcessGate {
            sender: Arc::new(Sender {
                gate,
                actor,
                order: Arc::default(),
                memories: IntakeMemories::default(),
            }),
            window,
            turns: Turns::default(),
        }
    }
}

impl Sender {
    /// Judges a batch and, in its turn, has it decided.
    async fn decide(
        self: Arc<Self>,
        batch: EnvelopeBatch,
        credit: Credit,
        submission: Submission,
        mut turn: Turn,
    ) -> Vec<ItemOutcome> {
        let taken_at = Instant::now();
        let judged = self.gate.judge(&batch, &self.actor, &self.memories).await;
        if turn.comes().await == Before::Lost && !submission.nothing_older {
            // So is this one's turn, and that of all behind it until the sender begins anew.
            let again = ItemOutcome::Retry {
                code: "PRECEDING_ITEM_RETRY".to_owned(),
                retry_after_ms: RETRY_AFTER_MS,
            };
            return vec![again; batch.len()];
        }
        let taken = self
            .gate
            .hand_over(judged, credit, taken_at, Some(&submission));
        let ticket = taken.await;
        turn.end();
        let outcomes = ticket.answered().await.outcomes();
        // Before the sender hears of it, so that what it sends next is not held up by this.
        drop(submission);
        outcomes
    }
}

impl GateClient for InProcessGate {
    fn submit(&self, batch: EnvelopeBatch) -> BoxFuture<'_, Result<PendingOutcomes, PushError>> {
        Box::pin(async move {
            let gate = &self.sender.gate;
            if gate.refusal().is_some() {
                return Err(PushError::Backpressure {
                    code: "IG_UNHEALTHY".to_owned(),
                    retry_after_ms: RETRY_AFTER_MS,
                });
            }
            gate.amber_pause().await;
            let submission = self.sender.order.begin();
            let (events, bytes) = (batch.len() as u32, batch.bytes.len() as u32);
            let credit = gate.credits().take(events, bytes).await;
            let sender = self.sender.clone();
            let deciding = sender.decide(batch, credit, submission, self.turns.next());
            let deciding = tokio::spawn(deciding);
            let pending: PendingOutcomes = Box::pin(async move {
                let lost = |error: JoinError| PushError::Transient {
                    detail: format!("the batch was not decided: {error}"),
                };
                deciding.await.map_err(lost)
            });
            Ok(pending)
        })
    }

    fn window(&self) -> usize {
        self.window
    }

    fn sender(&self) -> Option<Arc<dyn GateClient>> {
        let (gate, actor) = (self.sender.gate.clone(), self.sender.actor.clone());
        Some(Arc::new(InProcessGate::new(gate, actor, self.window)))
    }
}
