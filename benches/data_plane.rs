//! The data plane piece by piece and as a whole: framing, validation, hashing, and the in-process path from
//! framed batches to durable answers at 1 and 4 partitions.
//!
//! `cargo bench --bench data_plane`. The world is generated once per run; every figure is per event.

// A benchmark measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wellspring::clock::SystemClock;
use wellspring::daemon::live_tree;
use wellspring::gate::assembly::{GateOptions, start};
use wellspring::gate::policy_files::load_policy;
use wellspring::process;
use wellspring::settings::layers::Layers;
use wellspring::settings::{ProfileSource, Settings};
use wellspring::world_files::contract_files::ContractFiles;
use wellspring::world_files::generator::{GenerateOptions, generate};
use wellspring::world_files::pack_files::read_run_receipt;
use wellspring::world_files::stream_sort::{SortRequest, sort_output};
use wellspring::world_streamer::{PreparedStream, StreamOptions, StreamTarget, WorldStreamer};
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::admission::intake::{IntakeContext, ProofState, VerifyGates, judge};
use wellspring_domain::ids::payload_hash;
use wellspring_domain::ports::{EnvelopeBatch, GateClient, ItemOutcome};
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::stream::framing::{FrameMemo, FramePlan};
use wellspring_domain::stream::source::WorldSource;

const EVENTS: u64 = 100_000;
const BATCH: usize = 512;
const OUTPUT: &str = "s3_event_stream_with_fraud_6B";
const RUN: &str = "platform_20260101T000000Z";

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::make(folder.path());
    let mut criterion = Criterion::default().configure_from_args();
    framing(&mut criterion, &world);
    validation(&mut criterion, &world);
    hashing(&mut criterion);
    in_process_path(&mut criterion, &world);
    criterion.final_summary();
}

/// A sorted world and its traffic, framed into batches.
struct World {
    settings: Settings,
    prepared: PreparedStream,
    batches: Vec<EnvelopeBatch>,
}

impl World {
    fn make(folder: &Path) -> World {
        let root = folder.join("world").to_string_lossy().into_owned();
        generate(&GenerateOptions::new(&root, EVENTS, 7, 2), &|_| {}).expect("a world");
        let settings = settings(folder, &root, 1);
        let contracts = ContractFiles::load(&settings).expect("contract files");
        let store = settings
            .object_stores()
            .open(&root)
            .expect("the world's store");
        let receipt = read_run_receipt(&*store).expect("a run receipt");
        let entry = contracts
            .catalogue
            .output(OUTPUT)
            .expect("a catalogued output");
        let request =
            SortRequest::for_output(&root, &receipt, "baseline_v1", entry).expect("a sort request");
        sort_output(&request, &SystemClock::new(), &|_| {}).expect("a stream view");
        let runs = settings
            .object_stores()
            .open(settings.runs_root())
            .expect("the runs' store");
        let streamer = WorldStreamer::new(
            Arc::new(settings.clone()),
            runs,
            Arc::new(SystemClock::new()),
        );
        let target = StreamTarget {
            engine_run_root: Some(root),
            scenario_id: Some("baseline_v1".to_owned()),
            platform_run_id: Some(PlatformRunId::parse(RUN).expect("an id")),
            ..StreamTarget::default()
        };
        let options = StreamOptions {
            only: vec![OUTPUT.to_owned()],
            ..StreamOptions::default()
        };
        let prepared = streamer
            .expect("a streamer")
            .prepare(&target, &options)
            .expect("a stream that may start");
        let batches = frame_all(&prepared);
        World {
            settings,
            prepared,
            batches,
        }
    }

    fn envelope(&self) -> &[u8] {
        self.batches[0].envelope(0)
    }
}

fn settings(folder: &Path, world: &str, partitions: u32) -> Settings {
    let mut layers = Layers::of_process();
    let root = folder.join("runs").to_string_lossy().into_owned();
    let set = [
        ("wiring.object_store.root", root),
        ("wiring.oracle_engine_run_root", world.to_owned()),
        ("wiring.event_bus.partitions", partitions.to_string()),
    ];
    for (key, value) in set {
        layers.set_flag(key, value);
    }
    let profile = ProfileSource::find("local").expect("the shipped profile");
    Settings::load(&profile, &layers).expect("settings")
}

fn frame_all(prepared: &PreparedStream) -> Vec<EnvelopeBatch> {
    let mut view = prepared.source.open(OUTPUT, None).expect("a view");
    let mut memo = FrameMemo::default();
    let mut batches = Vec::new();
    while let Some(block) = view.reader.next_block().expect("rows") {
        let columns = block.columns();
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let plan = FramePlan::new(&prepared.request.outputs[0], &names).expect("a plan");
        let mut framer = plan.bind(&columns, &mut memo).expect("columns that fit");
        for first in (0..block.rows()).step_by(BATCH) {
            let mut batch = EnvelopeBatch::default();
            let mut bytes = Vec::new();
            for row in first..(first + BATCH).min(block.rows()) {
                let start = bytes.len() as u32;
                framer.frame(row, &mut bytes).expect("a row that frames");
                batch.ranges.push(start..bytes.len() as u32);
            }
            batch.bytes = Arc::new(bytes);
            batches.push(batch);
        }
    }
    batches
}

