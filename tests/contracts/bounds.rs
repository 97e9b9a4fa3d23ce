//! Every edge of the daemon that takes something from outside, filled to its bound: what is beyond it gets a
//! clear answer, and is served when there is room again. Edges inside the process are filled by the tests
//! `docs/testing.md` lists.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{Answer, GateClient, traffic};

fn gate(settings: &[&str]) -> (Site, Daemon, GateClient) {
    let site = settings
        .iter()
        .fold(Site::new(), |site, setting| site.set(*setting));
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    (site, daemon, client)
}

/// A connection that has sent the head of a push and nothing of its body.
fn push_without_body(daemon: &Daemon, body_bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.url.trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST /v1/ingest/push HTTP/1.1\r\nhost: gate\r\ncontent-length: {body_bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Asks until a body that does not come has taken the room. Its own request is refused while what came before
/// still has some; then it is sent again.
#[track_caller]
fn until_full(daemon: &Daemon, room: usize, ask: impl Fn() -> Answer) -> (TcpStream, Answer) {
    let end = Instant::now() + Duration::from_secs(20);
    let mut slow = push_without_body(daemon, room);
    loop {
        let answer = ask();
        if answer.status == 429 {
            return (slow, answer);
        }
        assert!(Instant::now() < end, "never full: {answer:?}");
        std::thread::sleep(Duration::from_millis(10));
        slow.set_nonblocking(true).unwrap();
        if slow.peek(&mut [0]).is_ok() {
            slow = push_without_body(daemon, room);
        }
    }
}

/// The first event of a run opens it, which takes longer than a body is waited for; later ones do not.
fn open_run(client: &GateClient) {
    until(200, || client.push(&traffic("opens", 1)));
}

/// Asks until the answer has this status.
#[track_caller]
fn until(status: u16, ask: impl Fn() -> Answer) -> Answer {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask();
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < end, "never {status}: {answer:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn connections_beyond_the_limit_are_turned_away_and_taken_when_others_leave() {
    const CONNECTIONS: usize = 4;
    let settings = [
        "wiring.gate.connections_max=4",
        "wiring.gate.header_timeout_ms=25000",
    ];
    let (_site, daemon, client) = gate(&settings);
    let address = daemon.url.trim_start_matches("http://");
    let held: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let full = until(503, || client.get("/healthz"));
    assert_eq!(full.body["error"], "GATE_BUSY", "{full:?}");
    assert!(full.retry_after.is_some(), "{full:?}");
    drop(held);
    until(200, || client.get("/healthz"));
    assert_eq!(client.push(&traffic("after", 1)).decision(), "ADMIT");
}

#[test]
fn bodies_beyond_the_room_are_told_to_wait_before_a_byte_of_them_is_read() {
    const ROOM: usize = 65_536;
    let settings = [
        "wiring.gate.admission_shards=1",
        "wiring.gate.credit_bytes_max=65536",
        "wiring.gate.batch_body_bytes_max=65536",
        "wiring.gate.body_bytes_max=65536",
    ];
    let (_site, daemon, client) = gate(&settings);
    let event = traffic("waits", 1);
    open_run(&client);
    let (slow, full) = until_full(&daemon, ROOM, || client.push(&event));
    assert_eq!(full.code(), "GATE_BUSY", "{full:?}");
    assert!(full.body["detail"].as_str().unwrap().contains("bytes"));
    assert!(full.retry_after.is_some(), "{full:?}");
    // The tree is copied into metrics once a second.
    let end = Instant::now() + Duration::from_secs(10);
    while !client.text("/metrics").contains("wellspring_") {
        assert!(Instant::now() < end, "no metrics are told");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(slow);
    let answer = until(200, || client.push(&event));
    assert!(
        ["ADMIT", "DUPLICATE"].contains(&answer.decision()),
        "{answer:?}"
    );
}

#[test]
fn a_body_that_never_comes_gives_its_room_back_at_the_deadline() {
    let settings = [
        "wiring.gate.admission_shards=1",
        "wiring.gate.credit_bytes_max=65536",
        "wiring.gate.batch_body_bytes_max=65536",
        "wiring.gate.body_bytes_max=65536",
        "wiring.gate.header_timeout_ms=2000",
        "wiring.gate.request_timeout_ms=2000",
    ];
    let (_site, daemon, client) = gate(&settings);
    open_run(&client);
    let (_slow, _full) = until_full(&daemon, 65_536, || client.push(&traffic("early", 1)));
    until(200, || client.push(&traffic("late", 1)));
}

#[test]
fn batches_with_more_events_than_there_may_be_are_refused_whole() {
    let (_site, _daemon, client) = gate(&["wiring.gate.batch_events_max=3"]);
    let batch = |events: u64| -> String {
        let lines = (0..events).map(|number| traffic(&format!("b-{number}"), number).to_string());
        lines.collect::<Vec<_>>().join("\n")
    };
    let refused = client.push_batch(batch(4));
    assert_eq!(
        (refused.status, refused.code()),
        (413, "BATCH_TOO_LARGE"),
        "{refused:?}"
    );
    let taken = client.push_batch(batch(3));
    assert_eq!(taken.status, 200, "{taken:?}");
    let decisions = taken.body["results"].as_array().unwrap();
    assert!(decisions.iter().all(|result| result["decision"] == "ADMIT"));
}
