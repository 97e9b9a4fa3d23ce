//! How soon a gate admits again after `kill -9`, and how soon a fresh one admits its first event.
//!
//! `cargo bench --bench recovery`; `WELLSPRING_BENCH_ADMITTED` is how many events a process has admitted when it is
//! killed in the middle of more (default 1,000,000; the goal is set for 10,000,000). The floor of recovery reads
//! the newest journal segment of every shard and checks its sums: what lies after the last known point is there.

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::child::Running;
use support::gate::{admit_all, start_gate, stop_gate};
use support::measure::Watch;
use support::report::Goal;
use support::session::Session;
use support::world::{RUN, World};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{EnvelopeBatch, GateClient};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 512;

fn main() {
    if let Some((_, words)) = support::child::role() {
        return fill(&words);
    }
    // Floor and product alike: as the program does.
    wellspring::process::without_huge_pages();
    let mut session = Session::start("recovery");
    let admitted: u64 = support::number("WELLSPRING_BENCH_ADMITTED", 1_000_000);
    let world = World::make(2_000);
    let event = world.batches(1)[0].envelope(0).to_vec();
    let template = world.folder.path().join("envelope");
    std::fs::write(&template, &event).expect("room on the disk");
    let work = session.work("start to first admitted event, new run", 1);
    work.way("gate started, one event admitted", |watch| {
        let folder = support::folder();
        restart(watch, folder.path(), &event, 0);
    })
    .goal(Goal::SecondsMax(0.5))
    .note("the gate alone, in this process; the world is not opened")
    .run();
    let name = format!("recovery after kill -9 with {admitted} admitted events");
    let folder = support::folder();
    if session.wants(&name) {
        let words = [
            folder.path().to_string_lossy().into_owned(),
            template.to_string_lossy().into_owned(),
            admitted.to_string(),
        ];
        let mut child = Running::start("fill", &words);
        println!("a child admits {admitted} events");
        assert_eq!(child.line(), "ready");
        child.kill();
    }
    let mut round = 0;
    let work = session.work(name, admitted);
    work.way("floor: read the journals' newest segments", |watch| {
        watch.measure(|| assert!(read_tails(folder.path()) > 0));
    })
    .way("gate opened, first new admission", |watch| {
        round += 1;
        restart(watch, folder.path(), &event, u64::MAX - round);
    })
    .goal(Goal::SecondsMax(5.0))
    .note("only the first round finds what the kill left; the wall time is the figure that counts")
    .rounds(1)
    .run();
    session.finish();
}

/// From no gate to one new event that is durable.
fn restart(watch: &mut Watch, runs: &Path, event: &[u8], number: u64) {
    let settings = support::world::settings(runs, "", &[]);
    let runtime = wellspring::process::runtime().expect("a runtime");
    runtime.block_on(async {
        watch.begin();
        let gate = start_gate(&settings).await;
        let client = gate.client();
        let admitted = admit_all(&client, std::iter::once(batch(event, number..number + 1))).await;
        watch.end();
        assert_eq!(admitted, 1);
        stop_gate(gate).await;
    });
}

/// The child: admits what it was told, says so, and goes on until it is killed.
fn fill(words: &[String]) {
    let event = std::fs::read(&words[1]).expect("an envelope");
    let events: u64 = words[2].parse().expect("a number");
    let settings = support::world::settings(Path::new(&words[0]), "", &[]);
    let runtime = wellspring::process::runtime().expect("a runtime");
    runtime.block_on(async {
        let gate = start_gate(&settings).await;
        let client = gate.client();
        admit_from(&client, &event, 0..events).await;
        println!("ready");
        // Bounded, should nobody kill it.
        admit_from(&client, &event, events..events + 2_000_000).await;
        stop_gate(gate).await;
    });
}

async fn admit_from(client: &dyn GateClient, event: &[u8], numbers: std::ops::Range<u64>) {
    let end = numbers.end;
    let batches = numbers
        .step_by(BATCH)
        .map(|first| batch(event, first..(first + BATCH as u64).min(end)));
    admit_all(client, batches).await;
}

/// The same event under new ids.
fn batch(event: &[u8], numbers: std::ops::Range<u64>) -> EnvelopeBatch {
    let start = b"{\"event_id\":\"".len();
    let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
    for number in numbers {
        let at = bytes.len();
        bytes.extend_from_slice(event);
        let id = Hash32::of(&number.to_le_bytes());
        bytes[at + start..at + start + 64].copy_from_slice(&id.hex());
        ranges.push(at as u32..bytes.len() as u32);
    }
    EnvelopeBatch {
        bytes: Arc::new(bytes),
        ranges,
    }
}

/// Bytes of the newest segment of every journal, read and summed.
fn read_tails(runs: &Path) -> u64 {
    let journal = runs.join("fraud-platform").join(RUN).join("ig/journal");
    let mut bytes = 0;
    for shard in std::fs::read_dir(journal).expect("journals") {
        let segments = std::fs::read_dir(shard.expect("a journal").path()).expect("segments");
        let segments = segments.map(|segment| segment.expect("a segment").path());
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|name| name == "wsj");
        if let Some(newest) = segments.filter(is_segment).max() {
            let text = std::fs::read(newest).expect("a segment that reads");
            std::hint::black_box(wellspring::checksum::crc32c(&text));
            bytes += text.len() as u64;
        }
    }
    bytes
}
