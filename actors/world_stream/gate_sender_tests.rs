//! The retry table, order and window of the sender, in virtual time.

use super::*;
use crate::runtime::no_jitter;
use crate::world_stream::batch::PartEnd;
use crate::world_stream::testing::{Answer, FakeGate, batch};

fn sender(gate: &Arc<FakeGate>) -> (GateSender, Arc<OutputProgress>) {
    let progress = Arc::new(OutputProgress::new());
    let policy = RetryPolicy::default();
    (
        GateSender::new(gate.clone(), policy, no_jitter(), progress.clone()),
        progress,
    )
}

/// Pushes batches of one row each and waits until all are decided.
async fn send_all(
    sender: &mut GateSender,
    rows: std::ops::Range<u64>,
) -> Result<Vec<u64>, StageFailure> {
    let mut next = rows.start;
    let mut decided = Vec::new();
    while decided.len() < (rows.end - rows.start) as usize {
        if sender.has_room() && next < rows.end {
            sender.push(batch(next..next + 1, 0, PartEnd::No), Duration::ZERO);
            next += 1;
            continue;
        }
        if let SenderEvent::Decided(batch) = sender.next().await? {
            decided.push(batch.last_row);
        }
    }
    Ok(decided)
}

fn retry(retry_after_ms: u64) -> ItemOutcome {
    ItemOutcome::Retry {
        code: "PUBLISH_IN_FLIGHT_RETRY".to_owned(),
        retry_after_ms,
    }
}

fn transient() -> PushError {
    PushError::Transient {
        detail: "timeout".to_owned(),
    }
}

fn backpressure(retry_after_ms: u64) -> PushError {
    PushError::Backpressure {
        code: "RATE_LIMITED".to_owned(),
        retry_after_ms,
    }
}

#[tokio::test(start_paused = true)]
async fn batches_come_back_in_order_however_the_answers_arrive() {
    let slow = |ms, answer| Answer::After(Duration::from_millis(ms), Box::new(answer));
    let gate = FakeGate::new(
        3,
        vec![
            slow(300, Answer::All(ItemOutcome::Admitted)),
            slow(10, Answer::All(ItemOutcome::Duplicate)),
            Answer::All(ItemOutcome::Quarantined {
                code: "SCHEMA_FAIL".to_owned(),
            }),
        ],
    );
    let (mut sender, progress) = sender(&gate);
    assert_eq!(send_all(&mut sender, 0..5).await.unwrap(), [0, 1, 2, 3, 4]);
    let tally = Tally {
        admitted: 3,
        duplicate: 1,
        quarantined: 1,
    };
    assert_eq!(progress.tally(), tally);
    assert_eq!(progress.view().elapsed, Duration::from_millis(310));
}

