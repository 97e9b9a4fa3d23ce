//! Whole runs over a world in memory: caps, failures, restarts, resumption.

use super::*;
use crate::runtime::TreeHandle;
use crate::world_stream::fake_world::World;
use crate::world_stream::result::StreamStatus;
use crate::world_stream::testing::{Answer, FakeCheckpoints, FakeGate, FixedClock};
use std::collections::BTreeMap;
use std::time::Duration;
use wellspring_domain::ports::{
    Cursor, EnvelopeBatch, ItemOutcome, PendingOutcomes, PushError, StoreError,
};
use wellspring_domain::stream::batch_cut::Paced;
use wellspring_domain::stream::framing::EnvelopePins;
use wellspring_domain::time_text::Micros;

/// One cursor an output, as real stores keep them.
#[derive(Default)]
struct Checkpoints(Mutex<BTreeMap<String, Cursor>>);

impl CheckpointStore for Checkpoints {
    fn load(&self, _pack_key: &str, output_id: &str) -> Result<Option<Cursor>, StoreError> {
        Ok(self.0.lock().unwrap().get(output_id).cloned())
    }
    fn save(&self, cursor: &Cursor, _updated_at: Micros) -> Result<(), StoreError> {
        self.0
            .lock()
            .unwrap()
            .insert(cursor.output_id.clone(), cursor.clone());
        Ok(())
    }
}

fn context(output_id: &str) -> Arc<FrameContext> {
    let pins = EnvelopePins {
        manifest_fingerprint: "a".repeat(64),
        parameter_hash: "b".repeat(64),
        seed: 1,
        scenario_id: "s".to_owned(),
        run_id: "c".repeat(32),
        platform_run_id: "platform_20260101T000000Z".to_owned(),
        scenario_run_id: "d".repeat(32),
    };
    Arc::new(FrameContext {
        output_id: output_id.to_owned(),
        primary_key: vec!["id".to_owned()],
        pins,
        producer: "svc:world_stream_producer".to_owned(),
        trace_id: "t".to_owned(),
        span_id: None,
    })
}

fn request(outputs: &[&str]) -> StreamRequest {
    StreamRequest {
        engine_run_root: "/world".to_owned(),
        engine_run_id: "c".repeat(32),
        scenario_id: "s".to_owned(),
        outputs: outputs.iter().map(|id| context(id)).collect(),
        checkpoint_pack_key: "pack".to_owned(),
        speedup: 0.0,
        caps: EventCaps::default(),
        output_concurrency: None,
    }
}

fn tuning() -> StreamTuning {
    let limits = BatchLimits {
        events_max: 16,
        ..BatchLimits::standard(Paced::No)
    };
    StreamTuning {
        limits,
        retry: RetryPolicy {
            delay_base_ms: 1,
            attempts_max: 2,
            ..RetryPolicy::default()
        },
        restart: RestartPolicy {
            backoff_first: Duration::from_millis(1),
            failures_max: 3,
            ..RestartPolicy::default()
        },
        flush: FlushPolicy {
            events_min: 1,
            interval_min_micros: 0,
            interval_max_micros: 1_000,
        },
        log: ProgressLogSettings::default(),
    }
}

fn ports(
    gate: Arc<dyn GateClient>,
    checkpoints: Arc<dyn CheckpointStore>,
    world: World,
) -> StreamPorts {
    StreamPorts {
        gate,
        source: Arc::new(world),
        checkpoints,
        clock: Arc::new(FixedClock),
        on_saved: Arc::new(|_, _| {}),
        node: TreeHandle::new(Arc::new(|| 0)).node("run", "supervisor"),
    }
}

fn world(parts: &[u64]) -> World {
    World {
        parts: parts.to_vec(),
        broken: Vec::new(),
    }
}

async fn stream(request: StreamRequest, ports: StreamPorts) -> StreamResult {
    let control = watch::channel(RunControl::Run).1;
    let progress = RunProgress::new(&request);
    stream_world(request, ports, tuning(), control, progress, None).await
}

/// The event ids a complete run of one output sends, in order.
async fn reference(parts: &[u64]) -> Vec<String> {
    let gate = FakeGate::new(4, vec![]);
    let ports = ports(gate.clone(), Arc::new(Checkpoints::default()), world(parts));
    stream(request(&["traffic"]), ports).await;
    gate.events()
        .iter()
        .map(|envelope| event_id(envelope))
        .collect()
}

fn event_id(envelope: &str) -> String {
    envelope[13..77].to_owned()
}

