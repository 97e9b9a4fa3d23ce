//! Worlds and views: traffic events generated per second, rows sorted per second in memory and through
//! spill files.

use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput};
use wellspring::clock::SystemClock;
use wellspring::world_files::generator::{GenerateOptions, WorldSummary, generate};
use wellspring::world_files::stream_sort::{SortRequest, sort_output};
use wellspring_domain::world::world_key::WorldKey;

const EVENTS: u64 = 400_000;

fn world(out: &Path) -> WorldSummary {
    generate(&GenerateOptions::new(out, EVENTS, 7, 4), &|_| {}).expect("a new folder takes a world")
}

/// Arrivals: the widest output, half as many rows as events.
fn arrivals(world: &WorldSummary, base: &Path, memory_limit: u64) -> SortRequest {
    let key = WorldKey {
        manifest_fingerprint: world.manifest_fingerprint.clone(),
        parameter_hash: world.parameter_hash.clone(),
        scenario_id: world.scenario_id.clone(),
        seed: world.seed,
    };
    let pattern = format!(
        "data/layer2/5B/arrival_events/seed={}/manifest_fingerprint={}/scenario_id={}/part-*.parquet",
        key.seed, key.manifest_fingerprint, key.scenario_id
    );
    let root = world.engine_run_root.to_string_lossy();
    let request = SortRequest::new(root, &world.run_id, key, "arrival_events_5B", pattern);
    let stream_view_base = Some(base.to_string_lossy().into_owned());
    SortRequest {
        stream_view_base,
        memory_limit,
        ..request
    }
}

fn benches(criterion: &mut Criterion) {
    let folder = || tempfile::tempdir().expect("a temporary folder");
    let mut group = criterion.benchmark_group("world_files");
    group.sample_size(10);
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("generate_world", |bencher| {
        bencher.iter_batched(
            folder,
            |dir| world(&dir.path().join("world")),
            BatchSize::PerIteration,
        );
    });
    let dir = folder();
    let world = world(&dir.path().join("world"));
    group.throughput(Throughput::Elements(EVENTS / 2));
    for (name, memory_limit) in [
        ("sort_in_memory", 1 << 30),
        ("sort_through_spill", 16 << 20),
    ] {
        group.bench_function(name, |bencher| {
            let sort = |base: tempfile::TempDir| {
                let request = arrivals(&world, base.path(), memory_limit);
                sort_output(&request, &SystemClock::new(), &|_| {})
                    .expect("a new base takes a view")
            };
            bencher.iter_batched(folder, sort, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}
