//! Hostile input: each gets a clear answer, nothing enters the bus without a receipt, memory stays
//! bounded, and the daemon keeps serving.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Site;
use crate::support::bus::assert_each_once_and_receipted;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{Answer, GateClient, RUN, traffic};

/// Resident memory a gate may have under attack; its own bounds, in flight and index, add up to less.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;

/// Half-open connections to try; fewer where the process may not open as many.
const HALF_OPEN: usize = 10_000;

#[track_caller]
fn assert_alive(daemon: &mut Daemon, client: &GateClient, name: &str) {
    assert!(daemon.is_running(), "{name}: {}", daemon.stderr());
    let name = name.replace(' ', "-");
    let answer = client.push(&traffic(&format!("alive-after-{name}"), 1));
    assert_eq!(answer.decision(), "ADMIT", "{name}: {answer:?}");
    assert!(
        daemon.resident_bytes() < RESIDENT_BYTES_MAX,
        "{name}: {}",
        daemon.resident_bytes()
    );
    assert!(
        !daemon.stderr().contains("panicked"),
        "{name}: {}",
        daemon.stderr()
    );
}

/// A good envelope as text, with one member replaced by raw text.
fn with_raw(name: &str, member: &str, raw: &str) -> String {
    let mut event = traffic(name, 1);
    event["payload"][member] = json!("@@");
    event.to_string().replace("\"@@\"", raw)
}

/// A body, what it is called, and the statuses and codes it may get.
type Body = (&'static str, Vec<u8>, &'static [(u16, &'static str)]);

fn bodies() -> Vec<Body> {
    let refused: &[(u16, &str)] = &[(400, "INVALID_JSON"), (422, "ENVELOPE_INVALID")];
    let judged: &[(u16, &str)] = &[
        (200, "SCHEMA_FAIL"),
        (200, "ENVELOPE_INVALID"),
        (422, "ENVELOPE_INVALID"),
        (400, "INVALID_JSON"),
    ];
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut bad_utf8 = traffic("utf8", 1).to_string().into_bytes();
    let at = bad_utf8.len() - 20;
    bad_utf8[at] = 0xff;
    let twice = traffic("double", 1)
        .to_string()
        .replacen('{', "{\"event_id\":\"other\",", 1);
    let twice_inside = with_raw("inside", "amount", "1.0,\"amount\":2.0");
    let mut number = traffic("number", 1);
    number["scenario_id"] = json!(7);
    let mut empty = traffic("", 1);
    empty["event_id"] = json!("");
    let long = traffic(&"x".repeat(257), 1);
    let mut nul = traffic("nul", 1);
    nul["producer"] = json!("a\u{0}b");
    vec![
        ("invalid utf-8", bad_utf8, refused),
        ("duplicate keys", twice.into_bytes(), refused),
        ("duplicate keys inside", twice_inside.into_bytes(), refused),
        (
            "NaN",
            with_raw("nan", "amount", "NaN").into_bytes(),
            refused,
        ),
        (
            "Infinity",
            with_raw("inf", "amount", "-Infinity").into_bytes(),
            refused,
        ),
        (
            "1e400",
            with_raw("huge", "amount", "1e400").into_bytes(),
            refused,
        ),
        (
            "deep nesting",
            with_raw("deep", "amount", &deep).into_bytes(),
            refused,
        ),
        ("deep alone", deep.into_bytes(), refused),
        (
            "integer scenario_id",
            number.to_string().into_bytes(),
            &[(200, "")],
        ),
        ("empty event_id", empty.to_string().into_bytes(), refused),
        ("257 characters", long.to_string().into_bytes(), judged),
        (
            "trailing bytes",
            format!("{}x", traffic("tail", 1)).into_bytes(),
            refused,
        ),
        (
            "lone surrogate",
            with_raw("sur", "campaign_id", "\"\\ud800\"").into_bytes(),
            refused,
        ),
        (
            "control character",
            with_raw("ctl", "campaign_id", "\"\u{1}\"").into_bytes(),
            refused,
        ),
        ("nothing", Vec::new(), refused),
        ("a number", b"7".to_vec(), refused),
        ("a list", b"[]".to_vec(), refused),
    ]
}

#[track_caller]
fn assert_one_of(name: &str, answer: &Answer, allowed: &[(u16, &str)]) {
    let got = (answer.status, answer.code());
    assert!(allowed.contains(&got), "{name}: {answer:?}");
    if answer.status != 200 {
        let detail = answer.body["detail"].as_str().unwrap_or("");
        assert!(detail.contains(' '), "{name} has no sentence: {answer:?}");
    }
}

#[test]
fn malformed_envelopes_get_a_code_and_leave_the_gate_serving() {
    let site = Site::new();
    let mut daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let mut refused = 0;
    for (name, body, allowed) in bodies() {
        let answer = client.push_bytes(body.clone());
        assert_one_of(name, &answer, allowed);
        refused += usize::from(answer.status != 200);
        if answer.decision() == "ADMIT" {
            // Receipts know a scenario as text only.
            assert_eq!(answer.body["receipt"]["pins"]["scenario_id"], "7", "{name}");
            continue;
        }
        // The same inside a batch spoils itself, not its neighbours.
        if !body.is_empty() && !body.contains(&b'\n') && std::str::from_utf8(&body).is_ok() {
            let mut lines = traffic(&format!("before-{}", name.replace(' ', "-")), 1)
                .to_string()
                .into_bytes();
            lines.push(b'\n');
            lines.extend(&body);
            let answer = client.push_batch(lines);
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(
                answer.body["results"][0]["decision"], "ADMIT",
                "{name}: {answer:?}"
            );
            assert_ne!(
                answer.body["results"][1]["decision"], "ADMIT",
                "{name}: {answer:?}"
            );
        }
        assert_alive(&mut daemon, &client, name);
    }
    assert!(refused > 10);
    assert_each_once_and_receipted(&client, &site.run_root(RUN));
    assert_eq!(daemon.terminate().code, Some(0));
}

#[test]
fn bodies_beyond_the_limits_are_refused_before_they_are_read() {
    let site = Site::new();
    let mut daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let pad = |bytes: usize| {
        let mut event = traffic("big", 1);
        event["payload"]["campaign_id"] = json!("x".repeat(bytes));
        event.to_string()
    };
    let fits = client.push(&serde_json::from_str::<Value>(&pad(900 << 10)).unwrap());
    assert_eq!(fits.decision(), "ADMIT", "{:?}", fits.code());
    for bytes in [1 << 20, 32 << 20] {
        let answer = raw_push(&daemon, &pad(bytes));
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("BODY_TOO_LARGE"), "{answer}");
    }
    let batch = client.push_batch(pad(31 << 20));
    assert_eq!(
        (batch.status, batch.code()),
        (413, "BODY_TOO_LARGE"),
        "{batch:?}"
    );
    assert_alive(&mut daemon, &client, "large bodies");
    // Chunked, without a length: read up to the limit and refused there.
    let endless = std::io::repeat(b' ').take(40 << 20);
    let body = reqwest::blocking::Body::new(endless);
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.push_bytes(body)));
    if let Ok(answer) = answer {
        assert_eq!(
            (answer.status, answer.code()),
            (413, "BODY_TOO_LARGE"),
            "{answer:?}"
        );
    }
    assert_alive(&mut daemon, &client, "an endless body");
}

