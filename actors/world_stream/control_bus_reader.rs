//! Reads READY from one control bus and keeps each message until its run has ended (contract 6.1, D12).
//!
//! A message is settled when it is streamed or skipped for good. A deferred one is offered again at the
//! next look, a failed one after a rest that doubles each time (W12). Nothing is queued: what has no
//! room stays on the bus.

use super::ready_desk::ReadyOutcome;
use super::ready_run::Handled;
use super::runs_supervisor::RunsSupervisorMsg;
use crate::runtime::blocking;
use crate::runtime::{NodeState, TreeNode};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wellspring_domain::ports::{ControlBus, ControlRecord, StoreError};
use wellspring_domain::stream::ready_decision::{ReadyStatus, retry_delay_ms};

/// Messages looked at in one poll.
const POLL_MESSAGES_MAX: usize = 1_000;
/// How long an offer may take.
const OFFER_DEADLINE: Duration = Duration::from_secs(30);

/// The actor.
pub struct ControlBusReader;

/// Messages of the reader; it sends them to itself.
pub enum ControlBusReaderMsg {
    /// Look at the bus.
    Poll,
    /// The run of a message has ended; nothing when it was lost.
    Ended {
        /// The message.
        record: ControlRecord,
        /// What became of it.
        handled: Option<Handled>,
    },
}

/// What the reader starts with.
pub struct ControlBusReaderArgs {
    /// The bus.
    pub bus: Arc<dyn ControlBus>,
    /// The topic READY comes on.
    pub topic: String,
    /// Time between two looks.
    pub poll_interval: Duration,
    /// Who runs them.
    pub runs: ActorRef<RunsSupervisorMsg>,
    /// Told of every handled READY; a full channel holds the reader up, so it must be read.
    pub outcomes: Option<mpsc::Sender<ReadyOutcome>>,
    /// Its place in the live tree.
    pub node: TreeNode,
}

/// What the reader holds.
pub struct ControlBusReaderState {
    args: ControlBusReaderArgs,
    in_hand: BTreeSet<String>,
    resting: BTreeMap<String, Instant>,
    lost: BTreeMap<String, u32>,
    /// Why messages wait, so that it is told once and not at every look.
    waiting: BTreeMap<String, Option<String>>,
}

impl Actor for ControlBusReader {
    type Msg = ControlBusReaderMsg;
    type State = ControlBusReaderState;
    type Arguments = ControlBusReaderArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: ControlBusReaderArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        args.node.set_state(NodeState::Running);
        myself.cast(ControlBusReaderMsg::Poll)?;
        let (in_hand, resting, lost, waiting) = Default::default();
        Ok(ControlBusReaderState {
            args,
            in_hand,
            resting,
            lost,
            waiting,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ControlBusReaderMsg::Poll => {
                state.poll(&myself).await;
                myself.send_after(state.args.poll_interval, || ControlBusReaderMsg::Poll);
            }
            ControlBusReaderMsg::Ended { record, handled } => state.ended(record, handled).await,
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.args.node.set_state(NodeState::Stopped);
        Ok(())
    }
}

impl ControlBusReaderState {
    async fn poll(&mut self, myself: &ActorRef<ControlBusReaderMsg>) {
        let (bus, topic) = (self.args.bus.clone(), self.args.topic.clone());
        let polling = blocking::run("bus-poll", move || bus.poll(&topic, POLL_MESSAGES_MAX));
        let records = match polling.await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => return self.not_read(&error),
            Err(panic) => {
                tracing::error!(%panic, "reading the control bus panicked");
                return;
            }
        };
        let now = Instant::now();
        self.resting.retain(|_, until| *until > now);
        for record in records {
            let waits = self.in_hand.contains(&record.position)
                || self.resting.contains_key(&record.position);
            if !waits && !self.offer(myself, record).await {
                return; // no room: the rest would have none either
            }
        }
    }

    fn not_read(&self, error: &StoreError) {
        tracing::warn!(code = error.code(), %error, "the control bus cannot be read");
        self.args
            .node
            .set_last_error(format!("{}: {error}", error.code()));
    }

    /// Offers a record; says whether it was taken.
    async fn offer(
        &mut self,
        myself: &ActorRef<ControlBusReaderMsg>,
        record: ControlRecord,
    ) -> bool {
        let offered = record.clone();
        let call = |reply| RunsSupervisorMsg::Offer {
            record: offered,
            reply,
        };
        let Ok(CallResult::Success(Some(ended))) =
            self.args.runs.call(call, Some(OFFER_DEADLINE)).await
        else {
            return false;
        };
        self.in_hand.insert(record.position.clone());
        let reader = myself.clone();
        tokio::spawn(async move {
            let handled = ended.await.ok();
            // A reader that is gone looks at the message again when it is back.
            let _ = reader.cast(ControlBusReaderMsg::Ended { record, handled });
        });
        true
    }

    async fn ended(&mut self, record: ControlRecord, handled: Option<Handled>) {
        self.in_hand.remove(&record.position);
        match handled {
            Some(Handled::NotReady) => self.settle(record).await,
            Some(Handled::Ready(outcome)) => self.ready_ended(record, *outcome).await,
            Some(Handled::Undecided { failure }) => {
                tracing::warn!(%failure, "a READY was not decided and is tried again");
                self.args.node.set_last_error(failure.to_string());
                self.rest_lost(record);
            }
            None => self.rest_lost(record),
        }
    }

    async fn ready_ended(&mut self, record: ControlRecord, outcome: ReadyOutcome) {
        let position = record.position.clone();
        let told_before = match outcome.status {
            ReadyStatus::Failed => {
                self.rest(position.clone(), outcome.attempt);
                self.waiting.remove(&position);
                false
            }
            status if status.settles() => {
                self.settle(record).await;
                self.waiting.remove(&position);
                false
            }
            _ => {
                let known = self.waiting.insert(position, outcome.reason.clone());
                known.as_ref() == Some(&outcome.reason)
            }
        };
        if let Some(outcomes) = self.args.outcomes.as_ref().filter(|_| !told_before) {
            // Nobody listening is no reason to stop reading.
            let _ = outcomes.send(outcome).await;
        }
    }

    async fn settle(&mut self, record: ControlRecord) {
        self.lost.remove(&record.position);
        let (bus, topic) = (self.args.bus.clone(), self.args.topic.clone());
        let settled = blocking::run("bus-settle", move || bus.settle(&topic, &record)).await;
        if let Ok(Err(error)) = settled {
            // It will be offered again and skipped as a duplicate.
            tracing::warn!(code = error.code(), %error, "a control message could not be settled");
        }
    }

    fn rest_lost(&mut self, record: ControlRecord) {
        let times = self.lost.entry(record.position.clone()).or_default();
        *times += 1;
        let times = *times;
        self.rest(record.position, times);
    }

    fn rest(&mut self, position: String, attempt: u32) {
        let delay = Duration::from_millis(retry_delay_ms(attempt));
        self.resting.insert(position, Instant::now() + delay);
    }
}

#[cfg(test)]
#[path = "control_bus_reader_tests.rs"]
mod tests;
