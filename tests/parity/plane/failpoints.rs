//! kill -9 before and after every step of a flush on shared backends: claim, put, mark, objects, segment.
//! One run takes all of them, one after the other; the next node finds what each left and settles it.

use super::Site;
use super::progress::assert_no_checkpoint_is_ahead;
use super::site::LEASE;
use super::truth::assert_run_is_whole;
use std::time::{Duration, Instant};
use wellspring::failpoints::{Artefact, all_steps};

/// The points of a flush, in the order it passes them.
fn points() -> Vec<String> {
    let of_a_flush = [
        Artefact::LedgerClaim,
        Artefact::StreamRecords,
        Artefact::LedgerMark,
        Artefact::FlushObjects,
        Artefact::ReceiptSegment,
    ];
    let steps = all_steps().filter(|step| of_a_flush.contains(&step.0));
    let both = |step| ["before", "after"].map(|moment| format!("{step}.{moment}"));
    steps.flat_map(both).collect()
}

#[test]
fn a_node_killed_at_any_step_of_a_flush_leaves_nothing_undecided() {
    let mut site = Site::new();
    // Many small flushes, so that each kill leaves most of the run to the next.
    site.set("WELLSPRING_WIRING_GATE_FLUSH_BYTES_MAX", "65536");
    let run = site.ready_run();
    let points = points();
    assert_eq!(points.len(), 10);
    for point in points {
        kill_at(&site, &point);
        assert_no_checkpoint_is_ahead(&site, &run);
    }
    assert_eq!(site.up_after_a_crash(), "STREAMED");
    println!("{:?}", assert_run_is_whole(&site, &run));
    assert_no_checkpoint_is_ahead(&site, &run);
    site.verify();
    let receipts = site.run(&["receipts", "verify"]).ok().json();
    assert_eq!(receipts["pending_objects"], 0, "{receipts}");
}

/// Streams until the point kills; at first the lease of the node that was killed before may still hold.
fn kill_at(site: &Site, point: &str) {
    let armed = format!("{point}=kill@2");
    let args = ["up", "--once", "--port", "0", "--speedup", "0"];
    let end = Instant::now() + LEASE * 4;
    loop {
        let ended = site.run_with(&args, &[("WELLSPRING_FAILPOINTS", &armed)]);
        if ended.code.is_none() {
            let told = format!("wellspring failpoint {point} Kill");
            assert!(
                ended.stderr.contains(&told),
                "{point}: {}",
                ended.everything()
            );
            println!("FIRED {point} Kill");
            return;
        }
        let put_off = ended.stdout.contains("DEFERRED_CLAIMED_ELSEWHERE");
        assert!(
            put_off && Instant::now() < end,
            "{point}: {}",
            ended.everything()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
