//! All outputs of one run: one schedule, one result (contract 6.6, design 3.11, D9).
//!
//! Every output is a pipeline of its own: it restarts alone and fails alone. The run is over when all
//! outputs are; it failed when any of them did.

use super::checkpointer::{CheckpointSettings, SavedHook};
use super::narrative::{narrate_end, narrate_start};
use super::output_stream::{OpenedReport, OutputSpec, OutputStream};
use super::pace::{Pace, RunControl};
use super::progress::OutputProgress;
use super::pump::{ProgressLogSettings, PumpEnd};
use super::result::{OutputEnd, OutputResult, StreamResult};
use crate::runtime::{
    BoxFuture, Generation, GenerationStart, Heartbeat, PipelineEnd, PipelineSpec, RestartPolicy,
    Stage, StageFailure, TreeNode, seeded_jitter, spawn_pipeline,
};
use ractor::{Actor, ActorCell};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{CheckpointStore, Clock, GateClient};
use wellspring_domain::stream::batch_cut::BatchLimits;
use wellspring_domain::stream::cursor::FlushPolicy;
use wellspring_domain::stream::framing::FrameContext;
use wellspring_domain::stream::pacing::{Schedule, anchor_micros};
use wellspring_domain::stream::retry::RetryPolicy;
use wellspring_domain::stream::source::WorldSource;

/// What a run streams.
#[derive(Clone)]
pub struct StreamRequest {
    /// The world.
    pub engine_run_root: String,
    /// The engine run, for logs.
    pub engine_run_id: String,
    /// The scenario.
    pub scenario_id: String,
    /// The outputs in streaming order.
    pub outputs: Vec<Arc<FrameContext>>,
    /// Checkpoint pack key (V19).
    pub checkpoint_pack_key: String,
    /// World seconds per second; zero or less for as fast as possible.
    pub speedup: f64,
    /// How many events at most.
    pub caps: EventCaps,
    /// Outputs streamed at once; none for all.
    pub output_concurrency: Option<usize>,
}

/// Caps on the events this process sends (contract 6.6 step 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCaps {
    /// For each output.
    pub per_output: Option<u64>,
    /// For the run; exact only when outputs go one after the other.
    pub run: Option<u64>,
}

/// The world outside a run.
#[derive(Clone)]
pub struct StreamPorts {
    /// The gate.
    pub gate: Arc<dyn GateClient>,
    /// The sealed world.
    pub source: Arc<dyn WorldSource>,
    /// Checkpoints.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Stamps checkpoints.
    pub clock: Arc<dyn Clock>,
    /// Told of every saved checkpoint, on a blocking thread.
    pub on_saved: SavedHook,
    /// The run's place in the live tree.
    pub node: TreeNode,
}

/// Limits of a run.
#[derive(Clone)]
pub struct StreamTuning {
    /// When a batch is full.
    pub limits: BatchLimits,
    /// Push retries.
    pub retry: RetryPolicy,
    /// Restarts of an output.
    pub restart: RestartPolicy,
    /// When a checkpoint is saved.
    pub flush: FlushPolicy,
    /// Progress lines.
    pub log: ProgressLogSettings,
}

/// The progress of every output of a run, in streaming order. Clones share it.
#[derive(Clone)]
pub struct RunProgress {
    outputs: Arc<[(String, Arc<OutputProgress>)]>,
}

impl RunProgress {
    /// Nothing done yet.
    pub fn new(request: &StreamRequest) -> Self {
        let output = |context: &Arc<FrameContext>| {
            (context.output_id.clone(), Arc::new(OutputProgress::new()))
        };
        RunProgress {
            outputs: request.outputs.iter().map(output).collect(),
        }
    }

    /// The progress of a run without outputs.
    pub fn none() -> Self {
        RunProgress {
            outputs: Arc::new([]),
        }
    }

    /// Every output and its progress.
    pub fn outputs(&self) -> &[(String, Arc<OutputProgress>)] {
        &self.outputs
    }

    /// Events accepted so far, all outputs together.
    pub fn accepted(&self) -> u64 {
        self.outputs
            .iter()
            .map(|(_, progress)| progress.accepted())
            .sum()
    }
}

/// Streams a run to its end, its caps, a stop or a failure. With a parent, the pipelines are its
/// children and end with it.
pub async fn stream_world(
    request: StreamRequest,
    ports: StreamPorts,
    tuning: StreamTuning,
    control: watch::Receiver<RunControl>,
    progress: RunProgress,
    parent: Option<ActorCell>,
) -> StreamResult {
    let (engine_run_root, scenario_id) =
        (request.engine_run_root.clone(), request.scenario_id.clone());
    let mut run = Run::new(request, ports, tuning, control, progress, parent);
    let outputs = run.drive().await;
    let result = StreamResult::of_outputs(&engine_run_root, &scenario_id, outputs);
    match *run.control.borrow() {
        RunControl::Cancel => result.cancelled(),
        _ => result,
    }
}

