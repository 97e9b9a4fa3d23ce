//! The HTTP surface (contract 7.1, 7.2): routes, authentication, limits, lookups.

use std::fs;

use serde_json::json;

use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, traffic};

/// V22 of the golden vectors: principal `world_stream_producer`, secret `test-secret-1`.
const TOKEN: &str = "st.v1.d29ybGRfc3RyZWFtX3Byb2R1Y2Vy.\
                     0e40011b1bd532fa6b02c45dba3122564c4da20f5c4db4dea62428103cf1beef";

fn gate(settings: &[&str]) -> (Site, Daemon, GateClient) {
    let site = settings
        .iter()
        .fold(Site::new(), |site, setting| site.set(*setting));
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    (site, daemon, client)
}

#[test]
fn every_route_answers_and_the_pull_route_is_gone() {
    let (_site, _daemon, client) = gate(&[]);
    let event = traffic("routes", 1);
    assert_eq!(client.push(&event).status, 200);
    let found = client.get("/v1/ops/lookup?event_id=routes");
    assert_eq!(found.body["decision"], "ADMIT", "{found:?}");
    let receipt = found.body["receipt_id"].as_str().unwrap().to_owned();
    let same = client.get(&format!("/v1/ops/lookup?receipt_id={receipt}"));
    assert_eq!(same.body, found.body);
    assert_eq!(client.get("/v1/ops/lookup?event_id=nobody").body, json!({}));
    let missing = client.get("/v1/ops/lookup");
    assert_eq!((missing.status, missing.code()), (400, "MISSING_QUERY"));
    let health = client.get("/v1/ops/health");
    assert_eq!(
        (health.status, &health.body["state"]),
        (200, &json!("GREEN"))
    );
    assert!(
        health.body["build"].is_string(),
        "the build answers for itself: {health:?}"
    );
    let tree = client.get("/v1/ops/tree");
    assert!(tree.body["nodes"].as_array().unwrap().len() > 3, "{tree:?}");
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.get("/readyz").status, 200);
    let metrics = client.text("/metrics");
    assert!(metrics.contains("# TYPE"), "{metrics}");
    for path in ["/v1/ingest/pull", "/", "/v1/ingest"] {
        assert_eq!(client.post(path).status, 404, "{path}");
    }
    assert_eq!(client.get("/v1/ingest/push").status, 405);
}

#[test]
fn bodies_that_are_no_event_get_a_clear_answer() {
    let (_site, _daemon, client) = gate(&[]);
    for body in [
        "",
        "{",
        "nonsense",
        "[1,2",
        "{\"a\":NaN}",
        "{\"a\":1e400}",
        "{\"a\":1,\"a\":2}",
    ] {
        let answer = client.push_bytes(body);
        assert_eq!(answer.status / 100, 4, "{body}: {answer:?}");
        assert!(!answer.code().is_empty(), "{body}: {answer:?}");
    }
    let answer = client.push_bytes("{not json");
    assert_eq!((answer.status, answer.code()), (400, "INVALID_JSON"));
    let answer = client.push_batch("[{\"a\":1},");
    assert_eq!((answer.status, answer.code()), (400, "INVALID_JSON"));
}

#[test]
fn api_keys_open_the_gate_and_never_reach_a_receipt() {
    let (site, _daemon, client) = gate(&[
        "wiring.security.auth_mode=api_key",
        "wiring.security.auth_allowlist=key-one",
    ]);
    let event = traffic("keyed", 1);
    let nobody = client.push(&event);
    assert_eq!((nobody.status, nobody.code()), (401, "UNAUTHORIZED"));
    let wrong = client.push_as(("X-IG-Api-Key", "key-two"), &event);
    assert_eq!((wrong.status, wrong.code()), (401, "UNAUTHORIZED"));
    // Who has not said who they are is not parsed for, either.
    assert_eq!(client.push_bytes("{broken").status, 401);
    assert_eq!(client.get("/v1/ops/health").status, 401);
    assert_eq!(client.get("/v1/ops/lookup?event_id=keyed").status, 401);
    let right = client.push_as(("X-IG-Api-Key", "key-one"), &event);
    assert_eq!(right.decision(), "ADMIT", "{right:?}");
    let actor = &right.body["receipt"]["actor"];
    assert_eq!(actor["auth_mode"], "api_key");
    assert_eq!(actor["source_type"], "SYSTEM");
    assert!(
        !right.body.to_string().contains("key-one"),
        "{}",
        right.body
    );
    assert!(files_with(&site, b"key-one").is_empty());
}

