//! Supervision by generations: the stages of one pipeline start and end together.
//!
//! A panic, an error, a hang (lost heartbeat), an unasked end and a failed start are one thing here:
//! the generation failed. Its stages are stopped and awaited, then the next generation starts after
//! a delay from the last durable state. Too many failures in the window, or one terminal failure,
//! give up: the pipeline ends and the parent learns why.
//!
//! What stays true: never two generations at once; between two, callers see an empty slot.

use super::failure::{STAGE_COMPLETE, StageFailure};
use super::pipeline::{PipelineEnd, PipelineSpec};
use super::restart_policy::FailureWindow;
use super::slot::Slot;
pub use super::stage::{Generation, GenerationStart, Stage};
use super::tree::{NodeState, TreeNode};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::marker::PhantomData;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The supervisor actor of one pipeline. Others use [`super::PipelineHandle`].
pub(super) struct PipelineSupervisor<E> {
    entry: PhantomData<fn() -> E>,
}

impl<E> PipelineSupervisor<E> {
    pub(super) fn new() -> Self {
        PipelineSupervisor { entry: PhantomData }
    }
}

/// Messages of the supervisor, sent by itself only.
pub(super) enum PipelineMsg<E> {
    /// The delay is over: start the next generation.
    Start,
    /// The factory is done with the generation of this number.
    Started {
        number: u64,
        result: Result<Generation<E>, StageFailure>,
    },
    /// Look for silent stages.
    CheckHeartbeats,
}

pub(super) struct PipelineState<E> {
    spec: PipelineSpec<E>,
    slot: Slot<E>,
    end: watch::Sender<Option<PipelineEnd>>,
    number: u64,
    phase: Phase,
    failures: FailureWindow,
}

enum Phase {
    /// Waiting for the delay.
    Waiting,
    /// The factory is at work; stages that ended meanwhile are kept with the reason.
    Starting {
        factory: AbortHandle,
        ended: Vec<(ActorId, StageEnd)>,
    },
    /// All stages run, save those that completed.
    Running {
        stages: Vec<RunningStage>,
        completed: usize,
    },
    /// Nothing will start any more.
    Over,
}

struct RunningStage {
    stage: Stage,
    node: TreeNode,
    ended: bool,
}

#[derive(Clone)]
enum StageEnd {
    Complete,
    Failed(StageFailure),
}

type PipelineArgs<E> = (PipelineSpec<E>, Slot<E>, watch::Sender<Option<PipelineEnd>>);
type Handled = Result<(), ActorProcessingErr>;

