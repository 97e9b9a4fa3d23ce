//! The Scenario Runner as an actor: takes requests, works them one after the other, looks again at
//! runs whose evidence is missing.
//!
//! The work itself blocks (hashing, files, the engine) and runs on a blocking thread behind the
//! [`ScenarioControl`] port. A panic there is an answer, not the actor's end: nothing of a run lives
//! in the actor but the list of runs to look at again. Room is taken before a request is sent, so the
//! mailbox holds at most `waiting_max` requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use serde::Serialize;
use tokio::task::JoinHandle;
use wellspring_domain::scenario::control::{
    ReemitResponse, Refusal, RefusalClass, RunResponse, RunVerdict, ScenarioControl,
};
use wellspring_domain::scenario::reemit::ReemitRequest;
use wellspring_domain::scenario::request::RunRequest;

use crate::runtime::blocking;
use crate::runtime::tree::{NodeState, TreeNode};
use crate::runtime::{Credit, CreditLimits, Credits};

/// Bounds of the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScenarioRunnerLimits {
    /// Requests that may wait, the one at work included.
    pub waiting_max: u32,
    /// Runs with missing evidence that are looked at again.
    pub rechecked_runs_max: usize,
    /// Time between two looks at the same run.
    pub recheck_interval: Duration,
}

impl Default for ScenarioRunnerLimits {
    fn default() -> Self {
        ScenarioRunnerLimits {
            waiting_max: 32,
            rechecked_runs_max: 64,
            recheck_interval: Duration::from_secs(5),
        }
    }
}

/// What the actor is made of.
pub struct ScenarioRunnerSpec {
    /// Does the work.
    pub control: Arc<dyn ScenarioControl>,
    /// Bounds.
    pub limits: ScenarioRunnerLimits,
    /// Its place in the live tree.
    pub node: TreeNode,
}

/// Messages of the Scenario Runner actor.
enum ScenarioRunnerMsg {
    /// Work on a run; replies with how far it came.
    Submit {
        /// The request.
        request: Box<RunRequest>,
        /// Room for it, given back when it is answered.
        credit: Credit,
        /// Where the answer goes.
        reply: RpcReplyPort<Result<RunResponse, Refusal>>,
    },
    /// Say READY or a terminal state again.
    Reemit {
        /// The request.
        request: Box<ReemitRequest>,
        /// Room for it, given back when it is answered.
        credit: Credit,
        /// Where the answer goes.
        reply: RpcReplyPort<Result<ReemitResponse, Refusal>>,
    },
    /// Look again at a run whose evidence was missing.
    Recheck {
        /// The run.
        run_id: String,
    },
    /// What the actor holds.
    Inspect {
        /// Where the answer goes.
        reply: RpcReplyPort<ScenarioRunnerView>,
    },
}

/// What the actor holds, for status and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScenarioRunnerView {
    /// Submissions worked on, looks again included.
    pub submissions: u64,
    /// Re-emits worked on.
    pub reemits: u64,
    /// Runs that will be looked at again.
    pub rechecked_runs: Vec<String>,
    /// Runs with missing evidence that were not taken on, because the list was full.
    pub rechecks_refused: u64,
}

struct ScenarioRunnerState {
    spec: ScenarioRunnerSpec,
    waiting_runs: BTreeMap<String, RunRequest>,
    view: ScenarioRunnerView,
}

impl ScenarioRunnerState {
    /// Remembers a run that waits; true when it is to be looked at again.
    fn remember(&mut self, request: &RunRequest, response: &RunResponse) -> bool {
        match response.verdict {
            RunVerdict::Waiting | RunVerdict::ReadyUnpublished => {}
            // Somebody else works on it: whether it still waits is seen at the next look.
            RunVerdict::LeaseBusy => return false,
            _ended => {
                self.waiting_runs.remove(&response.run_id);
                return false;
            }
        }
        let known = self.waiting_runs.contains_key(&response.run_id);
        if !known && self.waiting_runs.len() >= self.spec.limits.rechecked_runs_max {
            self.view.rechecks_refused += 1;
            tracing::warn!(run_id = %response.run_id, "too many runs wait, one is not looked at again");
            return false;
        }
        self.waiting_runs
            .insert(response.run_id.clone(), request.clone());
        !known
    }
}

