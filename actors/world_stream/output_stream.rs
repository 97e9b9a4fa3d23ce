//! The actor of one output: opens the view behind the checkpoint, waits for the run's schedule, then
//! frames and pumps until the output ends (contract 6.6).
//!
//! It is the only stage of its pipeline: after a failure a fresh one starts from the last checkpoint.
//! The pump runs in a task beside the mailbox, so that a stop is heard at any time.

use super::batch::Framed;
use super::checkpointer::{CheckpointSettings, Checkpointer};
use super::framer::{FrameBounds, OpenedOutput, frame_view, open_output};
use super::gate_sender::GateSender;
use super::pace::{Pace, PaceReceiver, RunControl};
use super::progress::OutputProgress;
use super::pump::{ProgressLog, ProgressLogSettings, Pump, PumpEnd};
use crate::runtime::blocking::{self, Emit};
use crate::runtime::{Heartbeat, STAGE_COMPLETE, StageFailure, seeded_jitter};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::GateClient;
use wellspring_domain::stream::batch_cut::{BatchLimits, Paced};
use wellspring_domain::stream::framing::FrameContext;
use wellspring_domain::stream::retry::RetryPolicy;
use wellspring_domain::stream::source::WorldSource;
use wellspring_domain::time_text::Micros;

/// Batches framed ahead of the pump.
const FRAMED_AHEAD: usize = 2;

/// Everything the streams of one output share across their generations.
pub struct OutputSpec {
    /// What the output's envelopes have in common.
    pub context: Arc<FrameContext>,
    /// The sealed world.
    pub source: Arc<dyn WorldSource>,
    /// The gate.
    pub gate: Arc<dyn GateClient>,
    /// Checkpoints.
    pub checkpoint: CheckpointSettings,
    /// When a batch is full, without a schedule span.
    pub limits: BatchLimits,
    /// Push retries.
    pub retry: RetryPolicy,
    /// Progress lines.
    pub log: ProgressLogSettings,
    /// Most events this process may send; none for all.
    pub events_max: Option<u64>,
    /// What the output has achieved.
    pub progress: Arc<OutputProgress>,
    /// Told once, when the start of the output is known or could not be found.
    pub opened: mpsc::Sender<OpenedReport>,
    /// The run's schedule.
    pub pace: PaceReceiver,
    /// What the run is asked to do.
    pub control: watch::Receiver<RunControl>,
    /// How the last generation ended.
    pub end: Mutex<Option<PumpEnd>>,
}

/// Where an output starts. One message an output and generation, so the channel cannot grow.
#[derive(Clone, Debug)]
pub struct OpenedReport {
    /// The output.
    pub output_id: String,
    /// Time of its next event; none when nothing is left or the view cannot be opened.
    pub first_ts: Option<Micros>,
}

