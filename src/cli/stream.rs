//! `wellspring stream`: the World Streamer on its own, pushing to a gate over HTTP (contract 6).

use super::gate::active_run;
use super::output::{Align, TableView, print_result};
use super::{CliContext, Failure, Outcome, progress};
use crate::clock::SystemClock;
use crate::control_bus::FileControlBus;
use crate::daemon::live_tree;
use crate::http_client::{HttpGate, HttpGateSettings};
use crate::process;
use crate::settings::Settings;
use crate::telemetry::run_logs::RunLogPaths;
use crate::world_streamer::{
    ConsumeUntil, PreparedStream, ReadyConsumer, StreamOptions, StreamTarget, WorldStreamer,
};
use clap::{Args, Subcommand};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wellspring_actors::runtime::NodeState;
use wellspring_actors::world_stream::pace::RunControl;
use wellspring_actors::world_stream::ready_desk::ReadyOutcome;
use wellspring_actors::world_stream::result::{OutputResult, StreamResult, StreamStatus};
use wellspring_actors::world_stream::run_streams::{
    EventCaps, RunProgress, StreamPorts, stream_world,
};
use wellspring_domain::ports::GateClient;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::stream::ready_decision::ReadyStatus;

const EXAMPLES: &str = "\
Examples:
  wellspring stream ready --once                 stream every READY on the control bus, then stop
  wellspring stream ready                        keep consuming READY until SIGTERM
  wellspring stream run --engine-run-root W      stream a world directly, without a READY

Events go to the gate at `wiring.ig_ingest_url` (IG_INGEST_URL): start one with `wellspring gate serve`.";

/// Options of `wellspring stream`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StreamArgs {
    #[command(subcommand)]
    command: StreamCommand,
}

#[derive(Debug, Subcommand)]
enum StreamCommand {
    /// Stream what READY messages of the active run name.
    Ready(ReadyArgs),
    /// Stream one world directly.
    Run(DirectArgs),
}

/// Options every stream has.
#[derive(Debug, Args)]
pub(super) struct CapArgs {
    /// Most events of the run; holds for each output when they stream at once. 0 is no cap.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_events: u64,
    /// Most events of each output; 0 is no cap [env: WSP_MAX_EVENTS_PER_OUTPUT].
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_events_per_output: u64,
    /// World seconds per second; 0 is as fast as possible [default: the profile's].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    speedup: Option<f64>,
    /// Stream the same run again under checkpoints of its own.
    #[arg(long, value_name = "ID", env = "WSP_CHECKPOINT_ATTEMPT_ID")]
    attempt_id: Option<String>,
    /// Only these outputs (comma-separated); the policy must select them.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    output_ids: Vec<String>,
}

impl CapArgs {
    /// As the stream takes them.
    pub(super) fn options(&self) -> StreamOptions {
        let cap = |events: u64| (events > 0).then_some(events);
        StreamOptions {
            only: self.output_ids.clone(),
            caps: EventCaps {
                per_output: cap(self.max_events_per_output),
                run: cap(self.max_events),
            },
            speedup: self.speedup,
            attempt_id: self.attempt_id.clone(),
            producer_id: None,
        }
    }
}

#[derive(Debug, Args)]
struct ReadyArgs {
    /// Handle what is on the bus now and print a JSON array of results.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks at the bus.
    #[arg(long, value_name = "S")]
    poll_seconds: Option<f64>,
    /// Stop after so many messages; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_messages: u64,
    #[command(flatten)]
    caps: CapArgs,
}

#[derive(Debug, Args)]
struct DirectArgs {
    /// The world [default: the profile's].
    #[arg(long, value_name = "DIR", env = "WSP_ENGINE_RUN_ROOT")]
    engine_run_root: Option<String>,
    /// Its scenario [default: the profile's, else the only one in the world].
    #[arg(long, value_name = "ID", env = "WSP_SCENARIO_ID")]
    scenario_id: Option<String>,
    /// The Scenario Runner's run to stand in the envelopes [default: the engine's run].
    #[arg(long, value_name = "ID")]
    scenario_run_id: Option<String>,
    #[command(flatten)]
    caps: CapArgs,
}

/// Runs the command.
pub fn run(args: StreamArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        StreamCommand::Ready(args) if args.once => ready_once(&args, ctx),
        StreamCommand::Ready(args) => ready(&args, ctx),
        StreamCommand::Run(args) => direct(&args, ctx),
    }
}

