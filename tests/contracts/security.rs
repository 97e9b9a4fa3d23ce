//! Who gets in, what stays secret, and what a request or a world may never reach (docs/security.md).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::support::Site;
use crate::support::bus::records;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, RUN, traffic};
use crate::support::world::{TRAFFIC, repository, small};

const KEY: &str = "key-of-the-operator-7f3a";
const WRONG: &str = "key-of-a-stranger-91cc";

/// Routes and their method; the last ones belong to other parts of the daemon.
const GUARDED: &[(&str, &str)] = &[
    ("POST", "/v1/ingest/push"),
    ("POST", "/v1/ingest/push_batch"),
    ("GET", "/v1/ops/lookup?event_id=x"),
    ("GET", "/v1/ops/health"),
    ("GET", "/v1/ops/tree"),
    ("POST", "/v1/ops/runs/platform_20260101T000000Z/cancel"),
    ("POST", "/runs"),
    ("POST", "/runs/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/reemit"),
];

/// One request without a client library; the whole answer, or what came of it until the time was up.
fn raw(daemon: &Daemon, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(daemon.url.trim_start_matches("http://")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    // The server may answer and close before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn asked(daemon: &Daemon, (method, path): (&str, &str), key: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: gate\r\n{key}content-length: 0\r\nconnection: close\r\n\r\n"
    );
    let answer = raw(daemon, request.as_bytes());
    answer.split(' ').nth(1).unwrap_or("none").to_owned()
}

#[test]
fn every_route_but_the_probes_asks_who_is_there_and_keys_are_never_told() {
    let site = Site::new()
        .set("wiring.security.auth_mode=api_key")
        .set(format!("wiring.security.auth_allowlist={KEY}"));
    site.new_run();
    let daemon = Daemon::start(&site, &["up", "--port", "0"]);
    let header = |key: &str| format!("X-IG-Api-Key: {key}\r\n");
    for route in GUARDED {
        for key in [String::new(), header(WRONG), header(""), header(&KEY[1..])] {
            assert_eq!(
                asked(&daemon, *route, &key),
                "401",
                "{route:?} with {key:?}"
            );
        }
        let known = asked(&daemon, *route, &header(KEY));
        assert!(known != "401" && known != "none", "{route:?}: {known}");
    }
    for probe in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(asked(&daemon, ("GET", probe), ""), "200", "{probe}");
    }
    let shown = site.run(&["config", "show"]).ok();
    let said = daemon.terminate_and_tell();
    for secret in [KEY, WRONG] {
        assert!(!said.contains(secret), "{said}");
        assert!(
            !shown.everything().contains(secret),
            "{}",
            shown.everything()
        );
        assert_eq!(
            holding(&site.path().join("runs"), secret.as_bytes()),
            Vec::<String>::new()
        );
    }
}

/// Files below a folder that hold these bytes.
fn holding(folder: &std::path::Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(holding(&path, bytes)),
            false => {
                let text = fs::read(&path).unwrap();
                let here = text.windows(bytes.len()).any(|part| part == bytes);
                found.extend(here.then(|| path.display().to_string()));
            }
        }
    }
    found
}

/// Heads no two readers must understand differently, with an event hidden behind them.
#[test]
fn requests_that_two_readers_would_cut_differently_are_refused_and_nothing_hides_in_them() {
    let site = Site::new();
    let daemon = Daemon::gate(&site);
    let hidden = traffic("smuggled", 1).to_string();
    let inner = format!(
        "POST /v1/ingest/push HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let heads = [
        "content-length: 0\r\ncontent-length: 5\r\n",
        "content-length: 5, 0\r\n",
        "content-length: +0\r\n",
        "content-length: -1\r\n",
        "content-length: 0x0\r\n",
        "content-length : 0\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding\u{b}: chunked\r\n",
        " folded: header\r\ncontent-length: 0\r\n",
        "bad\u{0}name: x\r\n",
    ];
    for head in heads {
        let request = format!("POST /v1/ingest/push HTTP/1.1\r\nhost: gate\r\n{head}\r\n{inner}");
        let answer = raw(&daemon, request.as_bytes());
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        assert!(
            ["400", "413", "501", "closed"].contains(&status),
            "{head:?}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count().max(1),
            1,
            "{head:?}: {answer}"
        );
    }
    // Sizes of chunks: what is no number ends the connection, and the event behind it is not looked at.
    for size in ["zz", "-1", "ffffffffffffffffff", "1;\u{0}"] {
        let head =
            "POST /v1/ingest/push HTTP/1.1\r\nhost: gate\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = raw(&daemon, format!("{head}{size}\r\n{inner}").as_bytes());
        assert!(!answer.contains("ADMIT"), "{size}: {answer}");
    }
    let client = GateClient::new(&daemon.url);
    assert_eq!(client.push(&traffic("honest", 1)).decision(), "ADMIT");
    let found = client.get("/v1/ops/lookup?event_id=smuggled");
    assert_eq!(found.body, serde_json::json!({}), "{found:?}");
    assert_eq!(records(&site.run_root(RUN)).len(), 1);
}

