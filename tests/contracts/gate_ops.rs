//! `wellspring gate ops` against a running gate (contract 7.11).

use std::fs;

use serde_json::json;

use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::gate_client::traffic;

#[test]
fn an_operator_pushes_looks_up_asks_for_health_and_rebuilds() {
    let site = Site::new();
    let run = site.new_run();
    let daemon = Daemon::gate(&site);
    let ops = |args: &[&str]| {
        let args = [&["gate", "ops"], args].concat();
        site.run_with(&args, &[("IG_INGEST_URL", &daemon.url)])
    };
    let mut event = traffic("e 1&x", 1);
    event["platform_run_id"] = json!(run);
    fs::write(site.path().join("one.json"), event.to_string()).unwrap();
    let mut other = event.clone();
    other["event_id"] = json!("e2");
    fs::write(
        site.path().join("two.ndjson"),
        format!("{event}\n{other}\n"),
    )
    .unwrap();

    assert_eq!(
        ops(&["--push-file", "one.json"]).ok().stdout,
        "ADMITTED=1\n"
    );
    assert_eq!(
        ops(&["--push-file", "two.ndjson"]).ok().stdout,
        "ADMITTED=1\nDUPLICATE=1\n"
    );
    let missing = ops(&["--push-file", "none.json"]);
    assert!(missing.stderr.contains("PUSH_FILE_UNREADABLE"));

    let found = ops(&["--lookup-event-id", "e 1&x"]).ok().json();
    assert_eq!(found["decision"], "ADMIT");
    let receipt_id = found["receipt_id"].as_str().unwrap();
    assert_eq!(ops(&["--lookup-receipt-id", receipt_id]).ok().json(), found);
    assert_eq!(ops(&["--lookup-event-id", "nobody"]).ok().json(), json!({}));
    assert_eq!(
        ops(&["--health"]).ok().json(),
        json!({"state": "GREEN", "reasons": []})
    );

    daemon.terminate();
    let rebuilt = site.run(&["gate", "ops", "--rebuild-index"]).ok();
    assert_eq!(rebuilt.stdout, "REBUILT=1\n");
    let session = fs::read_to_string(site.run_root(&run).join("session.jsonl")).unwrap();
    for kind in ["health_check", "ops_rebuild"] {
        assert!(
            session.contains(&format!("\"event_kind\": \"{kind}\"")),
            "{session}"
        );
    }
}
