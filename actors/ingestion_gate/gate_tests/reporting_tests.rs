//! Quarantine spikes and commit failures as the whole gate counts them.

use super::*;
use wellspring_domain::admission::quarantine_spike::SPIKE_EVENT_TYPE;

/// An event no schema policy knows, with pins that are valid.
fn unknown_event(event_id: &str) -> EnvelopeBatch {
    let text = json!({"event_id": event_id, "event_type": "z", "ts_utc": "2026-01-01T00:00:00.000000Z",
        "manifest_fingerprint": "a".repeat(64), "platform_run_id": RUN, "scenario_run_id": "b".repeat(32),
        "payload": {"k": 1}});
    let bytes = text.to_string().into_bytes();
    EnvelopeBatch {
        ranges: std::iter::once(0..bytes.len() as u32).collect(),
        bytes: Arc::new(bytes),
    }
}

impl World {
    fn spikes(&self) -> usize {
        let flushes = self.disk.flushes.lock().unwrap();
        let types = flushes.values().flatten().flat_map(|flush| {
            flush
                .rows
                .iter()
                .map(|row| flush.contexts[usize::from(row.context)].event_type.as_str())
        });
        types.filter(|kind| *kind == SPIKE_EVENT_TYPE).count()
    }

    async fn send(&self, batch: EnvelopeBatch) -> Vec<ItemOutcome> {
        self.client().submit(batch).await.unwrap().await.unwrap()
    }
}

#[tokio::test]
async fn a_spike_whose_event_is_quarantined_does_not_cause_another() {
    // No window: every quarantine that counts is a spike.
    let mut reporting = reporting();
    reporting.spike = SpikeRule {
        threshold: 1,
        window_seconds: 0,
    };
    let world = world_reporting(1, 64, reporting).await;
    for (number, event_id) in ["e1", "e2"].into_iter().enumerate() {
        let outcomes = world.send(unknown_event(event_id)).await;
        assert!(
            matches!(outcomes[..], [ItemOutcome::Quarantined { .. }]),
            "{outcomes:?}"
        );
        until("the spike is told", || world.spikes() == number + 1).await;
    }
    // The gate has gone on for several flushes since the first spike was quarantined.
    assert_eq!(world.spikes(), 2);
    for number in 0..20 {
        world.push(&[(&format!("a{number}"), number, 1)]).await;
    }
    assert_eq!(world.spikes(), 2);
}

#[tokio::test]
async fn quarantines_below_the_threshold_are_no_spike() {
    let world = world_reporting(1, 64, reporting()).await;
    for number in 0..24 {
        world.send(unknown_event(&format!("e{number}"))).await;
    }
    assert_eq!(world.spikes(), 0);
    world.send(unknown_event("e24")).await;
    until("the spike is told", || world.spikes() == 1).await;
}

#[tokio::test]
async fn a_failed_commit_is_counted_until_one_succeeds() {
    let reporting = reporting();
    let failures = reporting.bus_failures.clone();
    let world = world_reporting(1, 64, reporting).await;
    let now = Micros(1_767_225_600_000_000);
    world.disk.fail_next.store(true, Ordering::SeqCst);
    world.push(&[("e1", 1, 1)]).await;
    assert!(failures.unhealthy(1, now, 1));
    until_admitted(&world, "e2").await;
    assert!(!failures.unhealthy(1, now, 1));
}

/// Sends until the shard is there again.
async fn until_admitted(world: &World, event_id: &str) {
    for _ in 0..1_000 {
        if world.push(&[(event_id, 1, 1)]).await == [ItemOutcome::Admitted] {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{event_id} was never admitted");
}