fn framing(criterion: &mut Criterion, world: &World) {
    let mut group = criterion.benchmark_group("framing");
    group
        .throughput(Throughput::Elements(EVENTS))
        .sample_size(10);
    group.bench_function("decode and frame a stream view", |bencher| {
        bencher.iter(|| frame_all(&world.prepared))
    });
    group.finish();
}

fn validation(criterion: &mut Criterion, world: &World) {
    let policy = load_policy(&world.settings).expect("a policy");
    let actor = Actor {
        actor_id: "SYSTEM::bench".to_owned(),
        source_type: "SYSTEM".to_owned(),
        auth_mode: "in_process".to_owned(),
        principal: "bench".to_owned(),
    };
    let provenance = serde_json::json!({});
    let partitions = vec![4; policy.topics().len()];
    let context = IntakeContext {
        policy: &policy,
        partitions: &partitions,
        shards: 2,
        actor: &actor,
        provenance: &provenance,
        verify_gates: VerifyGates::Off,
        proofs: &|_, _| ProofState::Absent,
    };
    let batch = &world.batches[0];
    let mut group = criterion.benchmark_group("validation");
    group.throughput(Throughput::Elements(batch.len() as u64));
    group.bench_function("judge a batch of canonical envelopes", |bencher| {
        bencher.iter(|| judge(black_box(batch), &context))
    });
    let spaced = respelled(batch);
    group.bench_function("judge the same events in another spelling", |bencher| {
        bencher.iter(|| judge(black_box(&spaced), &context));
    });
    group.finish();
}

/// The same envelopes with spaces, as another program may send them.
fn respelled(batch: &EnvelopeBatch) -> EnvelopeBatch {
    let mut other = EnvelopeBatch::default();
    let mut bytes = Vec::new();
    for index in 0..batch.len() {
        let value: serde_json::Value = serde_json::from_slice(batch.envelope(index)).expect("JSON");
        let start = bytes.len() as u32;
        bytes.extend_from_slice(
            serde_json::to_string_pretty(&value)
                .expect("JSON")
                .as_bytes(),
        );
        other.ranges.push(start..bytes.len() as u32);
    }
    other.bytes = Arc::new(bytes);
    other
}

fn hashing(criterion: &mut Criterion) {
    let payload = vec![b'x'; 400];
    let mut group = criterion.benchmark_group("hashing");
    group.throughput(Throughput::Elements(1));
    group.bench_function("payload hash of 400 bytes", |bencher| {
        bencher.iter(|| {
            payload_hash(
                b"\"s3_event_stream_with_fraud_6B\"",
                b"\"v1\"",
                black_box(&payload),
            )
        });
    });
    group.finish();
}

fn in_process_path(criterion: &mut Criterion, world: &World) {
    let mut group = criterion.benchmark_group("in-process path");
    group
        .throughput(Throughput::Elements(EVENTS))
        .sample_size(10);
    println!(
        "envelope of {} bytes, {} events a batch",
        world.envelope().len(),
        BATCH
    );
    for partitions in [1, 4] {
        group.bench_with_input(
            BenchmarkId::new("admit durably, partitions", partitions),
            &partitions,
            |bencher, partitions| {
                bencher
                    .iter_custom(|times| (0..times).map(|_| admit_all(world, *partitions)).sum());
            },
        );
    }
    group.finish();
}

/// Time from the first submit to the last durable answer, in a run of its own.
fn admit_all(world: &World, partitions: u32) -> Duration {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = settings(folder.path(), "", partitions);
    let runtime = process::runtime().expect("a runtime");
    runtime.block_on(async {
        let run = PlatformRunId::parse(RUN).expect("an id");
        let options = GateOptions {
            own_run: Some(run),
            tree: live_tree(),
        };
        let gate = start(&settings, options).await.expect("a gate");
        let client = gate.client();
        let begin = Instant::now();
        let mut pending = std::collections::VecDeque::new();
        for batch in &world.batches {
            if pending.len() == client.window() {
                check(pending.pop_front().expect("a full window")).await;
            }
            pending.push_back(
                client
                    .submit(batch.clone())
                    .await
                    .expect("a gate that takes work"),
            );
        }
        for answers in pending {
            check(answers).await;
        }
        let elapsed = begin.elapsed();
        gate.stop(Duration::from_secs(10)).await;
        elapsed
    })
}

async fn check(answers: wellspring_domain::ports::PendingOutcomes) {
    let outcomes = answers.await.expect("answers");
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == ItemOutcome::Admitted)
    );
}
