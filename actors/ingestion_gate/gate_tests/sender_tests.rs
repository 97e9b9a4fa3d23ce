//! Several batches of one sender at a time: their order, and what follows one that was lost.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_short_batch_never_overtakes_a_long_one_of_the_same_sender() {
    let world = world(1, 100_000).await;
    let client = world.client();
    let (mut sent, mut pending) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let count = if number % 3 == 0 { 300 } else { 1 };
        let ids: Vec<String> = (0..count).map(|at| format!("{number}-{at}")).collect();
        let events: Vec<(&str, u64, u64)> = ids.iter().map(|id| (id.as_str(), 1, 1)).collect();
        pending.push(client.submit(batch(&events)).await.unwrap());
        sent.extend(ids);
    }
    for answer in pending {
        let outcomes = answer.await.unwrap();
        assert!(outcomes.iter().all(|o| *o == ItemOutcome::Admitted));
    }
    let bus = world.disk.bus().into_values().flatten();
    let published: Vec<String> = bus.map(|(_, id)| id).collect();
    assert!(
        published == sent,
        "events are not in the order they were sent"
    );
}

#[tokio::test]
async fn behind_a_batch_that_was_lost_nothing_is_taken_until_the_sender_begins_anew() {
    let world = world(1, 1_000).await;
    let client = world.client();
    let push = async |id: &str| {
        let pending = client.submit(batch(&[(id, 1, 1)])).await.unwrap();
        pending.await.unwrap().remove(0)
    };
    let older = client.sender.order.begin();
    drop(client.turns.next()); // as a batch whose judging panicked
    for id in ["e1", "e2"] {
        let outcome = push(id).await;
        let again = |code: &str| code == "PRECEDING_ITEM_RETRY";
        assert!(
            matches!(&outcome, ItemOutcome::Retry { code, .. } if again(code)),
            "{id}: {outcome:?}"
        );
    }
    drop(older); // every answer is in: what was sent back is sent again
    for id in ["e1", "e2"] {
        assert_eq!(push(id).await, ItemOutcome::Admitted);
    }
}