#[tokio::test]
async fn every_output_streams_to_its_end_and_parts_are_not_mixed() {
    let gate = FakeGate::new(4, vec![]);
    let checkpoints = Arc::new(FakeCheckpoints::default());
    let ports = ports(gate.clone(), checkpoints.clone(), world(&[20, 1, 30]));
    let result = stream(request(&["context", "traffic"]), ports).await;
    assert_eq!(
        (result.status, result.emitted),
        (StreamStatus::Streamed, 102)
    );
    assert_eq!(result.output_ids, ["context", "traffic"]);
    assert_eq!(result.outputs[1].rows, 51);
    let cursors = checkpoints.saved.lock().unwrap().clone();
    let last = cursors
        .iter()
        .rfind(|cursor| cursor.output_id == "traffic")
        .unwrap();
    assert_eq!(
        (last.part_name.as_deref(), last.last_row_index),
        (Some("part-000002.parquet"), 29)
    );
    let mut sizes: Vec<usize> = gate.submits().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 4, 4, 14, 14, 16, 16, 16, 16]);
}

#[tokio::test]
async fn a_cap_per_output_of_200_with_two_outputs_emits_400() {
    let gate = FakeGate::new(4, vec![]);
    let ports = ports(
        gate.clone(),
        Arc::new(Checkpoints::default()),
        world(&[300]),
    );
    let caps = EventCaps {
        per_output: Some(200),
        run: None,
    };
    let result = stream(
        StreamRequest {
            caps,
            ..request(&["a", "b"])
        },
        ports,
    )
    .await;
    assert_eq!(
        (result.status, result.emitted),
        (StreamStatus::Streamed, 400)
    );
    assert_eq!(gate.events().len(), 400);
}

#[tokio::test]
async fn one_by_one_the_cap_of_the_run_is_shared() {
    let gate = FakeGate::new(4, vec![]);
    let ports = ports(
        gate.clone(),
        Arc::new(Checkpoints::default()),
        world(&[300]),
    );
    let caps = EventCaps {
        per_output: None,
        run: Some(400),
    };
    let one_by_one = StreamRequest {
        caps,
        output_concurrency: Some(1),
        ..request(&["a", "b"])
    };
    let result = stream(one_by_one, ports).await;
    let rows: Vec<u64> = result.outputs.iter().map(|output| output.rows).collect();
    assert_eq!(rows, [300, 100]);
}

#[tokio::test]
async fn a_failed_output_fails_the_run_and_leaves_the_others_alone() {
    let gate = FakeGate::new(4, vec![]);
    let broken = World {
        parts: vec![40],
        broken: vec!["context".to_owned()],
    };
    let ports = ports(gate.clone(), Arc::new(Checkpoints::default()), broken);
    let result = stream(request(&["context", "traffic"]), ports).await;
    assert_eq!((result.status, result.emitted), (StreamStatus::Failed, 40));
    assert_eq!(result.reason.as_deref(), Some("STREAM_VIEW_MISSING"));
    assert_eq!(result.outputs[0].status, StreamStatus::Failed);
    assert_eq!(result.outputs[1].status, StreamStatus::Streamed);
}

#[tokio::test]
async fn exhausted_retries_restart_the_output_and_then_give_up_with_the_code() {
    let refused = || {
        Answer::NotTaken(PushError::Transient {
            detail: "http_502".to_owned(),
        })
    };
    let expected = reference(&[40]).await;
    let gate = FakeGate::new(1, (0..4).map(|_| refused()).collect());
    let own = ports(gate.clone(), Arc::new(Checkpoints::default()), world(&[40]));
    let result = stream(request(&["traffic"]), own).await;
    assert_eq!(
        result.status,
        StreamStatus::Streamed,
        "two generations failed, the third went on"
    );
    let sent: Vec<String> = gate.events()[64..]
        .iter()
        .map(|envelope| event_id(envelope))
        .collect();
    assert_eq!(sent, expected);

    let gate = FakeGate::new(1, (0..99).map(|_| refused()).collect());
    let ports = ports(gate, Arc::new(Checkpoints::default()), world(&[40]));
    let result = stream(request(&["traffic"]), ports).await;
    assert_eq!(result.reason.as_deref(), Some("IG_PUSH_RETRY_EXHAUSTED"));
    assert_eq!(result.detail.as_deref(), Some("http_502"));
}

#[tokio::test]
async fn a_run_cut_off_at_any_batch_resumes_without_a_gap() {
    let parts = [20, 1, 30];
    let expected = reference(&parts).await;
    for batches_before in 0..6 {
        let checkpoints = Arc::new(Checkpoints::default());
        let mut script: Vec<Answer> = (0..batches_before)
            .map(|_| Answer::All(ItemOutcome::Admitted))
            .collect();
        let rejected = PushError::Rejected {
            status: 400,
            detail: "cut".to_owned(),
        };
        script.push(Answer::NoAnswers(rejected));
        let first = FakeGate::new(1, script);
        let cut = stream(
            request(&["traffic"]),
            ports(first.clone(), checkpoints.clone(), world(&parts)),
        )
        .await;
        let accepted = cut.emitted as usize;

        let second = FakeGate::new(4, vec![]);
        let rest = stream(
            request(&["traffic"]),
            ports(second.clone(), checkpoints, world(&parts)),
        )
        .await;
        assert_eq!(rest.status, StreamStatus::Streamed);
        let resumed: Vec<String> = second.events().iter().map(|e| event_id(e)).collect();
        let start = expected.len() - resumed.len();
        assert_eq!(
            resumed,
            expected[start..],
            "cut after {batches_before} batches"
        );
        assert!(
            start <= accepted,
            "resumed at {start}, only {accepted} were accepted"
        );
    }
}