/// Files below the runs root that hold these bytes.
fn files_with(site: &Site, bytes: &[u8]) -> Vec<String> {
    let mut folders = vec![site.path().join("runs")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read(&path)
                .unwrap()
                .windows(bytes.len())
                .any(|part| part == bytes)
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn service_tokens_are_checked_against_the_secret_and_the_list() {
    let (_site, _daemon, client) = gate(&[
        "wiring.security.auth_mode=service_token",
        "wiring.security.api_key_header=X-IG-Service-Token",
        "wiring.security.service_token_secrets=test-secret-1",
        "wiring.security.auth_allowlist=world_stream_producer",
    ]);
    let event = traffic("token", 1);
    let header = "X-IG-Service-Token";
    let right = client.push_as((header, TOKEN), &event);
    assert_eq!(right.decision(), "ADMIT", "{right:?}");
    let actor = &right.body["receipt"]["actor"];
    assert_eq!(actor["actor_id"], "SYSTEM::world_stream_producer");
    let forged = TOKEN.replace("0e40", "0e41");
    for wrong in [
        "",
        "st.v1.x.y",
        "st.v2.a.b",
        "world_stream_producer",
        &forged,
    ] {
        let answer = client.push_as((header, wrong), &event);
        assert_eq!(
            (answer.status, answer.code()),
            (401, "UNAUTHORIZED"),
            "{wrong}"
        );
    }
}

#[test]
fn auth_modes_that_cannot_work_say_so() {
    for (setting, code) in [
        ("wiring.security.auth_mode=jwt", "AUTH_MODE_UNSUPPORTED"),
        ("wiring.security.auth_mode=magic", "AUTH_MODE_UNKNOWN"),
        (
            "wiring.security.auth_mode=service_token",
            "AUTH_SERVICE_TOKEN_SECRET_MISSING",
        ),
    ] {
        let site = Site::new().set(setting);
        let checked = site.run(&["config", "check"]);
        // Said before anything is served, by the check and by the gate itself.
        let refused = checked.code != Some(0) && checked.everything().contains(code);
        if !refused {
            let daemon = Daemon::gate(&site);
            let answer = GateClient::new(&daemon.url).push(&traffic("nobody", 1));
            assert_eq!(
                (answer.status, answer.code()),
                (401, code),
                "{}",
                checked.everything()
            );
        }
    }
}

#[test]
fn pushes_beyond_the_rate_are_told_to_wait() {
    let (_site, _daemon, client) = gate(&["wiring.security.push_rate_limit_per_minute=2"]);
    let answers: Vec<_> = (0..3)
        .map(|number| client.push(&traffic(&format!("rate-{number}"), number)))
        .collect();
    assert_eq!(answers[1].status, 200);
    assert_eq!(
        (answers[2].status, answers[2].code()),
        (429, "RATE_LIMITED")
    );
    assert!(answers[2].retry_after.is_some());
}

#[test]
fn without_free_space_nothing_is_admitted_and_doctor_says_why() {
    let setting = "wiring.gate.min_free_bytes=9000000000000000000";
    let (site, _daemon, client) = gate(&[setting]);
    let answer = client.push(&traffic("full", 1));
    assert_eq!(
        (answer.status, answer.code()),
        (503, "IG_UNHEALTHY"),
        "{answer:?}"
    );
    assert!(answer.retry_after.is_some(), "{answer:?}");
    assert_eq!(client.get("/v1/ops/health").body["state"], "RED");
    let doctor = site.run(&[
        "--set",
        "wiring.gate.bind_port=0",
        "doctor",
        "--format",
        "table",
    ]);
    assert_eq!(doctor.code, Some(1), "{}", doctor.everything());
    let finding = doctor
        .stdout
        .lines()
        .find(|line| line.starts_with("disk space"))
        .unwrap_or_default();
    assert!(
        finding.contains("FAILED") && finding.contains("DISK_SPACE_LOW"),
        "{}",
        doctor.everything()
    );
}

#[test]
fn a_second_gate_on_the_same_run_is_refused() {
    let site = Site::new();
    site.new_run();
    let first = Daemon::gate(&site);
    let client = GateClient::new(&first.url);
    assert_eq!(client.push(&traffic("first", 1)).decision(), "ADMIT");
    let second = site.run(&["gate", "serve", "--port", "0"]);
    let refused = second.refused(1, "RUN_OPEN_FAILED");
    assert!(
        refused.stderr.contains("STORE_LOCKED"),
        "{}",
        refused.everything()
    );
    assert_eq!(client.push(&traffic("third", 3)).decision(), "ADMIT");
}
