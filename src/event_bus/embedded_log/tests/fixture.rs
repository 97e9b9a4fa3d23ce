//! Runs, flushes and images of folders for the tests of this module.

use crate::event_bus::embedded_log::disk::Faults;
use crate::event_bus::embedded_log::{
    BusReader, EmbeddedGateStore, JournalReader, LogOptions, PartitionCounts, ReadBound,
    bus_partitions,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::decision::{
    Actor, DecisionRow, Flush, PartitionAppend, PolicyRev, ReceiptContext, RowOutcome, RowRef, Span,
};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::line_memory::LineMemory;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{GateStore, OpenRun, PartitionEnd, RunLayout, StoreError};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::time_text::Micros;

/// Topics of the tests.
pub const TOPICS: [&str; 2] = ["fp.bus.traffic.fraud.v1", "fp.bus.context.v1"];

/// A run in a temporary folder. Marks are only written at a clean close.
pub struct TestRun {
    folder: TempDir,
    pub options: LogOptions,
}

impl TestRun {
    pub fn new() -> TestRun {
        TestRun {
            folder: temporary_folder(),
            options: LogOptions {
                partitions: PartitionCounts::all(4),
                head_interval: Duration::from_millis(1),
                mark_interval: Duration::from_secs(3600),
                mark_bytes: u64::MAX,
                cached_bytes: 0,
                journal_cached_bytes: 0,
                ..LogOptions::default()
            },
        }
    }

    pub fn with_faults(faults: Faults) -> TestRun {
        let mut run = TestRun::new();
        run.options.faults = faults;
        run
    }

    pub fn id(&self) -> PlatformRunId {
        PlatformRunId::parse("platform_20260101T000000Z").unwrap()
    }

    pub fn paths(&self) -> RunPaths {
        RunPaths::new(self.folder.path().to_str().unwrap(), &self.id())
    }

    pub fn store(&self) -> EmbeddedGateStore {
        let root = self.folder.path().to_str().unwrap();
        let no_index = Box::new(|_: &RunPaths, _: &RunLayout, _: &JournalReader| Ok(Vec::new()));
        EmbeddedGateStore::new(root, self.options.clone(), no_index)
    }

    pub fn try_open(&self, shards: u16) -> Result<OpenRun, StoreError> {
        let layout = RunLayout {
            admission_shards: shards,
            index_shards: 0,
        };
        self.store().open_run(&self.id(), &layout)
    }

    pub fn open(&self, shards: u16) -> OpenRun {
        self.try_open(shards).unwrap()
    }

    /// What a crash now would leave behind.
    pub fn image(&self) -> TestRun {
        let mut copy = TestRun::new();
        copy.options = self.options.clone();
        copy_folder(self.folder.path(), copy.folder.path());
        copy
    }

    pub fn segment(&self, shard: u16, segment: u32) -> PathBuf {
        super::super::layout::segment_path(&self.paths(), shard, segment).into()
    }

    pub fn partition(&self, topic: &str, partition: u32) -> PathBuf {
        super::super::layout::partition_path(&self.paths(), topic, partition).into()
    }

    pub fn rows(&self, shard: u16) -> Vec<JournalRow> {
        let start = RowRef {
            shard,
            ..RowRef::default()
        };
        let reader = JournalReader::new(&self.paths());
        let rows = reader.rows_from(start).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// Checks that journal and bus say the same and returns the event ids on the bus.
    pub fn check_bus_equals_journal(&self) -> BTreeMap<(String, u32), Vec<String>> {
        let mut confirmed: BTreeMap<(String, u32), Vec<String>> = BTreeMap::new();
        for shard in JournalReader::new(&self.paths()).shards().unwrap() {
            for row in self.rows(shard) {
                if let JournalOutcome::Admit {
                    topic,
                    partition,
                    offset,
                } = row.outcome
                {
                    let ids = confirmed.entry((topic.to_string(), partition)).or_default();
                    assert_eq!(
                        BusOffset::Line(ids.len() as u64),
                        offset,
                        "offsets have no gap"
                    );
                    ids.push(row.event_id);
                }
            }
        }
        let mut found = BTreeMap::new();
        for (topic, partition) in bus_partitions(&self.paths()).unwrap() {
            let mut reader =
                BusReader::open(&self.paths(), &topic, partition, ReadBound::Journal).unwrap();
            let ids: Vec<String> = reader
                .stream(0)
                .unwrap()
                .map(|record| event_id_of(&record.unwrap().line))
                .collect();
            let bytes = fs::read(self.partition(&topic, partition)).unwrap();
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(lines, ids.len(), "no line behind the journal's end");
            if !ids.is_empty() {
                found.insert((topic, partition), ids);
            }
        }
        assert_eq!(found, confirmed);
        found
    }
}

/// In memory where there is such a folder: these tests sync thousands of times.
fn temporary_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn event_id_of(line: &[u8]) -> String {
    let record: serde_json::Value = serde_json::from_slice(line).unwrap();
    record["payload"]["event_id"].as_str().unwrap().to_owned()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else if entry.path().extension() != Some("tmp".as_ref()) {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Decisions of one flush: admitted events by topic and partition, then copies, then refusals.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub admits: Vec<(usize, u32)>,
    pub duplicates: usize,
    pub quarantines: usize,
    pub new_segment: bool,
}

impl Plan {
    pub fn admit(count: usize) -> Plan {
        Plan {
            admits: vec![(0, 0); count],
            ..Plan::default()
        }
    }
}

/// Makes flushes that follow each other.
pub struct Feeder {
    run: PlatformRunId,
    next_row: RowRef,
    offsets: BTreeMap<(usize, u32), u64>,
    context: Arc<ReceiptContext>,
    made: u64,
}

impl Feeder {
    pub fn new(run: &TestRun, open: &OpenRun, shard: usize) -> Feeder {
        let next_row = open.shards[shard].next_row;
        let mut feeder = Feeder {
            run: run.id(),
            next_row,
            offsets: BTreeMap::new(),
            context: Arc::new(context()),
            made: u64::from(next_row.segment) * 1_000_000,
        };
        open.ends.iter().for_each(|end| feeder.learn(end));
        feeder
    }

    /// Takes a partition end that recovery found.
    pub fn learn(&mut self, end: &PartitionEnd) {
        let topic = TOPICS
            .iter()
            .position(|topic| **topic == *end.topic)
            .unwrap();
        self.offsets.insert((topic, end.partition), end.next_offset);
    }

    pub fn flush(&mut self, plan: &Plan) -> Flush {
        if plan.new_segment && self.next_row.row > 0 {
            self.next_row.segment += 1;
            self.next_row.row = 0;
        }
        let mut flush = Flush {
            run: self.run.clone(),
            first_row: self.next_row,
            decided_at: Micros(1_767_225_600_000_000 + self.made as i64),
            contexts: vec![self.context.clone()],
            appends: Vec::new(),
            rows: Vec::new(),
            arena: Vec::new(),
        };
        for (topic, partition) in &plan.admits {
            self.admit(&mut flush, *topic, *partition);
        }
        for _ in 0..plan.duplicates {
            let original = RowRef {
                shard: 3,
                segment: 70_000,
                row: 4_000_000_000,
            };
            self.push_row(&mut flush, RowOutcome::Duplicate { original });
        }
        for _ in 0..plan.quarantines {
            let record = push(&mut flush.arena, b"{\"reason_codes\":[\"PINS_MISSING\"]}");
            let code = "PINS_MISSING";
            self.push_row(&mut flush, RowOutcome::Quarantine { code, record });
        }
        self.next_row.row += flush.rows.len() as u32;
        flush
    }

    fn admit(&mut self, flush: &mut Flush, topic: usize, partition: u32) {
        let is_it = |append: &PartitionAppend| {
            *append.topic == *TOPICS[topic] && append.partition == partition
        };
        let offset = self.offsets.entry((topic, partition)).or_default();
        let append = flush.appends.iter().position(is_it).unwrap_or_else(|| {
            flush.appends.push(PartitionAppend {
                topic: TOPICS[topic].into(),
                partition,
                first_offset: *offset,
                events: 0,
                bytes: LineMemory::default(),
            });
            flush.appends.len() - 1
        });
        let outcome = RowOutcome::Admit {
            append: append as u16,
            offset: *offset,
        };
        *offset += 1;
        let id = self.push_row(flush, outcome);
        let line = format!("{{\"partition_key\":\"k\",\"payload\":{{\"event_id\":\"{id}\"}}}}\n");
        flush.appends[append].events += 1;
        flush.appends[append].bytes.push(&[line.as_bytes()]);
    }

    fn push_row(&mut self, flush: &mut Flush, outcome: RowOutcome) -> String {
        self.made += 1;
        // Every third id is not a hash and every fourth time is not T-env.
        let digest = Hash32::of(&self.made.to_le_bytes());
        let id = if self.made.is_multiple_of(3) {
            format!("évent-{}", self.made)
        } else {
            digest.to_string()
        };
        let ts_utc = if self.made.is_multiple_of(4) {
            "2026-13-45T99:99:99.000000Z".to_owned()
        } else {
            Micros(1_767_225_600_000_000 + self.made as i64).format_env()
        };
        let row = DecisionRow {
            context: 0,
            event_id: push(&mut flush.arena, id.as_bytes()),
            ts_utc: push(&mut flush.arena, ts_utc.as_bytes()),
            dedupe_key: digest,
            payload_hash: Hash32::of(id.as_bytes()),
            partition_key: Hash32::of(b"key"),
            outcome,
        };
        flush.rows.push(row);
        id
    }
}

fn push(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = arena.len() as u32;
    arena.extend_from_slice(bytes);
    Span {
        start,
        length: bytes.len() as u32,
    }
}

/// A receipt context with every optional field.
pub fn context() -> ReceiptContext {
    ReceiptContext {
        event_type: "s3_event_stream_with_fraud_6B".to_owned(),
        event_class: "traffic_fraud".to_owned(),
        manifest_fingerprint: "a".repeat(64),
        pins: serde_json::json!({"seed": 18_446_744_073_709_551_615u64, "scenario_id": "baseline"}),
        platform_run_id: "platform_20260101T000000Z".to_owned(),
        scenario_run_id: Some("b".repeat(32)),
        schema_version: Some("v1".to_owned()),
        producer: Some("engine".to_owned()),
        topic: TOPICS[0].to_owned(),
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
        provenance: serde_json::json!({"service_release_id": "dev", "environment": "local"}),
    }
}