struct ScenarioRunnerActor;

impl Actor for ScenarioRunnerActor {
    type Msg = ScenarioRunnerMsg;
    type State = ScenarioRunnerState;
    type Arguments = ScenarioRunnerSpec;

    async fn pre_start(
        &self,
        _myself: ActorRef<ScenarioRunnerMsg>,
        spec: ScenarioRunnerSpec,
    ) -> Result<ScenarioRunnerState, ActorProcessingErr> {
        spec.node.set_state(NodeState::Running);
        Ok(ScenarioRunnerState {
            spec,
            waiting_runs: BTreeMap::new(),
            view: ScenarioRunnerView::default(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ScenarioRunnerMsg>,
        message: ScenarioRunnerMsg,
        state: &mut ScenarioRunnerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ScenarioRunnerMsg::Submit {
                request,
                credit,
                reply,
            } => {
                let result = submit(&myself, state, *request, Schedule::WhenNew).await;
                answer(reply, result);
                drop(credit);
            }
            ScenarioRunnerMsg::Reemit {
                request,
                credit,
                reply,
            } => {
                let control = state.spec.control.clone();
                state.view.reemits += 1;
                answer(reply, off_thread(move || control.reemit(&request)).await);
                drop(credit);
            }
            ScenarioRunnerMsg::Recheck { run_id } => {
                if let Some(request) = state.waiting_runs.get(&run_id).cloned() {
                    recheck(&myself, state, request).await;
                }
            }
            ScenarioRunnerMsg::Inspect { reply } => {
                let mut view = state.view.clone();
                view.rechecked_runs = state.waiting_runs.keys().cloned().collect();
                answer(reply, view);
            }
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<ScenarioRunnerMsg>,
        state: &mut ScenarioRunnerState,
    ) -> Result<(), ActorProcessingErr> {
        state.spec.node.set_state(NodeState::Stopped);
        Ok(())
    }
}

/// Whether a run that waits gets a new timer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Schedule {
    /// Only when it was not waiting before: a run has one timer.
    WhenNew,
    /// Always: its timer has just fired.
    Again,
}

async fn submit(
    myself: &ActorRef<ScenarioRunnerMsg>,
    state: &mut ScenarioRunnerState,
    request: RunRequest,
    schedule: Schedule,
) -> Result<RunResponse, Refusal> {
    let control = state.spec.control.clone();
    let work = request.clone();
    state.view.submissions += 1;
    let response = off_thread(move || control.submit(&work)).await?;
    let new = state.remember(&request, &response);
    let waits = state.waiting_runs.contains_key(&response.run_id);
    if waits && (new || schedule == Schedule::Again) {
        look_again_later(myself, state, response.run_id.clone());
    }
    Ok(response)
}

async fn recheck(
    myself: &ActorRef<ScenarioRunnerMsg>,
    state: &mut ScenarioRunnerState,
    request: RunRequest,
) {
    let run_id = wellspring_domain::ids::scenario_run_id(&request.run_equivalence_key);
    match submit(myself, state, request, Schedule::Again).await {
        Ok(_worked_on) => {}
        Err(refusal) if refusal.class == RefusalClass::Unavailable => {
            tracing::warn!(run_id, %refusal, "a waiting run could not be looked at, trying again");
            look_again_later(myself, state, run_id);
        }
        Err(refusal) => {
            tracing::warn!(run_id, %refusal, "a waiting run is not looked at any more");
            state.waiting_runs.remove(&run_id);
        }
    }
}

fn look_again_later(
    myself: &ActorRef<ScenarioRunnerMsg>,
    state: &ScenarioRunnerState,
    run_id: String,
) {
    // The timer ends with the actor: a message to a stopped actor goes nowhere.
    let _timer = myself.send_after(state.spec.limits.recheck_interval, move || {
        ScenarioRunnerMsg::Recheck { run_id }
    });
}

/// Runs blocking work on a blocking thread. A panic becomes a refusal: the run's ledger is whole at
/// every step, so the same request may be sent again.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match blocking::run("scenario-runner", work).await {
        Ok(result) => result,
        Err(failure) => {
            tracing::error!(%failure, "scenario runner work failed");
            Err(unavailable(
                "SCENARIO_RUNNER_FAILED",
                "the work on this request broke off",
            ))
        }
    }
}

