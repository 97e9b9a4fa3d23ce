//! The Scenario Runner actor with scripted work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::json;
use wellspring_domain::ids::scenario_run_id;
use wellspring_domain::scenario::control::{
    ReemitResponse, ReemitVerdict, Refusal, RefusalClass, RunResponse, RunVerdict, ScenarioControl,
};
use wellspring_domain::scenario::reemit::ReemitRequest;
use wellspring_domain::scenario::request::RunRequest;
use wellspring_domain::scenario::state_machine::RunState;

use super::{
    ScenarioRunnerHandle, ScenarioRunnerLimits, ScenarioRunnerSpec, spawn_scenario_runner,
};
use crate::runtime::TreeHandle;

/// What one submission comes to.
enum Step {
    Verdict(RunVerdict),
    Panic,
    /// Waits until the test lets it go.
    Hold(Arc<(Mutex<bool>, Condvar)>),
}

#[derive(Default)]
struct Script {
    steps: Mutex<VecDeque<Step>>,
    at_work: AtomicU32,
    most_at_work: AtomicU32,
}

impl Script {
    fn of(steps: impl IntoIterator<Item = Step>) -> Arc<Script> {
        let steps = Mutex::new(steps.into_iter().collect());
        Arc::new(Script {
            steps,
            ..Script::default()
        })
    }
}

impl ScenarioControl for Script {
    fn submit(&self, request: &RunRequest) -> Result<RunResponse, Refusal> {
        let now = self.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_work.fetch_max(now, Ordering::SeqCst);
        let step = self.steps.lock().unwrap().pop_front();
        let verdict = match step {
            Some(Step::Verdict(verdict)) => verdict,
            Some(Step::Panic) => panic!("scripted"),
            Some(Step::Hold(gate)) => {
                let (open, changed) = &*gate;
                let held = changed.wait_while(open.lock().unwrap(), |open| !*open);
                drop(held);
                RunVerdict::Ready
            }
            None => RunVerdict::Ready,
        };
        self.at_work.fetch_sub(1, Ordering::SeqCst);
        Ok(RunResponse {
            run_id: scenario_run_id(&request.run_equivalence_key),
            state: RunState::Ready,
            status_ref: None,
            record_ref: None,
            facts_view_ref: None,
            message: String::new(),
            verdict,
            reason_code: None,
        })
    }

    fn reemit(&self, request: &ReemitRequest) -> Result<ReemitResponse, Refusal> {
        Ok(ReemitResponse {
            run_id: request.run_id.clone(),
            status_state: None,
            published: Vec::new(),
            message: String::new(),
            verdict: ReemitVerdict::NotFound,
            reason_code: None,
        })
    }
}

fn request(key: &str) -> RunRequest {
    serde_json::from_value(json!({
        "run_equivalence_key": key, "manifest_fingerprint": "a", "parameter_hash": "b", "seed": 1,
        "scenario": {"scenario_id": "s"},
        "window": {"window_start_utc": "x", "window_end_utc": "y"}
    }))
    .unwrap()
}

async fn runner(script: &Arc<Script>, limits: ScenarioRunnerLimits) -> ScenarioRunnerHandle {
    let tree = TreeHandle::new(Arc::new(|| 0));
    let spec = ScenarioRunnerSpec {
        control: script.clone(),
        limits,
        node: tree.node("scenario runner", "actor"),
    };
    spawn_scenario_runner(spec, None).await.unwrap().0
}

#[tokio::test]
async fn requests_are_worked_one_after_the_other_and_all_answered() {
    let script = Script::of([]);
    let handle = runner(&script, ScenarioRunnerLimits::default()).await;
    let calls = (0..8).map(|n| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.submit(request(&n.to_string())).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap().verdict, RunVerdict::Ready);
    }
    assert_eq!(script.most_at_work.load(Ordering::SeqCst), 1);
    assert_eq!(handle.inspect().await.unwrap().submissions, 8);
}

#[tokio::test]
async fn a_request_too_many_is_refused_at_once_and_the_waiting_ones_are_kept() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let script = Script::of([Step::Hold(gate.clone())]);
    let limits = ScenarioRunnerLimits {
        waiting_max: 2,
        ..ScenarioRunnerLimits::default()
    };
    let handle = runner(&script, limits).await;
    // Polled once each, in order: both hold their room before the third asks.
    let mut first = Box::pin(handle.submit(request("1")));
    let mut second = Box::pin(handle.submit(request("2")));
    tokio::select! {
        biased;
        _ = &mut first => panic!("the first is held"),
        _ = &mut second => panic!("the second waits behind it"),
        () = std::future::ready(()) => {}
    }
    let refused = handle.submit(request("3")).await.unwrap_err();
    assert_eq!(refused.code, "SCENARIO_RUNNER_BUSY");
    assert_eq!(refused.class, RefusalClass::Busy);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert!(first.await.is_ok() && second.await.is_ok());
    assert!(handle.submit(request("3")).await.is_ok(), "room came back");
}

#[tokio::test]
async fn work_that_panics_is_an_answer_and_the_next_request_is_worked_on() {
    let script = Script::of([Step::Panic]);
    let handle = runner(&script, ScenarioRunnerLimits::default()).await;
    let refused = handle.submit(request("1")).await.unwrap_err();
    assert_eq!(refused.code, "SCENARIO_RUNNER_FAILED");
    assert_eq!(
        handle.submit(request("1")).await.unwrap().verdict,
        RunVerdict::Ready
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_with_missing_evidence_is_looked_at_again_until_it_is_ready() {
    let waiting = || Step::Verdict(RunVerdict::Waiting);
    let script = Script::of([
        waiting(),
        waiting(),
        waiting(),
        Step::Verdict(RunVerdict::Ready),
    ]);
    let handle = runner(&script, ScenarioRunnerLimits::default()).await;
    handle.submit(request("1")).await.unwrap();
    handle.submit(request("1")).await.unwrap();
    let view = handle.inspect().await.unwrap();
    assert_eq!(
        view.rechecked_runs,
        [scenario_run_id("1")],
        "one entry, one timer"
    );
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(handle.inspect().await.unwrap().submissions, 3);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let view = handle.inspect().await.unwrap();
    assert_eq!(
        (view.submissions, view.rechecked_runs.len()),
        (4, 0),
        "READY ends it"
    );
}

#[tokio::test(start_paused = true)]
async fn only_so_many_runs_are_looked_at_again() {
    let waiting = || Step::Verdict(RunVerdict::Waiting);
    let script = Script::of([waiting(), waiting()]);
    let limits = ScenarioRunnerLimits {
        rechecked_runs_max: 1,
        ..ScenarioRunnerLimits::default()
    };
    let handle = runner(&script, limits).await;
    handle.submit(request("1")).await.unwrap();
    handle.submit(request("2")).await.unwrap();
    let view = handle.inspect().await.unwrap();
    assert_eq!((view.rechecked_runs.len(), view.rechecks_refused), (1, 1));
}

#[tokio::test]
async fn a_stopped_runner_says_so() {
    let handle = runner(&Script::of([]), ScenarioRunnerLimits::default()).await;
    handle.cell().stop_and_wait(None, None).await.unwrap();
    assert_eq!(
        handle.submit(request("1")).await.unwrap_err().code,
        "SCENARIO_RUNNER_STOPPED"
    );
}
