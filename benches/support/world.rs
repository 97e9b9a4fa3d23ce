//! A generated, sorted world, and its traffic framed by the product.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring::clock::SystemClock;
use wellspring::settings::layers::Layers;
use wellspring::settings::{ProfileSource, Settings};
use wellspring::world_files::contract_files::ContractFiles;
use wellspring::world_files::generator::{GenerateOptions, generate};
use wellspring::world_files::pack_files::read_run_receipt;
use wellspring::world_files::stream_sort::{SortRequest, sort_output};
use wellspring::world_streamer::{PreparedStream, StreamOptions, StreamTarget, WorldStreamer};
use wellspring_domain::ports::{Clock, EnvelopeBatch};
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::stream::framing::{FrameContext, FrameMemo, FramePlan};
use wellspring_domain::stream::source::WorldSource;
use wellspring_domain::time_text::Micros;
use wellspring_domain::world::stream_view::{default_base, view_dir};

/// The output that is streamed.
pub const OUTPUT: &str = "s3_event_stream_with_fraud_6B";
/// Its class.
pub const CLASS: &str = "traffic_fraud";
/// The platform run everything belongs to.
pub const RUN: &str = "platform_20260101T000000Z";
/// Events of one batch.
pub const BATCH: usize = 512;

/// A sorted world.
pub struct World {
    pub folder: tempfile::TempDir,
    pub root: String,
    pub events: u64,
}

impl World {
    /// Generates and sorts `events` traffic events.
    pub fn make(events: u64) -> World {
        let world = World::generate(events, 2);
        sort_output(&sort_request(&world.root), &SystemClock::new(), &|_| {}).expect("a view");
        world
    }

    /// Generates `events` traffic events in parts.
    pub fn generate(events: u64, parts: u32) -> World {
        let folder = super::folder();
        let root = folder.path().join("world").to_string_lossy().into_owned();
        println!("a world of {events} traffic events is made");
        generate(&GenerateOptions::new(&root, events, 7, parts), &|_| {}).expect("a world");
        World {
            folder,
            root,
            events,
        }
    }

    /// Settings of a run in `runs`.
    pub fn settings(&self, runs: &Path, more: &[(&str, String)]) -> Settings {
        settings(runs, &self.root, more)
    }

    /// The parts of the sorted view.
    pub fn view_parts(&self) -> Vec<PathBuf> {
        let view = view_dir(&default_base(&self.root), OUTPUT);
        parts_below(Path::new(&view))
    }

    /// A stream of the output that may start.
    pub fn prepare(&self, settings: &Settings) -> PreparedStream {
        let runs = settings.object_stores().open(settings.runs_root());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let settings = Arc::new(settings.clone());
        let streamer = WorldStreamer::new(settings, runs.expect("the runs' store"), clock);
        let target = StreamTarget {
            engine_run_root: Some(self.root.clone()),
            scenario_id: Some("baseline_v1".to_owned()),
            platform_run_id: Some(PlatformRunId::parse(RUN).expect("an id")),
            ..StreamTarget::default()
        };
        let options = StreamOptions {
            only: vec![OUTPUT.to_owned()],
            speedup: Some(0.0),
            ..StreamOptions::default()
        };
        let streamer = streamer.expect("a streamer");
        streamer.prepare(&target, &options).expect("a stream")
    }

    /// What every envelope of the output has in common.
    pub fn context(&self) -> Arc<FrameContext> {
        let settings = self.settings(&self.folder.path().join("runs"), &[]);
        self.prepare(&settings).request.outputs[0].clone()
    }

    /// All events framed into batches.
    pub fn batches(&self, size: usize) -> Vec<EnvelopeBatch> {
        let settings = self.settings(&self.folder.path().join("runs"), &[]);
        frame_all(&self.prepare(&settings), size)
    }
}

/// How the output of a world is sorted.
pub fn sort_request(root: &str) -> SortRequest {
    let settings = settings(Path::new("unused"), root, &[]);
    let contracts = ContractFiles::load(&settings).expect("contract files");
    let store = settings.object_stores().open(root);
    let receipt = read_run_receipt(&*store.expect("the world's store")).expect("a receipt");
    let entry = contracts.catalogue.output(OUTPUT).expect("an output");
    SortRequest::for_output(root, &receipt, "baseline_v1", entry).expect("a request")
}

/// All parts below a folder, in the order of their paths.
pub fn parts_below(folder: &Path) -> Vec<PathBuf> {
    let mut parts = Vec::new();
    find_parts(folder, &mut parts);
    parts.sort();
    assert!(!parts.is_empty(), "{} has parts", folder.display());
    parts
}

fn find_parts(folder: &Path, parts: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the view") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            find_parts(&path, parts);
        } else if path.extension().is_some_and(|name| name == "parquet") {
            parts.push(path);
        }
    }
}

/// The `local` profile with its runs in a folder of ours.
pub fn settings(runs: &Path, world: &str, more: &[(&str, String)]) -> Settings {
    let mut layers = Layers::of_process();
    let root = runs.to_string_lossy().into_owned();
    layers.set_flag("wiring.object_store.root", root);
    layers.set_flag("wiring.oracle_engine_run_root", world.to_owned());
    for (key, value) in more {
        layers.set_flag(*key, value.clone());
    }
    let profile = ProfileSource::find("local").expect("the shipped profile");
    Settings::load(&profile, &layers).expect("settings")
}

/// Decodes and frames the whole output as the streamer does.
pub fn frame_all(prepared: &PreparedStream, size: usize) -> Vec<EnvelopeBatch> {
    let mut batches = Vec::new();
    frame_each(prepared, size, |batch| batches.push(batch));
    batches
}

/// The same, batch by batch.
pub fn frame_each(prepared: &PreparedStream, size: usize, mut take: impl FnMut(EnvelopeBatch)) {
    let mut view = prepared.source.open(OUTPUT, None).expect("a view");
    let mut memo = FrameMemo::default();
    while let Some(block) = view.reader.next_block().expect("rows") {
        let columns = block.columns();
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let plan = FramePlan::new(&prepared.request.outputs[0], &names).expect("a plan");
        let mut framer = plan.bind(&columns, &mut memo).expect("columns that fit");
        for first in (0..block.rows()).step_by(size) {
            let mut batch = EnvelopeBatch::default();
            let mut bytes = Vec::new();
            for row in first..(first + size).min(block.rows()) {
                let start = bytes.len() as u32;
                framer.frame(row, &mut bytes).expect("a row that frames");
                batch.ranges.push(start..bytes.len() as u32);
            }
            batch.bytes = Arc::new(bytes);
            take(batch);
        }
    }
}

/// The time of day.
pub fn now() -> Micros {
    SystemClock::new().now()
}