/// Whether outputs run beside each other or one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// All at once, on one schedule.
    Together,
    /// Some wait for others; each is anchored at its own start.
    Staggered,
}

struct Run {
    request: Arc<StreamRequest>,
    ports: StreamPorts,
    tuning: StreamTuning,
    control: watch::Receiver<RunControl>,
    progress: RunProgress,
    parent: Option<ActorCell>,
    order: Order,
    places: Arc<Semaphore>,
    paces: Vec<watch::Sender<Option<Pace>>>,
    waiting_for: BTreeSet<String>,
    starts: Vec<i64>,
    paused_since: Option<Instant>,
}

impl Run {
    fn new(
        request: StreamRequest,
        ports: StreamPorts,
        tuning: StreamTuning,
        control: watch::Receiver<RunControl>,
        progress: RunProgress,
        parent: Option<ActorCell>,
    ) -> Self {
        let outputs = request.outputs.len();
        let places = request
            .output_concurrency
            .unwrap_or(outputs)
            .clamp(1, outputs.max(1));
        let order = if places < outputs {
            Order::Staggered
        } else {
            Order::Together
        };
        Run {
            paces: request
                .outputs
                .iter()
                .map(|_| watch::channel(None).0)
                .collect(),
            waiting_for: request
                .outputs
                .iter()
                .map(|output| output.output_id.clone())
                .collect(),
            request: Arc::new(request),
            ports,
            tuning,
            control,
            progress,
            parent,
            order,
            places: Arc::new(Semaphore::new(places)),
            starts: Vec::new(),
            paused_since: None,
        }
    }

    /// Runs every output and keeps the schedule. The results stand in streaming order.
    async fn drive(&mut self) -> Vec<OutputResult> {
        self.warn_of_shared_cap();
        let (opened, mut reports) = mpsc::channel(self.request.outputs.len().max(1));
        let mut outputs = JoinSet::new();
        for index in 0..self.request.outputs.len() {
            outputs.spawn(self.output_task(index, opened.clone()));
        }
        drop(opened);
        let mut results: Vec<Option<OutputResult>> = vec![None; self.request.outputs.len()];
        loop {
            tokio::select! {
                biased;
                ended = outputs.join_next() => match ended {
                    None => break,
                    Some(Ok((index, result))) => {
                        self.no_longer_waits_for(&result.output_id);
                        results[index] = Some(result);
                    }
                    Some(Err(panic)) => tracing::error!(%panic, "the task of an output was lost"),
                },
                Some(report) = reports.recv() => self.output_opened(report),
                Ok(()) = self.control.changed() => self.control_changed(),
            }
        }
        let lost = |index: usize| self.lost_output(index);
        let or_lost =
            |(index, result): (usize, Option<OutputResult>)| result.unwrap_or_else(|| lost(index));
        results.into_iter().enumerate().map(or_lost).collect()
    }

