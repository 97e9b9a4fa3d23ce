//! The admission pipeline (contract 7.3, 7.4, 7.7, 7.8): every decision and code a push can get.

use serde_json::{Value, json};

use crate::support::Site;
use crate::support::bus::records;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{Answer, GateClient, RUN, traffic};
use crate::support::push_cases::{CASES, Case, assert_answer, remove};
use crate::support::site::read_json;

#[test]
fn every_envelope_gets_the_decision_and_code_of_the_pipeline() {
    let site = Site::new();
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    for (number, case) in CASES.iter().enumerate() {
        let mut event = traffic(case.name, number as u64);
        (case.change)(&mut event);
        let answer = client.push(&event);
        assert_answer(case, &answer);
        match case.decision {
            "QUARANTINE" => assert_quarantine_is_kept(&site, case, &event, &answer),
            "" => assert!(
                answer.body["detail"].as_str().unwrap().contains(' '),
                "{answer:?}"
            ),
            _ => assert_eq!(answer.body["receipt"]["eb_ref"]["offset_kind"], "file_line"),
        }
    }
}

/// A quarantine keeps its evidence: the record, and a receipt that points to it.
#[track_caller]
fn assert_quarantine_is_kept(site: &Site, case: &Case, event: &Value, answer: &Answer) {
    let receipt = &answer.body["receipt"];
    let evidence = &receipt["evidence_refs"][0];
    assert_eq!(
        evidence["kind"], "quarantine_record",
        "{}: {receipt}",
        case.name
    );
    let record = site.path().join(evidence["ref"].as_str().unwrap());
    let record = wait_for(&record);
    assert_eq!(record["decision"], "QUARANTINE");
    assert_eq!(record["reason_codes"], json!([case.code]));
    assert_eq!(record["quarantine_id"], receipt["receipt_id"]);
    assert_eq!(record["envelope"]["event_id"], event["event_id"]);
    assert!(
        record["envelope"].get("payload").is_none(),
        "{}: payload is kept out",
        case.name
    );
}

/// The record is a projection of the journal: it may come a moment after the answer.
fn wait_for(path: &std::path::Path) -> Value {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !path.is_file() {
        assert!(
            std::time::Instant::now() < end,
            "{} never came",
            path.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    read_json(path)
}

#[test]
fn the_same_event_again_is_a_duplicate_of_the_first_and_another_body_is_quarantined() {
    let site = Site::new();
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let event = traffic("twice", 7);
    let first = client.push(&event);
    assert_eq!(first.decision(), "ADMIT", "{first:?}");
    let again = client.push(&event);
    assert_eq!(
        (again.decision(), again.code()),
        ("DUPLICATE", "DUPLICATE"),
        "{again:?}"
    );
    let (one, two) = (&first.body["receipt"], &again.body["receipt"]);
    assert_eq!(one["eb_ref"]["offset"], two["eb_ref"]["offset"]);
    assert_eq!(one["admitted_at_utc"], two["admitted_at_utc"]);
    assert_eq!(two["evidence_refs"][0]["ref"], first.body["receipt_ref"]);
    let mut other = event.clone();
    other["payload"]["amount"] = json!(26.0);
    let mismatch = client.push(&other);
    assert_eq!(
        (mismatch.decision(), mismatch.code()),
        ("QUARANTINE", "PAYLOAD_HASH_MISMATCH")
    );
    // Key order and spaces are no part of a payload.
    let reordered = serde_json::to_string_pretty(&sorted(&event)).unwrap();
    assert_eq!(client.push_bytes(reordered).decision(), "DUPLICATE");
    let records = records(&site.run_root(RUN));
    assert_eq!(records.len(), 1, "one event, sent four ways, is one record");
}

fn sorted(event: &Value) -> Value {
    let mut members: Vec<_> = event.as_object().unwrap().clone().into_iter().collect();
    members.sort_by(|a, b| b.0.cmp(&a.0));
    Value::Object(members.into_iter().collect())
}

#[test]
fn an_envelope_goes_to_the_run_it_names_not_to_the_run_of_the_gate() {
    let site = Site::new();
    let own = site.new_run();
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let answer = client.push(&traffic("elsewhere", 1));
    assert_eq!(answer.decision(), "ADMIT");
    let reference = answer.body["receipt_ref"].as_str().unwrap();
    assert!(
        reference.contains(RUN) && !reference.contains(&own),
        "{reference}"
    );
    assert!(
        site.run_root(RUN)
            .join("eb/fp.bus.traffic.fraud.v1/partition=0.jsonl")
            .is_file()
    );
    assert!(!site.run_root(&own).join("eb").exists());
}

#[test]
fn a_batch_answers_each_envelope_in_order() {
    let site = Site::new();
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let mut bad = traffic("b2", 2);
    remove(&mut bad["payload"], "amount");
    let mut hopeless = traffic("b3", 3);
    remove(&mut hopeless, "event_id");
    let events = [
        traffic("b1", 1),
        bad,
        hopeless,
        traffic("b1", 1),
        traffic("b4", 1),
    ];
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let answer = client.push_batch(lines.join("\n"));
    let results = answer.body["results"].as_array().unwrap();
    let outcomes: Vec<&str> = results
        .iter()
        .map(|result| {
            result["decision"]
                .as_str()
                .or(result["error"].as_str())
                .unwrap()
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            "ADMIT",
            "QUARANTINE",
            "ENVELOPE_INVALID",
            "DUPLICATE",
            "ADMIT"
        ]
    );
    assert_eq!(results[1]["reason_code"], "SCHEMA_FAIL");
    assert_eq!(results[2]["status"], 422);
    let array = client.push_batch(format!("[{}]", lines.join(",")));
    let decisions = array.body["results"].as_array().unwrap();
    assert_eq!(decisions[0]["decision"], "DUPLICATE");
    assert_eq!(decisions[4]["decision"], "DUPLICATE");
}
