//! Supervises the ready runs: one actor a READY, at most so many at once.
//!
//! It keeps no queue. A record it has no room for stays with the control bus reader, which offers it
//! again.

use super::ready_run::{Handled, ReadyPorts, ReadyRun, ReadyRunArgs};
use crate::runtime::{NodeState, StageFailure, TreeNode};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;
use wellspring_domain::ports::ControlRecord;

/// Ended runs that stay in the live tree.
const ENDED_RUNS_SHOWN: usize = 8;

/// The actor.
pub struct RunsSupervisor;

/// Messages of the supervisor.
pub enum RunsSupervisorMsg {
    /// Start a run for this record; answers with where its end will arrive, or with nothing when there
    /// is no room.
    Offer {
        /// The message.
        record: ControlRecord,
        /// The answer.
        reply: RpcReplyPort<Option<oneshot::Receiver<Handled>>>,
    },
}

/// What the supervisor starts with.
pub struct RunsSupervisorArgs {
    /// The world outside.
    pub ports: ReadyPorts,
    /// Its place in the live tree.
    pub node: TreeNode,
    /// Most runs at once.
    pub runs_max: usize,
    /// How long runs may take to stop: they finish what is in flight and save.
    pub stop_deadline: Duration,
}

/// What the supervisor holds.
pub struct RunsSupervisorState {
    args: RunsSupervisorArgs,
    running: usize,
    started: u64,
    shown: VecDeque<TreeNode>,
}

impl Actor for RunsSupervisor {
    type Msg = RunsSupervisorMsg;
    type State = RunsSupervisorState;
    type Arguments = RunsSupervisorArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: RunsSupervisorArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        args.node.set_state(NodeState::Running);
        Ok(RunsSupervisorState {
            args,
            running: 0,
            started: 0,
            shown: VecDeque::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let RunsSupervisorMsg::Offer { record, reply } = message;
        let full = state.running >= state.args.runs_max || state.args.ports.orders.is_stopping();
        let ended = if full {
            None
        } else {
            Some(state.start(&myself, record).await?)
        };
        // A reader that is gone offers the record again when it is back.
        let _ = reply.send(ended);
        Ok(())
    }

    /// A run that ends, however it does, makes room. One that was lost drops its reply.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(..) => state.running -= 1,
            SupervisionEvent::ActorFailed(_, cause) => {
                state.running -= 1;
                let failure = StageFailure::of_actor(&cause);
                state.args.node.set_last_error(failure.to_string());
                tracing::error!(%failure, "a ready run was lost; its message is offered again");
            }
            _started_or_group => {}
        }
        Ok(())
    }

    /// Runs are asked to stop: they wait for their answers and save.
    async fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.args.node.set_state(NodeState::Draining);
        state.args.ports.orders.stop_all();
        for run in myself.get_children() {
            if run.wait(Some(state.args.stop_deadline)).await.is_err() {
                tracing::warn!("a run did not stop in time; its checkpoint stays where it was");
                // Ended for certain, so that nothing writes after this actor is gone.
                let _ = run.kill_and_wait(None).await;
            }
        }
        state.args.node.set_state(NodeState::Stopped);
        Ok(())
    }
}

impl RunsSupervisorState {
    async fn start(
        &mut self,
        myself: &ActorRef<RunsSupervisorMsg>,
        record: ControlRecord,
    ) -> Result<oneshot::Receiver<Handled>, ActorProcessingErr> {
        let (reply, ended) = oneshot::channel();
        let node = self.show(&record);
        let args = ReadyRunArgs {
            ports: self.args.ports.clone(),
            record,
            node,
            reply,
        };
        Actor::spawn_linked(None, ReadyRun, args, myself.get_cell()).await?;
        self.running += 1;
        Ok(ended)
    }

    /// A place in the live tree; the oldest ended runs make room.
    fn show(&mut self, record: &ControlRecord) -> TreeNode {
        self.started += 1;
        let message = record.position.rsplit('/').next().unwrap_or_default();
        let short: String = message.chars().take(12).collect();
        let node = self
            .args
            .node
            .child(&format!("ready run {} {short}", self.started), "run");
        self.shown.push_back(node.clone());
        while self.shown.len() > ENDED_RUNS_SHOWN + self.args.runs_max {
            if let Some(oldest) = self.shown.pop_front() {
                oldest.remove();
            }
        }
        node
    }
}
