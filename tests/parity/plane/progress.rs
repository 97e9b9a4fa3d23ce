//! How far a run is, by the tables alone.

use super::Site;
use super::daemon::Daemon;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest time a run may take to come somewhere.
const PATIENCE: Duration = Duration::from_secs(120);

/// Admitted events of a run; `None` while the database is away.
pub fn admitted(site: &Site, run: &str) -> Option<u64> {
    let sql = format!(
        "SELECT count(*) FROM admissions WHERE platform_run_id = '{run}' AND state = 'ADMITTED'"
    );
    site.try_rows(&sql).map(|rows| rows[0][0].parse().unwrap())
}

/// Waits until so many events of the run are admitted; how many they are then.
#[track_caller]
pub fn wait_for_admitted(site: &Site, run: &str, wanted: u64, daemon: &mut Daemon) -> u64 {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = admitted(site, run).unwrap_or(0);
        if seen >= wanted {
            return seen;
        }
        assert!(daemon.is_running(), "the daemon ended: {}", daemon.stderr());
        assert!(
            Instant::now() < end,
            "only {seen} of {wanted} came: {}",
            daemon.stderr()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the end of a run: the record of its READY says STREAMED.
#[track_caller]
pub fn wait_for_all(site: &Site, run: &str, daemons: &mut [&mut Daemon]) {
    let (end, total) = (Instant::now() + PATIENCE, site.world.events());
    loop {
        let seen = admitted(site, run).unwrap_or(0);
        if seen >= total {
            return;
        }
        for daemon in daemons.iter_mut() {
            assert!(daemon.is_running(), "a daemon ended: {}", daemon.stderr());
        }
        let said: Vec<String> = daemons.iter().map(|daemon| daemon.stderr()).collect();
        assert!(
            Instant::now() < end,
            "only {seen} of {total} came: {}",
            said.join("\n=== and\n")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The topic each output goes to (contract 7.5).
fn topic_of(output: &str) -> &'static str {
    match output {
        "arrival_events_5B" => "fp.bus.context.arrival_events.v1",
        "s1_arrival_entities_6B" => "fp.bus.context.arrival_entities.v1",
        "s3_flow_anchor_with_fraud_6B" => "fp.bus.context.flow_anchor.fraud.v1",
        _ => "fp.bus.traffic.fraud.v1",
    }
}

/// A checkpoint says what was answered, and what was answered is admitted.
#[track_caller]
pub fn assert_no_checkpoint_is_ahead(site: &Site, run: &str) {
    let admitted: BTreeMap<String, u64> = site
        .rows(&format!(
            "SELECT eb_topic, count(*) FROM admissions WHERE platform_run_id = '{run}' AND state = 'ADMITTED' GROUP BY 1"
        ))
        .into_iter()
        .map(|row| (row[0].clone(), row[1].parse().unwrap()))
        .collect();
    for row in site.rows("SELECT output_id, max(last_row_index) + 1 FROM wsp_checkpoint GROUP BY 1")
    {
        let (rows, there) = (
            row[1].parse::<u64>().unwrap(),
            admitted.get(topic_of(&row[0])),
        );
        let there = there.copied().unwrap_or(0);
        assert!(
            rows <= there,
            "{}: checkpoint at {rows}, only {there} are admitted",
            row[0]
        );
    }
}
