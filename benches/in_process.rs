//! The whole path in this process, world to durable receipts, beside the straight-line program.
//!
//! `cargo bench --bench in_process`: stream, gate and bus at 1, 2 and 4 admission shards and 1 and 4 partitions.
//! `WELLSPRING_BENCH_EVENTS` is the number of traffic events (default 1,000,000).

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use floor::framing::Template;
use floor::pipeline::{Done, PipelineRequest, run_one, run_two};
use std::path::PathBuf;
use std::sync::Arc;
use support::gate::{start_gate, stop_gate};
use support::measure::Watch;
use support::report::Goal;
use support::session::Session;
use support::world::{CLASS, World, now};
use tokio::sync::watch;
use wellspring::clock::SystemClock;
use wellspring::daemon::live_tree;
use wellspring::settings::Settings;
use wellspring_actors::world_stream::pace::RunControl;
use wellspring_actors::world_stream::result::StreamStatus;
use wellspring_actors::world_stream::run_streams::{RunProgress, StreamPorts, stream_world};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // Floor and product alike: as the program does.
    wellspring::process::without_huge_pages();
    let mut session = Session::start("in_process");
    let world = World::make(support::number("WELLSPRING_BENCH_EVENTS", 1_000_000));
    let parts = world.view_parts();
    let template = Template::new(&world.context(), CLASS);
    for partitions in [1, 4] {
        for shards in [2, 1, 4] {
            let paths = Paths {
                world: &world,
                parts: &parts,
                template: &template,
                partitions,
                shards,
            };
            paths.compare(&mut session);
        }
    }
    session.finish();
}

struct Paths<'a> {
    world: &'a World,
    parts: &'a [PathBuf],
    template: &'a Template,
    partitions: usize,
    shards: u16,
}

impl Paths<'_> {
    fn compare(&self, session: &mut Session) {
        let (shards, partitions) = (self.shards, self.partitions);
        let name = format!("in-process path, {shards} shards, {partitions} partitions");
        let work = session.work(name, self.world.events);
        let (one, two) = (
            "floor: straight line, 1 thread",
            "floor: straight line, 2 threads",
        );
        // One shard writes from one thread, more of them keep all processors busy.
        let work = match shards {
            1 => work
                .way(one, |watch| self.floor(watch, run_one))
                .way(two, |watch| self.floor(watch, run_two)),
            _ => work
                .way(two, |watch| self.floor(watch, run_two))
                .way(one, |watch| self.floor(watch, run_one)),
        };
        let work = work.way("stream, gate, bus, receipts", |watch| self.stream(watch));
        let work = match (shards, partitions) {
            (2, _) => work
                .goal(Goal::CpuRatioMax(1.5))
                .goal(Goal::WallRatioMax(1.5)),
            _ => work,
        };
        work.run();
    }

    fn floor(&self, watch: &mut Watch, run: fn(&PipelineRequest<'_>) -> Done) {
        let folder = support::folder();
        let request = PipelineRequest {
            parts: self.parts,
            template: self.template,
            folder: folder.path(),
            partitions: self.partitions,
            rows: self.world.events as usize,
            now: &now,
        };
        let done = watch.measure(|| run(&request));
        let admitted = self.world.events;
        assert_eq!(
            done,
            Done {
                admitted,
                copies: 0
            }
        );
    }

    fn stream(&self, watch: &mut Watch) {
        let folder = support::folder();
        let more = [
            ("wiring.gate.admission_shards", self.shards.to_string()),
            ("wiring.event_bus.partitions", self.partitions.to_string()),
        ];
        let settings = self.world.settings(folder.path(), &more);
        let runtime = wellspring::process::runtime().expect("a runtime");
        let admitted = runtime.block_on(stream_all(watch, self.world, &settings));
        assert_eq!(admitted, self.world.events);
    }
}

/// Streams the output into a gate of its own as fast as it goes; gives the events admitted.
async fn stream_all(measured: &mut Watch, world: &World, settings: &Settings) -> u64 {
    let gate = start_gate(settings).await;
    let prepared = world.prepare(settings);
    let tree = live_tree();
    let ports = StreamPorts {
        gate: Arc::new(gate.client()),
        source: prepared.source,
        checkpoints: prepared.checkpoints,
        clock: Arc::new(SystemClock::new()),
        on_saved: prepared.on_saved,
        node: tree.node("run", "run"),
    };
    let (_control, orders) = watch::channel(RunControl::Run);
    let progress = RunProgress::new(&prepared.request);
    measured.begin();
    let streaming = stream_world(
        prepared.request,
        ports,
        prepared.tuning,
        orders,
        progress,
        None,
    );
    let result = streaming.await;
    measured.end();
    assert_eq!(result.status, StreamStatus::Streamed, "{result:?}");
    stop_gate(gate).await;
    result.outputs.iter().map(|output| output.admitted).sum()
}
