//! What is in flight stays within its bounds.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_disk_stops_senders_at_the_credit_limit() {
    let world = world(1, 10).await;
    world.push(&[("warm", 1, 1)]).await;
    world.disk.stall(true);
    let client = world.client();
    let ids: Vec<String> = (0..30).map(|number| format!("e{number}")).collect();
    let sending = tokio::spawn(async move {
        let mut pending = Vec::new();
        for id in &ids {
            pending.push(client.submit(batch(&[(id.as_str(), 1, 1)])).await.unwrap());
        }
        let mut outcomes = Vec::new();
        for answers in pending {
            outcomes.extend(answers.await.unwrap());
        }
        outcomes
    });
    let credits = world.gate.handle.credits().clone();
    until("ten events are in flight", || {
        credits.gauges().events_in_use == 10
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(credits.gauges().events_in_use, 10);
    assert!(!sending.is_finished());
    world.disk.stall(false);
    assert_eq!(sending.await.unwrap(), vec![ItemOutcome::Admitted; 30]);
    until("all room is given back", || {
        credits.gauges().events_in_use == 0
    })
    .await;
    assert!(credits.gauges().blocked_micros > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_flush_is_closed_and_the_next_one_gathers_behind_it() {
    const BATCHES: usize = 24;
    const EVENTS: usize = 40;
    let world = world(1, (BATCHES * EVENTS) as u32).await;
    world.disk.stall(true);
    let client = world.client();
    let mut pending = Vec::new();
    for number in 0..BATCHES {
        let ids: Vec<String> = (0..EVENTS)
            .map(|event| format!("{number}-{event}"))
            .collect();
        let events: Vec<(&str, u64, u64)> = ids.iter().map(|id| (id.as_str(), 1, 1)).collect();
        pending.push(client.submit(batch(&events)).await.unwrap());
    }
    let gauges = world.gate.handle.credits().gauges();
    assert_eq!(gauges.events_in_use as usize, BATCHES * EVENTS);
    world.disk.stall(false);
    for answers in pending {
        let outcomes = answers.await.unwrap();
        assert!(outcomes.iter().all(|one| *one == ItemOutcome::Admitted));
    }
    let flushes = world.disk.flushes.lock().unwrap();
    let bytes: Vec<usize> = flushes
        .values()
        .flatten()
        .map(|flush| flush.arena.len() + flush.appends.iter().map(|a| a.bytes.len()).sum::<usize>())
        .collect();
    let one_batch = bytes.iter().sum::<usize>() / BATCHES;
    assert!(bytes.len() > 3, "{bytes:?}");
    assert!(
        bytes
            .iter()
            .all(|flush| *flush < FLUSH_BYTES_MAX + one_batch + one_batch / 8),
        "a flush is at most its bound and the batch that reached it: {bytes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_shard_holds_its_own_events_and_no_others() {
    let world = world(4, 100).await;
    for number in 0..40 {
        world.push(&[(&format!("e{number}"), number, 1)]).await;
    }
    let numbers_of = |shard: u16| -> Vec<u64> {
        let flushes = world.disk.flushes.lock().unwrap();
        let flushes = flushes.get(&shard).into_iter().flatten();
        let ids =
            flushes.flat_map(|flush| flush.rows.iter().map(|row| row.event_id.of(&flush.arena)));
        ids.map(|id| std::str::from_utf8(&id[1..]).unwrap().parse().unwrap())
            .collect()
    };
    let (slow, quick) = (numbers_of(0), numbers_of(1));
    assert!(slow.len() > 5 && quick.len() > 5, "{slow:?} {quick:?}");

    world.disk.stall_shards(&[0]);
    let client = world.client();
    let mut waiting = Vec::new();
    for number in slow {
        let again = batch(&[(&format!("e{number}"), number, 1)]);
        let answers = client.submit(again).await.unwrap();
        waiting.push(tokio::spawn(answers));
    }
    for number in quick {
        let id = format!("e{number}");
        let again = [(id.as_str(), number, 1)];
        let answered = tokio::time::timeout(Duration::from_secs(20), world.push(&again)).await;
        assert_eq!(answered.unwrap(), [ItemOutcome::Duplicate], "{id}");
    }
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    world.disk.stall_shards(&[]);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap(), [ItemOutcome::Duplicate]);
    }
    let credits = world.gate.handle.credits().clone();
    until("all room is given back", || {
        credits.gauges().events_in_use == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_shard_does_not_hold_up_the_rest_of_its_batch() {
    let world = world(4, 100).await;
    let ids: Vec<String> = (0..40).map(|number| format!("e{number}")).collect();
    let events: Vec<(&str, u64, u64)> = ids
        .iter()
        .zip(0..)
        .map(|(id, number)| (id.as_str(), number, 1))
        .collect();
    world.push(&events).await;
    let of_stalled: usize = {
        let flushes = world.disk.flushes.lock().unwrap();
        flushes[&0].iter().map(|flush| flush.rows.len()).sum()
    };
    world.disk.stall_shards(&[0]);
    let again = batch(&events);
    let credits = world.gate.handle.credits().clone();
    let credit = credits.take(again.len() as u32, 1).await;
    let mut ticket = world.gate.handle.accept(again, &actor(), credit).await;
    let mut answered = 0;
    while answered < events.len() - of_stalled {
        let next = tokio::time::timeout(Duration::from_secs(20), ticket.next()).await;
        answered += next.unwrap().unwrap().len();
    }
    assert_eq!(answered, events.len() - of_stalled);
    until("only the stalled shard's room is taken", || {
        credits.gauges().events_in_use as usize == of_stalled
    })
    .await;
    world.disk.stall_shards(&[]);
    while let Some(answers) = ticket.next().await {
        answered += answers.len();
    }
    assert_eq!(answered, events.len());
}
