//! A part of the gate that ends is missed, however it ends.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_the_gate_that_ends_unasked_ends_the_gate() {
    // Two index shards, two admission shards and the reporter.
    for part in 0..5 {
        for kill in [true, false] {
            let world = world(1, 10).await;
            let mut children = world.gate.supervisor.get_children();
            assert_eq!(children.len(), 5);
            children.sort_by_key(|child| child.get_id().pid());
            match kill {
                true => children[part].kill(),
                false => children[part].stop(None),
            }
            let ended = world
                .gate
                .supervisor
                .wait(Some(Duration::from_secs(30)))
                .await;
            assert!(ended.is_ok(), "part {part} ended and the gate lives on");
        }
    }
}