#[tokio::test(start_paused = true)]
async fn no_more_batches_than_the_window_are_on_their_way() {
    let never = || Answer::After(Duration::from_secs(3600), Box::new(Answer::Items(vec![])));
    let gate = FakeGate::new(2, vec![never(), never()]);
    let (mut sender, _) = sender(&gate);
    for row in 0..2 {
        sender.push(batch(row..row + 1, 0, PartEnd::No), Duration::ZERO);
        assert!(
            !sender.has_room(),
            "a batch the gate has not taken blocks the next"
        );
        assert!(matches!(sender.next().await.unwrap(), SenderEvent::Taken));
    }
    assert!(!sender.has_room());
    assert_eq!(gate.submits().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_undecided_events_are_sent_again_and_nothing_overtakes_them() {
    let gate = FakeGate::new(
        4,
        vec![
            Answer::After(
                Duration::from_millis(10),
                Box::new(Answer::Items(vec![
                    ItemOutcome::Admitted,
                    retry(0),
                    retry(0),
                ])),
            ),
            Answer::Items(vec![retry(0), ItemOutcome::Admitted]),
        ],
    );
    let (mut sender, progress) = sender(&gate);
    sender.push(batch(0..3, 0, PartEnd::No), Duration::ZERO);
    assert!(matches!(sender.next().await.unwrap(), SenderEvent::Taken));
    sender.push(batch(3..5, 0, PartEnd::No), Duration::ZERO);
    let mut decided = Vec::new();
    while decided.len() < 2 {
        match sender.next().await.unwrap() {
            SenderEvent::Decided(batch) => decided.push(batch.last_row),
            SenderEvent::Taken => assert!(gate.submits().len() < 3 || !sender.has_room()),
        }
    }
    assert_eq!(decided, [2, 4]);
    assert_eq!(
        gate.submits(),
        [
            vec!["0", "1", "2"],
            vec!["3", "4"],
            vec!["1", "2"],
            vec!["3"]
        ]
    );
    assert_eq!(progress.tally().admitted, 5);
    assert!(sender.has_room());
}

#[tokio::test(start_paused = true)]
async fn a_batch_the_gate_has_not_taken_waits_behind_the_undecided_ones() {
    let gate = FakeGate::with_room(4, 1);
    gate.answer_next(Answer::After(
        Duration::from_millis(10),
        Box::new(Answer::All(retry(0))),
    ));
    let (mut sender, progress) = sender(&gate);
    sender.push(batch(0..1, 0, PartEnd::No), Duration::ZERO);
    assert!(matches!(sender.next().await.unwrap(), SenderEvent::Taken));
    sender.push(batch(1..2, 0, PartEnd::No), Duration::ZERO);
    // The gate has no room for the second; the first is undecided and must go first.
    let waiting = tokio::time::timeout(Duration::from_secs(1), sender.next()).await;
    assert!(waiting.is_err());
    gate.give_room(10);
    let mut decided = Vec::new();
    while decided.len() < 2 {
        if let SenderEvent::Decided(batch) = sender.next().await.unwrap() {
            decided.push(batch.last_row);
        }
    }
    assert_eq!(decided, [0, 1]);
    assert_eq!(gate.events(), ["0", "0", "1"]);
    assert_eq!(progress.accepted(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_retried_with_doubling_delays_and_the_same_bytes() {
    let gate = FakeGate::new(
        1,
        vec![
            Answer::NotTaken(transient()),
            Answer::NoAnswers(transient()),
            Answer::All(retry(0)),
        ],
    );
    let (mut sender, _) = sender(&gate);
    let began = Instant::now();
    assert_eq!(send_all(&mut sender, 7..8).await.unwrap(), [7]);
    assert_eq!(began.elapsed(), Duration::from_millis(250 + 500 + 1_000));
    assert_eq!(gate.submits(), vec![vec!["7"]; 4]);
}

#[tokio::test(start_paused = true)]
async fn the_fifth_failed_attempt_exhausts_the_retries() {
    let gate = FakeGate::new(1, (0..5).map(|_| Answer::NoAnswers(transient())).collect());
    let (mut sender, _) = sender(&gate);
    let failure = send_all(&mut sender, 0..1).await.unwrap_err();
    assert_eq!(
        failure,
        StageFailure::transient("IG_PUSH_RETRY_EXHAUSTED", "timeout")
    );
    assert_eq!(gate.submits().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn backpressure_waits_as_asked_without_using_attempts() {
    let mut script: Vec<Answer> = (0..9)
        .map(|_| Answer::NotTaken(backpressure(2_000)))
        .collect();
    script.push(Answer::All(retry(3_000)));
    let gate = FakeGate::new(1, script);
    let (mut sender, _) = sender(&gate);
    let began = Instant::now();
    assert_eq!(send_all(&mut sender, 0..1).await.unwrap(), [0]);
    assert_eq!(began.elapsed(), Duration::from_secs(9 * 2 + 3));
}

#[tokio::test(start_paused = true)]
async fn endless_backpressure_ends_at_its_deadline() {
    let gate = FakeGate::new(
        1,
        (0..99)
            .map(|_| Answer::NotTaken(backpressure(60_000)))
            .collect(),
    );
    let (mut sender, _) = sender(&gate);
    let failure = send_all(&mut sender, 0..1).await.unwrap_err();
    assert_eq!(failure.code, "IG_PUSH_RETRY_EXHAUSTED");
    assert_eq!(failure.detail, "RATE_LIMITED");
    assert_eq!(gate.submits().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_ends_the_output_after_everything_before_it_is_decided() {
    let rejected = ItemOutcome::Rejected {
        status: 422,
        code: "ENVELOPE_INVALID".to_owned(),
        detail: "x".repeat(1_000),
    };
    let slow = Answer::After(
        Duration::from_secs(1),
        Box::new(Answer::All(ItemOutcome::Admitted)),
    );
    let gate = FakeGate::new(2, vec![slow, Answer::All(rejected)]);
    let (mut sender, progress) = sender(&gate);
    let failure = send_all(&mut sender, 0..3).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.kind),
        ("IG_PUSH_REJECTED", crate::runtime::FailureKind::Terminal)
    );
    assert!(failure.detail.starts_with("http_422 ENVELOPE_INVALID xxx"));
    assert_eq!(failure.detail.len(), 256);
    assert_eq!(progress.accepted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_whole_batch_can_be_rejected() {
    let error = PushError::Rejected {
        status: 401,
        detail: "UNAUTHORIZED".to_owned(),
    };
    let gate = FakeGate::new(1, vec![Answer::NoAnswers(error)]);
    let (mut sender, _) = sender(&gate);
    let failure = send_all(&mut sender, 0..1).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "IG_PUSH_REJECTED: http_401 UNAUTHORIZED"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_wrong_length_decides_nothing() {
    let gate = FakeGate::new(1, vec![Answer::Items(vec![])]);
    let (mut sender, progress) = sender(&gate);
    assert_eq!(send_all(&mut sender, 0..1).await.unwrap(), [0]);
    assert_eq!(gate.submits().len(), 2);
    assert_eq!(progress.accepted(), 1);
}

/// Whatever the gate answers short of a rejection, every event is decided once and batches come back
/// in order; with a window of one no event is ever sent after a later one was decided.
#[tokio::test(start_paused = true)]
async fn random_answers_never_lose_double_or_reorder_an_event() {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    for seed in 0..200u64 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let window = if seed % 2 == 0 { 1 } else { 4 };
        let script = (0..60).map(|_| random_answer(&mut rng)).collect();
        let gate = FakeGate::new(window, script);
        let progress = Arc::new(OutputProgress::new());
        let policy = RetryPolicy {
            attempts_max: 1_000,
            ..RetryPolicy::default()
        };
        let mut sender = GateSender::new(gate.clone(), policy, no_jitter(), progress.clone());
        let decided = send_all(&mut sender, 0..40).await.unwrap();
        assert_eq!(decided, (0..40).collect::<Vec<u64>>(), "seed {seed}");
        assert_eq!(progress.accepted(), 40, "seed {seed}");
        let sent: Vec<u64> = gate
            .events()
            .iter()
            .map(|row| row.parse().unwrap())
            .collect();
        let runs_back = sent.windows(2).any(|pair| pair[1] < pair[0]);
        assert!(window > 1 || !runs_back, "seed {seed}: {sent:?}");
        assert!((0..40).all(|row| sent.contains(&row)), "seed {seed}");
    }
}

fn random_answer(rng: &mut rand::rngs::SmallRng) -> Answer {
    use rand::Rng;
    match rng.random_range(0..10) {
        0 => Answer::NotTaken(transient()),
        1 => Answer::NotTaken(backpressure(20)),
        2 => Answer::NoAnswers(transient()),
        3 => Answer::All(retry(0)),
        4 => Answer::All(retry(30)),
        5 => Answer::All(ItemOutcome::Duplicate),
        6 => Answer::Items(vec![]),
        7 => Answer::After(
            Duration::from_millis(rng.random_range(1..50)),
            Box::new(Answer::All(ItemOutcome::Admitted)),
        ),
        _ => Answer::All(ItemOutcome::Admitted),
    }
}
