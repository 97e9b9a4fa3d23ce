//! The managed gate over HTTP: the decisions of the embedded gate, and no answer for what is not there.

use super::Site;
use super::daemon::Daemon;
use super::gate_client::{GateClient, RUN, traffic};
use super::push_cases::{CASES, assert_answer};
use super::truth::look;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

/// A gate that asks nobody for a key, and takes events of worlds without a proof.
fn open_site() -> Site {
    let mut site = Site::new();
    site.set("WELLSPRING_WIRING_SECURITY_AUTH_MODE", "disabled");
    site.set("WELLSPRING_POLICY_VERIFY_GATES", "warn");
    site
}

#[test]
fn every_envelope_gets_the_decision_and_code_of_the_embedded_gate() {
    let site = open_site();
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    for (number, case) in CASES.iter().enumerate() {
        let mut event = traffic(case.name, number as u64);
        (case.change)(&mut event);
        let answer = client.push(&event);
        assert_answer(case, &answer);
        let receipt = &answer.body["receipt"];
        match case.decision {
            "ADMIT" => assert_eq!(
                receipt["eb_ref"]["offset_kind"], "kinesis_sequence",
                "{receipt}"
            ),
            "QUARANTINE" => assert_eq!(receipt["evidence_refs"][0]["kind"], "quarantine_record"),
            _ => {}
        }
    }
    let good = traffic("good", 0);
    assert_eq!(client.push(&good).decision(), "DUPLICATE");
    let mut other = good.clone();
    other["payload"]["amount"] = json!(26.5);
    let answer = client.push(&other);
    assert_eq!(
        (answer.decision(), answer.code()),
        ("QUARANTINE", "PAYLOAD_HASH_MISMATCH")
    );
    let found = client.get("/v1/ops/lookup?event_id=good");
    assert_eq!(found.body["decision"], "ADMIT", "{found:?}");
    assert_eq!(daemon.terminate().code, Some(0));
    let (contents, truth) = look(&site, RUN);
    assert_eq!((truth.admitted, contents.len()), (1, 1));
    let run = ["--run", RUN];
    for what in [["bus", "verify"], ["receipts", "verify"]] {
        let verified = site.run(&[&what[..], &run].concat()).ok().json();
        assert_eq!(verified["verified"], true, "{verified}");
    }
}

const SENDERS: u64 = 8;
const EVENTS: u64 = 600;

/// Pushes its share until it is through or the gate does not answer; notes what was answered 200.
fn push_share(client: &GateClient, sender: u64, answered: &Mutex<BTreeSet<String>>) {
    for number in (sender..EVENTS).step_by(SENDERS as usize) {
        let name = format!("event-{number}");
        match client.try_push(&traffic(&name, number)) {
            Ok(answer) if answer.status == 200 => {
                assert!(
                    ["ADMIT", "DUPLICATE"].contains(&answer.decision()),
                    "{answer:?}"
                );
                answered.lock().unwrap().insert(name);
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn push_all(daemon: &Daemon, answered: &Mutex<BTreeSet<String>>) {
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let client = GateClient::new(&daemon.url);
            scope.spawn(move || push_share(&client, sender, answered));
        }
    });
}

#[test]
fn what_a_killed_gate_has_answered_is_there_and_is_there_once() {
    let site = open_site();
    let answered = Mutex::new(BTreeSet::new());
    for wanted in [100, 300] {
        let daemon = Daemon::gate(&site);
        std::thread::scope(|scope| {
            let answered = &answered;
            scope.spawn(|| push_all(&daemon, answered));
            crate::support::wait_until("enough was answered", Duration::from_secs(60), || {
                answered.lock().unwrap().len() >= wanted
            });
            daemon.signal(rustix::process::Signal::KILL);
        });
        println!("killed after {} answers", answered.lock().unwrap().len());
    }
    let daemon = Daemon::gate(&site);
    let before = answered.lock().unwrap().clone();
    for name in &before {
        let flow = name.trim_start_matches("event-").parse().unwrap();
        let again = GateClient::new(&daemon.url).push(&traffic(name, flow));
        assert_eq!(
            (again.status, again.decision()),
            (200, "DUPLICATE"),
            "{name}: {again:?}"
        );
    }
    push_all(&daemon, &answered);
    assert_eq!(answered.lock().unwrap().len() as u64, EVENTS);
    assert_eq!(daemon.terminate().code, Some(0));
    let (_, truth) = look(&site, RUN);
    println!("{truth:?}");
    assert_eq!(truth.admitted, EVENTS);
}
