//! The daemon: settings -> ports -> supervision tree -> signals -> drain.
//!
//! A stop goes from the source to the sink: streams stop reading, the gate answers what it has taken,
//! checkpoints are saved, then the gate closes its journals. All of it within `shutdown_deadline_ms`.

mod node_beat;
pub mod ready_streams;

use self::node_beat::NodeBeat;
use crate::cli::Failure;
use crate::clock::SystemClock;
use crate::gate::assembly::{GateOptions, RunningGate, start};
use crate::http::state::RunControl;
use crate::process;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::run_logs::{RunLogPaths, RunLogs};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wellspring_actors::runtime::{BoxFuture, TreeHandle};
use wellspring_actors::telemetry::spawn_exporter;
use wellspring_domain::ports::Clock;
use wellspring_domain::run_paths::PlatformRunId;

/// How often the live tree is copied into metrics.
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// What a daemon does besides serving a gate.
pub trait Streams: Send {
    /// Starts what must be there before requests come; gives routes to mount beside the gate's.
    fn start<'a>(&'a mut self, tree: &'a TreeHandle)
    -> BoxFuture<'a, anyhow::Result<axum::Router>>;
    /// Control over its runs, for the operations API.
    fn control(&self) -> Arc<dyn RunControl>;
    /// Streams into the gate until done or told to stop; then every checkpoint is saved. True when all
    /// went well.
    fn run<'a>(
        &'a mut self,
        gate: &'a RunningGate,
        tree: &'a TreeHandle,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, anyhow::Result<bool>>;
}

/// What to run.
pub struct DaemonPlan {
    /// The run of this process, if it has one.
    pub own_run: Option<PlatformRunId>,
    /// Address to bind.
    pub host: String,
    /// Port to bind.
    pub port: u16,
    /// What streams into the gate; without it the daemon is a gate alone.
    pub streams: Option<Box<dyn Streams>>,
    /// Log files of the run.
    pub run_logs: RunLogs,
}

/// Runs until stopped, or until the streams are done. True when everything went well.
pub fn run(settings: &Settings, plan: DaemonPlan) -> anyhow::Result<bool> {
    let open_files = process::raise_open_files();
    tracing::info!(
        open_files,
        memory_in_flight_bytes_max = settings.wiring.gate.in_flight_bytes_max(),
        index_memory_bytes_max = settings.wiring.gate.index_memory_bytes_max,
        "bounds of this process"
    );
    if let Some(run) = &plan.own_run {
        let paths = settings.local_paths(run);
        plan.run_logs
            .attach(&RunLogPaths::of(&paths, |name| settings.variable(name)))?;
    }
    let runtime = process::runtime()?;
    let result = runtime.block_on(serve(settings, plan));
    // Blocking work that hangs must not hold the process: what matters is durable already.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// A live tree on the system clock.
pub fn live_tree() -> TreeHandle {
    let clock = SystemClock::new();
    TreeHandle::new(Arc::new(move || clock.now().0))
}

async fn serve(settings: &Settings, mut plan: DaemonPlan) -> anyhow::Result<bool> {
    let stop = process::stop_signal()?;
    let tree = live_tree();
    let metrics = Metrics::start().ok();
    let exporter = spawn_exporter(tree.clone(), METRICS_EVERY).await;
    let options = GateOptions {
        own_run: plan.own_run.clone(),
        tree: tree.clone(),
    };
    let gate = start(settings, options)
        .await
        .map_err(|error| Failure::of(error.code(), error))?;
    let (routes, control) = match &mut plan.streams {
        Some(streams) => (streams.start(&tree).await?, Some(streams.control())),
        None => (axum::Router::new(), None),
    };
    let address = gate
        .listen(&plan.host, plan.port, &tree, routes, control, metrics)
        .await
        .map_err(|error| Failure::of(error.code(), error))?;
    let url = format!("http://{address}");
    let _beat = NodeBeat::start(settings, url).map_err(|error| Failure::of(error.code(), error))?;
    // The one line a script may wait for.
    eprintln!("wellspring listens on http://{address}");
    let worked = work(&mut plan.streams, &gate, &tree, stop).await;
    let deadline = Duration::from_millis(settings.wiring.gate.shutdown_deadline_ms);
    let drained = gate.drain(deadline / 2).await;
    if !drained {
        tracing::warn!(
            "some events were not answered before the deadline; their senders will send them again"
        );
    }
    gate.stop(deadline / 2).await;
    if let Some(exporter) = exporter {
        exporter.stop();
    }
    Ok(worked? && drained)
}

/// Until the streams are done, or a signal, or the gate's end.
async fn work(
    streams: &mut Option<Box<dyn Streams>>,
    gate: &RunningGate,
    tree: &TreeHandle,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<bool> {
    let stopped = stop.clone();
    let streaming = async move {
        match streams {
            Some(streams) => streams.run(gate, tree, stopped).await,
            None => {
                let _ = stop.wait_for(|stop| *stop).await;
                Ok(true)
            }
        }
    };
    tokio::select! {
        done = streaming => done,
        cause = gate.ended() => {
            let hint = "the next start recovers; the log above names the cause";
            Err(Failure::new("GATE_FAILED", cause).hint(hint).into())
        }
    }
}
