//! More than the gate can take: its memory stays bounded, every client moves on, who is refused is told when
//! to come back, and soon afterwards everything is as before.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, traffic};

const MIB: u64 = 1024 * 1024;

/// How the disk is slowed: this many commits in a row, each by this much. It is more than the second a request may
/// wait for room, so who waits for a whole commit is refused, and there again before the commit ends.
const SLOW_COMMITS: u32 = 18;
const SLOW_MS: u64 = 1_200;
/// The first of them; what comes before opens the run and sets the clients going.
const SLOW_FROM: u32 = 40;

/// Half as many again as have room: the others wait for a commit to end.
const CLIENTS: usize = 24;
const EVENTS_PER_BATCH: usize = 25;
/// Room for sixteen clients at once.
const ROOM: &str = "wiring.gate.credit_events_max=400";

/// What one client lived through: when how many of its events were admitted, and how often it was refused.
#[derive(Default)]
struct Lived {
    admitted: Vec<(Instant, usize)>,
    refused: usize,
}

impl Lived {
    fn admitted_between(&self, from: Instant, until: Instant) -> usize {
        let then = self.admitted.iter();
        then.filter(|(at, _)| (from..until).contains(at))
            .map(|(_, events)| events)
            .sum()
    }
}

/// Pushes batch after batch, as fast as it is answered, until told to stop.
fn push_until(stop: &AtomicBool, client: &GateClient, name: usize) -> Lived {
    let mut lived = Lived::default();
    for batch in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let events = (0..EVENTS_PER_BATCH)
            .map(|event| traffic(&format!("{name}-{batch}-{event}"), name as u64).to_string());
        let body = events.collect::<Vec<_>>().join("\n");
        loop {
            let answer = client.push_batch(body.clone());
            if answer.status == 200 {
                let results = answer.body["results"].as_array().unwrap();
                assert!(results.iter().all(|one| one["decision"] == "ADMIT"));
                lived.admitted.push((Instant::now(), results.len()));
                break;
            }
            assert!([429, 503].contains(&answer.status), "{answer:?}");
            assert!(answer.retry_after.is_some(), "{answer:?}");
            lived.refused += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    lived
}

/// The moment at which so many slow commits have begun.
fn slow_commits(daemon: &Daemon, wanted: usize, mut meanwhile: impl FnMut()) -> Instant {
    let end = Instant::now() + Duration::from_secs(90);
    while daemon.stderr().matches("failpoint").count() < wanted {
        assert!(Instant::now() < end, "{}", daemon.stderr());
        meanwhile();
        std::thread::sleep(Duration::from_millis(20));
    }
    Instant::now()
}

#[test]
fn senders_faster_than_the_disk_are_held_back_alike_and_the_gate_is_itself_again_afterwards() {
    let site = Site::new()
        .set("wiring.gate.admission_shards=1")
        .set("wiring.gate.batch_events_max=100")
        .set(ROOM);
    let slow: Vec<String> = (SLOW_FROM..SLOW_FROM + SLOW_COMMITS)
        .map(|commit| format!("journal_frame.sync.before=delay:{SLOW_MS}@{commit}"))
        .collect();
    let daemon = Daemon::gate_with(&site, &[("WELLSPRING_FAILPOINTS", &slow.join(","))]);
    let daemon = daemon.unwrap_or_else(|(ended, said)| panic!("{ended:?}: {said}"));
    let client = GateClient::new(&daemon.url);
    let stop = AtomicBool::new(false);

    std::thread::scope(|scope| {
        let (client, stop) = (&client, &stop);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| scope.spawn(move || push_until(stop, client, name)))
            .collect();
        let slow_from = slow_commits(&daemon, 1, || ());
        let resident_before = daemon.resident_bytes();
        let mut resident_max = 0;
        slow_commits(&daemon, SLOW_COMMITS as usize, || {
            resident_max = resident_max.max(daemon.resident_bytes());
        });
        std::thread::sleep(Duration::from_millis(SLOW_MS));
        let slow_until = Instant::now();
        std::thread::sleep(Duration::from_secs(4));
        stop.store(true, Ordering::Relaxed);
        let lived: Vec<Lived> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();

        let grown = resident_max.saturating_sub(resident_before);
        assert!(grown < 64 * MIB, "{} MiB more", grown / MIB);
        let refused: usize = lived.iter().map(|one| one.refused).sum();
        assert!(refused > 0, "nobody was told to come back");
        let shares: Vec<usize> = lived
            .iter()
            .map(|one| one.admitted_between(slow_from, slow_until))
            .collect();
        let mean = shares.iter().sum::<usize>() / CLIENTS;
        assert!(
            mean > EVENTS_PER_BATCH,
            "hardly anything was admitted: {shares:?}"
        );
        assert!(
            shares
                .iter()
                .all(|share| (mean / 4..=4 * mean).contains(share)),
            "{shares:?}"
        );
        let rate = |from: Instant, until: Instant| {
            let events: usize = lived
                .iter()
                .map(|one| one.admitted_between(from, until))
                .sum();
            events as f64 / (until - from).as_secs_f64()
        };
        let recovered = slow_until + Duration::from_secs(1);
        let while_slow = rate(slow_from, slow_until);
        let afterwards = rate(recovered, recovered + Duration::from_secs(3));
        println!(
            "{while_slow:.0} events/s while slow, {afterwards:.0} afterwards, {refused} refused, {shares:?}"
        );
        assert!(
            afterwards > 2.0 * while_slow,
            "{while_slow:.0} events/s while slow, {afterwards:.0} afterwards"
        );
    });
}

