//! Supervision tests: every way a generation can fail, and every way a pipeline can end.

use super::*;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a test tells its stage to do.
enum StageMsg {
    Work { credit: Credit, takes: Duration },
    Panic,
    Fail(StageFailure),
    Hang,
    Complete,
    Leave,
}

/// What happened, in order; shared by all generations.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct StageArgs {
    name: String,
    journal: Journal,
    heartbeat: Heartbeat,
}

struct TestStage;

impl Actor for TestStage {
    type Msg = StageMsg;
    type State = StageArgs;
    type Arguments = StageArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<StageMsg>,
        args: StageArgs,
    ) -> Result<StageArgs, ActorProcessingErr> {
        args.journal.add(format!("{} started", args.name));
        Ok(args)
    }

    async fn handle(
        &self,
        myself: ActorRef<StageMsg>,
        message: StageMsg,
        state: &mut StageArgs,
    ) -> Result<(), ActorProcessingErr> {
        let _busy = state.heartbeat.busy();
        match message {
            StageMsg::Work { credit, takes } => {
                tokio::time::sleep(takes).await;
                state
                    .journal
                    .add(format!("{} did {}", state.name, credit.events()));
            }
            StageMsg::Panic => panic!("boom"),
            StageMsg::Fail(failure) => return Err(failure.into()),
            StageMsg::Hang => std::future::pending::<()>().await,
            StageMsg::Complete => myself.stop(Some(STAGE_COMPLETE.to_string())),
            StageMsg::Leave => myself.stop(None),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<StageMsg>,
        state: &mut StageArgs,
    ) -> Result<(), ActorProcessingErr> {
        state.journal.add(format!("{} stopped", state.name));
        Ok(())
    }
}

/// The entry of a test pipeline: references to its stages.
type Entry = Vec<ActorRef<StageMsg>>;

struct Bench {
    pipeline: PipelineHandle<Entry>,
    journal: Journal,
    tree: TreeHandle,
    credits: Credits,
}

fn policy() -> RestartPolicy {
    RestartPolicy {
        failures_max: 3,
        heartbeat_max: Some(Duration::from_secs(10)),
        ..Default::default()
    }
}

async fn bench(stages: usize, policy: RestartPolicy) -> Bench {
    bench_failing(stages, policy, Vec::new()).await
}

/// The first generations fail to start, with these failures.
async fn bench_failing(stages: usize, policy: RestartPolicy, starts: Vec<StageFailure>) -> Bench {
    let journal = Journal::default();
    let tree = TreeHandle::new(Arc::new(|| 0));
    let credits = Credits::new(CreditLimits {
        events_max: 100,
        bytes_max: 1000,
    });
    let (of_stages, of_credits) = (journal.clone(), credits.clone());
    let mut failing = starts.into_iter();
    let factory = move |start: GenerationStart| {
        let (journal, credits, failure) = (of_stages.clone(), of_credits.clone(), failing.next());
        let future: BoxFuture<'static, _> = Box::pin(async move {
            let (mut entry, mut started) = (Entry::new(), Vec::new());
            for index in 0..stages {
                let name = format!("{}.{index}", start.number);
                let heartbeat = Heartbeat::new();
                let args = StageArgs {
                    name,
                    journal: journal.clone(),
                    heartbeat: heartbeat.clone(),
                };
                let (stage, _) =
                    Actor::spawn_linked(None, TestStage, args, start.supervisor.clone()).await?;
                let seen = Stage::new(format!("stage {index}"), stage.get_cell());
                started.push(seen.with_heartbeat(heartbeat).with_credits(credits.clone()));
                entry.push(stage);
            }
            match failure {
                Some(failure) => Err(failure),
                None => Ok(Generation {
                    entry,
                    stages: started,
                }),
            }
        });
        future
    };
    let spec = PipelineSpec {
        node: tree.node("pipeline", "pipeline"),
        policy,
        jitter: no_jitter(),
        factory: Box::new(factory),
    };
    let pipeline = spawn_pipeline(spec, None).await.unwrap();
    Bench {
        pipeline,
        journal,
        tree,
        credits,
    }
}

