//! Commands that ask a running gate, against answers given by hand.

use super::{folder, json, run, stderr, stdout};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

/// Answers one request; gives back its head.
fn answer_once(status: &'static str, body: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                reader.read_line(&mut head).unwrap(),
                0,
                "the request ends early"
            );
        }
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        );
        let mut stream = reader.into_inner();
        stream.write_all(answer.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Wait for the client's end, so that closing cannot cut the answer off.
        let _ = stream.read(&mut [0; 1]);
        head
    });
    (url, thread)
}

const TREE: &str = r#"{"taken_at_micros": 5, "nodes": [
    {"path": "gate", "kind": "supervisor", "state": "running", "generation": 1, "restarts": 0,
     "queue_depth": null, "credits": null, "last_error": null, "since_micros": 1},
    {"path": "gate/shard 0", "kind": "pipeline", "state": "backing_off", "generation": 3,
     "restarts": 2, "queue_depth": 4, "credits": {"events_in_use": 7, "events_limit": 1000,
     "bytes_in_use": 1, "bytes_limit": 2, "blocked_micros": 3},
     "last_error": "STAGE_FAILED: boom", "since_micros": 1}]}"#;

#[test]
fn ps_shows_the_tree_of_the_gate_and_sends_the_token() {
    let folder = folder();
    let (url, request) = answer_once("200 OK", TREE);
    let url_flag = format!("wiring.ig_ingest_url={url}/v1/ingest/push");
    let token_flag = "wiring.security.wsp_auth_token=let-me-in";
    let output = run(
        folder.path(),
        &["--set", &url_flag, "--set", token_flag, "ps", "--failing"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let head = request.join().unwrap();
    assert!(head.starts_with("GET /v1/ops/tree HTTP/1.1\r\n"), "{head}");
    assert!(
        head.to_ascii_lowercase()
            .contains("x-ig-api-key: let-me-in\r\n"),
        "{head}"
    );
    let table = stdout(&output);
    assert_eq!(table.lines().count(), 2, "{table}");
    for part in ["shard 0", "backing_off", "7/1,000", "STAGE_FAILED: boom"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn control_verbs_reach_the_run_they_name() {
    let id = "platform_20260101T000000Z";
    for verb in ["cancel", "pause", "resume"] {
        let folder = folder();
        let (url, request) = answer_once("202 Accepted", r#"{"state": "as asked"}"#);
        let flag = format!("wiring.ig_ingest_url={url}");
        let output = run(folder.path(), &["--set", &flag, "run", verb, id]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(json(&output)["state"], "as asked");
        let head = request.join().unwrap();
        let expected = format!("POST /v1/ops/runs/{id}/{verb} HTTP/1.1\r\n");
        assert!(head.starts_with(&expected), "{head}");
    }
}

#[test]
fn a_refusal_of_the_gate_is_shown_with_its_code() {
    let folder = folder();
    let body = r#"{"error": "RUN_NOT_FOUND", "detail": "no such run is open"}"#;
    let (url, request) = answer_once("404 Not Found", body);
    let flag = format!("wiring.ig_ingest_url={url}");
    let id = "platform_20260101T000000Z";
    let output = run(folder.path(), &["--set", &flag, "run", "pause", id]);
    request.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("error: RUN_NOT_FOUND: the gate answered 404 no such run"),
        "{said}"
    );
}

#[test]
fn a_gate_that_is_not_there_is_a_clear_error() {
    let folder = folder();
    let output = run(
        folder.path(),
        &["--set", "wiring.ig_ingest_url=http://127.0.0.1:9", "ps"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("error: GATE_UNREACHABLE: "),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("hint: "));
}
