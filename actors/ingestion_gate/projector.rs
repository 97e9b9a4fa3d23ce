//! Projector: brings what is derived from the decision journals up to date, off the answer path.
//!
//! Durable: the projection's own cursor, written after what it covers, so a killed projector repeats a
//! little work with the same result. A failing projection is retried every tick and shown in the tree; it
//! never holds an answer back, because the journal already is the truth.

use super::messages::RunKey;
use crate::runtime::blocking;
use crate::runtime::tree::{NodeState, TreeNode};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

/// Brings one run's projections up to its journals. Blocks; safe to repeat.
pub trait Projection: Send + Sync {
    /// Returns how many rows were projected.
    fn catch_up(&self, run: &PlatformRunId) -> Result<u64, StoreError>;
}

/// Projections and the names they have in the live tree.
pub type NamedProjections = Vec<(String, Arc<dyn Projection>)>;

/// Messages of a projector.
pub enum ProjectorMsg {
    /// Time to look.
    Tick,
    /// Projects everything committed so far, then answers.
    CatchUp(oneshot::Sender<()>),
}

/// What a projector is started with.
pub struct ProjectorArgs {
    /// What to keep up to date.
    pub projection: Arc<dyn Projection>,
    /// Runs that are open.
    pub open_runs: watch::Receiver<Arc<Vec<RunKey>>>,
    /// How often to look.
    pub interval: Duration,
    /// Where failures are shown.
    pub node: TreeNode,
}

/// The actor.
pub struct Projector;

impl Actor for Projector {
    type Msg = ProjectorMsg;
    type State = ProjectorArgs;
    type Arguments = ProjectorArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: ProjectorArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        args.node.set_state(NodeState::Running);
        myself.send_after(args.interval, || ProjectorMsg::Tick);
        Ok(args)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        catch_up(state).await;
        match message {
            // The next tick is set after the work, so ticks never queue up.
            ProjectorMsg::Tick => drop(myself.send_after(state.interval, || ProjectorMsg::Tick)),
            ProjectorMsg::CatchUp(done) => drop(done.send(())),
        }
        Ok(())
    }
}

async fn catch_up(state: &mut ProjectorArgs) {
    let runs = state.open_runs.borrow().clone();
    let projection = state.projection.clone();
    let work = move || {
        runs.iter()
            .try_for_each(|run| projection.catch_up(run).map(drop))
    };
    match blocking::run("projection", work).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(code = error.code(), %error, "projection is behind and will be tried again");
            state.node.set_last_error(error.to_string());
        }
        Err(panic) => state
            .node
            .set_last_error(format!("projection panicked: {panic}")),
    }
}

/// Waits until every projector has looked once more, so that a stop leaves no receipt object or quarantine
/// record for the next start.
pub async fn await_all(projectors: &[ActorRef<ProjectorMsg>], at_most: Duration) {
    let caught_up = projectors.iter().filter_map(|projector| {
        let (done, told) = oneshot::channel();
        projector.cast(ProjectorMsg::CatchUp(done)).ok()?;
        Some(told)
    });
    let caught_up: Vec<_> = caught_up.collect();
    let waiting = async {
        for told in caught_up {
            // A projector that ended answers nothing; its cursor says how far it came.
            let _ = told.await;
        }
    };
    if tokio::time::timeout(at_most, waiting).await.is_err() {
        tracing::info!(
            "projections are behind their journals; the next start brings them up to date"
        );
    }
}