fn raw_connection(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.url.trim_start_matches("http://")).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream
}

/// Pushes without a client library: a server that refuses early may close before all is sent.
fn raw_push(daemon: &Daemon, body: &str) -> String {
    let mut stream = raw_connection(daemon);
    let head = format!(
        "POST /v1/ingest/push HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn a_client_that_says_no_more_after_its_request_still_gets_its_answer() {
    let site = Site::new();
    let mut daemon = Daemon::gate(&site);
    let mut stream = raw_connection(&daemon);
    let body = traffic("said-all", 1).to_string();
    let head = format!(
        "POST /v1/ingest/push HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"decision\":\"ADMIT\""), "{answer}");
    let client = GateClient::new(&daemon.url);
    assert_alive(&mut daemon, &client, "half a connection");
}

#[test]
fn sixty_four_connections_on_one_topic_admit_every_event_once_in_order_per_key() {
    const CONNECTIONS: u64 = 64;
    const EVENTS: u64 = 20;
    let site = Site::new();
    let mut daemon = Daemon::gate(&site);
    let url = daemon.url.clone();
    let pushers = (0..CONNECTIONS).map(|connection| {
        let url = url.clone();
        std::thread::spawn(move || {
            let client = GateClient::new(&url);
            for number in 0..EVENTS {
                // Each event is sent by two connections, so they race for it.
                let event = traffic(&format!("c{}-{number:03}", connection / 2), connection / 2);
                let answer = client.push(&event);
                assert!(
                    ["ADMIT", "DUPLICATE"].contains(&answer.decision()),
                    "{answer:?}"
                );
            }
        })
    });
    pushers
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|pusher| pusher.join().unwrap());
    let client = GateClient::new(&url);
    assert_alive(&mut daemon, &client, "many connections");
    let events = assert_each_once_and_receipted(&client, &site.run_root(RUN));
    assert_eq!(daemon.terminate().code, Some(0));
    let mut ids: Vec<&str> = events.iter().map(String::as_str).collect();
    assert_eq!(ids.len() as u64, CONNECTIONS / 2 * EVENTS + 1);
    ids.retain(|id| id.starts_with("c5-"));
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn thousands_of_half_open_connections_do_not_keep_others_out_for_long() {
    let site = Site::new().set("wiring.gate.header_timeout_ms=500");
    let mut daemon = Daemon::gate(&site);
    let address = daemon.url.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    for number in 0..HALF_OPEN {
        // Our own limit of open files may be lower; what could be opened is held open.
        let Ok(mut stream) = TcpStream::connect(&address) else {
            break;
        };
        if number % 2 == 0 {
            let _ = stream.write_all(b"POST /v1/ingest/push HTTP/1.1\r\nhost: gate\r\n");
        }
        held.push(stream);
    }
    println!("held {} half-open connections", held.len());
    assert!(held.len() >= 500, "only {} could be opened", held.len());
    assert!(daemon.resident_bytes() < RESIDENT_BYTES_MAX);
    let client = GateClient::new(&daemon.url);
    let end = Instant::now() + Duration::from_secs(20);
    // Turned away with 503 at first; served when the silent ones have been let go.
    loop {
        let answer = client.get("/healthz");
        if answer.status == 200 {
            break;
        }
        assert_eq!(
            (answer.status, answer.code()),
            (503, "GATE_BUSY"),
            "{answer:?}"
        );
        assert!(answer.retry_after.is_some(), "{answer:?}");
        assert!(Instant::now() < end, "the gate never served again");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_alive(&mut daemon, &client, "half-open connections");
    drop(held);
    assert_alive(&mut daemon, &client, "their end");
    assert_eq!(daemon.terminate().code, Some(0));
}