#[test]
fn five_thousand_idle_connections_cost_little_and_hold_up_nobody() {
    const IDLE: usize = 5_000;
    assert!(wellspring::process::raise_open_files() > IDLE as u64);
    let site = Site::new().set("wiring.gate.header_timeout_ms=30000");
    let daemon = Daemon::gate(&site);
    let address = daemon.url.trim_start_matches("http://");
    let client = GateClient::new(&daemon.url);
    assert_eq!(client.push(&traffic("before", 1)).decision(), "ADMIT");
    let resident_before = daemon.resident_bytes();
    // One half never says a word, the other has asked once and stays.
    let idle: Vec<TcpStream> = (0..IDLE)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            if number % 2 == 1 {
                stream
                    .write_all(b"GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n")
                    .unwrap();
                assert!(stream.read(&mut [0; 512]).unwrap() > 0);
            }
            stream
        })
        .collect();
    for number in 0..50 {
        let began = Instant::now();
        let answer = client.push(&traffic(&format!("amid-{number}"), 1));
        assert_eq!(answer.decision(), "ADMIT");
        assert!(began.elapsed() < Duration::from_secs(5), "held up");
    }
    let grown = daemon.resident_bytes().saturating_sub(resident_before);
    assert!(
        grown < IDLE as u64 * 24 * 1024 + 16 * MIB,
        "{} KiB a connection",
        grown / 1024 / IDLE as u64
    );
    println!("{} KiB a connection", grown / 1024 / IDLE as u64);
    drop(idle);
    assert_eq!(client.push(&traffic("after", 1)).decision(), "ADMIT");
}

#[test]
fn who_waits_longer_than_a_request_may_take_is_told_so_and_the_event_is_decided_all_the_same() {
    let site = Site::new()
        .set("wiring.gate.admission_shards=1")
        .set("wiring.gate.header_timeout_ms=1000")
        .set("wiring.gate.request_timeout_ms=1000");
    // The first commit opens the run and is as fast as it is.
    let slow = "journal_frame.sync.before=delay:3000@2";
    let daemon = Daemon::gate_with(&site, &[("WELLSPRING_FAILPOINTS", slow)]);
    let daemon = daemon.unwrap_or_else(|(ended, said)| panic!("{ended:?}: {said}"));
    let client = GateClient::new(&daemon.url);
    let event = traffic("late", 1);
    client.push(&traffic("first", 1));
    let late = client.push(&event);
    assert_eq!(late.status, 503, "{late:?}");
    assert_eq!(late.body["error"], "PUBLISH_IN_FLIGHT_RETRY");
    assert!(late.retry_after.is_some(), "{late:?}");
    let end = Instant::now() + Duration::from_secs(20);
    let again = loop {
        let again = client.push(&event);
        if again.status == 200 {
            break again;
        }
        assert!(Instant::now() < end, "{again:?}");
    };
    assert_eq!(again.body["decision"], "DUPLICATE", "{again:?}");
}
