//! Gate supervisor: owns the index shards, the admission shards and the projectors, and opens runs.
//!
//! Durable: nothing of its own. A run is opened when its first event comes and stays open; opening recovers
//! it from its journals. What cannot be recovered from inside (a failed sync, a dead index shard, a shard
//! that keeps failing) ends the gate, and with it the process: the next start is the recovery.

use super::admission_shard::{AdmissionShardMsg, ShardRunOpening};
use super::gate_children::{spawn_index, spawn_projectors, spawn_shard, start_tally};
use super::handle::{GateHandle, GateParts};
use super::index_shard::IndexShardMsg;
use super::messages::RunKey;
use super::projector::{self, NamedProjections, ProjectorMsg};
use super::shard_generation::{LastWriter, ShardParts, await_writer};
use super::summary::GateTally;
use crate::runtime::blocking;
use crate::runtime::failure::StageFailure;
use crate::runtime::pipeline::{PipelineEnd, PipelineHandle};
use crate::runtime::restart_policy::RestartPolicy;
use crate::runtime::slot::SlotReader;
use crate::runtime::tree::{NodeState, TreeNode};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use wellspring_domain::ports::{Clock, GateStore, OpenRun, RunLayout, StoreError};
use wellspring_domain::run_paths::PlatformRunId;

type ShardRef = ActorRef<AdmissionShardMsg>;
type OpenReply = oneshot::Sender<Result<RunKey, String>>;

/// Messages of the gate supervisor.
pub enum GateSupervisorMsg {
    /// Opens a run, or answers at once when it is open.
    OpenRun {
        /// The run.
        run: PlatformRunId,
        /// The run's key, or why it could not be opened.
        reply: OpenReply,
    },
    /// The store is done opening a run.
    Opened {
        /// The run.
        run: PlatformRunId,
        /// Its durable state.
        result: Box<Result<OpenRun, StoreError>>,
    },
    /// An admission shard's pipeline has ended.
    ShardEnded {
        /// Which shard.
        shard: u16,
        /// How.
        end: PipelineEnd,
    },
}

/// What a gate is started with.
pub struct GateArgs {
    /// What senders need.
    pub parts: GateParts,
    /// Durable state.
    pub store: Arc<dyn GateStore>,
    /// Shard counts and index memory.
    pub layout: RunLayout,
    /// Bytes after which a flush is closed even while the disk is busy.
    pub flush_bytes_max: usize,
    /// Most runs open at once.
    pub open_runs_max: usize,
    /// The run this gate was started for: never closed to make room.
    pub own_run: Option<PlatformRunId>,
    /// Projections by name, each with its own actor.
    pub projections: NamedProjections,
    /// How often projectors look.
    pub projection_interval: Duration,
    /// Restart policy of the admission shards.
    pub policy: RestartPolicy,
    /// Seed of the restart jitter.
    pub jitter_seed: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The gate's place in the live tree.
    pub node: TreeNode,
    /// Where the handle goes when the gate runs.
    pub started: oneshot::Sender<GateHandle>,
}

/// The actor.
pub struct GateSupervisor;

/// State of the gate supervisor.
pub struct GateSupervisorState {
    store: Arc<dyn GateStore>,
    layout: RunLayout,
    open_runs_max: usize,
    own_run: Option<PlatformRunId>,
    index: Arc<Vec<ActorRef<IndexShardMsg>>>,
    shards: Vec<PipelineHandle<ShardRef>>,
    writers: Vec<LastWriter>,
    projectors: Vec<ActorRef<ProjectorMsg>>,
    open_runs: watch::Sender<Arc<Vec<RunKey>>>,
    runs: watch::Sender<Arc<HashMap<PlatformRunId, RunKey>>>,
    opening: HashMap<PlatformRunId, Vec<OpenReply>>,
    tally: Arc<GateTally>,
    node: TreeNode,
}

/// How long a shard between two generations may take to take a new run over.
const SHARD_WAIT: Duration = Duration::from_secs(10);

/// How long a stop waits for projections of what is committed; what is left is made by the next start.
const PROJECTION_WAIT: Duration = Duration::from_secs(3);

