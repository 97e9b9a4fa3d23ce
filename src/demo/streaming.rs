//! The streaming stage of a demo: the world through a gate of this process.

use super::counting_gate::CountingGate;
use super::stages::Demo;
use crate::cli::Failure;
use crate::cli::output::grouped;
use crate::cli::progress::Progress;
use crate::daemon::live_tree;
use crate::gate::assembly::{GateOptions, start};
use crate::process;
use crate::world_streamer::{
    ControlSide, PreparedStream, ReadyConsumer, StreamTarget, WorldStreamer,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wellspring_actors::runtime::TreeHandle;
use wellspring_actors::world_stream::pace::RunControl;
use wellspring_actors::world_stream::result::{OutputResult, StreamStatus};
use wellspring_actors::world_stream::run_streams::{RunProgress, StreamPorts, stream_world};
use wellspring_domain::ports::GateClient;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::stream::ready_decision::ReadyStatus;

/// What streaming came to.
pub(super) struct Streamed {
    pub(super) outputs: Vec<OutputResult>,
    pub(super) ended_well: bool,
    /// The run had been streamed before.
    pub(super) skipped: bool,
}

impl Demo<'_> {
    /// Streams into a gate of this process: by READY the first time, directly for another attempt.
    pub(super) fn stream(
        &self,
        streamer: &Arc<WorldStreamer>,
        run: &PlatformRunId,
        target: &StreamTarget,
        attempt_id: &str,
        rows: u64,
    ) -> anyhow::Result<Streamed> {
        let progress = Arc::new(Progress::start(
            "stream through the gate onto the bus",
            Some(rows),
        ));
        let answered = progress.clone();
        let runtime = process::runtime()?;
        let streamed = runtime.block_on(async {
            let tree = live_tree();
            let options = GateOptions {
                own_run: Some(run.clone()),
                tree: tree.clone(),
            };
            let gate = start(self.settings, options)
                .await
                .map_err(|error| Failure::of(error.code(), error))?;
            let stop = process::stop_signal()?;
            let client = CountingGate::before(Arc::new(gate.client()), answered);
            let streamed = if attempt_id.is_empty() {
                let control = ControlSide::open(self.settings, run)
                    .map_err(|error| Failure::of(error.code(), error))?;
                let consumer = ReadyConsumer::new(
                    streamer.clone(),
                    self.stream_options(""),
                    client,
                    control,
                    tree,
                );
                by_ready(&consumer, stop).await
            } else {
                let prepared = self.prepare(streamer, target, attempt_id)?;
                directly(streamer, prepared, client, tree).await
            };
            let drained = gate.drain(Duration::from_secs(10)).await;
            gate.stop(Duration::from_secs(10)).await;
            let streamed = streamed?;
            Ok::<_, anyhow::Error>(Streamed {
                ended_well: streamed.ended_well && drained,
                ..streamed
            })
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        let streamed = streamed?;
        let admitted = streamed.outputs.iter().map(|output| output.admitted).sum();
        progress.finish(format!("{} admitted", grouped(admitted)));
        Ok(streamed)
    }
}

async fn by_ready(
    consumer: &ReadyConsumer,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Streamed> {
    let outcomes = consumer.consume_once(0, stop).await?;
    let Some(outcome) = outcomes.into_iter().next() else {
        return Err(Failure::new("DEMO_NO_READY", "no READY was found on the control bus").into());
    };
    let ended_well = matches!(
        outcome.status,
        ReadyStatus::Streamed | ReadyStatus::SkippedDuplicate
    );
    if !ended_well {
        let detail = outcome.detail.clone().unwrap_or_default();
        return Err(Failure::new(
            outcome.reason.unwrap_or_else(|| "STREAM_FAILED".to_owned()),
            detail,
        )
        .into());
    }
    Ok(Streamed {
        ended_well,
        skipped: outcome.status == ReadyStatus::SkippedDuplicate,
        outputs: outcome.outputs,
    })
}

async fn directly(
    streamer: &Arc<WorldStreamer>,
    prepared: PreparedStream,
    gate: Arc<dyn GateClient>,
    tree: TreeHandle,
) -> anyhow::Result<Streamed> {
    let ports = StreamPorts {
        gate,
        source: prepared.source,
        checkpoints: prepared.checkpoints,
        clock: streamer.clock.clone(),
        on_saved: prepared.on_saved,
        node: tree.node("run", "run"),
    };
    let (_control, orders) = watch::channel(RunControl::Run);
    let progress = RunProgress::new(&prepared.request);
    let result = stream_world(
        prepared.request,
        ports,
        prepared.tuning,
        orders,
        progress,
        None,
    )
    .await;
    Ok(Streamed {
        ended_well: result.status == StreamStatus::Streamed,
        skipped: false,
        outputs: result.outputs,
    })
}
