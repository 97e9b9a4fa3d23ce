//! What the gate tells of itself: metric lines and quarantine spikes (contract 7.11).

use serde_json::{Value, json};

use crate::support::Site;
use crate::support::bus::records;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, RUN, traffic};

#[test]
fn a_spike_is_one_event_on_the_audit_topic_and_the_lines_count_it() {
    let site = Site::new()
        .set("wiring.quarantine_spike_threshold=3")
        .set("wiring.metrics_flush_seconds=3600");
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    assert_eq!(client.push(&traffic("good", 1)).decision(), "ADMIT");
    for number in 0..8 {
        let mut event = traffic(&format!("bad-{number}"), number);
        event["payload"]["amount"] = json!("much");
        assert_eq!(client.push(&event).decision(), "QUARANTINE");
    }
    let said = daemon.terminate_and_tell();

    let records = records(&site.run_root(RUN));
    let told: Vec<&Value> = records
        .iter()
        .map(|record| &record.envelope)
        .filter(|event| event["event_type"] == "ig.quarantine.spike")
        .collect();
    assert_eq!(told.len(), 1, "{said}");
    assert_eq!(told[0]["payload"]["quarantine_count"], 3);
    assert_eq!(told[0]["payload"]["window_seconds"], 60);
    assert_eq!(told[0]["manifest_fingerprint"], "a".repeat(64));
    assert_eq!(told[0]["scenario_run_id"], "d".repeat(32));
    assert_eq!(told[0]["platform_run_id"], RUN);

    let line = said.lines().find_map(|line| line.split_once("IG metrics "));
    let metrics: Value = serde_json::from_str(line.unwrap().1).unwrap();
    // The good event and the one that tells of the spike.
    assert_eq!(metrics["counters"]["decision.ADMIT"], 2);
    assert_eq!(metrics["counters"]["decision.QUARANTINE"], 8);
    assert_eq!(metrics["counters"]["reason.SCHEMA_FAIL"], 8);
    assert_eq!(metrics["latencies"]["admission_seconds"]["count"], 10);
    assert_eq!(metrics["latencies"]["phase.validate_seconds"]["count"], 10);
    assert_eq!(metrics["context"]["policy_rev"]["policy_id"], "ig_policy");
    assert!(
        said.contains("IG summary admit=2 duplicate=0 quarantine=8"),
        "{said}"
    );
}