impl Actor for GateSupervisor {
    type Msg = GateSupervisorMsg;
    type State = GateSupervisorState;
    type Arguments = GateArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: GateArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        let index = Arc::new(spawn_index(&myself, &args).await?);
        let (open_runs, open_runs_reader) = watch::channel(Arc::new(Vec::new()));
        let (runs, runs_reader) = watch::channel(Arc::new(HashMap::new()));
        let tally = start_tally(&myself, &args).await?;
        let mut shards = Vec::new();
        let mut writers = Vec::new();
        for shard in 0..args.layout.admission_shards {
            let last_writer = LastWriter::default();
            writers.push(last_writer.clone());
            let parts = ShardParts {
                shard,
                store: args.store.clone(),
                index: index.clone(),
                open_runs: open_runs_reader.clone(),
                flush_bytes_max: args.flush_bytes_max,
                clock: args.clock.clone(),
                last_writer,
                tally: tally.clone(),
            };
            shards.push(spawn_shard(&myself, &args, parts).await?);
        }
        let slots: Vec<SlotReader<ShardRef>> = shards.iter().map(PipelineHandle::slot).collect();
        for index_shard in index.iter() {
            index_shard.cast(IndexShardMsg::Peers(slots.clone()))?;
        }
        let projectors = spawn_projectors(&myself, &args, open_runs_reader).await?;
        args.node.show_credits(args.parts.credits.clone());
        args.node.set_state(NodeState::Running);
        let handle = GateHandle::new(args.parts, slots, runs_reader, myself, tally.clone());
        tally.serving(handle.clone());
        // A starter that is gone stops this actor itself.
        let _ = args.started.send(handle);
        Ok(GateSupervisorState {
            store: args.store,
            layout: args.layout,
            open_runs_max: args.open_runs_max,
            own_run: args.own_run,
            index,
            shards,
            writers,
            projectors,
            open_runs,
            runs,
            opening: HashMap::new(),
            tally,
            node: args.node,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GateSupervisorMsg::OpenRun { run, reply } => state.open(&myself, run, reply).await?,
            GateSupervisorMsg::Opened { run, result } => state.opened(run, *result).await?,
            GateSupervisorMsg::ShardEnded { shard, end } => {
                let failure = match end {
                    PipelineEnd::GaveUp(failure) => failure,
                    other => ended_unasked(format!("admission shard {shard}: {other:?}")),
                };
                tracing::error!(
                    shard,
                    code = failure.code,
                    detail = failure.detail,
                    "admission shard gave up"
                );
                state.node.set_last_error(failure.to_string());
                return Err(failure.into());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, cause) => {
                tracing::error!(child = ?child.get_id(), %cause, "a part of the gate failed");
                state.node.set_last_error(cause.to_string());
                Err(StageFailure::terminal("GATE_FAILED", cause.to_string()).into())
            }
            // In an orderly stop this actor no longer looks: whatever ends before it, ends unasked.
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
                let failure = ended_unasked(format!("{:?}: {reason}", child.get_id()));
                tracing::error!(%failure, "a part of the gate ended");
                state.node.set_last_error(failure.to_string());
                Err(failure.into())
            }
            _started => Ok(()),
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.node.set_state(NodeState::Draining);
        for shard in &state.shards {
            shard.stop().await;
        }
        for writer in &state.writers {
            await_writer(writer).await;
        }
        projector::await_all(&state.projectors, PROJECTION_WAIT).await;
        state.tally.flush();
        state.node.set_state(NodeState::Stopped);
        Ok(())
    }
}

impl GateSupervisorState {
    async fn open(
        &mut self,
        myself: &ActorRef<GateSupervisorMsg>,
        run: PlatformRunId,
        reply: OpenReply,
    ) -> Result<(), StageFailure> {
        let open = self.runs.borrow().get(&run).cloned();
        if let Some(key) = open {
            let _ = reply.send(Ok(key));
            return Ok(());
        }
        if let Some(waiting) = self.opening.get_mut(&run) {
            waiting.push(reply);
            return Ok(());
        }
        let is_full = self.runs.borrow().len() + self.opening.len() >= self.open_runs_max;
        if is_full && !self.close_an_idle_run().await? {
            let refusal = format!(
                "OPEN_RUNS_EXHAUSTED: {} runs are open and at work",
                self.open_runs_max
            );
            let _ = reply.send(Err(refusal));
            return Ok(());
        }
        self.opening.insert(run.clone(), vec![reply]);
        let (store, layout, supervisor) = (self.store.clone(), self.layout, myself.clone());
        // Recovery blocks and may take seconds: not on an actor's thread.
        blocking::run("run-open", move || {
            let result = Box::new(store.open_run(&run, &layout));
            let _ = supervisor.cast(GateSupervisorMsg::Opened { run, result });
        });
        Ok(())
    }

