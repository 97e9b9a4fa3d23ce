//! The embedded log: events made durable per second, by frame size and partitions, on the disk and in
//! memory (where a sync costs nothing, so the processor's share is what remains).

// A benchmark measures real time.
#![allow(clippy::disallowed_methods)]

use criterion::{Criterion, Throughput};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wellspring::event_bus::embedded_log::{EmbeddedGateStore, LogOptions, PartitionCounts};
use wellspring_domain::admission::decision::{
    Actor, DecisionRow, Flush, PartitionAppend, PolicyRev, ReceiptContext, RowOutcome, RowRef, Span,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{GateStore, OpenRun, RunLayout};
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::time_text::Micros;

const TOPIC: &str = "fp.bus.traffic.fraud.v1";
/// A bus line of the traffic outputs: partition key, envelope with its payload, time.
const LINE_BYTES: usize = 900;
/// Frames after which a new run is begun, so that a measurement does not fill the disk.
const FRAMES_PER_RUN: u64 = 64;

fn run_id() -> PlatformRunId {
    PlatformRunId::parse("platform_20260101T000000Z").expect("a run id")
}

fn context() -> ReceiptContext {
    ReceiptContext {
        event_type: "s3_event_stream_with_fraud_6B".to_owned(),
        event_class: "traffic_fraud".to_owned(),
        manifest_fingerprint: "a".repeat(64),
        pins: serde_json::json!({"manifest_fingerprint": "a".repeat(64), "seed": 42}),
        platform_run_id: run_id().as_str().to_owned(),
        scenario_run_id: Some("b".repeat(32)),
        schema_version: Some("v1".to_owned()),
        producer: Some("engine".to_owned()),
        topic: TOPIC.to_owned(),
        partitioning_profile_id: "ig.partitioning.v0.traffic".to_owned(),
        actor: Actor {
            actor_id: "SYSTEM::stream".to_owned(),
            source_type: "SYSTEM".to_owned(),
            auth_mode: "disabled".to_owned(),
            principal: "local".to_owned(),
        },
        policy_rev: PolicyRev {
            policy_id: "ig_policy".to_owned(),
            revision: "r1".to_owned(),
            content_digest: "c".repeat(64),
        },
        provenance: serde_json::json!({"environment": "local"}),
    }
}

/// A flush of `events` admitted events, spread over `partitions`.
fn flush(events: usize, partitions: u32) -> Flush {
    let mut line = vec![b'x'; LINE_BYTES - 1];
    line.push(b'\n');
    let share = events as u32 / partitions;
    let appends = (0..partitions).map(|partition| PartitionAppend {
        topic: TOPIC.into(),
        partition,
        first_offset: 0,
        events: share,
        bytes: line.repeat(share as usize),
    });
    let mut flush = Flush {
        run: run_id(),
        first_row: RowRef::default(),
        decided_at: Micros(1_767_225_600_000_000),
        contexts: vec![Arc::new(context())],
        appends: appends.collect(),
        rows: Vec::new(),
        arena: Vec::new(),
    };
    for number in 0..share * partitions {
        let digest = Hash32::of(&number.to_le_bytes());
        let event_id = push(&mut flush.arena, &digest.hex());
        let ts_utc = Micros(1_767_225_600_000_000 + i64::from(number)).env_bytes();
        flush.rows.push(DecisionRow {
            context: 0,
            event_id,
            ts_utc: push(&mut flush.arena, &ts_utc),
            dedupe_key: digest,
            payload_hash: digest,
            partition_key: digest,
            outcome: RowOutcome::Admit {
                append: (number % partitions) as u16,
                offset: u64::from(number / partitions),
            },
        });
    }
    flush
}

fn push(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = arena.len() as u32;
    arena.extend_from_slice(bytes);
    Span {
        start,
        length: bytes.len() as u32,
    }
}

/// Moves a flush behind the one before it.
fn advance(flush: &mut Flush) {
    flush.first_row.row += flush.rows.len() as u32;
    let share = u64::from(flush.appends[0].events);
    for append in &mut flush.appends {
        append.first_offset += share;
    }
    for row in &mut flush.rows {
        if let RowOutcome::Admit { offset, .. } = &mut row.outcome {
            *offset += share;
        }
    }
}

fn open(folder: &Path, partitions: u32) -> OpenRun {
    let options = LogOptions {
        partitions: PartitionCounts::all(partitions),
        ..LogOptions::default()
    };
    let layout = RunLayout {
        admission_shards: 1,
        index_shards: 1,
        index_shard_memory_bytes: 1 << 20,
    };
    let root = folder.to_string_lossy();
    let store = EmbeddedGateStore::new(&root, options, Box::new(|_, _, _| Ok(Vec::new())));
    store.open_run(&run_id(), &layout).expect("a new run opens")
}

/// Time spent in `frames` commits.
fn commit_frames(parent: &Path, template: &Flush, frames: u64) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = frames;
    while left > 0 {
        let folder = tempfile::tempdir_in(parent).expect("a temporary folder");
        let mut run = open(folder.path(), template.appends.len() as u32);
        let mut next = template.clone();
        for _ in 0..left.min(FRAMES_PER_RUN) {
            let start = Instant::now();
            run.shards[0]
                .log
                .commit(&next)
                .expect("the disk takes a frame");
            spent += start.elapsed();
            advance(&mut next);
        }
        left = left.saturating_sub(FRAMES_PER_RUN);
    }
    spent
}

fn benches(criterion: &mut Criterion) {
    let disk = std::env::temp_dir();
    let memory = Path::new("/dev/shm");
    let mut group = criterion.benchmark_group("log_append");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    for (place, folder) in [("disk", disk.as_path()), ("memory", memory)] {
        for events in [512usize, 4096] {
            for partitions in [1u32, 4] {
                if !folder.is_dir() {
                    continue;
                }
                let template = flush(events, partitions);
                group.throughput(Throughput::Elements(events as u64));
                group.bench_function(
                    format!("{place}/{events}_events/{partitions}_partitions"),
                    |bencher| {
                        bencher.iter_custom(|frames| commit_frames(folder, &template, frames));
                    },
                );
            }
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}