    /// The whole life of one output, behind its place in the order.
    fn output_task(
        &self,
        index: usize,
        opened: mpsc::Sender<OpenedReport>,
    ) -> impl Future<Output = (usize, OutputResult)> + Send + 'static {
        let (places, parent) = (self.places.clone(), self.parent.clone());
        let (request, progress) = (self.request.clone(), self.progress.clone());
        let (ports, tuning) = (self.ports.clone(), self.tuning.clone());
        let (pace, control) = (self.paces[index].subscribe(), self.control.clone());
        let order = self.order;
        async move {
            let _place = places.acquire_owned().await;
            let context = request.outputs[index].clone();
            let own = progress.outputs()[index].1.clone();
            let spec = Arc::new(OutputSpec {
                checkpoint: CheckpointSettings {
                    store: ports.checkpoints.clone(),
                    clock: ports.clock.clone(),
                    pack_key: request.checkpoint_pack_key.clone(),
                    flush: tuning.flush,
                    on_saved: ports.on_saved.clone(),
                },
                events_max: cap_of(&request, order, progress.accepted()),
                source: ports.source.clone(),
                gate: ports.gate.sender().unwrap_or_else(|| ports.gate.clone()),
                limits: tuning.limits,
                retry: tuning.retry,
                log: tuning.log,
                progress: own.clone(),
                end: Mutex::new(None),
                context,
                opened,
                pace,
                control,
            });
            narrate_start(&request, &spec, places_of(&request));
            let end = run_output(&spec, &ports.node, tuning.restart, parent).await;
            narrate_end(&request, &spec, &end);
            (
                index,
                OutputResult::new(&spec.context.output_id, &own.view(), end),
            )
        }
    }

    fn warn_of_shared_cap(&self) {
        let caps = self.request.caps;
        if caps.per_output.is_none() && caps.run.is_some() && self.request.outputs.len() > 1 {
            let concurrent = self.request.output_concurrency != Some(1);
            if concurrent {
                tracing::warn!(
                    max_events = caps.run,
                    "outputs stream at once, so max_events holds for each output"
                );
            }
        }
    }

    fn output_opened(&mut self, report: OpenedReport) {
        let first_ts = report.first_ts.map(|at| at.0);
        if self.order == Order::Staggered {
            if let (Some(index), Some(first)) = (self.index_of(&report.output_id), first_ts) {
                self.set_pace(index, first);
            }
            return;
        }
        if !self.is_scheduled() {
            self.starts.extend(first_ts);
        }
        self.no_longer_waits_for(&report.output_id);
    }

    fn is_scheduled(&self) -> bool {
        self.paces.iter().all(|pace| pace.borrow().is_some())
    }

    fn index_of(&self, output_id: &str) -> Option<usize> {
        self.request
            .outputs
            .iter()
            .position(|output| output.output_id == output_id)
    }

    /// When every output has said where it starts, the run gets its one schedule. One that could not be opened
    /// holds up no other; when none could, the first that opens after all is where the run starts.
    fn no_longer_waits_for(&mut self, output_id: &str) {
        self.waiting_for.remove(output_id);
        if self.order == Order::Staggered || !self.waiting_for.is_empty() {
            return;
        }
        let Some(anchor) = anchor_micros(self.starts.iter().copied()) else {
            return;
        };
        for index in 0..self.paces.len() {
            self.set_pace(index, anchor);
        }
    }

    /// Sets the schedule of an output once; a restarted output keeps it.
    fn set_pace(&self, index: usize, anchor: i64) {
        let schedule = Schedule::new(anchor, self.request.speedup);
        let pace = Pace {
            schedule,
            started: Instant::now(),
        };
        self.paces[index].send_if_modified(|known| match known {
            Some(_) => false,
            None => {
                *known = Some(pace);
                true
            }
        });
    }

    /// A pause moves the schedule on by its length, so that a resumed run does not rush.
    fn control_changed(&mut self) {
        let command = *self.control.borrow_and_update();
        match (command, self.paused_since) {
            (RunControl::Pause, None) => self.paused_since = Some(Instant::now()),
            (RunControl::Run, Some(since)) => {
                let paused = since.elapsed();
                self.paused_since = None;
                for pace in &self.paces {
                    pace.send_modify(|pace| {
                        if let Some(pace) = pace {
                            pace.started += paused;
                        }
                    });
                }
            }
            _ => {}
        }
    }

    fn lost_output(&self, index: usize) -> OutputResult {
        let (output_id, progress) = &self.progress.outputs()[index];
        let end = OutputEnd::Failed {
            code: "STREAM_FAILED".to_owned(),
            detail: "the task of the output was lost".to_owned(),
        };
        OutputResult::new(output_id, &progress.view(), end)
    }
}

fn places_of(request: &StreamRequest) -> usize {
    request
        .output_concurrency
        .unwrap_or(request.outputs.len())
        .max(1)
}

/// Caps of one output (contract 6.6 step 6): its own, else what is left of the run's when outputs go
/// one after the other, else the run's for each.
fn cap_of(request: &StreamRequest, order: Order, accepted: u64) -> Option<u64> {
    let one_by_one = order == Order::Staggered && request.output_concurrency == Some(1);
    match (request.caps.per_output, request.caps.run) {
        (Some(cap), _) => Some(cap),
        (None, Some(cap)) if one_by_one => Some(cap.saturating_sub(accepted)),
        (None, cap) => cap,
    }
}

/// Runs the pipeline of one output to its end.
async fn run_output(
    spec: &Arc<OutputSpec>,
    node: &TreeNode,
    policy: RestartPolicy,
    parent: Option<ActorCell>,
) -> OutputEnd {
    let output_id = &spec.context.output_id;
    let shared = spec.clone();
    let pipeline = PipelineSpec {
        node: node.child(&format!("output {output_id}"), "pipeline"),
        policy,
        jitter: seeded_jitter(Hash32::of(output_id.as_bytes()).leading_u64()),
        factory: Box::new(move |start| start_generation(shared.clone(), start)),
    };
    let ended = match spawn_pipeline(pipeline, parent).await {
        Ok(handle) => handle.ended().await,
        Err(failure) => PipelineEnd::GaveUp(failure),
    };
    match (ended, spec.ended()) {
        (PipelineEnd::GaveUp(failure), _) => OutputEnd::Failed {
            code: failure.code,
            detail: failure.detail,
        },
        (_, Some(PumpEnd::Complete | PumpEnd::CapReached)) => OutputEnd::Streamed,
        (_, Some(PumpEnd::Stopped) | None) => OutputEnd::Stopped,
    }
}

fn start_generation(
    spec: Arc<OutputSpec>,
    start: GenerationStart,
) -> BoxFuture<'static, Result<Generation<()>, StageFailure>> {
    Box::pin(async move {
        let heartbeat = Heartbeat::new();
        let args = (spec, heartbeat.clone());
        let (stream, _) = Actor::spawn_linked(None, OutputStream, args, start.supervisor).await?;
        let stage = Stage::new("stream", stream.get_cell()).with_heartbeat(heartbeat);
        Ok(Generation {
            entry: (),
            stages: vec![stage],
        })
    })
}

#[cfg(test)]
#[path = "run_streams_tests.rs"]
mod tests;
