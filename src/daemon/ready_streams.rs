//! What `wellspring up` does besides the gate: the Scenario Runner's routes and the READY consumer.

use super::Streams;
use crate::cli::Failure;
use crate::gate::assembly::RunningGate;
use crate::http::runs;
use crate::http::state::{RunControl, RunOrder};
use crate::scenario_runner::{ScenarioRunner, SetupFiles};
use crate::settings::Settings;
use crate::world_streamer::{
    ConsumeUntil, ControlSide, ReadyConsumer, StreamOptions, WorldStreamer,
};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;
use wellspring_actors::runtime::{BoxFuture, StageFailure, TreeHandle};
use wellspring_actors::scenario_runner::{
    ScenarioRunnerLimits, ScenarioRunnerSpec, spawn_scenario_runner,
};
use wellspring_actors::world_stream::ready_desk::ReadyOutcome;
use wellspring_actors::world_stream::run_orders::RunOrders;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::stream::ready_decision::ReadyStatus;

/// How long the consumer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consume {
    /// What is on the control bus now, at most so many messages (0: all).
    Once(u64),
    /// Until it is stopped, or has handled so many messages (0: no limit).
    On(u64),
}

/// The READY consumer and the Scenario Runner of one platform run.
pub struct ReadyStreams {
    /// Settings in force.
    pub settings: Settings,
    /// The run whose control bus is read.
    pub run: PlatformRunId,
    /// Makes the streams.
    pub streamer: Arc<WorldStreamer>,
    /// What the operator changed about them.
    pub options: StreamOptions,
    /// How long to go on.
    pub consume: Consume,
    /// Told of every READY that was handled.
    pub told: Box<dyn FnMut(ReadyOutcome) + Send>,
    /// Filled when the consumer starts.
    pub orders: Arc<LateOrders>,
}

/// Orders to runs of a consumer that starts later than the HTTP listener.
#[derive(Default)]
pub struct LateOrders(OnceLock<RunOrders>);

impl RunControl for LateOrders {
    fn order(&self, platform_run_id: &str, order: RunOrder) -> bool {
        self.0
            .get()
            .is_some_and(|orders| RunControl::order(orders, platform_run_id, order))
    }
}

impl Streams for ReadyStreams {
    fn start<'a>(
        &'a mut self,
        tree: &'a TreeHandle,
    ) -> BoxFuture<'a, anyhow::Result<axum::Router>> {
        Box::pin(async move {
            let runner =
                ScenarioRunner::from_settings(&self.settings, &self.run, &SetupFiles::default())
                    .map_err(|error| Failure::of(error.code().to_owned(), error))?;
            let spec = ScenarioRunnerSpec {
                control: Arc::new(runner),
                limits: ScenarioRunnerLimits::default(),
                node: tree.node("scenario runner", "scenario_runner"),
            };
            let (handle, _join) = spawn_scenario_runner(spec, None).await?;
            Ok(runs::router(handle))
        })
    }

    fn control(&self) -> Arc<dyn RunControl> {
        self.orders.clone()
    }

    fn run<'a>(
        &'a mut self,
        gate: &'a RunningGate,
        tree: &'a TreeHandle,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, anyhow::Result<bool>> {
        Box::pin(async move {
            let control = ControlSide::open(&self.settings, &self.run)
                .map_err(|error| Failure::of(error.code(), error))?;
            let client = Arc::new(gate.client());
            let consumer = ReadyConsumer::new(
                self.streamer.clone(),
                self.options.clone(),
                client,
                control,
                tree.clone(),
            );
            // Set once per process: a second start would be a second daemon.
            let _ = self.orders.0.set(consumer.orders());
            let mut failed = false;
            let told = &mut self.told;
            let mut tell = |outcome: ReadyOutcome| {
                failed |= outcome.status == ReadyStatus::Failed;
                told(outcome);
            };
            match self.consume {
                Consume::Once(messages) => {
                    consumer
                        .consume_once(messages, stop)
                        .await
                        .map_err(coded)?
                        .into_iter()
                        .for_each(&mut tell);
                }
                Consume::On(0) => consumer
                    .consume(ConsumeUntil::Stopped, stop, tell)
                    .await
                    .map_err(coded)?,
                Consume::On(messages) => {
                    consumer
                        .consume(ConsumeUntil::Messages(messages), stop, tell)
                        .await
                        .map_err(coded)?;
                }
            }
            Ok(!failed)
        })
    }
}

fn coded(failure: StageFailure) -> anyhow::Error {
    Failure::new(failure.code, failure.detail).into()
}
