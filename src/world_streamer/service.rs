//! The READY consumer: once over everything on the bus, or until it is stopped (contract 6.1).

use std::sync::Arc;
use std::time::Duration;

use crate::settings::Settings;
use ractor::Actor;
use tokio::sync::{mpsc, watch};
use wellspring_actors::runtime::{StageFailure, TreeHandle};
use wellspring_actors::world_stream::control_bus_reader::{ControlBusReader, ControlBusReaderArgs};
use wellspring_actors::world_stream::pace;
use wellspring_actors::world_stream::ready_desk::ReadyOutcome;
use wellspring_actors::world_stream::ready_run::{Handled, ReadyPorts, handle_record};
use wellspring_actors::world_stream::run_orders::RunOrders;
use wellspring_actors::world_stream::runs_supervisor::{RunsSupervisor, RunsSupervisorArgs};
use wellspring_domain::ports::{ControlBus, GateClient, StoreError};
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::stream::ready_decision::ReadyStatus;

use super::coordination;
use super::ready_claims::ReadyClaims;
use super::ready_desk::FileReadyDesk;
use super::setup::{StreamOptions, WorldStreamer};
use crate::http::state::{RunControl, RunOrder};

/// Runs streamed at once. Outputs of one run stream beside each other already.
const RUNS_AT_ONCE: usize = 1;
/// Outcomes that may wait for whoever prints them.
const OUTCOMES_WAITING: usize = 64;
/// Messages looked at in one pass.
const MESSAGES_MAX: usize = 1_000;

/// A READY consumer, not started yet.
pub struct ReadyConsumer {
    ports: ReadyPorts,
    bus: Arc<dyn ControlBus>,
    topic: String,
    poll_interval: Duration,
    stop_deadline: Duration,
    tree: TreeHandle,
}

/// Where READY comes from, and how it is claimed.
pub struct ControlSide {
    /// The control bus.
    pub bus: Arc<dyn ControlBus>,
    /// Claims.
    pub claims: ReadyClaims,
}

impl ControlSide {
    /// As the settings say, for a platform run. Blocks.
    pub fn open(settings: &Settings, run: &PlatformRunId) -> Result<ControlSide, StoreError> {
        Ok(ControlSide {
            bus: coordination::open_control_bus(settings, run)?,
            claims: coordination::ready_claims(settings)?,
        })
    }
}

/// When a consumer ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeUntil {
    /// Only when it is stopped.
    Stopped,
    /// After so many messages.
    Messages(u64),
}

impl ReadyConsumer {
    /// A consumer that streams into `gate`.
    pub fn new(
        streamer: Arc<WorldStreamer>,
        options: StreamOptions,
        gate: Arc<dyn GateClient>,
        control: ControlSide,
        tree: TreeHandle,
    ) -> Self {
        let wiring = &streamer.settings.wiring;
        ReadyConsumer {
            topic: wiring.control_bus.topic.clone(),
            poll_interval: wiring.stream.poll_interval(),
            stop_deadline: Duration::from_millis(wiring.gate.shutdown_deadline_ms / 2),
            ports: ReadyPorts {
                clock: streamer.clock.clone(),
                desk: Arc::new(FileReadyDesk::new(streamer, options, control.claims)),
                gate,
                orders: RunOrders::default(),
            },
            bus: control.bus,
            tree,
        }
    }

    /// Looks at the bus so often instead of as the settings say.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Where orders to its runs are given.
    pub fn orders(&self) -> RunOrders {
        self.ports.orders.clone()
    }