/// The World Streamer of the settings in force.
pub(super) fn streamer(settings: &Settings) -> anyhow::Result<Arc<WorldStreamer>> {
    settings
        .require_backends()
        .map_err(super::context::settings_failure)?;
    let store = settings.object_stores().open(settings.runs_root());
    let store = store.map_err(|error| Failure::of(error.code(), error))?;
    let clock = Arc::new(SystemClock::new());
    let streamer = WorldStreamer::new(Arc::new(settings.clone()), store, clock)
        .map_err(|error| Failure::of(error.code().to_owned(), error))?;
    Ok(Arc::new(streamer))
}

/// The gate behind `ig_ingest_url`.
pub(super) fn http_gate(settings: &Settings) -> anyhow::Result<Arc<dyn GateClient>> {
    let wiring = &settings.wiring;
    let token = wiring.security.wsp_auth_token.as_ref();
    let auth = token.map(|token| {
        (
            wiring.security.api_key_header.clone(),
            token.expose().to_owned(),
        )
    });
    let gate = HttpGate::new(&HttpGateSettings {
        ingest_url: wiring.ig_ingest_url.clone(),
        auth,
        timeout: Duration::from_millis(wiring.stream.push_timeout_ms),
        pool_max: wiring.stream.http_pool_max as usize,
        push_concurrency: wiring.stream.push_concurrency as usize,
    });
    Ok(Arc::new(
        gate.map_err(|error| Failure::of(error.code(), error))?,
    ))
}

/// The run whose control bus is read; consumers never make one up.
fn require_run(settings: &Settings, ctx: &CliContext) -> anyhow::Result<PlatformRunId> {
    let missing = || {
        Failure::new("PLATFORM_RUN_ID_MISSING", "no platform run is active")
            .hint("`wellspring run new` creates one")
    };
    let run = active_run(settings)?.ok_or_else(missing)?;
    attach_logs(settings, &run, ctx)?;
    Ok(run)
}

fn attach_logs(settings: &Settings, run: &PlatformRunId, ctx: &CliContext) -> anyhow::Result<()> {
    let paths = settings.local_paths(run);
    ctx.run_logs
        .attach(&RunLogPaths::of(&paths, |name| settings.variable(name)))?;
    Ok(())
}

fn consumer(
    settings: &Settings,
    args: &ReadyArgs,
    ctx: &CliContext,
) -> anyhow::Result<ReadyConsumer> {
    let run = require_run(settings, ctx)?;
    let streamer = streamer(settings)?;
    let bus = FileControlBus::new(settings.control_bus_root(&streamer.paths(&run)));
    let gate = http_gate(settings)?;
    let consumer = ReadyConsumer::new(
        streamer,
        args.caps.options(),
        gate,
        Arc::new(bus),
        live_tree(),
    );
    Ok(match args.poll_seconds {
        Some(seconds) => {
            consumer.with_poll_interval(Duration::from_secs_f64(seconds.clamp(0.01, 3600.0)))
        }
        None => consumer,
    })
}

fn ready_once(args: &ReadyArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let runtime = process::runtime()?;
    let outcomes = runtime.block_on(async {
        let consumer = consumer(settings, args, ctx)?;
        let stop = process::stop_signal()?;
        let outcomes = consumer.consume_once(args.max_messages, stop).await;
        outcomes.map_err(|failure| anyhow::Error::from(coded(failure.code, failure.detail)))
    })?;
    print_result(ctx.contract_format(), &outcomes, || {
        outcome_table(&outcomes)
    })?;
    let failed = outcomes
        .iter()
        .any(|outcome| outcome.status == ReadyStatus::Failed);
    Ok(if failed { Outcome::Failed } else { Outcome::Ok })
}

fn ready(args: &ReadyArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let runtime = process::runtime()?;
    let until = match args.max_messages {
        0 => ConsumeUntil::Stopped,
        messages => ConsumeUntil::Messages(messages),
    };
    let (mut failed, mut told) = (false, Ok(()));
    let ended = runtime.block_on(async {
        let consumer = consumer(settings, args, ctx)?;
        let stop = process::stop_signal()?;
        progress::say("waiting for READY; SIGTERM stops after the answers in flight");
        let consumed = consumer.consume(until, stop, |outcome| {
            failed |= outcome.status == ReadyStatus::Failed;
            let printed = print_result(ctx.contract_format(), &outcome, || {
                outcome_table(std::slice::from_ref(&outcome))
            });
            if told.is_ok() {
                told = printed;
            }
        });
        consumed
            .await
            .map_err(|failure| anyhow::Error::from(coded(failure.code, failure.detail)))
    });
    told?;
    ended.map(|()| if failed { Outcome::Failed } else { Outcome::Ok })
}