#[test]
fn heads_that_are_too_long_or_come_too_slowly_end_the_connection() {
    let site = Site::new().set("wiring.gate.header_timeout_ms=500");
    let daemon = Daemon::gate(&site);
    let long = format!(
        "GET /healthz HTTP/1.1\r\nhost: gate\r\nx: {}\r\n\r\n",
        "y".repeat(64 << 10)
    );
    let many: String = (0..2_000)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    let many = format!("GET /healthz HTTP/1.1\r\nhost: gate\r\n{many}\r\n");
    let path = format!(
        "GET /{} HTTP/1.1\r\nhost: gate\r\n\r\n",
        "p".repeat(64 << 10)
    );
    for request in [long, many, path] {
        let answer = raw(&daemon, request.as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // One byte at a time never ends the head: the deadline is for the whole of it.
    let mut slow = TcpStream::connect(daemon.url.trim_start_matches("http://")).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut closed = false;
    for byte in b"GET /healthz HTTP/1.1\r\nhost: a-very-slow-client-that-never-ends\r\n"
        .iter()
        .cycle()
        .take(60)
    {
        let sent = slow.write_all(&[*byte]);
        let mut piece = [0; 512];
        let read = slow.read(&mut piece);
        closed = sent.is_err()
            || matches!(read, Ok(0))
            || matches!(read, Ok(length) if piece[..length].starts_with(b"HTTP/1.1 408"));
        if closed {
            break;
        }
    }
    assert!(closed, "a head that never ends was waited for");
    assert_eq!(GateClient::new(&daemon.url).get("/healthz").status, 200);
}

#[test]
fn ids_and_references_never_become_paths_out_of_the_run() {
    let site = Site::new();
    let outside = site.path().join("outside.json");
    fs::write(&outside, "{\"secret\": 1}").unwrap();
    for id in [
        "../../outside",
        "..",
        "platform_20260101T000000Z/../..",
        "/etc",
        "",
        "a\u{0}b",
    ] {
        let refused = site.run(
            &["bus", "verify", "--run", id.trim_matches('\0')].map(|part| part.replace('\0', "")),
        );
        assert_ne!(refused.code, Some(0), "{id}: {}", refused.everything());
        assert!(!refused.everything().contains("secret"), "{id}");
    }
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    assert_eq!(client.push(&traffic("there", 1)).decision(), "ADMIT");
    for query in [
        "receipt_id=..%2F..%2Foutside",
        "event_id=..%2Foutside",
        "dedupe_key=%2Fetc%2Fpasswd",
    ] {
        let found = client.get(&format!("/v1/ops/lookup?{query}"));
        assert_eq!(found.body, serde_json::json!({}), "{query}: {found:?}");
    }
    for path in [
        "/v1/ops/runs/..%2F..%2Foutside/cancel",
        "/v1/ops/runs/../cancel",
    ] {
        assert_eq!(client.post(path).status, 404, "{path}");
    }
    // Texts that become parts of files elsewhere: an event may hold any, none becomes a path.
    for (number, text) in ["../../x", "/etc/passwd", "a/b", "..", "~", "a\nb"]
        .iter()
        .enumerate()
    {
        let mut event = traffic(text, number as u64);
        event["payload"]["more"] = serde_json::json!(1);
        let answer = client.push(&event);
        assert!(
            ["QUARANTINE", ""].contains(&answer.decision()),
            "{text}: {answer:?}"
        );
        let mut event = traffic(&format!("typed-{number}"), 1);
        event["event_type"] = serde_json::json!(text);
        assert_ne!(client.push(&event).decision(), "ADMIT", "{text}");
    }
    assert_eq!(daemon.terminate().code, Some(0));
    let mut names: Vec<String> = fs::read_dir(site.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with(".tmp"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["outside.json", "runs"],
        "nothing was written elsewhere"
    );
}

/// A world whose traffic parts lie behind a link out of it.
#[test]
fn a_world_that_links_out_of_itself_is_not_read() {
    let world = small().to_damage();
    let parts = world.raw_parts(TRAFFIC);
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("parts");
    crate::support::site::copy_folder(&parts, &moved);
    fs::remove_dir_all(&parts).unwrap();
    symlink(&moved, &parts).unwrap();
    let checked = world.oracle("check", &["--strict-seal"]);
    assert_ne!(checked.code, Some(0), "{}", checked.everything());
    let sorted = world.oracle(
        "sort",
        &["--output-id", TRAFFIC, "--stream-view-root", "views"],
    );
    assert_ne!(sorted.code, Some(0), "{}", sorted.everything());
}

/// A catalogue whose template climbs out of the world.
#[test]
fn a_template_that_climbs_out_of_the_world_is_refused() {
    let world = small();
    let site = Site::new();
    let shipped = repository().join("config/platform/oracle/outputs_catalogue_v0.yaml");
    let text = fs::read_to_string(shipped).unwrap();
    for climb in ["../", "/etc/", "./../../"] {
        // A template is the line after its key.
        let mut hostile = String::new();
        let mut after_key = false;
        for line in text.lines() {
            let path = line.trim_start();
            let indent = &line[..line.len() - path.len()];
            hostile += &match after_key {
                true => format!("{indent}{climb}{path}\n"),
                false => format!("{line}\n"),
            };
            after_key = path == "path_template: |";
        }
        assert_ne!(hostile, text, "the catalogue has templates");
        let file = site.path().join("catalogue.yaml");
        fs::write(&file, hostile).unwrap();
        let set = format!("wiring.engine_catalogue_path={}", file.display());
        let mut args = vec![
            "--set".to_owned(),
            set,
            "oracle".to_owned(),
            "sort".to_owned(),
        ];
        args.extend(world.args());
        args.extend(["--output-id", TRAFFIC, "--stream-view-root", "views"].map(str::to_owned));
        let sorted = site.run(&args);
        assert_ne!(sorted.code, Some(0), "{climb}: {}", sorted.everything());
        assert!(
            !site.path().join("views").exists()
                || holding(&site.path().join("views"), b"PAR1").is_empty()
        );
    }
}
