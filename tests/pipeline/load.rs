//! `wellspring load`: in process and over HTTP, its report, its checks and its exit codes.

use std::fs;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::{Finished, Site};

fn load(site: &Site, more: &[&str]) -> Finished {
    site.run(&[&["--format", "json", "load"][..], more].concat())
}

fn count(report: &Value, name: &str) -> u64 {
    report["counts"][name].as_u64().unwrap()
}

/// Every check holds, and these are among them.
#[track_caller]
fn assert_checked(report: &Value, names: &[&str]) {
    let checks = report["checks"].as_array().unwrap();
    let found: Vec<&str> = checks
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(found, names, "{checks:?}");
    assert!(
        checks.iter().all(|check| check["holds"] == true),
        "{checks:?}"
    );
}

const VERIFIED: [&str; 5] = [
    "conservation",
    "decisions",
    "bus",
    "receipts",
    "once, as sent, in order per key",
];

#[test]
fn an_unkind_mixture_in_process_is_decided_as_it_must_be_and_verified_on_the_bus() {
    let site = Site::new();
    let knobs = [
        "--events",
        "4000",
        "--keys",
        "300",
        "--skew",
        "0.99",
        "--duplicates",
        "0.2",
        "--invalid",
        "0.05",
        "--batch",
        "64",
        "--producers",
        "3",
        "--shards",
        "2",
        "--partitions",
        "4",
        "--payload-bytes",
        "700",
        "--verify",
    ];
    let report = load(&site, &knobs).ok().json();
    assert_eq!(report["schema"], "wellspring.load.v1");
    assert_eq!(count(&report, "sent"), 4_000);
    assert_eq!(report["refusals"], serde_json::json!({}));
    for name in ["duplicate", "quarantined"] {
        assert!(count(&report, name) > 100, "{name}: {report}");
    }
    assert_checked(&report, &VERIFIED);
    let again = load(&site, &knobs).ok().json();
    assert_ne!(again["platform_run_id"], report["platform_run_id"]);
    assert_eq!(
        again["counts"], report["counts"],
        "the same seed is the same load"
    );
    let run = report["platform_run_id"].as_str().unwrap();
    let verified = site.run(&["--root", "runs/load", "bus", "verify", "--run", run]);
    verified.ok();
}

#[test]
fn an_open_loop_keeps_its_rate_and_its_report_is_one_page_and_one_document() {
    let site = Site::new();
    let finished = load(
        &site,
        &[
            "--rate",
            "2000",
            "--duration",
            "2s",
            "--warmup",
            "500ms",
            "--dir",
            "here",
            "--report",
            "out/run",
            "--require",
            "p99<30s,errors<=0,rate>100",
        ],
    )
    .ok();
    let report = finished.json();
    assert_eq!(count(&report, "sent"), 4_000, "{report}");
    assert_eq!(report["latency"]["from"], "planned send time");
    assert_eq!(
        report["latency"]["events"], 3_000,
        "the warm-up is left out"
    );
    assert!(report["lateness"]["p99_ms"].as_f64().is_some());
    assert!(report["points"].as_array().unwrap().len() >= 5);
    assert!(report["cpu"]["seconds_per_million"].as_f64().unwrap() > 0.0);
    assert!(report["peak_resident_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(site.path().join("here/fraud-platform").is_dir());
    let file = fs::read_to_string(site.path().join("out/run.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&file).unwrap(), report);
    let page = fs::read_to_string(site.path().join("out/run.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg ").count(), 4);
    for outside in [
        "http://", "https://", "src=", "href=", "<script", "@import", "url(",
    ] {
        assert!(!page.contains(outside), "the page holds {outside}");
    }
    assert!(!page.contains("NaN"));
}

#[test]
fn a_missed_threshold_is_exit_4_with_a_sentence_and_a_wrong_one_is_usage() {
    let site = Site::new();
    let missed = load(
        &site,
        &["--events", "500", "--require", "p50<1us,rate>1,cpu<1000000"],
    );
    assert_eq!(missed.code, Some(4), "{}", missed.everything());
    assert_eq!(missed.json()["passed"], false);
    assert!(
        missed.stderr.contains("p50<1us is not met: p50 was"),
        "{}",
        missed.everything()
    );
    assert!(missed.stderr.contains("rate>1 is met"));
    for wrong in [
        &["--require", "p99<20"][..],
        &["--require", "speed>1"],
        &["--duplicates", "1.5"],
        &["--payload-bytes", "5"],
        &["--verify", "--url", "http://127.0.0.1:1"],
    ] {
        let finished = load(&site, wrong);
        assert_eq!(
            finished.code,
            Some(2),
            "{wrong:?}: {}",
            finished.everything()
        );
    }
    let nobody = load(&site, &["--url", "http://127.0.0.1:1"]);
    nobody.refused(1, "GATE_UNREACHABLE");
}

#[test]
fn a_running_gate_is_driven_in_batches_and_one_by_one() {
    let site = Site::new();
    let gate = Daemon::gate(&site);
    let url = ["--url", gate.url.as_str()];
    let knobs = [
        "--events",
        "2000",
        "--keys",
        "200",
        "--duplicates",
        "0.1",
        "--invalid",
        "0.05",
        "--dir",
        "runs",
        "--verify",
    ];
    let batches = [&url[..], &knobs, &["--batch", "100", "--producers", "2"]].concat();
    let report = load(&site, &batches).ok().json();
    assert_eq!(report["knobs"]["target"], "http batch");
    assert_eq!(count(&report, "sent"), 2_000);
    assert_checked(&report, &VERIFIED);
    let pid = gate.id().to_string();
    let single = [
        &url[..],
        &knobs,
        &["--single", "--connections", "16", "--gate-pid", &pid],
    ]
    .concat();
    let report = load(&site, &single).ok().json();
    assert_eq!(report["knobs"]["target"], "http single");
    assert_eq!(report["knobs"]["producers"], 16);
    assert_checked(&report, &VERIFIED);
    let used = &report["cpu"]["used"];
    assert!(used["gate_seconds"].as_f64().unwrap() > 0.0, "{used}");
    let planned = [&url[..], &["--single", "--rate", "500", "--duration", "1s"]].concat();
    let report = load(&site, &planned).ok().json();
    assert_eq!(count(&report, "admitted"), 500);
    assert_eq!(gate.terminate().code, Some(0));
}

#[test]
fn a_sealed_world_is_a_load_too() {
    let site = Site::new();
    let demo = ["demo", "--events", "1000", "--dir", "show"];
    site.run(&demo).ok();
    let world = ["--world", "show/world", "--partitions", "3", "--verify"];
    let report = load(&site, &world).ok().json();
    assert_eq!(report["refusals"], serde_json::json!({}));
    assert_eq!(count(&report, "admitted"), 2_500);
    assert_checked(
        &report,
        &[
            "conservation",
            "bus",
            "receipts",
            "once, as sent, in order per key",
        ],
    );
    let part = [&world[..], &["--events", "700", "--rate", "5000"]].concat();
    let report = load(&site, &part).ok().json();
    let sent = count(&report, "sent");
    assert!((695..=705).contains(&sent), "{report}");
    let missing = load(&site, &["--world", "nowhere"]);
    assert_eq!(missing.code, Some(1), "{}", missing.everything());
}
