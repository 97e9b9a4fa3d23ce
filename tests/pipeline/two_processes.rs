//! The two halves over HTTP give the same bus as the one process, at one and at four partitions.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::run::{ReadyRun, checkpointed_rows, contents, outcomes};
use crate::support::world::{STREAMED, World, small};

fn partitioned(partitions: u32) -> Site {
    Site::new().set(format!("wiring.event_bus.partitions={partitions}"))
}

#[test]
fn gate_and_stream_as_two_processes_give_the_bus_of_one_process() {
    let world = World::generate(3_000, 21, 3);
    world.pack();
    world.sort();
    for partitions in [1, 4] {
        let one = ReadyRun::on(partitioned(partitions), &world);
        one.up_once(&[]).ok();
        let two = ReadyRun::on(partitioned(partitions), &world);
        let finished = two.over_http(&[]).ok();
        assert_eq!(
            outcomes(&finished)[0]["status"],
            "STREAMED",
            "{}",
            finished.everything()
        );
        let (one_bus, two_bus) = (contents(&one.records()), contents(&two.records()));
        assert!(
            one_bus == two_bus,
            "{partitions} partitions: the two buses differ"
        );
        let last = one_bus.keys().map(|(_, partition, _)| *partition).max();
        assert_eq!(last, Some(partitions - 1), "all partitions are used");
        for run in [&one, &two] {
            run.verify();
            run.recompute(&[]);
        }
    }
}

#[test]
fn a_ready_that_was_streamed_is_not_streamed_again() {
    let run = ReadyRun::new(small());
    run.over_http(&[]).ok();
    let before = run.records().len();
    let again = run.over_http(&[]).ok();
    assert_eq!(
        outcomes(&again)[0]["status"],
        "SKIPPED_DUPLICATE",
        "{}",
        again.everything()
    );
    run.submit().ok();
    run.up_once(&[]).ok();
    assert_eq!(run.records().len(), before);
}

#[test]
fn another_attempt_streams_everything_again_and_doubles_nothing() {
    // Receipts as one object each, so that their bytes can be read without the program.
    let site = Site::new().set("policy.receipts_layout=objects");
    let run = ReadyRun::on(site, small());
    run.up_once(&[]).ok();
    let before = run.records().len() as u64;
    let gate = Daemon::gate(&run.site);
    let url = format!("wiring.ig_ingest_url={}", gate.url);
    let scenario_run = crate::support::scenario::run_id_of(crate::support::run::KEY);
    let args = [
        "--set",
        &url,
        "stream",
        "run",
        "--speedup",
        "0",
        "--attempt-id",
        "second",
        "--scenario-run-id",
        &scenario_run,
    ];
    let world = run.world.args();
    let world: Vec<&str> = world.iter().map(String::as_str).collect();
    run.site.run(&[&args[..], &world].concat()).ok();
    assert_eq!(gate.terminate().code, Some(0));
    assert_eq!(run.records().len() as u64, before);
    run.verify();
    wait_for_receipt_objects(&run, 2 * before);
    let found = run.recompute(&["--attempt-id", "second"]);
    assert_eq!(
        (found.receipts("ADMIT"), found.receipts("DUPLICATE")),
        (before, before)
    );
    assert_eq!(found.checked("receipt_is_cj"), 2 * before);
}

/// A stop waits only so long for a slow disk; what is left of the objects is written by the next gate.
fn wait_for_receipt_objects(run: &ReadyRun<'_>, wanted: u64) {
    let gate = Daemon::gate(&run.site);
    let end = Instant::now() + Duration::from_secs(120);
    let written = || {
        fs::read_dir(run.root().join("ig/receipts"))
            .unwrap()
            .count() as u64
    };
    while written() < wanted {
        assert!(Instant::now() < end, "{} of {wanted} came", written());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gate.terminate().code, Some(0));
}

#[test]
fn a_cap_holds_for_each_output_and_the_rest_comes_later() {
    let run = ReadyRun::new(small());
    let url = "wiring.gate.bind_port=0";
    let capped = run.site.run(&[
        "--set",
        url,
        "up",
        "--once",
        "--speedup",
        "0",
        "--max-events-per-output",
        "20",
    ]);
    assert_eq!(outcomes(&capped.ok())[0]["status"], "STREAMED");
    assert_eq!(run.records().len(), 20 * STREAMED.len());
    let rows = checkpointed_rows(&run.root());
    assert!(
        STREAMED.iter().all(|output| rows[*output] == 20),
        "{rows:?}"
    );
    // READY is finished; a direct stream goes on from the checkpoints.
    run.recompute(&["--partial"]);
}
