//! Pacing, backpressure, checkpoints and control of the pump, in virtual time.

use super::*;
use crate::runtime::no_jitter;
use crate::world_stream::checkpointer::CheckpointSettings;
use crate::world_stream::pace::Pace;
use crate::world_stream::testing::{Answer, FakeCheckpoints, FakeGate, FixedClock, batch};
use std::sync::Mutex;
use tokio::task::JoinHandle;
use wellspring_domain::ports::ItemOutcome;
use wellspring_domain::stream::cursor::FlushPolicy;
use wellspring_domain::stream::pacing::Schedule;
use wellspring_domain::stream::retry::RetryPolicy;

struct Rig {
    gate: Arc<FakeGate>,
    checkpoints: Arc<FakeCheckpoints>,
    reasons: Arc<Mutex<Vec<SaveReason>>>,
    progress: Arc<OutputProgress>,
    frames: mpsc::Sender<Framed>,
    control: watch::Sender<RunControl>,
    pump: JoinHandle<Result<PumpEnd, StageFailure>>,
}

fn rig(gate: Arc<FakeGate>, speedup: f64, flush_every: u64) -> Rig {
    let checkpoints = Arc::new(FakeCheckpoints::default());
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::new(OutputProgress::new());
    let (frames, framed) = mpsc::channel(2);
    let pace = Pace {
        schedule: Schedule::new(0, speedup),
        started: Instant::now(),
    };
    let (control, run_control) = watch::channel(RunControl::Run);
    let seen = reasons.clone();
    let settings = CheckpointSettings {
        store: checkpoints.clone(),
        clock: Arc::new(FixedClock),
        pack_key: "pack".to_owned(),
        flush: FlushPolicy::of_flush_every(flush_every),
        on_saved: Arc::new(move |_, reason| seen.lock().unwrap().push(reason)),
    };
    let log = ProgressLog::new(
        ProgressLogSettings::default(),
        "out".to_owned(),
        progress.clone(),
    );
    let policy = RetryPolicy::default();
    let pump = Pump {
        framed,
        sender: GateSender::new(gate.clone(), policy, no_jitter(), progress.clone()),
        checkpointer: Checkpointer::new(settings, "out".to_owned(), "view".to_owned()),
        pace: watch::channel(Some(pace)).1,
        run_control,
        stage_control: watch::channel(RunControl::Run).1,
        log,
    };
    let pump = tokio::spawn(pump.run());
    Rig {
        gate,
        checkpoints,
        reasons,
        progress,
        frames,
        control,
        pump,
    }
}

impl Rig {
    async fn send(&self, batch: StreamBatch) {
        self.frames.send(Framed::Batch(batch)).await.unwrap();
    }

    async fn end(&self, end: FrameEnd) {
        self.frames.send(Framed::End(end)).await.unwrap();
    }