impl Bench {
    async fn entry(&self) -> Entry {
        self.pipeline
            .started(Duration::from_secs(600))
            .await
            .unwrap()
    }

    fn restarts(&self) -> u64 {
        self.tree.snapshot()[0].restarts
    }

    /// Sends the message to a stage of the current generation and waits for the next generation.
    async fn replaced_after(&self, stage: usize, message: StageMsg) -> Entry {
        let entry = self.entry().await;
        entry[stage].cast(message).unwrap();
        let before = entry[stage].get_id();
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if let Some(next) = self
                .pipeline
                .current()
                .filter(|next| next[stage].get_id() != before)
            {
                return next;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_replaces_every_stage_of_the_generation() {
    let bench = bench(2, policy()).await;
    bench.replaced_after(1, StageMsg::Panic).await;
    assert_eq!(
        bench.journal.lines(),
        [
            "1.0 started",
            "1.1 started",
            "1.0 stopped",
            "2.0 started",
            "2.1 started"
        ]
    );
    assert_eq!(bench.restarts(), 1);
    let views = bench.tree.snapshot();
    assert_eq!(views[0].last_error.as_deref(), Some("STAGE_FAILED: boom"));
    assert_eq!(views[2].path, "pipeline/stage 1");
    assert_eq!(views[2].state, NodeState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_typed_error_replaces_the_generation_and_its_code_is_shown() {
    let bench = bench(1, policy()).await;
    let failure = StageFailure::transient("IG_PUSH_RETRY_EXHAUSTED", "http_503");
    bench.replaced_after(0, StageMsg::Fail(failure)).await;
    let view = &bench.tree.snapshot()[0];
    assert_eq!(
        view.last_error.as_deref(),
        Some("IG_PUSH_RETRY_EXHAUSTED: http_503")
    );
    assert_eq!(view.state, NodeState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_hang_is_found_by_the_missing_heartbeat_and_the_stage_is_killed() {
    let bench = bench(1, policy()).await;
    bench.replaced_after(0, StageMsg::Hang).await;
    let error = bench.tree.snapshot()[0].last_error.clone().unwrap();
    assert!(
        error.starts_with("HEARTBEAT_LOST: stage stage 0 was silent for 12500 ms"),
        "{error}"
    );
    // Killed: post_stop did not run.
    assert_eq!(bench.journal.lines(), ["1.0 started", "2.0 started"]);
}

#[tokio::test(start_paused = true)]
async fn an_unasked_end_of_a_stage_is_a_failure() {
    let bench = bench(1, policy()).await;
    bench.replaced_after(0, StageMsg::Leave).await;
    assert_eq!(bench.restarts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_retried_and_leaves_no_stage_behind() {
    let failures = vec![StageFailure::transient("STORE_UNAVAILABLE", "no answer"); 2];
    let bench = bench_failing(1, policy(), failures).await;
    bench.entry().await;
    let lines = bench.journal.lines();
    assert_eq!(
        lines,
        [
            "1.0 started",
            "1.0 stopped",
            "2.0 started",
            "2.0 stopped",
            "3.0 started"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_terminal_failure_gives_up_at_once_with_its_reason() {
    let failure = StageFailure::terminal("FORMAT_UNKNOWN", "version 9");
    let bench = bench_failing(1, policy(), vec![failure.clone()]).await;
    assert_eq!(
        bench.pipeline.ended().await,
        PipelineEnd::GaveUp(failure.clone())
    );
    let started = bench.pipeline.started(Duration::from_secs(1)).await;
    assert_eq!(started.unwrap_err(), PipelineEnd::GaveUp(failure));
    assert_eq!(bench.tree.snapshot()[0].state, NodeState::Failed);
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_in_the_window_give_up() {
    let bench = bench(1, policy()).await;
    let failure = || StageFailure::transient("STORE_UNAVAILABLE", "no answer");
    for _ in 0..3 {
        bench.replaced_after(0, StageMsg::Fail(failure())).await;
    }
    bench.entry().await[0]
        .cast(StageMsg::Fail(failure()))
        .unwrap();
    assert_eq!(bench.pipeline.ended().await, PipelineEnd::GaveUp(failure()));
    assert!(bench.pipeline.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn failures_spread_over_time_never_give_up() {
    let bench = bench(1, policy()).await;
    for _ in 0..20 {
        bench.replaced_after(0, StageMsg::Panic).await;
        tokio::time::sleep(Duration::from_secs(121)).await;
    }
    assert_eq!(bench.restarts(), 20);
}

#[tokio::test(start_paused = true)]
async fn no_credit_is_lost_when_a_generation_dies_with_a_full_mailbox() {
    let bench = bench(1, policy()).await;
    let stage = bench.entry().await[0].clone();
    stage.cast(StageMsg::Panic).unwrap();
    for _ in 0..10 {
        let credit = bench.credits.take(10, 100).await;
        // Sent or not, the credit is back when the message is gone.
        let _ = stage.cast(StageMsg::Work {
            credit,
            takes: Duration::from_millis(1),
        });
    }
    assert_eq!(bench.credits.gauges().events_in_use, 100);
    bench.replaced_after(0, StageMsg::Leave).await;
    assert_eq!(bench.credits.gauges().events_in_use, 0);
    assert_eq!(bench.credits.gauges().bytes_in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_works_off_the_mailboxes_source_first() {
    let bench = bench(2, policy()).await;
    let entry = bench.entry().await;
    for stage in [1, 0] {
        let credit = bench.credits.take(5, 1).await;
        entry[stage]
            .cast(StageMsg::Work {
                credit,
                takes: Duration::from_millis(50),
            })
            .unwrap();
    }
    assert_eq!(
        bench.pipeline.stop().await,
        PipelineEnd::Stopped { killed: 0 }
    );
    let lines = bench.journal.lines();
    let position = |line: &str| lines.iter().position(|seen| seen == line).unwrap();
    assert!(position("1.0 did 5") < position("1.0 stopped"));
    assert!(position("1.1 did 5") < position("1.1 stopped"));
    assert!(position("1.0 stopped") < position("1.1 stopped"));
    assert_eq!(bench.credits.gauges().events_in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_does_not_stop_is_killed_and_counted() {
    let bench = bench(
        2,
        RestartPolicy {
            heartbeat_max: None,
            ..policy()
        },
    )
    .await;
    bench.entry().await[0].cast(StageMsg::Hang).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(
        bench.pipeline.stop().await,
        PipelineEnd::Stopped { killed: 1 }
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_backoff_starts_nothing_more() {
    let bench = bench(1, policy()).await;
    bench.entry().await[0].cast(StageMsg::Panic).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.tree.snapshot()[0].state, NodeState::BackingOff);
    assert_eq!(
        bench.pipeline.stop().await,
        PipelineEnd::Stopped { killed: 0 }
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.journal.lines(), ["1.0 started"]);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_whose_stages_all_complete_is_completed() {
    let bench = bench(2, policy()).await;
    let entry = bench.entry().await;
    entry[0].cast(StageMsg::Complete).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.pipeline.end_now(), None);
    entry[1].cast(StageMsg::Complete).unwrap();
    assert_eq!(bench.pipeline.ended().await, PipelineEnd::Completed);
    assert!(
        bench
            .tree
            .snapshot()
            .iter()
            .all(|view| view.state == NodeState::Completed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_while_a_generation_is_still_starting() {
    let tree = TreeHandle::new(Arc::new(|| 0));
    let dropped = Arc::new(AtomicU64::new(0));
    let seen = dropped.clone();
    let factory = move |_start: GenerationStart| {
        let guard = CountDrop(seen.clone());
        let future: BoxFuture<'static, Result<Generation<()>, StageFailure>> =
            Box::pin(async move {
                let _guard = guard;
                std::future::pending().await
            });
        future
    };
    let spec = PipelineSpec {
        node: tree.node("slow", "pipeline"),
        policy: policy(),
        jitter: no_jitter(),
        factory: Box::new(factory),
    };
    let pipeline = spawn_pipeline(spec, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pipeline.stop().await, PipelineEnd::Stopped { killed: 0 });
    tokio::task::yield_now().await;
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

struct CountDrop(Arc<AtomicU64>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
