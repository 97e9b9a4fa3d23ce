//! The embedded log beside its floor: lines and decision frames made durable, by flush size and partitions, on the
//! disk and in memory (where a sync costs nothing, so the processor's share is what remains); and what the
//! decision rows of receipts add.
//!
//! `cargo bench --bench log_append`.

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use floor::disk::{Log, ROW_BYTES};
use std::path::Path;
use std::sync::Arc;
use support::measure::Watch;
use support::session::Session;
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
        bytes: line.repeat(share as usize).into(),
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
    let Some(first) = flush.appends.first() else {
        return;
    };
    let share = u64::from(first.events);
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
    };
    let root = folder.to_string_lossy();
    let store = EmbeddedGateStore::new(&root, options, Box::new(|_, _, _| Ok(Vec::new())));
    store.open_run(&run_id(), &layout).expect("a new run opens")
}

/// Commits `frames` flushes, a new run every few of them.
fn commit_frames(watch: &mut Watch, parent: &Path, template: &Flush, frames: u64) {
    let mut left = frames;
    while left > 0 {
        let folder = tempfile::tempdir_in(parent).expect("a temporary folder");
        let mut run = open(folder.path(), template.appends.len() as u32);
        let mut next = template.clone();
        for _ in 0..left.min(FRAMES_PER_RUN) {
            watch.measure(|| run.shards[0].log.commit(&next).expect("a frame"));
            advance(&mut next);
        }
        left = left.saturating_sub(FRAMES_PER_RUN);
    }
}

/// The same lines and as many rows as bytes, written and synced with nothing around it.
fn commit_bare(watch: &mut Watch, parent: &Path, template: &Flush, frames: u64) {
    let mut left = frames;
    while left > 0 {
        let folder = tempfile::tempdir_in(parent).expect("a temporary folder");
        let mut log = Log::create(folder.path(), template.appends.len());
        for _ in 0..left.min(FRAMES_PER_RUN) {
            watch.measure(|| commit_once(&mut log, template));
        }
        left = left.saturating_sub(FRAMES_PER_RUN);
    }
}

fn commit_once(log: &mut Log, template: &Flush) {
    for append in &template.appends {
        let lines = u64::from(append.events);
        log.append(append.partition as usize, &append.bytes, lines);
    }
    for row in &template.rows {
        let mut bytes = [0; ROW_BYTES];
        bytes[8..40].copy_from_slice(&row.dedupe_key.0);
        bytes[40..48].copy_from_slice(&template.decided_at.0.to_le_bytes());
        bytes[48..80].copy_from_slice(&row.dedupe_key.0);
        bytes[80..112].copy_from_slice(&row.payload_hash.0);
        bytes[112..144].copy_from_slice(&row.partition_key.0);
        log.decide(&bytes);
    }
    log.commit();
}

fn main() {
    let mut session = Session::start("log_append");
    let disk = support::folder();
    let memory = Path::new("/dev/shm");
    for (place, folder) in [("disk", disk.path()), ("memory", memory)] {
        for (events, frames) in [(512usize, 512u64), (4096, 128), (9216, 64)] {
            for partitions in [1u32, 4] {
                if folder.is_dir() {
                    let template = flush(events, partitions);
                    compare(&mut session, place, folder, &template, frames);
                }
            }
        }
    }
    if memory.is_dir() {
        receipt_rows(&mut session, memory);
    }
    session.finish();
}

fn compare(session: &mut Session, place: &str, folder: &Path, template: &Flush, frames: u64) {
    let (events, partitions) = (template.rows.len(), template.appends.len());
    let name = format!("log and journal flush, {place}, {events} events, {partitions} partitions");
    let work = session.work(name, frames * events as u64);
    work.way("floor: write, fdatasync, frame, fdatasync", |watch| {
        commit_bare(watch, folder, template, frames);
    })
    .way("decision log", |watch| {
        commit_frames(watch, folder, template, frames);
    })
    .run();
}

/// Decisions alone: frames without bus lines, as duplicates write them.
fn receipt_rows(session: &mut Session, folder: &Path) {
    let (events, frames) = (4096u32, 256);
    let mut template = flush(events as usize, 1);
    template.appends.clear();
    for row in &mut template.rows {
        let original = RowRef::default();
        row.outcome = RowOutcome::Duplicate { original };
    }
    let work = session.work(
        "receipt rows, memory, 4096 a frame",
        frames * u64::from(events),
    );
    work.way("floor: rows and checksum", |watch| {
        commit_bare(watch, folder, &template, frames);
    })
    .way("decision log", |watch| {
        commit_frames(watch, folder, &template, frames);
    })
    .run();
}