impl<E: Clone + Send + Sync + 'static> Actor for PipelineSupervisor<E> {
    type Msg = PipelineMsg<E>;
    type State = PipelineState<E>;
    type Arguments = PipelineArgs<E>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (spec, slot, end): PipelineArgs<E>,
    ) -> Result<Self::State, ActorProcessingErr> {
        if let Some(silence_max) = spec.policy.heartbeat_max {
            myself.send_interval(silence_max / 4, || PipelineMsg::CheckHeartbeats);
        }
        myself.cast(PipelineMsg::Start)?;
        let failures = FailureWindow::new();
        Ok(PipelineState {
            spec,
            slot,
            end,
            number: 0,
            phase: Phase::Waiting,
            failures,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Handled {
        match message {
            PipelineMsg::Start => {
                state.start(&myself);
                Ok(())
            }
            PipelineMsg::Started { number, result } if number == state.number => {
                state.started(&myself, result).await
            }
            PipelineMsg::Started { .. } => Ok(()),
            PipelineMsg::CheckHeartbeats => state.check_heartbeats(&myself).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Handled {
        match event {
            SupervisionEvent::ActorFailed(stage, cause) => {
                let failure = StageFailure::of_actor(&cause);
                state
                    .stage_ended(&myself, stage.get_id(), StageEnd::Failed(failure))
                    .await
            }
            SupervisionEvent::ActorTerminated(stage, _, reason) => {
                let end = stage_end_of(reason);
                state.stage_ended(&myself, stage.get_id(), end).await
            }
            _started_or_group => Ok(()),
        }
    }

    async fn post_stop(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Handled {
        if matches!(state.phase, Phase::Over) {
            return Ok(());
        }
        state.slot.clear();
        state.spec.node.set_state(NodeState::Draining);
        let killed = state.stop_in_order(&myself).await;
        state.finish(NodeState::Stopped, PipelineEnd::Stopped { killed });
        Ok(())
    }
}

impl<E: Clone + Send + Sync + 'static> PipelineState<E> {
    fn start(&mut self, myself: &ActorRef<PipelineMsg<E>>) {
        if !matches!(self.phase, Phase::Waiting) {
            return;
        }
        self.number += 1;
        self.spec.node.set_generation(self.number);
        self.spec.node.set_state(NodeState::Starting);
        let building = (self.spec.factory)(GenerationStart {
            supervisor: myself.get_cell(),
            number: self.number,
            node: self.spec.node.clone(),
        });
        let building = tokio::spawn(building);
        self.phase = Phase::Starting {
            factory: building.abort_handle(),
            ended: Vec::new(),
        };
        let (number, deadline) = (self.number, self.spec.policy.start_deadline);
        let reply = myself.clone();
        // Outside this actor, so that a stop is heard while a recovery runs.
        tokio::spawn(async move {
            let factory = building.abort_handle();
            let result = match tokio::time::timeout(deadline, building).await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(StageFailure::transient(
                    "GENERATION_START_PANICKED",
                    panic.to_string(),
                )),
                Err(_too_late) => {
                    factory.abort();
                    let detail = format!("not started within {} ms", deadline.as_millis());
                    Err(StageFailure::transient("GENERATION_START_TIMEOUT", detail))
                }
            };
            // A supervisor that is gone has stopped its stages itself.
            let _ = reply.cast(PipelineMsg::Started { number, result });
        });
    }

    async fn started(
        &mut self,
        myself: &ActorRef<PipelineMsg<E>>,
        result: Result<Generation<E>, StageFailure>,
    ) -> Handled {
        let Phase::Starting { ended, .. } = &mut self.phase else {
            return Ok(());
        };
        let ended = std::mem::take(ended);
        let generation = match result {
            Ok(generation) => generation,
            Err(failure) => return self.fail(myself, failure).await,
        };
        let stages = generation
            .stages
            .into_iter()
            .map(|stage| self.show(stage))
            .collect();
        self.phase = Phase::Running {
            stages,
            completed: 0,
        };
        self.spec.node.set_state(NodeState::Running);
        self.slot.fill(generation.entry);
        for (stage, end) in ended {
            self.stage_ended(myself, stage, end).await?;
        }
        Ok(())
    }

    fn show(&self, stage: Stage) -> RunningStage {
        let node = self.spec.node.child(&stage.name, "stage");
        node.set_generation(self.number);
        node.set_state(NodeState::Running);
        if let Some(credits) = &stage.credits {
            node.show_credits(credits.clone());
        }
        if let Some(depth) = &stage.queue_depth {
            node.show_queue_depth(depth.clone());
        }
        RunningStage {
            stage,
            node,
            ended: false,
        }
    }

    async fn stage_ended(
        &mut self,
        myself: &ActorRef<PipelineMsg<E>>,
        id: ActorId,
        end: StageEnd,
    ) -> Handled {
        let (stages, completed) = match &mut self.phase {
            Phase::Starting { ended, .. } => {
                ended.push((id, end));
                return Ok(());
            }
            Phase::Running { stages, completed } => (stages, completed),
            Phase::Waiting | Phase::Over => return Ok(()),
        };
        let Some(running) = stages
            .iter()
            .find(|running| running.stage.cell.get_id() == id)
        else {
            return Ok(()); // of an older generation
        };
        match end {
            StageEnd::Failed(failure) => {
                running.node.set_last_error(failure.to_string());
                running.node.set_state(NodeState::Failed);
                self.fail(myself, failure).await
            }
            StageEnd::Complete => {
                running.node.set_state(NodeState::Completed);
                *completed += 1;
                if *completed == stages.len() {
                    self.slot.clear();
                    self.finish(NodeState::Completed, PipelineEnd::Completed);
                    myself.stop(Some(STAGE_COMPLETE.to_string()));
                }
                Ok(())
            }
        }
    }

    async fn check_heartbeats(&mut self, myself: &ActorRef<PipelineMsg<E>>) -> Handled {
        let Some(silence_max) = self.spec.policy.heartbeat_max else {
            return Ok(());
        };
        let Phase::Running { stages, .. } = &self.phase else {
            return Ok(());
        };
        let silent = stages.iter().find_map(|running| {
            let silence = running.stage.heartbeat.as_ref()?.silence()?;
            (silence > silence_max).then(|| (running.stage.name.clone(), silence))
        });
        match silent {
            None => Ok(()),
            Some((stage, silence)) => {
                let detail = format!("stage {stage} was silent for {} ms", silence.as_millis());
                self.fail(myself, StageFailure::transient("HEARTBEAT_LOST", detail))
                    .await
            }
        }
    }

    /// Ends the generation and decides what comes next.
    async fn fail(&mut self, myself: &ActorRef<PipelineMsg<E>>, cause: StageFailure) -> Handled {
        self.slot.clear();
        self.spec.node.set_last_error(cause.to_string());
        if let Err(unkillable) = self.end_generation(myself).await {
            return self.give_up(unkillable);
        }
        if cause.kind == super::FailureKind::Terminal {
            return self.give_up(cause);
        }
        let spec = &mut self.spec;
        match self
            .failures
            .fail(Instant::now(), &spec.policy, &mut spec.jitter)
        {
            None => self.give_up(cause),
            Some(delay) => {
                tracing::warn!(
                    pipeline = spec.node.path(), generation = self.number, code = %cause.code,
                    detail = %cause.detail, delay_ms = delay.as_millis() as u64,
                    "a pipeline generation failed, the next one starts after the delay"
                );
                spec.node.set_state(NodeState::BackingOff);
                self.phase = Phase::Waiting;
                myself.send_after(delay, || PipelineMsg::Start);
                Ok(())
            }
        }
    }

    fn give_up(&mut self, cause: StageFailure) -> Handled {
        tracing::error!(
            pipeline = self.spec.node.path(), generation = self.number, code = %cause.code,
            detail = %cause.detail, "a pipeline gave up"
        );
        self.finish(NodeState::Failed, PipelineEnd::GaveUp(cause.clone()));
        Err(cause.into())
    }

    /// Stops every stage without draining: the next generation starts from durable state anyway.
    async fn end_generation(
        &mut self,
        myself: &ActorRef<PipelineMsg<E>>,
    ) -> Result<(), StageFailure> {
        for running in self.leave_phase() {
            if !running.ended {
                running.node.set_state(NodeState::Stopped);
            }
        }
        let policy = &self.spec.policy;
        // Every child, not only the listed ones: a failed start may have left some behind.
        for stage in myself.get_children() {
            stage.stop(None);
            if stage.wait(Some(policy.stop_deadline)).await.is_ok() {
                continue;
            }
            if stage
                .kill_and_wait(Some(policy.kill_deadline))
                .await
                .is_err()
            {
                // Starting anew beside a living stage could give a resource two owners.
                return Err(StageFailure::terminal(
                    "STAGE_NOT_STOPPABLE",
                    format!("a stage of {} does not end", self.spec.node.path()),
                ));
            }
        }
        Ok(())
    }

    /// Source first, so that each stage can finish what it holds. Says how many had to be killed.
    async fn stop_in_order(&mut self, myself: &ActorRef<PipelineMsg<E>>) -> u32 {
        let policy = self.spec.policy.clone();
        let mut killed = 0;
        for running in self.leave_phase() {
            if !running.ended {
                running.node.set_state(NodeState::Draining);
            }
            let cell = &running.stage.cell;
            // A stage that has ended already cannot be drained and need not be.
            let _ = cell.drain();
            if cell.wait(Some(policy.drain_deadline)).await.is_err() {
                cell.stop(None);
                if cell.wait(Some(policy.stop_deadline)).await.is_err() {
                    killed += 1;
                    let _ = cell.kill_and_wait(Some(policy.kill_deadline)).await;
                }
            }
            if !running.ended {
                running.node.set_state(NodeState::Stopped);
            }
        }
        // Stages of a start that was cut off.
        for stage in myself.get_children() {
            stage.stop(None);
            if stage.wait(Some(policy.stop_deadline)).await.is_err() {
                killed += 1;
                let _ = stage.kill_and_wait(Some(policy.kill_deadline)).await;
            }
        }
        killed
    }

    /// Ends the phase: no start goes on, no stage is watched. Gives back the stages that ran.
    fn leave_phase(&mut self) -> Vec<RunningStage> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Running { stages, .. } => stages,
            Phase::Starting { factory, .. } => {
                factory.abort();
                Vec::new()
            }
            Phase::Waiting | Phase::Over => Vec::new(),
        }
    }

    fn finish(&mut self, state: NodeState, end: PipelineEnd) {
        self.phase = Phase::Over;
        self.spec.node.set_state(state);
        self.end.send_replace(Some(end));
    }
}

fn stage_end_of(reason: Option<String>) -> StageEnd {
    match reason.as_deref() {
        Some(STAGE_COMPLETE) => StageEnd::Complete,
        other => {
            let detail = format!(
                "the stage ended unasked: {}",
                other.unwrap_or("no reason given")
            );
            StageEnd::Failed(StageFailure::transient("STAGE_ENDED", detail))
        }
    }
}