fn direct(args: &DirectArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let runtime = process::runtime()?;
    let active = settings.active_run();
    let (run, _) = active
        .find_or_create(wellspring_domain::ports::Clock::now(&SystemClock::new()))
        .map_err(|error| Failure::of(error.code(), error))?;
    attach_logs(settings, &run, ctx)?;
    let target = StreamTarget {
        engine_run_root: args
            .engine_run_root
            .clone()
            .or_else(|| settings.wiring.oracle_engine_run_root.clone()),
        scenario_id: args.scenario_id.clone(),
        scenario_run_id: args.scenario_run_id.clone(),
        platform_run_id: Some(run),
        stream_view_root: None,
        lease: None,
    };
    let streamer = streamer(settings)?;
    let gate = http_gate(settings)?;
    let result = runtime.block_on(async {
        let stop = process::stop_signal()?;
        stream_target(&streamer, &target, &args.caps.options(), gate, stop).await
    })?;
    print_result(ctx.contract_format(), &result, || result_table(&result))?;
    Ok(if result.status == StreamStatus::Streamed {
        Outcome::Ok
    } else {
        Outcome::Failed
    })
}

/// Streams a target to its end or a signal. A refusal is a result, not an error (contract 6.8).
pub(super) async fn stream_target(
    streamer: &Arc<WorldStreamer>,
    target: &StreamTarget,
    options: &StreamOptions,
    gate: Arc<dyn GateClient>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<StreamResult> {
    let (shared, wanted, chosen) = (streamer.clone(), target.clone(), options.clone());
    let preparing = tokio::task::spawn_blocking(move || shared.prepare(&wanted, &chosen));
    match preparing.await? {
        Ok(prepared) => Ok(stream_prepared(streamer, prepared, gate, stop).await),
        Err(refusal) => Ok(StreamResult::refused(
            target.engine_run_root.clone(),
            target.scenario_id.clone(),
            refusal.code,
            refusal.detail,
        )),
    }
}

async fn stream_prepared(
    streamer: &Arc<WorldStreamer>,
    prepared: PreparedStream,
    gate: Arc<dyn GateClient>,
    mut stop: watch::Receiver<bool>,
) -> StreamResult {
    prepared.announce();
    let closing = prepared.closing();
    let node = live_tree().node("run", "run");
    node.set_state(NodeState::Running);
    let ports = StreamPorts {
        gate,
        source: prepared.source,
        checkpoints: prepared.checkpoints,
        clock: streamer.clock.clone(),
        on_saved: prepared.on_saved,
        node,
    };
    let (control, orders) = watch::channel(RunControl::Run);
    tokio::spawn(async move {
        if stop.wait_for(|stop| *stop).await.is_ok() {
            control.send_replace(RunControl::Stop);
        }
    });
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
    closing(&result);
    result
}

fn coded(code: String, detail: String) -> Failure {
    Failure::new(code, detail)
}

pub(super) fn outcome_table(outcomes: &[ReadyOutcome]) -> TableView {
    let mut table = TableView::new([
        ("message", Align::Left),
        ("status", Align::Left),
        ("reason", Align::Left),
        ("emitted", Align::Right),
        ("world", Align::Left),
    ]);
    for outcome in outcomes {
        table.row([
            outcome
                .message_id
                .chars()
                .take(12)
                .collect::<String>()
                .as_str(),
            outcome.status.as_str(),
            &reason_text(outcome.reason.as_deref(), outcome.detail.as_deref()),
            &outcome.emitted.to_string(),
            outcome.engine_run_root.as_deref().unwrap_or("-"),
        ]);
    }
    table
}

fn result_table(result: &StreamResult) -> TableView {
    let mut table = TableView::new([
        ("output", Align::Left),
        ("status", Align::Left),
        ("rows", Align::Right),
        ("admitted", Align::Right),
        ("duplicate", Align::Right),
        ("quarantined", Align::Right),
        ("reason", Align::Left),
    ]);
    let row = |table: &mut TableView, output: &OutputResult| {
        table.row([
            output.output_id.as_str(),
            output.status.as_str(),
            &output.rows.to_string(),
            &output.admitted.to_string(),
            &output.duplicate.to_string(),
            &output.quarantined.to_string(),
            &reason_text(output.reason.as_deref(), output.detail.as_deref()),
        ]);
    };
    result
        .outputs
        .iter()
        .for_each(|output| row(&mut table, output));
    if result.outputs.is_empty() {
        let reason = reason_text(result.reason.as_deref(), result.detail.as_deref());
        table.row(["-", result.status.as_str(), "0", "0", "0", "0", &reason]);
    }
    table
}

fn reason_text(reason: Option<&str>, detail: Option<&str>) -> String {
    match (reason, detail) {
        (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
        (Some(reason), None) => reason.to_owned(),
        (None, _) => String::new(),
    }
}
