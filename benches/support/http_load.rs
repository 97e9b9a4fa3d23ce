//! A closed-loop HTTP client in a process of its own, so that a server's CPU time is the server's alone.
//!
//! Connections are kept alive; each has one request under way. The client looks at the status and at the length
//! of the answer and at nothing else.

use super::child::Running;
use super::measure::{Cost, Watch};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wellspring::machine::process_seconds;

/// The role of the child process.
pub const ROLE: &str = "http-client";

/// What is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    pub address: SocketAddr,
    pub path: String,
    pub connections: usize,
    /// One envelope a line.
    pub envelopes: PathBuf,
    /// Envelopes of one request.
    pub per_request: usize,
    /// Envelopes in all.
    pub events: usize,
    /// Lines of the head beside the usual ones, each with its end.
    pub headers: String,
    /// Status every answer must have.
    pub status: u16,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    pub wall_seconds: f64,
    pub client_cpu_seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Runs the load against a server of this process and adds the server's cost to the watch.
pub fn run(watch: &mut Watch, load: &Load) {
    let mut own = Watch::default();
    own.begin();
    let words = [serde_json::to_string(load).expect("a load is JSON")];
    let mut client = Running::start(ROLE, &words);
    let served: Served = serde_json::from_str(&client.line()).expect("the client's report");
    client.finish();
    let cost = own.end();
    // Others are counted from the client's start on; their share of that time is taken for the load's.
    let other = (cost.other - served.client_cpu_seconds).max(0.0);
    watch.add(Cost {
        wall: served.wall_seconds,
        cpu: cost.cpu,
        other: other * served.wall_seconds / cost.wall,
    });
    watch.note_latency(served.p50_ms, served.p99_ms);
}

/// The client's side: does the load its command line describes and prints the report.
pub fn serve_role(words: &[String]) {
    let load: Load = serde_json::from_str(&words[0]).expect("a load");
    wellspring::process::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let served = tokio::task::LocalSet::new().block_on(&runtime, send_all(load));
    println!("{}", serde_json::to_string(&served).expect("JSON"));
}

async fn send_all(load: Load) -> Served {
    let requests = Rc::new(requests_of(&load));
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.address).await;
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        connections.push(stream);
    }
    let (next, begun) = (Rc::new(Cell::new(0)), Instant::now());
    let latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a minute at most");
    let latency = Rc::new(RefCell::new(latency));
    let clients = connections.into_iter().map(|stream| {
        let client = Client {
            requests: requests.clone(),
            next: next.clone(),
            latency: latency.clone(),
            status: load.status,
        };
        tokio::task::spawn_local(client.send(stream))
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client that ends well");
    }
    let wall = begun.elapsed();
    let latency = latency.borrow();
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    Served {
        wall_seconds: wall.as_secs_f64(),
        client_cpu_seconds: process_seconds(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
    }
}

/// Heads and bodies, ready to be written.
fn requests_of(load: &Load) -> Vec<Vec<u8>> {
    let text = std::fs::read(&load.envelopes).expect("the envelopes");
    let lines: Vec<&[u8]> = text
        .split_inclusive(|byte| *byte == b'\n')
        .take(load.events)
        .collect();
    assert_eq!(lines.len(), load.events, "enough envelopes");
    let kind = match load.per_request {
        1 => "application/json",
        _ => "application/x-ndjson",
    };
    let request = |lines: &[&[u8]]| {
        let body = lines.concat();
        let mut request = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{}\r\n",
            load.path,
            load.address,
            body.len(),
            load.headers
        )
        .into_bytes();
        request.extend_from_slice(&body);
        request
    };
    lines.chunks(load.per_request).map(request).collect()
}

struct Client {
    requests: Rc<Vec<Vec<u8>>>,
    next: Rc<Cell<usize>>,
    latency: Rc<RefCell<Histogram<u64>>>,
    status: u16,
}

impl Client {
    async fn send(self, mut stream: TcpStream) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            let number = self.next.replace(self.next.get() + 1);
            let Some(request) = self.requests.get(number) else {
                return;
            };
            let sent = Instant::now();
            stream
                .write_all(request)
                .await
                .expect("a server that reads");
            self.receive(&mut stream, &mut buffer).await;
            let micros = sent.elapsed().as_micros() as u64;
            self.latency.borrow_mut().saturating_record(micros);
        }
    }

    async fn receive(&self, stream: &mut TcpStream, buffer: &mut Vec<u8>) {
        buffer.clear();
        loop {
            let read = stream
                .read_buf(buffer)
                .await
                .expect("a server that answers");
            assert!(read > 0, "the server closed the connection");
            if let Some(length) = answer_length(buffer)
                && buffer.len() >= length
            {
                break;
            }
        }
        let status = std::str::from_utf8(&buffer[9..12]).expect("a status");
        let said = || String::from_utf8_lossy(buffer).into_owned();
        assert_eq!(status, self.status.to_string(), "{}", said());
    }
}

/// Bytes of head and body, once the head is here.
fn answer_length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).expect("a head is text");
    let body = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    Some(head + body.unwrap_or(0))
}

/// Writes envelopes a line each.
pub fn write_envelopes(file: &Path, batches: &[wellspring_domain::ports::EnvelopeBatch]) {
    let mut lines = Vec::new();
    for batch in batches {
        for at in 0..batch.len() {
            lines.extend_from_slice(batch.envelope(at));
            lines.push(b'\n');
        }
    }
    std::fs::write(file, lines).expect("room on the disk");
}
