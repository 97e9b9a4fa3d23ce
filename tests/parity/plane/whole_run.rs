//! A world from S3 to the event bus and back to a verified run; and the same READY again.

use super::Site;
use super::truth::assert_run_is_whole;
use serde_json::Value;

/// What a run said of its one READY.
#[track_caller]
fn only(finished: &super::finished::Finished) -> Value {
    let outcomes = finished.json();
    let outcomes = outcomes.as_array().unwrap();
    assert_eq!(outcomes.len(), 1, "{}", finished.everything());
    outcomes[0].clone()
}

#[test]
fn a_world_arrives_whole_and_equals_its_embedded_run() {
    let site = Site::new();
    let run = site.ready_run();
    let streamed = only(&site.up_once(&[]).ok());
    assert_eq!(streamed["status"], "STREAMED", "{streamed}");
    assert_eq!(streamed["emitted"], site.world.events());
    let truth = assert_run_is_whole(&site, &run);
    assert_eq!(truth.strays, 0);
    let bus = site.verify();
    // Digests cover topic, key, time, event id and payload: equal worlds give equal fingerprints.
    assert_eq!(bus["fingerprints"], site.world.fingerprints);
    let again = only(&site.up_once(&[]).ok());
    assert_eq!(again["status"], "SKIPPED_DUPLICATE", "{again}");
    assert_eq!(assert_run_is_whole(&site, &run), truth);
}

#[test]
fn another_attempt_streams_everything_again_and_doubles_nothing() {
    let site = Site::new();
    let run = site.ready_run();
    let total = site.world.events();
    site.up_once(&[]).ok();
    // A READY that was streamed is not streamed again: another scenario run of the same world is.
    site.submit("another-attempt");
    let again = site.run_with(
        &["up", "--once", "--port", "0", "--speedup", "0"],
        &[("WSP_CHECKPOINT_ATTEMPT_ID", "again")],
    );
    again.ok();
    let truth = assert_run_is_whole(&site, &run);
    assert_eq!(truth.strays, 0);
    let duplicates = "SELECT count(*) FROM ws_decisions WHERE decision = 'DUPLICATE'";
    assert_eq!(site.rows(duplicates)[0][0], total.to_string());
    site.verify();
}
