//! Events that are pushed alone by many callers at once: the gate decides them together, and each caller gets
//! the answer to its own (contract 7.1, 7.3).

use serde_json::json;

use crate::support::Site;
use crate::support::bus::records;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{Answer, GateClient, RUN, traffic};
use crate::support::push_cases::{CASES, assert_answer};

const CALLERS: usize = 32;
const KEYS: [&str; 2] = ["key-of-the-first-caller-1", "key-of-the-second-caller-2"];

/// Pushes every case under names of its own, what was admitted a second time, and what is no event at all.
fn push_everything(client: &GateClient, caller: usize) -> (usize, String) {
    let header = ("X-IG-Api-Key", KEYS[caller % 2]);
    let (mut admitted, mut principal) = (0, String::new());
    for case in CASES {
        let mut event = traffic(&format!("{}-{caller}", case.name), caller as u64);
        (case.change)(&mut event);
        let answer = client.push_as(header, &event);
        assert_answer(case, &answer);
        if case.decision.is_empty() {
            continue;
        }
        assert_is_of(&answer, &event["event_id"]);
        principal = answer.body["receipt"]["actor"]["principal"].to_string();
        if case.decision == "ADMIT" {
            admitted += 1;
            let again = client.push_as(header, &event);
            assert_eq!(again.decision(), "DUPLICATE", "{again:?}");
            assert_is_of(&again, &event["event_id"]);
            let first = &again.body["receipt"]["evidence_refs"][0]["ref"];
            assert_eq!(*first, answer.body["receipt_ref"]);
        }
    }
    let nonsense = client.push_as(header, &json!([caller]));
    assert_eq!(
        (nonsense.status, nonsense.code()),
        (422, "ENVELOPE_INVALID")
    );
    (admitted, principal)
}

#[track_caller]
fn assert_is_of(answer: &Answer, event_id: &serde_json::Value) {
    let known = event_id.as_str().is_some_and(|id| !id.is_empty());
    let told = &answer.body["receipt"]["event_id"];
    assert!(!known || told == event_id, "{event_id}: {answer:?}");
}

#[test]
fn callers_that_push_at_the_same_time_get_their_own_answers() {
    let site = Site::new()
        .set("wiring.security.auth_mode=api_key")
        .set(format!("wiring.security.auth_allowlist={}", KEYS.join(",")));
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let told: Vec<(usize, String)> = std::thread::scope(|scope| {
        let client = &client;
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| scope.spawn(move || push_everything(client, caller)))
            .collect();
        let callers = callers.into_iter();
        callers.map(|caller| caller.join().unwrap()).collect()
    });
    for (caller, (_, principal)) in told.iter().enumerate() {
        assert_eq!(*principal, told[caller % 2].1, "one label for each key");
    }
    assert_ne!(told[0].1, told[1].1);
    let admitted: usize = told.iter().map(|(admitted, _)| admitted).sum();
    assert!(admitted >= CALLERS);
    // The gate itself tells of so many quarantines.
    let records = records(&site.run_root(RUN));
    let pushed = records
        .iter()
        .filter(|record| record.event_id().starts_with("good-"));
    assert_eq!(pushed.count(), admitted);
}

#[test]
fn who_prefers_little_is_told_the_decision_and_where_its_receipt_is() {
    let site = Site::new();
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let prefer = ("Prefer", "respond-async, return=minimal");
    for (number, case) in CASES.iter().enumerate() {
        let mut event = traffic(&format!("short-{}", case.name), number as u64);
        (case.change)(&mut event);
        let answer = client.push_as(prefer, &event);
        assert_answer(case, &answer);
        let applied = answer.preference_applied.as_deref();
        if case.decision.is_empty() {
            assert_eq!((applied, answer.body.get("receipt_ref")), (None, None));
            continue;
        }
        assert_eq!(applied, Some("return=minimal"), "{answer:?}");
        let mut said: Vec<&str> = answer
            .body
            .as_object()
            .unwrap()
            .keys()
            .map(|k| &**k)
            .collect();
        said.sort_unstable();
        match case.decision {
            "QUARANTINE" => assert_eq!(said, ["decision", "reason_code", "receipt_ref"]),
            _ => assert_eq!(said, ["decision", "receipt_ref"]),
        }
        if case.decision != "ADMIT" {
            continue;
        }
        let id = event["event_id"].as_str().unwrap();
        let known = client.get(&format!("/v1/ops/lookup?event_id={id}"));
        assert_eq!(known.body["receipt_ref"], answer.body["receipt_ref"]);
        let copy = client.push_as(prefer, &event);
        assert_eq!(copy.decision(), "DUPLICATE");
        assert_ne!(
            copy.body["receipt_ref"], answer.body["receipt_ref"],
            "a copy has its own"
        );
        let whole = client.push(&event);
        assert_eq!(whole.preference_applied, None);
        let first = &whole.body["receipt"]["evidence_refs"][0]["ref"];
        assert_eq!(*first, answer.body["receipt_ref"]);
    }
}
