//! A real run on disk with decisions committed as a gate commits them, for tests of what is derived.

use super::index::{self, IndexMemory, IndexMemoryCap};
use crate::event_bus::embedded_log::{EmbeddedGateStore, JournalReader, LogOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use wellspring_domain::admission::decision::{
    Actor, DecisionRow, Flush, PartitionAppend, PolicyRev, ReceiptContext, RowOutcome, RowRef, Span,
};
use wellspring_domain::admission::line_memory::LineMemory;
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::ids::{Hash32, dedupe_key, partition_key, payload_hash, receipt_id};
use wellspring_domain::ports::{GateStore, OpenRun, RunLayout};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::time_text::Micros;

pub const RUN: &str = "platform_20260101T000000Z";
pub const TOPICS: [&str; 2] = [
    "fp.bus.traffic.fraud.v1",
    "fp.bus.context.arrival_events.v1",
];
const EVENT_TYPE: &str = "s3_event_stream_with_fraud_6B";

/// What the gate decided about event number `n`.
#[derive(Clone, Copy, Debug)]
pub enum Decided {
    /// Published.
    Admit(u32),
    /// A copy of the event admitted in this row.
    Duplicate(u32, RowRef),
    /// Refused.
    Quarantine(u32),
}

/// The run. Shard `k` writes topic `k`.
pub struct TestRun {
    pub folder: tempfile::TempDir,
    pub paths: RunPaths,
    pub layout: RunLayout,
    pub index_memory: IndexMemoryCap,
    open: Option<OpenRun>,
    next_rows: Vec<RowRef>,
    next_offsets: BTreeMap<&'static str, u64>,
    commits: i64,
}

impl TestRun {
    /// An empty run with two shards.
    pub fn new() -> TestRun {
        let folder = tempfile::tempdir().unwrap();
        let run = PlatformRunId::parse(RUN).unwrap();
        let paths = RunPaths::new(&folder.path().to_string_lossy(), &run);
        let layout = RunLayout {
            admission_shards: 2,
            index_shards: 2,
        };
        let mut run = TestRun {
            folder,
            paths,
            layout,
            index_memory: IndexMemoryCap {
                bytes: 64 << 10,
                shards_max: 2,
            },
            open: None,
            next_rows: Vec::new(),
            next_offsets: BTreeMap::new(),
            commits: 0,
        };
        run.reopen();
        run.next_rows = (0..2)
            .map(|shard| RowRef {
                shard,
                ..RowRef::default()
            })
            .collect();
        run
    }

    /// Closes and opens the run as a restarted gate does.
    pub fn reopen(&mut self) {
        self.open = None;
        let memory = IndexMemory::of(self.index_memory);
        let store = EmbeddedGateStore::new(
            &self.folder.path().to_string_lossy(),
            LogOptions::default(),
            Box::new(move |paths, layout, journal| index::open(paths, layout, journal, &memory)),
        );
        self.open = Some(store.open_run(self.paths.run_id(), &self.layout).unwrap());
    }

    /// Ends the gate; the run's lock is free then.
    pub fn close(&mut self) {
        self.open = None;
    }

    pub fn journal(&self) -> JournalReader {
        JournalReader::new(&self.paths)
    }

    /// Begins a new journal segment in a shard, which seals the one before.
    pub fn next_segment(&mut self, shard: u16) {
        let next = &mut self.next_rows[usize::from(shard)];
        next.segment += 1;
        next.row = 0;
    }

    /// Commits one flush; returns the rows it got.
    pub fn commit(&mut self, shard: u16, decided: &[Decided]) -> Vec<RowRef> {
        let flush = self.flush(shard, decided);
        let first = flush.first_row;
        let open = self.open.as_mut().unwrap();
        open.shards[usize::from(shard)].log.commit(&flush).unwrap();
        let rows = (0..decided.len() as u32).map(|row| RowRef {
            row: first.row + row,
            ..first
        });
        rows.collect()
    }

    fn flush(&mut self, shard: u16, decided: &[Decided]) -> Flush {
        let topic = TOPICS[usize::from(shard)];
        self.commits += 1;
        let first_row = self.next_rows[usize::from(shard)];
        self.next_rows[usize::from(shard)].row += decided.len() as u32;
        let mut flush = Flush {
            run: self.paths.run_id().clone(),
            first_row,
            decided_at: Micros(1_767_225_600_000_000 + self.commits * 1_000_000),
            contexts: vec![Arc::new(context(topic))],
            appends: Vec::new(),
            rows: Vec::new(),
            arena: Vec::new(),
        };
        let offset = self.next_offsets.entry(topic).or_default();
        let mut append = PartitionAppend {
            topic: topic.into(),
            partition: 0,
            first_offset: *offset,
            events: 0,
            bytes: LineMemory::default(),
        };
        for decided in decided {
            push(&mut flush, &mut append, *decided);
        }
        *offset += u64::from(append.events);
        if append.events > 0 {
            flush.appends.push(append);
        }
        flush
    }
}

fn push(flush: &mut Flush, append: &mut PartitionAppend, decided: Decided) {
    let (number, outcome) = match decided {
        Decided::Admit(number) => {
            let offset = append.first_offset + u64::from(append.events);
            append.events += 1;
            append.bytes.push(&[&line(number, flush.decided_at)]);
            (number, RowOutcome::Admit { append: 0, offset })
        }
        Decided::Duplicate(number, original) => (number, RowOutcome::Duplicate { original }),
        Decided::Quarantine(number) => {
            let record = quarantine_record(number, flush.decided_at);
            let record = text(flush, record.as_bytes());
            (
                number,
                RowOutcome::Quarantine {
                    code: "PINS_MISSING",
                    record,
                },
            )
        }
    };
    let id = event_id(number);
    let event_id = text(flush, id.as_bytes());
    let ts_utc = text(flush, b"2026-01-01T00:00:01.250000Z");
    flush.rows.push(DecisionRow {
        context: 0,
        event_id,
        ts_utc,
        dedupe_key: key_of(number),
        payload_hash: hash_of(number),
        partition_key: key_text(number),
        outcome,
    });
}

fn text(flush: &mut Flush, bytes: &[u8]) -> Span {
    let start = flush.arena.len() as u32;
    flush.arena.extend_from_slice(bytes);
    Span {
        start,
        length: bytes.len() as u32,
    }
}

pub fn event_id(number: u32) -> String {
    Hash32::of(&number.to_be_bytes()).to_string()
}

pub fn key_of(number: u32) -> Hash32 {
    dedupe_key(
        RUN.as_bytes(),
        b"traffic_fraud",
        event_id(number).as_bytes(),
    )
}

fn payload(number: u32) -> Value {
    json!({"amount": 25.99, "flow_id": number / 3})
}

fn hash_of(number: u32) -> Hash32 {
    let event_type = format!("\"{EVENT_TYPE}\"");
    let payload = to_cj(&payload(number)).unwrap();
    payload_hash(event_type.as_bytes(), b"\"v1\"", payload.as_bytes())
}

fn key_text(number: u32) -> Hash32 {
    partition_key((number / 3).to_string().as_bytes())
}

fn line(number: u32, at: Micros) -> Vec<u8> {
    let envelope = json!({"event_id": event_id(number), "event_type": EVENT_TYPE, "schema_version": "v1",
        "ts_utc": "2026-01-01T00:00:01.250000Z", "manifest_fingerprint": "a".repeat(64),
        "platform_run_id": RUN, "payload": payload(number)});
    let record = json!({"partition_key": key_text(number).to_string(), "payload": envelope,
        "published_at_utc": at.format_off()});
    format!("{record}\n").into_bytes()
}

pub fn quarantine_record(number: u32, at: Micros) -> String {
    let id = receipt_id("QUARANTINE", &event_id(number));
    let record = json!({"quarantine_id": id, "received_at_utc": at.format_off(), "decision": "QUARANTINE",
        "reason_codes": ["PINS_MISSING"], "manifest_fingerprint": "a".repeat(64), "pins": {},
        "policy_rev": {"policy_id": "ig_policy", "revision": "r", "content_digest": "c".repeat(64)},
        "envelope": {"event_id": event_id(number)}, "service_release_id": "dev-local",
        "environment": "local", "provenance": {}});
    to_cj(&record).unwrap()
}

pub fn context(topic: &str) -> ReceiptContext {
    ReceiptContext {
        event_type: EVENT_TYPE.into(),
        event_class: "traffic_fraud".into(),
        manifest_fingerprint: "a".repeat(64),
        pins: json!({"platform_run_id": RUN, "seed": 42}),
        platform_run_id: RUN.into(),
        scenario_run_id: Some("e4f2285913cc771d0d8dd1ad475f7a01".into()),
        schema_version: Some("v1".into()),
        producer: None,
        topic: topic.into(),
        partitioning_profile_id: "ig.partitioning.v0.traffic.fraud".into(),
        actor: Actor {
            actor_id: "SYSTEM::ANONYMOUS".into(),
            source_type: "SYSTEM".into(),
            auth_mode: "disabled".into(),
            principal: "ANONYMOUS".into(),
        },
        policy_rev: PolicyRev {
            policy_id: "ig_policy".into(),
            revision: "r".into(),
            content_digest: "c".repeat(64),
        },
        provenance: json!({"service_release_id": "dev-local", "environment": "local"}),
    }
}