    /// Closes the run that has been open longest and has nothing in flight; false when there is none.
    async fn close_an_idle_run(&mut self) -> Result<bool, StageFailure> {
        let open_runs = self.open_runs.borrow().clone();
        for run in open_runs
            .iter()
            .filter(|run| Some(&***run) != self.own_run.as_ref())
        {
            if self.is_idle(run).await? {
                self.close(run).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_idle(&self, run: &RunKey) -> Result<bool, StageFailure> {
        for pipeline in &self.shards {
            let shard = pipeline
                .started(SHARD_WAIT)
                .await
                .map_err(|_| interrupted(run))?;
            let (reply, idle) = oneshot::channel();
            let asked = shard.cast(AdmissionShardMsg::RunIdle {
                run: run.clone(),
                reply,
            });
            // A shard that is being replaced is not idle.
            if asked.is_err() || !idle.await.unwrap_or(false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Senders are turned away first. What still reaches a shard is answered "send again" and opens the run
    /// anew; what was committed is in the journal.
    async fn close(&mut self, run: &RunKey) -> Result<(), StageFailure> {
        self.runs.send_modify(|runs| {
            Arc::make_mut(runs).remove(&**run);
        });
        self.open_runs
            .send_modify(|runs| Arc::make_mut(runs).retain(|open| open != run));
        for pipeline in &self.shards {
            let shard = pipeline
                .started(SHARD_WAIT)
                .await
                .map_err(|_| interrupted(run))?;
            let (reply, closed) = oneshot::channel();
            shard
                .cast(AdmissionShardMsg::CloseRun {
                    run: run.clone(),
                    reply,
                })
                .map_err(|_| interrupted(run))?;
            closed.await.map_err(|_| interrupted(run))?;
        }
        for index in self.index.iter() {
            index
                .cast(IndexShardMsg::CloseRun { run: run.clone() })
                .map_err(|_| interrupted(run))?;
        }
        tracing::info!(run = %**run, "idle run closed to make room for another");
        Ok(())
    }

    async fn opened(
        &mut self,
        run: PlatformRunId,
        result: Result<OpenRun, StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        let waiting = self.opening.remove(&run).unwrap_or_default();
        let key = RunKey::new(run.clone());
        let outcome = match result {
            Ok(open) => {
                self.install(&key, open).await?;
                Ok(key)
            }
            Err(error) => {
                tracing::error!(%run, code = error.code(), %error, "run cannot be opened");
                self.node.set_last_error(error.to_string());
                Err(format!("{}: {error}", error.code()))
            }
        };
        for reply in waiting {
            let _ = reply.send(outcome.clone());
        }
        Ok(())
    }

    /// Hands a run to all shards. A shard that dies in the middle of this would not know the run: that ends
    /// the gate, so that the next start opens the run as a whole.
    async fn install(&mut self, key: &RunKey, open: OpenRun) -> Result<(), StageFailure> {
        let next_rows: Vec<_> = open.shards.iter().map(|shard| shard.next_row).collect();
        for (owner, index) in self.index.iter().zip(open.index) {
            let message = IndexShardMsg::OpenRun {
                run: key.clone(),
                index,
                next_rows: next_rows.clone(),
            };
            owner.cast(message).map_err(|_| interrupted(key))?;
        }
        let mut installed = Vec::with_capacity(self.shards.len());
        for (pipeline, shard) in self.shards.iter().zip(open.shards) {
            let entry = pipeline
                .started(SHARD_WAIT)
                .await
                .map_err(|_| interrupted(key))?;
            let run = Box::new(ShardRunOpening {
                run: key.clone(),
                shard,
                ends: open.ends.clone(),
            });
            let (reply, taken) = oneshot::channel();
            entry
                .cast(AdmissionShardMsg::OpenRun { run, reply })
                .map_err(|_| interrupted(key))?;
            taken.await.map_err(|_| interrupted(key))?;
            installed.push(entry.get_id());
        }
        self.open_runs
            .send_modify(|runs| Arc::make_mut(runs).push(key.clone()));
        let unchanged = self
            .shards
            .iter()
            .zip(installed)
            .all(|(shard, id)| shard.current().is_some_and(|now| now.get_id() == id));
        if !unchanged {
            return Err(interrupted(key));
        }
        self.runs.send_modify(|runs| {
            Arc::make_mut(runs).insert((**key).clone(), key.clone());
        });
        Ok(())
    }
}

fn ended_unasked(detail: String) -> StageFailure {
    StageFailure::terminal("GATE_FAILED", format!("a part ended unasked: {detail}"))
}

fn interrupted(run: &RunKey) -> StageFailure {
    StageFailure::terminal(
        "RUN_OPEN_INTERRUPTED",
        format!("a shard ended while {run} was being opened or closed"),
    )
}
