//! A runner killed at any of its writes, before or after it, is finished by submitting again.

use std::fs;

use serde_json::{Value, json};
use wellspring_domain::scenario::control::RunVerdict;

use super::support::{Bench, Death};

/// Enough for every write of one submission; a run that needs more is a bug of its own.
const WRITES_MAX: i64 = 80;

/// Kills a runner at each of its writes in turn, checks the state it leaves, and submits again.
fn kill_everywhere(
    arrange: fn(&Bench),
    change: &Value,
    check: fn(&Bench, RunVerdict, &str),
) -> i64 {
    let mut kills = 0;
    for after_the_write in [false, true] {
        for write in 0..WRITES_MAX {
            let bench = Bench::new();
            arrange(&bench);
            let death = Death::at(write, after_the_write);
            let killed = bench
                .runner_with(bench.ports(&death))
                .submit(&bench.request(change.clone()));
            if !death.struck() {
                assert!(killed.is_ok(), "nothing struck and it failed: {killed:?}");
                break;
            }
            kills += 1;
            let published = bench.bus().len();
            let ready = bench.document("ready_signal");
            assert!(
                published == 0 || ready != Value::Null,
                "published before it was stored"
            );
            // The killed runner's lease is not given back; it runs out.
            bench.clock.pass_seconds(301);
            let response = bench.submit(change.clone()).unwrap();
            let place = format!(
                "write {write}, after: {after_the_write}: {}",
                response.message
            );
            check(&bench, response.verdict, &place);
            if ready != Value::Null {
                assert_eq!(bench.document("ready_signal"), ready, "{place}");
            }
        }
    }
    kills
}

#[test]
fn a_ready_commit_cut_off_anywhere_is_finished_with_the_same_bytes() {
    let kills = kill_everywhere(
        |_| {},
        &json!({}),
        |bench, verdict, place| {
            assert_eq!(verdict, RunVerdict::Ready, "{place}");
            let facts = bench.facts();
            assert!(
                facts.values().all(|count| *count == 1),
                "{place}: {facts:?}"
            );
            assert_eq!(
                facts.len() - facts.contains_key("READY_PUBLISH_FAILED") as usize,
                8,
                "{place}"
            );
            let bus = bench.bus();
            assert_eq!(bus.len(), 1, "{place}");
            assert_eq!(bus[0]["payload"], bench.document("ready_signal"), "{place}");
            assert_eq!(bench.document("run_status")["state"], "READY", "{place}");
        },
    );
    assert!(kills > 40, "only {kills} moments were tried");
}

#[test]
fn a_quarantine_cut_off_anywhere_ends_quarantined_with_its_file() {
    let arrange = |bench: &Bench| {
        let report = format!("data/base/{}/report.json", "a".repeat(64));
        super::support::write(&bench.world(), &report, b"edited");
    };
    let kills = kill_everywhere(arrange, &json!({}), |bench, verdict, place| {
        assert_eq!(verdict, RunVerdict::Quarantined, "{place}");
        assert_eq!(
            bench.document("quarantine")["reason"],
            "EVIDENCE_CONFLICT",
            "{place}"
        );
        assert_eq!(bench.facts()["EVIDENCE_CONFLICT"], 1, "{place}");
        assert!(bench.bus().is_empty(), "{place}");
    });
    assert!(kills > 20, "only {kills} moments were tried");
}

#[test]
fn a_wait_cut_off_anywhere_still_waits() {
    let arrange = |bench: &Bench| fs::remove_dir_all(bench.world().join("data/context")).unwrap();
    kill_everywhere(arrange, &json!({}), |bench, verdict, place| {
        assert_eq!(verdict, RunVerdict::Waiting, "{place}");
        assert_eq!(
            bench.document("run_status")["state"],
            "WAITING_EVIDENCE",
            "{place}"
        );
    });
}

#[test]
fn a_bus_that_does_not_take_ready_leaves_a_ready_run_that_can_be_published_later() {
    use std::sync::Arc;
    use wellspring_domain::ports::{ControlBus, ControlRecord, PutOutcome, StoreError};
    struct DeafBus;
    impl ControlBus for DeafBus {
        fn publish(&self, _: &str, m: &str, _: &str, _: &[u8]) -> Result<PutOutcome, StoreError> {
            let (operation, cause) = ("publish", "x".repeat(2_000));
            Err(StoreError::Unavailable {
                operation,
                key: m.to_owned(),
                cause,
            })
        }
        fn poll(&self, _: &str, _: usize) -> Result<Vec<ControlRecord>, StoreError> {
            Ok(Vec::new())
        }
        fn settle(&self, _: &str, _: &ControlRecord) -> Result<(), StoreError> {
            Ok(())
        }
    }
    let bench = Bench::new();
    let mut ports = bench.ports(&Death::never());
    ports.control_bus = Arc::new(DeafBus);
    let response = bench
        .runner_with(ports)
        .submit(&bench.request(json!({})))
        .unwrap();
    assert_eq!(response.verdict, RunVerdict::ReadyUnpublished);
    let failed = bench.record().pop().unwrap();
    assert_eq!(failed["event_kind"], "READY_PUBLISH_FAILED");
    assert_eq!(
        failed["details"]["error"].as_str().unwrap().chars().count(),
        512
    );
    let again = bench.submit(json!({})).unwrap();
    assert_eq!((again.verdict, bench.bus().len()), (RunVerdict::Ready, 1));
}
