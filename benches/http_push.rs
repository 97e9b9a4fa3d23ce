//! HTTP pushes, one event a request and 500 a request, beside bare axum on the same bodies.
//!
//! `cargo bench --bench http_push`. The client is a process of its own with keep-alive connections and one request
//! under way on each; CPU seconds are the server's. Every push is answered after it is durable; the floor's answer
//! promises nothing. `WELLSPRING_BENCH_EVENTS` is the number of events (default 60,000 single, 10 times that in
//! batches).

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use std::path::Path;
use support::gate::{measure_batches, start_gate, stop_gate};
use support::http_load::{self, Load, write_envelopes};
use support::measure::Watch;
use support::report::Goal;
use support::session::Session;
use support::world::World;
use wellspring::daemon::live_tree;
use wellspring::http::answer_form::{PREFER, RETURN_MINIMAL};
use wellspring_domain::ports::EnvelopeBatch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events of a batch push.
const BATCH: usize = 500;

fn main() {
    if let Some((_, words)) = support::child::role() {
        return http_load::serve_role(&words);
    }
    wellspring::process::raise_open_files();
    // Floor and product alike: as the program does.
    wellspring::process::without_huge_pages();
    let mut session = Session::start("http_push");
    let single = support::number("WELLSPRING_BENCH_EVENTS", 60_000);
    let batched = single * 10;
    let world = World::make(batched as u64);
    let batches = world.batches(BATCH);
    let envelopes = world.folder.path().join("envelopes");
    write_envelopes(&envelopes, &batches);
    let minimal = format!("{PREFER}: {RETURN_MINIMAL}\r\n");
    for (connections, headers) in [
        (512, String::new()),
        (512, minimal.clone()),
        (32, String::new()),
        (32, minimal),
    ] {
        let load = Load {
            address: ([127, 0, 0, 1], 0).into(),
            path: "/v1/ingest/push".to_owned(),
            connections,
            envelopes: envelopes.clone(),
            per_request: 1,
            events: single,
            headers,
            status: 200,
        };
        single_push(&mut session, &world, &load);
    }
    let load = Load {
        address: ([127, 0, 0, 1], 0).into(),
        path: "/v1/ingest/push_batch".to_owned(),
        connections: 48,
        envelopes,
        per_request: BATCH,
        events: batched,
        headers: String::new(),
        status: 200,
    };
    batch_push(&mut session, &world, &load, &batches);
    session.finish();
}

fn single_push(session: &mut Session, world: &World, load: &Load) {
    let name = match load.headers.trim() {
        "" => format!("HTTP single push, {} connections", load.connections),
        headers => format!(
            "HTTP single push, {} connections, {headers}",
            load.connections
        ),
    };
    let work = session.work(&name, load.events as u64);
    let work = work
        .way("floor: bare axum, 202", |watch| bare(watch, load))
        .way("gate, durable", |watch| gate(watch, world, load));
    let work = match load.connections {
        512 => work.goal(Goal::RateRatioMin(0.6)),
        _ => work,
    };
    work.run();
}

fn batch_push(session: &mut Session, world: &World, load: &Load, batches: &[EnvelopeBatch]) {
    let name = "HTTP batch push, 500 a request, 48 connections";
    let work = session.work(name, load.events as u64);
    work.way("floor: bare axum, 202", |watch| bare(watch, load))
        .way("gate, durable", |watch| gate(watch, world, load))
        .run();
    let work = session.work("HTTP batch push beside in process", load.events as u64);
    work.way("floor: same batches in process, durable", |watch| {
        let folder = support::folder();
        measure_batches(watch, &world.settings(folder.path(), &[]), batches);
    })
    .way("gate over HTTP, durable", |watch| gate(watch, world, load))
    .goal(Goal::RateRatioMin(0.7))
    .run();
}

fn bare(watch: &mut Watch, load: &Load) {
    let runtime = wellspring::process::runtime().expect("a runtime");
    let address = runtime.block_on(floor::http::serve_bare(&load.path));
    let load = Load {
        address,
        status: 202,
        ..load.clone()
    };
    http_load::run(watch, &load);
}

fn gate(watch: &mut Watch, world: &World, load: &Load) {
    let folder = support::folder();
    let runtime = wellspring::process::runtime().expect("a runtime");
    let settings = world.settings(Path::new(folder.path()), &[]);
    let gate = runtime.block_on(start_gate(&settings));
    let tree = live_tree();
    let listening = gate.listen("127.0.0.1", 0, &tree, axum::Router::new(), None, None);
    let address = runtime.block_on(listening).expect("a free port");
    let load = Load {
        address,
        ..load.clone()
    };
    http_load::run(watch, &load);
    runtime.block_on(stop_gate(gate));
}