impl OutputSpec {
    /// How the last generation ended, if one ended well.
    pub fn ended(&self) -> Option<PumpEnd> {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_end(&self, end: PumpEnd) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

/// The stage.
pub struct OutputStream;

/// Messages of the stage; only its own pump sends them.
pub enum OutputStreamMsg {
    /// The pump is done.
    Ended(Result<PumpEnd, StageFailure>),
}

/// What the stage holds.
pub struct OutputStreamState {
    spec: Arc<OutputSpec>,
    stop: watch::Sender<RunControl>,
    work: AbortOnDrop<()>,
}

/// A task that does not outlive its stage, however the stage ends.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for OutputStream {
    type Msg = OutputStreamMsg;
    type State = OutputStreamState;
    type Arguments = (Arc<OutputSpec>, Heartbeat);

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (spec, heartbeat): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let (stop, stage_control) = watch::channel(RunControl::Run);
        let generation = run_generation(spec.clone(), stage_control, heartbeat);
        let work = tokio::spawn(async move {
            // In a task of its own, so that a panic ends the stage with a reason.
            let mut inner = AbortOnDrop(tokio::spawn(generation));
            let ended = match (&mut inner.0).await {
                Ok(ended) => ended,
                Err(panic) => Err(StageFailure::transient("STREAM_FAILED", panic.to_string())),
            };
            // A stage that has ended meanwhile needs no message.
            let _ = myself.cast(OutputStreamMsg::Ended(ended));
        });
        Ok(OutputStreamState {
            spec,
            stop,
            work: AbortOnDrop(work),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let OutputStreamMsg::Ended(ended) = message;
        state.spec.set_end(ended?);
        myself.stop(Some(STAGE_COMPLETE.to_owned()));
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.stop.send_replace(RunControl::Stop);
        // Whoever stops this stage bounds the wait and ends it harder if need be.
        let _ = (&mut state.work.0).await;
        Ok(())
    }
}

/// One generation, from its checkpoint to its end.
async fn run_generation(
    spec: Arc<OutputSpec>,
    stage_control: watch::Receiver<RunControl>,
    heartbeat: Heartbeat,
) -> Result<PumpEnd, StageFailure> {
    let opened = open(&spec).await;
    let report = OpenedReport {
        output_id: spec.context.output_id.clone(),
        first_ts: opened.as_ref().ok().and_then(|opened| opened.first_ts),
    };
    // Nobody listens any more when the run is over.
    let _ = spec.opened.send(report).await;
    let opened = opened?;
    if opened.first_ts.is_none() {
        return Ok(PumpEnd::Complete);
    }
    let Some(pace) = wait_for_pace(&spec, &stage_control).await else {
        return Ok(PumpEnd::Stopped);
    };
    let stream_view_id = opened.stream_view_id.clone();
    let framed = start_framing(&spec, opened, pace, heartbeat)?;
    let output_id = spec.context.output_id.clone();
    let jitter = seeded_jitter(Hash32::of(output_id.as_bytes()).leading_u64());
    let pump = Pump {
        framed,
        sender: GateSender::new(spec.gate.clone(), spec.retry, jitter, spec.progress.clone()),
        checkpointer: Checkpointer::new(spec.checkpoint.clone(), output_id.clone(), stream_view_id),
        pace: spec.pace.clone(),
        run_control: spec.control.clone(),
        stage_control,
        log: ProgressLog::new(spec.log, output_id, spec.progress.clone()),
    };
    pump.run().await
}

async fn open(spec: &Arc<OutputSpec>) -> Result<OpenedOutput, StageFailure> {
    let shared = spec.clone();
    let opening = blocking::run("stream-open", move || {
        let checkpoint = &shared.checkpoint;
        let cursor = checkpoint
            .store
            .load(&checkpoint.pack_key, &shared.context.output_id)
            .map_err(|error| StageFailure::transient("CHECKPOINT_UNREADABLE", error.to_string()))?;
        open_output(
            shared.source.as_ref(),
            shared.context.clone(),
            cursor.as_ref(),
        )
    });
    let opened = match opening.await {
        Ok(opened) => opened?,
        Err(panic) => return Err(StageFailure::transient("STREAM_FAILED", panic.to_string())),
    };
    if let Some(rows) = opened.rows_total {
        spec.progress.set_rows_total(rows);
    }
    Ok(opened)
}

/// The run's schedule, or nothing when the run is stopped before it has one.
async fn wait_for_pace(
    spec: &OutputSpec,
    stage_control: &watch::Receiver<RunControl>,
) -> Option<Pace> {
    let (mut pace, mut run) = (spec.pace.clone(), spec.control.clone());
    let mut stage = stage_control.clone();
    let stopped = |control: &RunControl| *control >= RunControl::Stop;
    tokio::select! {
        biased;
        Ok(_) = run.wait_for(stopped) => None,
        Ok(_) = stage.wait_for(stopped) => None,
        Ok(pace) = pace.wait_for(Option::is_some) => *pace,
        else => None,
    }
}

fn start_framing(
    spec: &Arc<OutputSpec>,
    opened: OpenedOutput,
    pace: Pace,
    heartbeat: Heartbeat,
) -> Result<mpsc::Receiver<Framed>, StageFailure> {
    let mut limits = spec.limits;
    if pace.paced() == Paced::No {
        limits.schedule_span_micros_max = None;
    }
    let accepted = spec.progress.accepted();
    let bounds = FrameBounds {
        limits,
        schedule: pace.schedule,
        events_max: spec.events_max.map(|max| max.saturating_sub(accepted)),
    };
    let (out, framed) = mpsc::channel(FRAMED_AHEAD);
    // Ends by itself: at the end of the view, or when the pump is gone and nobody receives.
    let frame = move |emit: &mut Emit<'_, Framed>| frame_view(opened, bounds, &heartbeat, emit);
    blocking::producer("wsp-framing", out, frame)
        .map_err(|error| StageFailure::transient("STREAM_FAILED", error.to_string()))?;
    Ok(framed)
}
