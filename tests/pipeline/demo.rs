//! `wellspring demo`: once, again, `--again`, and after a kill in the middle.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::{Finished, Site};

fn demo(site: &Site, more: &[&str]) -> Finished {
    let args = [
        "--format", "json", "demo", "--events", "2000", "--dir", "show",
    ];
    site.run(&[&args[..], more].concat())
}

/// Sum of one count over all outputs.
fn sum(report: &Value, count: &str) -> u64 {
    let outputs = report["outputs"].as_array().unwrap();
    outputs
        .iter()
        .map(|output| output[count].as_u64().unwrap())
        .sum()
}

fn counts(report: &Value) -> [u64; 4] {
    ["rows", "admitted", "duplicate", "quarantined"].map(|count| sum(report, count))
}

#[test]
fn the_demo_admits_all_then_nothing_then_all_as_duplicates() {
    let site = Site::new();
    let first = demo(&site, &[]).ok().json();
    assert_eq!(counts(&first), [5_000, 5_000, 0, 0], "{first}");
    assert_eq!(first["verified"], true);
    for output in first["outputs"].as_array().unwrap() {
        for number in ["events_per_second", "admit_p50_ms", "admit_p99_ms"] {
            assert!(output[number].as_f64().unwrap() > 0.0, "{number}: {output}");
        }
    }
    let second = demo(&site, &[]).ok();
    assert_eq!(
        sum(&second.json(), "admitted"),
        0,
        "{}",
        second.everything()
    );
    assert_eq!(second.json()["verified"], true);
    assert!(
        second.stderr.contains("nothing was admitted"),
        "{}",
        second.everything()
    );
    let again = demo(&site, &["--again"]).ok().json();
    assert_eq!(counts(&again), [5_000, 0, 5_000, 0], "{again}");
    assert_eq!(again["verified"], true);
    assert_eq!(again["platform_run_id"], first["platform_run_id"]);
}

#[test]
fn a_damaged_bus_is_not_called_verified() {
    let site = Site::new();
    let report = demo(&site, &[]).ok().json();
    let run = report["platform_run_id"].as_str().unwrap();
    let run_root = site.path().join("show/runs/fraud-platform").join(run);
    let log = run_root.join("eb/fp.bus.traffic.fraud.v1/partition=0.jsonl");
    let mut bytes = std::fs::read(&log).unwrap();
    // One digit of one amount.
    let at = bytes
        .windows(9)
        .position(|part| part == b"\"amount\":")
        .unwrap()
        + 9;
    bytes[at] = if bytes[at] == b'9' { b'8' } else { b'9' };
    std::fs::write(&log, bytes).unwrap();
    let finished = demo(&site, &[]);
    assert_eq!(finished.code, Some(4), "{}", finished.everything());
    assert_eq!(finished.json()["verified"], false);
    let verify = ["--root", "show/runs", "--format", "json", "bus", "verify"];
    let bus = site.run(&verify);
    assert_eq!(bus.code, Some(4), "{}", bus.everything());
    assert_eq!(bus.json()["verified"], false);
}

#[test]
fn a_demo_that_was_killed_is_finished_by_the_same_command() {
    let site = Site::new();
    let args = ["demo", "--events", "2000", "--dir", "show"];
    let slow = [&args[..], &["--speedup", "60000"]].concat();
    let mut daemon = Daemon::spawn(&site, &slow);
    let end = Instant::now() + Duration::from_secs(60);
    while bus_bytes(site.path()) < 200_000 {
        assert!(
            daemon.is_running() && Instant::now() < end,
            "{}",
            daemon.stderr()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(daemon.kill().signal, Some(9));
    let report = demo(&site, &[]).ok().json();
    assert_eq!(report["verified"], true, "{report}");
    assert!(
        sum(&report, "admitted") < 5_000,
        "what was admitted before stays admitted: {report}"
    );
}

/// Bytes in all partition logs below a folder.
fn bus_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let size = |path: &Path| match path.is_dir() {
        true => bus_bytes(path),
        false
            if path.extension().is_some_and(|kind| kind == "jsonl")
                && path.to_string_lossy().contains("/eb/") =>
        {
            path.metadata().map_or(0, |data| data.len())
        }
        false => 0,
    };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}
