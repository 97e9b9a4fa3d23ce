//! kill -9 of `up` spread over a paced run: every event once and in order, no claim left in flight, no
//! checkpoint ahead of what is admitted. `WELLSPRING_PARITY_KILLS` sets how many.

use super::Site;
use super::daemon::Daemon;
use super::progress::{assert_no_checkpoint_is_ahead, wait_for_admitted};
use super::truth::assert_run_is_whole;

/// Seconds the streaming takes without a kill.
const RUN_SECONDS: f64 = 10.0;

fn kills() -> u64 {
    let set = std::env::var("WELLSPRING_PARITY_KILLS").ok();
    set.map_or(4, |text| text.parse().expect("a number of kills"))
}

#[test]
fn kills_lose_nothing_double_nothing_and_reorder_nothing() {
    let site = Site::new();
    let run = site.ready_run();
    let (total, kills) = (site.world.events(), kills());
    let speedup = site.world.speedup(RUN_SECONDS);
    for kill in 0..kills {
        let share = 0.06 + 0.82 * kill as f64 / (kills - 1).max(1) as f64;
        let mut daemon = Daemon::start(&site, &["up", "--port", "0", "--speedup", &speedup]);
        let seen = wait_for_admitted(&site, &run, (share * total as f64) as u64, &mut daemon);
        assert_eq!(daemon.kill().signal, Some(9));
        let there = seen as f64 / total as f64;
        println!(
            "kill {}: {seen} of {total} admitted ({:.1} %)",
            kill + 1,
            there * 100.0
        );
        assert!((0.05..=0.95).contains(&there), "killed at {there}");
        assert_no_checkpoint_is_ahead(&site, &run);
    }
    assert_eq!(site.up_after_a_crash(), "STREAMED");
    let truth = assert_run_is_whole(&site, &run);
    println!("{truth:?}");
    assert_no_checkpoint_is_ahead(&site, &run);
    site.verify();
    let receipts = site.run(&["receipts", "verify"]).ok().json();
    assert_eq!(
        receipts["pending_objects"], 0,
        "every segment was written: {receipts}"
    );
}
