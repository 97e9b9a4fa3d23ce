//! What claims cost in the admission index: look a key up, find nothing, insert it; and look up what
//! is there already. At 10^5, 10^6 and 10^7 keys in one index shard of 32 MiB.
//!
//! `cargo bench --bench index_claims`; `WELLSPRING_BENCH_KEYS=1000000` runs one size only.

// A benchmark measures real time.
#![allow(clippy::disallowed_methods)]

use criterion::{Criterion, Throughput};
use std::time::Instant;
use wellspring::event_bus::embedded_log::JournalReader;
use wellspring::state_store::embedded::index;
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{AdmissionIndex, RunLayout};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

const BATCH: u32 = 512;
const MEMORY_BYTES: usize = 32 << 20;

fn main() {
    let only = std::env::var("WELLSPRING_BENCH_KEYS").ok();
    let only: Option<u32> = only.and_then(|text| text.parse().ok());
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for keys in [100_000u32, 1_000_000, 10_000_000] {
        if only.is_none_or(|only| only == keys) {
            bench_size(&mut criterion, keys);
        }
    }
    criterion.final_summary();
}

/// Fills an index once, then measures lookups of present and absent keys.
fn bench_size(criterion: &mut Criterion, keys: u32) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut index = open(&folder.path().to_string_lossy());
    let started = Instant::now();
    for first in (0..keys).step_by(BATCH as usize) {
        claim(&mut *index, first..first + BATCH);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "fill {keys} keys: {seconds:.2} s ({:.0} claims/s), {:.1} MiB of memory, process CPU {:.2} s",
        f64::from(keys) / seconds,
        index.memory_bytes() as f64 / f64::from(1 << 20),
        cpu_seconds()
    );
    let mut group = criterion.benchmark_group(format!("index_claims/{keys}"));
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let mut number = 0u32;
    let mut found = Vec::new();
    group.bench_function("present", |bench| {
        bench.iter(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % keys;
            let wanted: Vec<Hash32> = (number..number + BATCH).map(|n| key(n % keys)).collect();
            index
                .lookup(&wanted, &mut found)
                .expect("the index answers");
            assert!(found.iter().all(Option::is_some));
        });
    });
    let mut absent = keys;
    group.bench_function("absent", |bench| {
        bench.iter(|| {
            let wanted: Vec<Hash32> = (absent..absent + BATCH).map(key).collect();
            absent = (absent + BATCH).max(keys);
            index
                .lookup(&wanted, &mut found)
                .expect("the index answers");
        });
    });
    group.finish();
}

fn open(runs_root: &str) -> Box<dyn AdmissionIndex> {
    let run = PlatformRunId::parse("platform_20260101T000000Z").expect("a run id");
    let paths = RunPaths::new(runs_root, &run);
    let layout = RunLayout {
        admission_shards: 1,
        index_shards: 1,
        index_shard_memory_bytes: MEMORY_BYTES,
    };
    let mut shards = index::open(&paths, &layout, &JournalReader::new(&paths)).expect("it opens");
    shards.remove(0)
}

/// What the gate does with a batch of new events.
fn claim(index: &mut dyn AdmissionIndex, numbers: std::ops::Range<u32>) {
    let keys: Vec<Hash32> = numbers.clone().map(key).collect();
    let mut found = Vec::with_capacity(keys.len());
    index.lookup(&keys, &mut found).expect("the index answers");
    assert!(found.iter().all(Option::is_none));
    let row = |row| RowRef {
        shard: 0,
        segment: 0,
        row,
    };
    let entries: Vec<(Hash32, IndexEntry)> = keys
        .iter()
        .zip(numbers.clone())
        .map(|(key, number)| {
            let payload_hash = *key;
            let row = row(number);
            (*key, IndexEntry { payload_hash, row })
        })
        .collect();
    index
        .insert(&entries, row(numbers.end))
        .expect("the index takes them");
}

fn key(number: u32) -> Hash32 {
    Hash32::of(&number.to_be_bytes())
}

/// CPU the process has used, all threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(12).unwrap_or_default() + ticks(13).unwrap_or_default()) / 100.0
}