    fn reasons(&self) -> Vec<SaveReason> {
        self.reasons.lock().unwrap().clone()
    }
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_released_when_its_last_event_is_due_and_never_earlier() {
    let rig = rig(FakeGate::new(4, vec![]), 60.0, 1);
    rig.send(batch(0..3, 60, PartEnd::No)).await;
    rig.send(batch(3..5, 180, PartEnd::Yes)).await;
    rig.end(FrameEnd::ViewComplete).await;
    tokio::time::sleep(Duration::from_millis(999)).await;
    assert_eq!(rig.gate.events().len(), 0);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(rig.gate.events(), ["0", "1", "2"]);
    tokio::time::sleep(Duration::from_millis(1_998)).await;
    assert_eq!(rig.gate.events().len(), 3);
    assert_eq!(rig.pump.await.unwrap(), Ok(PumpEnd::Complete));
    assert_eq!(rig.gate.events().len(), 5);
    assert!(
        rig.progress.view().lateness_p99_ms <= 1.1,
        "timers have a millisecond's grain"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_speedup_nothing_waits() {
    let rig = rig(FakeGate::new(4, vec![]), 0.0, 1);
    rig.send(batch(0..1, 1_000_000, PartEnd::No)).await;
    rig.end(FrameEnd::ViewComplete).await;
    let began = Instant::now();
    assert_eq!(rig.pump.await.unwrap(), Ok(PumpEnd::Complete));
    assert!(began.elapsed() < Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn lateness_behind_a_slow_gate_is_measured_and_the_schedule_does_not_drift() {
    let slow = Answer::After(
        Duration::from_secs(5),
        Box::new(Answer::All(ItemOutcome::Admitted)),
    );
    let rig = rig(FakeGate::new(1, vec![slow]), 1.0, 1);
    let began = Instant::now();
    for second in 0..8 {
        rig.send(batch(second..second + 1, second as i64, PartEnd::No))
            .await;
    }
    rig.end(FrameEnd::ViewComplete).await;
    rig.pump.await.unwrap().unwrap();
    // Rows 1 to 5 go out together at second 5, rows 6 and 7 at their own time again.
    assert!(
        began.elapsed() <= Duration::from_millis(7_100),
        "{:?}",
        began.elapsed()
    );
    let late = rig.progress.view().lateness_p99_ms;
    assert!(
        (3_990.0..4_010.0).contains(&late),
        "row 1 was 4 s late, measured {late}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gate_without_room_lets_exactly_its_room_through() {
    let rig = rig(FakeGate::with_room(3, 2), 0.0, 1);
    let feed = async {
        for row in 0..10 {
            rig.send(batch(row..row + 1, 0, PartEnd::No)).await;
        }
    };
    // Two taken by the gate, one waiting to be taken, one waiting in the pump, two in the channel.
    assert!(
        tokio::time::timeout(Duration::from_secs(60), feed)
            .await
            .is_err()
    );
    assert_eq!(rig.gate.events(), ["0", "1"]);
    assert_eq!(rig.frames.capacity(), 0);
    rig.gate.give_room(1);
    seconds(1).await;
    assert_eq!(rig.gate.events(), ["0", "1", "2"]);
    assert_eq!(rig.frames.capacity(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_never_passes_an_event_without_an_answer() {
    let after = |seconds, outcome| {
        Answer::After(Duration::from_secs(seconds), Box::new(Answer::All(outcome)))
    };
    let script = vec![
        after(0, ItemOutcome::Admitted),
        after(100, ItemOutcome::Admitted),
    ];
    let rig = rig(FakeGate::new(8, script), 0.0, 1);
    for row in 0..6 {
        rig.send(batch(row..row + 1, row as i64, PartEnd::No)).await;
    }
    seconds(50).await;
    assert_eq!(rig.gate.events().len(), 6, "the window is used");
    assert_eq!(
        rig.checkpoints.rows(),
        [0],
        "row 1 is unanswered, rows 2 to 5 are not"
    );
    seconds(60).await;
    assert_eq!(rig.checkpoints.rows(), [0, 5]);
    let cursor = rig
        .checkpoints
        .saved
        .lock()
        .unwrap()
        .last()
        .cloned()
        .unwrap();
    assert_eq!(
        cursor.last_ts_utc.as_deref(),
        Some("1970-01-01T00:00:05.000000Z")
    );
    assert_eq!(cursor.stream_view_id.as_deref(), Some("view"));
    assert_eq!(cursor.part_name.as_deref(), Some("part-0"));
}

#[tokio::test(start_paused = true)]
async fn a_save_comes_after_250_ms_at_the_latest_and_not_for_every_batch() {
    let rig = rig(FakeGate::new(8, vec![]), 1.0, 1_000);
    for tenth in 0..20u64 {
        let mut each = batch(tenth..tenth + 1, 0, PartEnd::No);
        each.last_ts.0 = tenth as i64 * 100_000;
        rig.send(each).await;
    }
    rig.end(FrameEnd::ViewComplete).await;
    rig.pump.await.unwrap().unwrap();
    let reasons = rig.reasons.lock().unwrap().clone();
    let periodic = reasons
        .iter()
        .filter(|reason| **reason == SaveReason::PeriodicFlush)
        .count();
    assert!(
        (6..=9).contains(&periodic),
        "{periodic} periodic saves in two seconds"
    );
    assert_eq!(reasons.last(), Some(&SaveReason::OutputComplete));
}

#[tokio::test(start_paused = true)]
async fn file_end_cap_and_output_end_always_save() {
    let complete = rig(FakeGate::new(1, vec![]), 0.0, 1_000_000);
    complete.send(batch(0..2, 0, PartEnd::Yes)).await;
    complete.end(FrameEnd::ViewComplete).await;
    assert_eq!(complete.pump.await.unwrap(), Ok(PumpEnd::Complete));
    assert_eq!(
        *complete.reasons.lock().unwrap().last().unwrap(),
        SaveReason::OutputComplete
    );
    assert_eq!(*complete.checkpoints.rows().last().unwrap(), 1);

    let capped = rig(FakeGate::new(1, vec![]), 0.0, 1_000_000);
    capped.send(batch(0..2, 0, PartEnd::No)).await;
    capped.end(FrameEnd::CapReached).await;
    assert_eq!(capped.pump.await.unwrap(), Ok(PumpEnd::CapReached));
    assert_eq!(*capped.reasons.lock().unwrap(), [SaveReason::MaxEvents]);

    let parts = rig(FakeGate::new(1, vec![]), 0.0, 1_000_000);
    parts.send(batch(0..2, 0, PartEnd::Yes)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(parts.reasons(), [SaveReason::FileComplete]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_row_fails_the_output_after_the_rows_before_it_are_saved() {
    let rig = rig(FakeGate::new(1, vec![]), 0.0, 1_000);
    rig.send(batch(0..2, 0, PartEnd::No)).await;
    let failure = StageFailure::terminal("PRIMARY_KEY_MISSING", "column flow_id");
    rig.end(FrameEnd::Failed(failure.clone())).await;
    assert_eq!(rig.pump.await.unwrap(), Err(failure));
    assert_eq!(rig.checkpoints.rows(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_answers_saves_and_leaves_the_rest_unsent() {
    let slow = Answer::After(
        Duration::from_secs(3),
        Box::new(Answer::All(ItemOutcome::Admitted)),
    );
    let rig = rig(FakeGate::new(1, vec![slow]), 0.0, 1_000_000);
    rig.send(batch(0..5, 0, PartEnd::No)).await;
    rig.send(batch(5..9, 0, PartEnd::No)).await;
    seconds(1).await;
    rig.control.send(RunControl::Stop).unwrap();
    assert_eq!(rig.pump.await.unwrap(), Ok(PumpEnd::Stopped));
    assert_eq!(rig.checkpoints.rows(), [4]);
    assert_eq!(*rig.reasons.lock().unwrap(), [SaveReason::Stop]);
    assert_eq!(rig.gate.events().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_pause_sends_nothing_new_and_a_resume_goes_on() {
    let rig = rig(FakeGate::new(1, vec![]), 0.0, 1);
    rig.control.send(RunControl::Pause).unwrap();
    rig.send(batch(0..1, 0, PartEnd::No)).await;
    seconds(3600).await;
    assert_eq!(rig.gate.events().len(), 0);
    rig.control.send(RunControl::Run).unwrap();
    rig.end(FrameEnd::ViewComplete).await;
    assert_eq!(rig.pump.await.unwrap(), Ok(PumpEnd::Complete));
    assert_eq!(rig.gate.events(), ["0"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_framing_thread_is_a_failure_not_an_end() {
    let rig = rig(FakeGate::new(1, vec![]), 0.0, 1);
    drop(rig.frames);
    let failure = rig.pump.await.unwrap().unwrap_err();
    assert_eq!(failure.code, "STREAM_FAILED");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_due_the_moment_another_comes_back_undecided_waits_behind_it() {
    let busy = ItemOutcome::Retry {
        code: "IG_UNHEALTHY".to_owned(),
        retry_after_ms: 500,
    };
    for late_ms in 995..=1_005 {
        let comes_back = Answer::After(
            Duration::from_millis(late_ms),
            Box::new(Answer::All(busy.clone())),
        );
        let rig = rig(FakeGate::new(4, vec![comes_back]), 60.0, 1);
        rig.send(batch(0..2, 60, PartEnd::No)).await;
        rig.send(batch(2..3, 120, PartEnd::Yes)).await;
        rig.end(FrameEnd::ViewComplete).await;
        assert_eq!(rig.pump.await.unwrap(), Ok(PumpEnd::Complete));
        let last: Vec<String> = rig.gate.events().split_off(2);
        let behind = ["0", "1", "2"];
        let before = ["2", "0", "1"]; // it was on its way before the answer came
        assert!(last == behind || last == before, "{late_ms} ms: {last:?}");
    }
}
