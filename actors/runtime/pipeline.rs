//! A pipeline from outside: how it is described, started, used and stopped.

use super::BoxFuture;
use super::failure::StageFailure;
use super::generation::PipelineSupervisor;
use super::restart_policy::{Jitter, RestartPolicy};
use super::slot::{Slot, SlotReader};
use super::stage::{Generation, GenerationStart};
use super::tree::TreeNode;
use ractor::{Actor, ActorCell};
use std::time::Duration;
use tokio::sync::watch;

/// Starts one generation: spawns its stages linked to [`GenerationStart::supervisor`], source first.
pub type GenerationFactory<E> = Box<
    dyn FnMut(GenerationStart) -> BoxFuture<'static, Result<Generation<E>, StageFailure>> + Send,
>;

/// Everything the supervisor of a pipeline needs.
pub struct PipelineSpec<E> {
    /// The pipeline's place in the live tree; its stages appear under it.
    pub node: TreeNode,
    /// When to restart, how long to wait, when to give up.
    pub policy: RestartPolicy,
    /// Randomness of the backoff.
    pub jitter: Jitter,
    /// Starts a generation from the last durable state, and from nothing else.
    pub factory: GenerationFactory<E>,
}

/// How a pipeline ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineEnd {
    /// Every stage did all its work.
    Completed,
    /// It was stopped from outside; `killed` stages did not finish within their deadlines.
    Stopped {
        /// Stages that had to be killed.
        killed: u32,
    },
    /// A terminal failure, or too many failures in the window.
    GaveUp(StageFailure),
}

/// What others hold of a pipeline. Clones are the same pipeline.
pub struct PipelineHandle<E> {
    slot: SlotReader<E>,
    end: watch::Receiver<Option<PipelineEnd>>,
    supervisor: ActorCell,
}

impl<E> Clone for PipelineHandle<E> {
    fn clone(&self) -> Self {
        PipelineHandle {
            slot: self.slot.clone(),
            end: self.end.clone(),
            supervisor: self.supervisor.clone(),
        }
    }
}

/// Starts the supervisor of a pipeline; its first generation starts in the background.
///
/// With a parent, giving up reaches it as `ActorFailed` with a [`StageFailure`]. Parents must handle
/// supervision events, or they end with their child.
pub async fn spawn_pipeline<E>(
    spec: PipelineSpec<E>,
    parent: Option<ActorCell>,
) -> Result<PipelineHandle<E>, StageFailure>
where
    E: Clone + Send + Sync + 'static,
{
    let (slot, reader) = Slot::new();
    let (end_sender, end) = watch::channel(None);
    let args = (spec, slot, end_sender);
    let spawned = match parent {
        Some(parent) => Actor::spawn_linked(None, PipelineSupervisor::new(), args, parent).await,
        None => Actor::spawn(None, PipelineSupervisor::new(), args).await,
    };
    let (supervisor, _join) = spawned?;
    Ok(PipelineHandle {
        slot: reader,
        end,
        supervisor: supervisor.get_cell(),
    })
}

impl<E: Clone + Send + Sync + 'static> PipelineHandle<E> {
    /// What callers use of the current generation; `None` between generations and after the end.
    pub fn current(&self) -> Option<E> {
        self.slot.current()
    }

    /// A reader of the slot, for handles that outlive generations.
    pub fn slot(&self) -> SlotReader<E> {
        self.slot.clone()
    }

    /// Waits until a generation runs, or says how the pipeline ended instead.
    pub async fn started(&self, deadline: Duration) -> Result<E, PipelineEnd> {
        tokio::select! {
            biased;
            entry = self.slot.wait(deadline) => match entry {
                Some(entry) => Ok(entry),
                None => Err(self.end_now().unwrap_or_else(|| not_started(deadline))),
            },
            end = self.ended() => Err(end),
        }
    }

    /// Waits for the end.
    pub async fn ended(&self) -> PipelineEnd {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().expect("waited until there is one"),
            Err(_supervisor_gone) => self.end_now().unwrap_or_else(supervisor_lost),
        }
    }

    /// How it ended, if it has.
    pub fn end_now(&self) -> Option<PipelineEnd> {
        self.end.borrow().clone()
    }

    /// Stops it in order: source first, each stage drains, then is stopped, then killed, each within
    /// its deadline.
    pub async fn stop(&self) -> PipelineEnd {
        self.supervisor.stop(None);
        self.ended().await
    }
}

fn not_started(deadline: Duration) -> PipelineEnd {
    PipelineEnd::GaveUp(StageFailure::transient(
        "GENERATION_START_TIMEOUT",
        format!(
            "no generation was running after {} ms",
            deadline.as_millis()
        ),
    ))
}

fn supervisor_lost() -> PipelineEnd {
    PipelineEnd::GaveUp(StageFailure::transient(
        "SUPERVISOR_LOST",
        "the supervisor of the pipeline was ended from outside",
    ))
}
