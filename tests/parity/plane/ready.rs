//! READY on Kinesis: what waits, fails or is held elsewhere is not lost over a restart (D12), and what belongs to
//! another run is settled once.

use super::Site;
use super::truth::assert_run_is_whole;
use serde_json::Value;

fn statuses(outcomes: &Value) -> Vec<&str> {
    let outcomes = outcomes.as_array().unwrap().iter();
    outcomes
        .map(|outcome| outcome["status"].as_str().unwrap())
        .collect()
}

#[track_caller]
fn up_says(site: &Site, more: &[&str], wanted: &[&str]) -> Value {
    let finished = site.up_once(more);
    let outcomes = finished.json();
    assert_eq!(statuses(&outcomes), wanted, "{}", finished.everything());
    outcomes
}

#[test]
fn a_ready_over_the_cap_waits_for_the_next_start() {
    let site = Site::new();
    let run = site.ready_run();
    site.submit("a-second-scenario");
    let few = ["--max-messages", "1", "--max-events-per-output", "20"];
    let first = up_says(&site, &few, &["STREAMED"])[0]["message_id"].clone();
    // The first stays on the bus; it is told as settled and does not use the cap up.
    let next = up_says(
        &site,
        &["--max-messages", "1"],
        &["SKIPPED_DUPLICATE", "STREAMED"],
    );
    assert_eq!(next[0]["message_id"], first);
    assert_ne!(next[1]["message_id"], first);
    let rows = site.rows("SELECT count(*) FROM admissions");
    assert_eq!(
        rows[0][0],
        site.world.events().to_string(),
        "the same events, once"
    );
    let settled = site.up_once(&[]).ok().json();
    assert!(
        statuses(&settled)
            .iter()
            .all(|status| *status == "SKIPPED_DUPLICATE"),
        "{settled}"
    );
    site.verify();
    assert!(run.starts_with("platform_"));
}

#[test]
fn a_ready_that_failed_or_was_held_elsewhere_is_streamed_later() {
    let mut site = Site::new();
    let run = site.ready_run();
    let root = site.world.root.clone();
    site.set(
        "ORACLE_ENGINE_RUN_ROOT",
        format!("{root}-that-is-not-there"),
    );
    up_says(&site, &[], &["FAILED"]);
    site.set("ORACLE_ENGINE_RUN_ROOT", root);
    let taken = site.rows(
        "UPDATE ws_leases SET owner = 'somebody', token = 'else', expires_at = now() + interval '1 hour' \
         WHERE lease_key LIKE 'ready:%' RETURNING lease_key",
    );
    assert_eq!(taken.len(), 1, "the first try left its lease row");
    up_says(&site, &[], &["DEFERRED_CLAIMED_ELSEWHERE"]);
    site.rows("UPDATE ws_leases SET expires_at = now()");
    let streamed = up_says(&site, &[], &["STREAMED"]);
    assert_eq!(streamed[0]["attempt"], 2, "{streamed}");
    assert_run_is_whole(&site, &run);
    up_says(&site, &[], &["SKIPPED_DUPLICATE"]);
}

#[test]
fn a_ready_of_another_run_is_put_down_as_out_of_scope_once() {
    let site = Site::new();
    let stale = site.ready_run();
    // Run ids are made of seconds.
    let own = "platform_29990101T000000Z";
    site.run(&["run", "new", "--id", own]).ok();
    assert_ne!(stale, own);
    let first = up_says(&site, &[], &["SKIPPED_OUT_OF_SCOPE"]);
    println!("{first}");
    up_says(&site, &[], &["SKIPPED_DUPLICATE"]);
    assert_eq!(site.rows("SELECT count(*) FROM admissions")[0][0], "0");
}