    /// Handles every message on the bus once, one after the other, at most `messages_max` (0: all). What was
    /// settled before is told and does not count: otherwise it would stand before the others for ever.
    /// A stop ends the run in hand after its answers and leaves the rest on the bus.
    pub async fn consume_once(
        &self,
        messages_max: u64,
        stop: watch::Receiver<bool>,
    ) -> Result<Vec<ReadyOutcome>, StageFailure> {
        let _stopping = self.stop_with(stop);
        let (bus, topic) = (self.bus.clone(), self.topic.clone());
        let polling = tokio::task::spawn_blocking(move || bus.poll(&topic, MESSAGES_MAX));
        let records = polling
            .await
            .map_err(|panic| StageFailure::transient("CONTROL_BUS_UNREADABLE", panic.to_string()))?
            .map_err(|error| StageFailure::transient(error.code(), error.to_string()))?;
        let node = self.tree.node("runs", "supervisor");
        let mut outcomes: Vec<ReadyOutcome> = Vec::new();
        for (index, record) in records.into_iter().enumerate() {
            let handled = outcomes.iter().filter(|outcome| counts(outcome)).count();
            let enough = messages_max > 0 && handled as u64 >= messages_max;
            if enough || self.ports.orders.is_stopping() {
                break;
            }
            let own = node.child(&format!("ready run {}", index + 1), "run");
            match handle_record(&self.ports, record, &own, None).await {
                Handled::NotReady => {}
                Handled::Ready(outcome) => outcomes.push(*outcome),
                Handled::Undecided { failure } => return Err(failure),
            }
        }
        Ok(outcomes)
    }

    /// Consumes until it is stopped or has handled enough; tells of every handled READY. Returns after
    /// its runs have saved their checkpoints.
    pub async fn consume(
        &self,
        until: ConsumeUntil,
        mut stop: watch::Receiver<bool>,
        mut told: impl FnMut(ReadyOutcome),
    ) -> Result<(), StageFailure> {
        let args = RunsSupervisorArgs {
            ports: self.ports.clone(),
            node: self.tree.node("runs", "supervisor"),
            runs_max: RUNS_AT_ONCE,
            stop_deadline: self.stop_deadline,
        };
        let (runs, mut runs_end) = Actor::spawn(None, RunsSupervisor, args).await?;
        let (sender, mut outcomes) = mpsc::channel(OUTCOMES_WAITING);
        let args = ControlBusReaderArgs {
            bus: self.bus.clone(),
            topic: self.topic.clone(),
            poll_interval: self.poll_interval,
            runs: runs.clone(),
            outcomes: Some(sender),
            node: self.tree.node("control bus reader", "reader"),
        };
        let (reader, mut reader_end) = Actor::spawn(None, ControlBusReader, args).await?;
        let mut handled = 0;
        let ended = loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break Ok(()),
                Some(outcome) = outcomes.recv() => {
                    handled += u64::from(counts(&outcome));
                    told(outcome);
                    if until == ConsumeUntil::Messages(handled) {
                        break Ok(());
                    }
                }
                _ = &mut reader_end => {
                    let detail = "the control bus reader ended";
                    break Err(StageFailure::transient("CONTROL_BUS_READER_LOST", detail));
                }
                _ = &mut runs_end => {
                    let detail = "the runs supervisor ended";
                    break Err(StageFailure::transient("RUNS_SUPERVISOR_LOST", detail));
                }
            }
        };
        // Source first: nothing new is taken while the runs finish what they hold.
        let _ = reader.stop_and_wait(None, Some(self.stop_deadline)).await;
        self.ports.orders.stop_all();
        let _ = runs.stop_and_wait(None, Some(self.stop_deadline * 2)).await;
        while let Ok(outcome) = outcomes.try_recv() {
            told(outcome);
        }
        ended
    }

    /// Passes a stop on to the runs for as long as the guard lives.
    fn stop_with(&self, mut stop: watch::Receiver<bool>) -> AbortOnDrop {
        let orders = self.ports.orders.clone();
        AbortOnDrop(tokio::spawn(async move {
            if stop.wait_for(|stop| *stop).await.is_ok() {
                orders.stop_all();
            }
        }))
    }
}

/// Whether a message counts against a cap of messages.
fn counts(outcome: &ReadyOutcome) -> bool {
    outcome.status != ReadyStatus::SkippedDuplicate
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RunControl for RunOrders {
    fn order(&self, platform_run_id: &str, order: RunOrder) -> bool {
        let order = match order {
            RunOrder::Cancel => pace::RunControl::Cancel,
            RunOrder::Pause => pace::RunControl::Pause,
            RunOrder::Resume => pace::RunControl::Run,
        };
        RunOrders::order(self, platform_run_id, order)
    }
}