#[tokio::test]
async fn a_finished_output_has_nothing_left_to_send() {
    let checkpoints = Arc::new(Checkpoints::default());
    let gate = FakeGate::new(4, vec![]);
    stream(
        request(&["traffic"]),
        ports(gate.clone(), checkpoints.clone(), world(&[20])),
    )
    .await;
    let again = stream(
        request(&["traffic"]),
        ports(gate.clone(), checkpoints, world(&[20])),
    )
    .await;
    assert_eq!((again.status, again.emitted), (StreamStatus::Streamed, 0));
    assert_eq!(gate.events().len(), 20);
}

/// A gate that asks for a stop once it has seen a batch.
struct StoppingGate(Arc<FakeGate>, watch::Sender<RunControl>);

impl GateClient for StoppingGate {
    fn submit(
        &self,
        batch: EnvelopeBatch,
    ) -> wellspring_domain::ports::BoxFuture<'_, Result<PendingOutcomes, PushError>> {
        self.1.send_replace(RunControl::Stop);
        self.0.submit(batch)
    }
    fn window(&self) -> usize {
        1
    }
}

#[tokio::test]
async fn a_stopped_run_is_neither_streamed_nor_failed_and_has_saved_what_it_sent() {
    let checkpoints = Arc::new(Checkpoints::default());
    let (command, control) = watch::channel(RunControl::Run);
    let gate = FakeGate::new(1, vec![]);
    let stopping = Arc::new(StoppingGate(gate.clone(), command));
    let ports = ports(stopping, checkpoints.clone(), world(&[40]));
    let request = request(&["traffic"]);
    let progress = RunProgress::new(&request);
    let result = stream_world(request, ports, tuning(), control, progress, None).await;
    assert_eq!(
        (result.status, result.reason),
        (StreamStatus::Stopped, None)
    );
    assert_eq!(gate.events().len(), 16);
    let cursor = checkpoints.load("pack", "traffic").unwrap().unwrap();
    assert_eq!(cursor.last_row_index, 15);
}

#[tokio::test(start_paused = true)]
async fn all_outputs_share_one_schedule_and_a_pause_moves_it_on() {
    let (command, control) = watch::channel(RunControl::Run);
    let gate = FakeGate::new(4, vec![]);
    let request = StreamRequest {
        speedup: 1.0,
        ..request(&["a", "b"])
    };
    let progress = RunProgress::new(&request);
    let ports = ports(gate.clone(), Arc::new(Checkpoints::default()), world(&[4]));
    let mut run = Run::new(request, ports, tuning(), control, progress, None);
    let report = |id: &str, first: i64| OpenedReport {
        output_id: id.to_owned(),
        first_ts: Some(Micros(first)),
    };
    run.output_opened(report("a", 9_000_000));
    assert!(
        run.paces[0].borrow().is_none(),
        "b has not said where it starts"
    );
    run.output_opened(report("b", 5_000_000));
    let began = Instant::now();
    for pace in &run.paces {
        let pace = pace.borrow().unwrap();
        assert_eq!(pace.due(Micros(5_000_000)), began);
        assert_eq!(pace.due(Micros(9_000_000)), began + Duration::from_secs(4));
    }
    run.output_opened(report("b", 1_000_000)); // a restarted output keeps the schedule
    command.send_replace(RunControl::Pause);
    run.control_changed();
    tokio::time::sleep(Duration::from_secs(60)).await;
    command.send_replace(RunControl::Run);
    run.control_changed();
    let pace = run.paces[1].borrow().unwrap();
    assert_eq!(pace.due(Micros(9_000_000)), began + Duration::from_secs(64));
}

/// Found by the seeded simulation (seed 38): the schedule began in 1970, so nothing was ever due.
#[tokio::test(start_paused = true)]
async fn an_output_that_opens_at_the_second_try_starts_the_schedule() {
    let (_command, control) = watch::channel(RunControl::Run);
    let gate = FakeGate::new(4, vec![]);
    let request = StreamRequest {
        speedup: 1.0,
        ..request(&["a"])
    };
    let progress = RunProgress::new(&request);
    let ports = ports(gate, Arc::new(Checkpoints::default()), world(&[4]));
    let mut run = Run::new(request, ports, tuning(), control, progress, None);
    let report = |first_ts| OpenedReport {
        output_id: "a".to_owned(),
        first_ts,
    };
    run.output_opened(report(None));
    assert!(run.paces[0].borrow().is_none(), "it has no start yet");
    run.output_opened(report(Some(Micros(9_000_000))));
    let pace = run.paces[0].borrow().unwrap();
    assert_eq!(pace.due(Micros(9_000_000)), Instant::now());
}
