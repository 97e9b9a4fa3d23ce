//! The actor of one READY: takes the message up, streams its outputs, writes the end down
//! (contract 6.2, 6.6). Its output pipelines are its children.

use super::pace::RunControl;
use super::ready_desk::{PreparedRun, ReadyDesk, ReadyOutcome, TakeUp};
use super::run_orders::RunOrders;
use super::run_streams::{RunProgress, StreamPorts, stream_world};
use crate::runtime::blocking;
use crate::runtime::{NodeState, STAGE_COMPLETE, StageFailure, TreeNode};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use wellspring_domain::ports::{Clock, ControlRecord, GateClient, StoreError};

/// What every run needs.
#[derive(Clone)]
pub struct ReadyPorts {
    /// Decides and writes down.
    pub desk: Arc<dyn ReadyDesk>,
    /// The gate.
    pub gate: Arc<dyn GateClient>,
    /// Stamps checkpoints.
    pub clock: Arc<dyn Clock>,
    /// Where operators give orders to runs.
    pub orders: RunOrders,
}

/// What became of a record.
#[derive(Debug)]
pub enum Handled {
    /// It is no READY and needs no second look.
    NotReady,
    /// It was handled.
    Ready(Box<ReadyOutcome>),
    /// Nothing was decided, because a store did not answer or the run was lost.
    Undecided {
        /// Why.
        failure: StageFailure,
    },
}

/// Handles one record from start to end. With a parent, the output pipelines are its children.
pub async fn handle_record(
    ports: &ReadyPorts,
    record: ControlRecord,
    node: &TreeNode,
    parent: Option<ActorCell>,
) -> Handled {
    let desk = ports.desk.clone();
    let taken = blocking::run("ready-take-up", move || desk.take_up(&record)).await;
    match taken {
        Ok(Ok(TakeUp::NotReady { why })) => {
            tracing::warn!(why, "a control message is no READY and is passed over");
            Handled::NotReady
        }
        Ok(Ok(TakeUp::Ended(outcome))) => Handled::Ready(outcome),
        Ok(Ok(TakeUp::Stream(prepared))) => stream_prepared(ports, *prepared, node, parent).await,
        Ok(Err(error)) => Handled::Undecided {
            failure: undecided(&error),
        },
        Err(panic) => Handled::Undecided {
            failure: StageFailure::transient("STREAM_FAILED", panic.to_string()),
        },
    }
}

async fn stream_prepared(
    ports: &ReadyPorts,
    prepared: PreparedRun,
    node: &TreeNode,
    parent: Option<ActorCell>,
) -> Handled {
    let stream_ports = StreamPorts {
        gate: ports.gate.clone(),
        source: prepared.source,
        checkpoints: prepared.checkpoints,
        clock: ports.clock.clone(),
        on_saved: prepared.on_saved,
        node: node.clone(),
    };
    let progress = RunProgress::new(&prepared.request);
    let (_listed, control) = ports
        .orders
        .enlist(&prepared.platform_run_id, progress.clone());
    let shown = show_pauses(node.clone(), control.clone());
    let (request, tuning) = (prepared.request, prepared.tuning);
    let result = stream_world(request, stream_ports, tuning, control, progress, parent).await;
    shown.abort();
    let finishing = blocking::run("ready-finish", move || (prepared.finish)(&result)).await;
    match finishing {
        Ok(outcome) => Handled::Ready(Box::new(outcome)),
        Err(panic) => Handled::Undecided {
            failure: StageFailure::transient("STREAM_FAILED", panic.to_string()),
        },
    }
}

/// Shows in the live tree whether the run is held.
fn show_pauses(node: TreeNode, mut control: watch::Receiver<RunControl>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while control.changed().await.is_ok() {
            let state = match *control.borrow_and_update() {
                RunControl::Run => NodeState::Running,
                RunControl::Pause => NodeState::Paused,
                RunControl::Stop | RunControl::Cancel => NodeState::Draining,
            };
            node.set_state(state);
        }
    })
}

fn undecided(error: &StoreError) -> StageFailure {
    StageFailure::transient(error.code(), error.to_string())
}

/// The actor.
pub struct ReadyRun;

/// Messages of the actor; only its own work sends them.
pub enum ReadyRunMsg {
    /// The work is done.
    Done(Handled),
}

/// What a run starts with.
pub struct ReadyRunArgs {
    /// The world outside.
    pub ports: ReadyPorts,
    /// The message.
    pub record: ControlRecord,
    /// Its place in the live tree.
    pub node: TreeNode,
    /// Gets what became of the message; dropped when the run is lost.
    pub reply: oneshot::Sender<Handled>,
}

/// What a run holds.
pub struct ReadyRunState {
    reply: Option<oneshot::Sender<Handled>>,
    node: TreeNode,
    work: JoinHandle<()>,
}

impl Actor for ReadyRun {
    type Msg = ReadyRunMsg;
    type State = ReadyRunState;
    type Arguments = ReadyRunArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: ReadyRunArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        let ReadyRunArgs {
            ports,
            record,
            node,
            reply,
        } = args;
        node.set_state(NodeState::Running);
        let own = node.clone();
        let work = tokio::spawn(async move {
            let parent = Some(myself.get_cell());
            let handled = handle_record(&ports, record, &own, parent).await;
            // A run that was ended from outside has nobody to tell.
            let _ = myself.cast(ReadyRunMsg::Done(handled));
        });
        Ok(ReadyRunState {
            reply: Some(reply),
            node,
            work,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let ReadyRunMsg::Done(handled) = message;
        state.node.set_state(NodeState::Completed);
        if let Some(reply) = state.reply.take() {
            // The supervisor may be stopping; the outcome is written down anyway.
            let _ = reply.send(handled);
        }
        myself.stop(Some(STAGE_COMPLETE.to_owned()));
        Ok(())
    }

    /// The outputs' ends reach the work through their pipelines; here they are only kept from ending
    /// this actor.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.work.abort();
        Ok(())
    }
}