fn answer<T>(reply: RpcReplyPort<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("the caller went away before its answer");
    }
}

fn unavailable(code: &str, message: &str) -> Refusal {
    Refusal {
        code: code.to_owned(),
        message: message.to_owned(),
        class: RefusalClass::Unavailable,
    }
}

/// What callers of the actor hold. Clones reach the same actor.
#[derive(Clone)]
pub struct ScenarioRunnerHandle {
    actor: ActorRef<ScenarioRunnerMsg>,
    credits: Credits,
}

/// Starts the actor; with a supervisor it is linked to it.
pub async fn spawn_scenario_runner(
    spec: ScenarioRunnerSpec,
    supervisor: Option<ActorCell>,
) -> Result<(ScenarioRunnerHandle, JoinHandle<()>), SpawnErr> {
    let waiting_max = spec.limits.waiting_max;
    let credits = Credits::new(CreditLimits {
        events_max: waiting_max,
        bytes_max: 1,
    });
    spec.node.show_credits(credits.clone());
    let (actor, join) = match supervisor {
        Some(supervisor) => {
            Actor::spawn_linked(None, ScenarioRunnerActor, spec, supervisor).await?
        }
        None => Actor::spawn(None, ScenarioRunnerActor, spec).await?,
    };
    Ok((ScenarioRunnerHandle { actor, credits }, join))
}

impl ScenarioRunnerHandle {
    /// Works on a run. Refused at once when too many requests wait.
    pub async fn submit(&self, request: RunRequest) -> Result<RunResponse, Refusal> {
        let credit = self.room()?;
        let request = Box::new(request);
        self.ask(|reply| ScenarioRunnerMsg::Submit {
            request,
            credit,
            reply,
        })
        .await?
    }

    /// Says READY or a terminal state again. Refused at once when too many requests wait.
    pub async fn reemit(&self, request: ReemitRequest) -> Result<ReemitResponse, Refusal> {
        let credit = self.room()?;
        let request = Box::new(request);
        self.ask(|reply| ScenarioRunnerMsg::Reemit {
            request,
            credit,
            reply,
        })
        .await?
    }

    /// What the actor holds.
    pub async fn inspect(&self) -> Result<ScenarioRunnerView, Refusal> {
        self.ask(|reply| ScenarioRunnerMsg::Inspect { reply }).await
    }

    /// The actor, for whoever stops it.
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    fn room(&self) -> Result<Credit, Refusal> {
        self.credits.try_take(1, 0).ok_or_else(|| Refusal {
            code: "SCENARIO_RUNNER_BUSY".to_owned(),
            message: "too many run requests wait; send this one again later".to_owned(),
            class: RefusalClass::Busy,
        })
    }

    /// Without a deadline: an engine may run for long, and a caller that went away is no loss.
    async fn ask<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> ScenarioRunnerMsg,
    ) -> Result<T, Refusal> {
        let gone = || {
            unavailable(
                "SCENARIO_RUNNER_STOPPED",
                "the scenario runner is not running",
            )
        };
        match self.actor.call(message, None).await {
            Ok(CallResult::Success(value)) => Ok(value),
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(gone()),
        }
    }
}
