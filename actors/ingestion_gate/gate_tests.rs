//! The gate as a whole on a store in memory: races, failing commits, restarts, bounds.

use super::gate_supervisor::GateArgs;
use super::handle::{GateParts, GateProofs};
use super::in_process_gate::InProcessGate;
use super::running_gate::{Gate, start_gate};
use super::summary::Reporting;
use crate::runtime::credit::{CreditLimits, Credits};
use crate::runtime::restart_policy::RestartPolicy;
use crate::runtime::tree::TreeHandle;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use wellspring_domain::admission::bus_failures::BusFailures;
use wellspring_domain::admission::commit_report::CommitReport;
use wellspring_domain::admission::decision::{Actor, Flush, IndexEntry, RowOutcome, RowRef};
use wellspring_domain::admission::flush_builder::SegmentRule;
use wellspring_domain::admission::health::Health;
use wellspring_domain::admission::intake::{ProofState, VerifyGates};
use wellspring_domain::admission::policy::{AdmissionPolicy, PolicyFiles};
use wellspring_domain::admission::quarantine_spike::SpikeRule;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{
    AdmissionIndex, Clock, DecisionLog, EnvelopeBatch, GateClient, GateStore, ItemOutcome, OpenRun,
    OpenShard, PartitionEnd, RunLayout, StoreError,
};
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::time_text::Micros;

mod bounds_tests;
mod in_flight_tests;
mod reporting_tests;
mod sender_tests;
mod supervision_tests;

const RUN: &str = "platform_20260101T000000Z";

const FLUSH_BYTES_MAX: usize = 32 << 10;

/// Everything that was committed, per shard, and switches for faults.
#[derive(Default)]
struct Disk {
    flushes: Mutex<BTreeMap<u16, Vec<Flush>>>,
    /// The next commit fails; `after` decides whether its frame is on the disk all the same.
    fail_next: AtomicBool,
    fail_after_write: AtomicBool,
    /// Commits of these shards wait.
    stalled: Mutex<BTreeSet<u16>>,
    moved: Condvar,
    writers: AtomicU32,
}

impl Disk {
    /// Stalls every shard, or none.
    fn stall(&self, stalled: bool) {
        self.stall_shards(if stalled { &[0, 1] } else { &[] });
    }

    /// Stalls these shards and no others.
    fn stall_shards(&self, shards: &[u16]) {
        *self.stalled.lock().unwrap() = shards.iter().copied().collect();
        self.moved.notify_all();
    }

    /// Event ids on the bus in order, by topic and partition.
    fn bus(&self) -> BTreeMap<(String, u32), Vec<(u64, String)>> {
        let mut bus: BTreeMap<(String, u32), Vec<(u64, String)>> = BTreeMap::new();
        for flush in self.flushes.lock().unwrap().values().flatten() {
            for row in &flush.rows {
                if let RowOutcome::Admit { append, offset } = row.outcome {
                    let part = &flush.appends[usize::from(append)];
                    let id = String::from_utf8(row.event_id.of(&flush.arena).to_vec()).unwrap();
                    bus.entry((part.topic.to_string(), part.partition))
                        .or_default()
                        .push((offset, id));
                }
            }
        }
        bus
    }

    fn next_row(&self, shard: u16) -> RowRef {
        let flushes = self.flushes.lock().unwrap();
        match flushes.get(&shard).and_then(|flushes| flushes.last()) {
            Some(last) => RowRef {
                row: last.first_row.row + last.rows.len() as u32,
                ..last.first_row
            },
            None => RowRef {
                shard,
                segment: 0,
                row: 0,
            },
        }
    }

    fn ends(&self) -> Vec<PartitionEnd> {
        let end =
            |((topic, partition), records): ((String, u32), Vec<(u64, String)>)| PartitionEnd {
                topic: topic.into(),
                partition,
                next_offset: records.len() as u64,
                next_byte: 0,
            };
        self.bus().into_iter().map(end).collect()
    }

    fn admitted_from(&self, shard: u16, from: RowRef) -> Vec<(Hash32, IndexEntry)> {
        let flushes = self.flushes.lock().unwrap();
        let mut found = Vec::new();
        for flush in flushes.get(&shard).into_iter().flatten() {
            for (number, row) in flush.rows.iter().enumerate() {
                let at = RowRef {
                    row: flush.first_row.row + number as u32,
                    ..flush.first_row
                };
                if at >= from && matches!(row.outcome, RowOutcome::Admit { .. }) {
                    found.push((
                        row.dedupe_key,
                        IndexEntry {
                            payload_hash: row.payload_hash,
                            row: at,
                        },
                    ));
                }
            }
        }
        found
    }
}

struct Log {
    disk: Arc<Disk>,
    shard: u16,
}

impl Log {
    fn open(disk: &Arc<Disk>, shard: u16) -> Box<dyn DecisionLog> {
        disk.writers.fetch_add(1, Ordering::SeqCst);
        Box::new(Log {
            disk: disk.clone(),
            shard,
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.disk.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl DecisionLog for Log {
    fn commit(&mut self, flush: &Flush) -> Result<CommitReport, StoreError> {
        let mut stalled = self.disk.stalled.lock().unwrap();
        while stalled.contains(&self.shard) {
            stalled = self.disk.moved.wait(stalled).unwrap();
        }
        drop(stalled);
        let fails = self.disk.fail_next.swap(false, Ordering::SeqCst);
        if !fails || self.disk.fail_after_write.load(Ordering::SeqCst) {
            self.disk
                .flushes
                .lock()
                .unwrap()
                .entry(self.shard)
                .or_default()
                .push(flush.clone());
        }
        if fails {
            return Err(StoreError::Unavailable {
                operation: "write",
                key: "journal".into(),
                cause: "injected".into(),
            });
        }
        Ok(CommitReport::as_asked())
    }
}

#[derive(Default)]
struct MemoryIndex(BTreeMap<Hash32, IndexEntry>);

impl AdmissionIndex for MemoryIndex {
    fn lookup(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError> {
        found.clear();
        found.extend(keys.iter().map(|key| self.0.get(key).copied()));
        Ok(())
    }
    fn insert(
        &mut self,
        entries: &[(Hash32, IndexEntry)],
        _through: RowRef,
    ) -> Result<(), StoreError> {
        self.0.extend(entries.iter().copied());
        Ok(())
    }
    fn memory_bytes(&self) -> usize {
        0
    }
}

struct Store(Arc<Disk>);

impl GateStore for Store {
    fn open_run(&self, _run: &PlatformRunId, layout: &RunLayout) -> Result<OpenRun, StoreError> {
        let shards = 0..layout.admission_shards;
        let open = |shard| OpenShard {
            log: Log::open(&self.0, shard),
            next_row: self.0.next_row(shard),
            segments: SegmentRule::Rows,
            recovered: Vec::new(),
        };
        let index = |_| Box::new(MemoryIndex::default()) as Box<dyn AdmissionIndex>;
        Ok(OpenRun {
            shards: shards.map(open).collect(),
            index: (0..layout.index_shards).map(index).collect(),
            ends: self.0.ends(),
        })
    }
    fn reopen_shard(
        &self,
        _run: &PlatformRunId,
        shard: u16,
        from: RowRef,
    ) -> Result<(OpenShard, Vec<PartitionEnd>), StoreError> {
        let recovered = self.0.admitted_from(shard, from);
        Ok((
            OpenShard {
                log: Log::open(&self.0, shard),
                next_row: self.0.next_row(shard),
                segments: SegmentRule::Rows,
                recovered,
            },
            self.0.ends(),
        ))
    }
    fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(u64::MAX)
    }
}

struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Micros {
        Micros(1_767_225_600_000_000)
    }
    fn monotonic_micros(&self) -> u64 {
        0
    }
}

struct NoProofs;

impl GateProofs for NoProofs {
    fn known(&self, _run: &str, _scenario_run: &str) -> ProofState {
        ProofState::Absent
    }
    fn load(&self, _run: &str, _scenario_run: &str) {}
}

fn policy() -> AdmissionPolicy {
    let profile =
        |stream: &str| json!({"stream": stream, "key_precedence": ["payload.k", "event_id"]});
    AdmissionPolicy::compile(&PolicyFiles {
        revision: "v".into(),
        class_map: (
            "c".into(),
            json!({"classes": {"traffic": {"required_pins": []}, "a": {"partitioning_profile_id": "pa"}}, "event_types": {"a": "a"}}),
        ),
        partitioning: ("p".into(), json!({"profiles": {"pd": profile("t.default"), "pa": profile("t.a")}})),
        schema_policy: ("s".into(), json!({"policies": [{"event_type": "a"}]})),
        payload_schemas: BTreeMap::new(),
        default_profile_id: "pd".into(),
        required_gates: BTreeMap::new(),
    })
    .unwrap()
}

struct World {
    disk: Arc<Disk>,
    gate: Gate,
    _health: watch::Sender<Health>,
}

fn reporting() -> Reporting {
    Reporting {
        flush_every: Duration::from_secs(3600),
        spike: SpikeRule {
            threshold: 25,
            window_seconds: 60,
        },
        bus_failures: BusFailures::default(),
    }
}

async fn world(partitions: u32, credit_events: u32) -> World {
    world_reporting(partitions, credit_events, reporting()).await
}

async fn world_reporting(partitions: u32, credit_events: u32, reporting: Reporting) -> World {
    let disk = Arc::new(Disk::default());
    let (health, health_reader) = watch::channel(Health::default());
    let parts = GateParts {
        policy: policy(),
        partitions: vec![partitions; 2],
        provenance: json!({}),
        verify_gates: VerifyGates::Off,
        proofs: Arc::new(NoProofs),
        credits: Credits::new(CreditLimits {
            events_max: credit_events,
            bytes_max: 1 << 20,
        }),
        health: health_reader,
        deny_on_amber: false,
        amber_sleep: Duration::ZERO,
        reporting,
    };
    let store = Arc::new(Store(disk.clone()));
    let args = |started| GateArgs {
        parts,
        store,
        layout: RunLayout {
            admission_shards: 2,
            index_shards: 2,
        },
        flush_bytes_max: FLUSH_BYTES_MAX,
        open_runs_max: 2,
        own_run: None,
        projections: Vec::new(),
        projection_interval: Duration::from_secs(1),
        policy: RestartPolicy {
            backoff_first: Duration::from_millis(1),
            ..RestartPolicy::default()
        },
        jitter_seed: 1,
        clock: Arc::new(TestClock),
        node: TreeHandle::new(Arc::new(|| 0)).node("gate", "gate_supervisor"),
        started,
    };
    World {
        gate: start_gate(args, None).await.unwrap(),
        disk,
        _health: health,
    }
}

impl World {
    fn client(&self) -> Arc<InProcessGate> {
        let gate = self.gate.handle.clone();
        Arc::new(InProcessGate::new(gate, actor(), 4))
    }

    async fn push(&self, events: &[(&str, u64, u64)]) -> Vec<ItemOutcome> {
        self.client()
            .submit(batch(events))
            .await
            .unwrap()
            .await
            .unwrap()
    }
}

/// Who sends.
fn actor() -> Actor {
    Actor {
        actor_id: "a".into(),
        source_type: "SYSTEM".into(),
        auth_mode: "x".into(),
        principal: "p".into(),
    }
}

/// Events as `(event id, key, value)`: the key decides the partition, the value is the rest of the payload.
fn batch(events: &[(&str, u64, u64)]) -> EnvelopeBatch {
    batch_of(RUN, events)
}

/// As [`batch`], of another platform run.
fn batch_of(run: &str, events: &[(&str, u64, u64)]) -> EnvelopeBatch {
    let mut batch = EnvelopeBatch::default();
    let mut bytes = Vec::new();
    for (event_id, key, value) in events {
        let start = bytes.len() as u32;
        let text = json!({"event_id": event_id, "event_type": "a", "ts_utc": "2026-01-01T00:00:00.000000Z",
            "manifest_fingerprint": "a".repeat(64), "platform_run_id": run, "payload": {"k": key, "v": value}});
        bytes.extend_from_slice(text.to_string().as_bytes());
        batch.ranges.push(start..bytes.len() as u32);
    }
    batch.bytes = Arc::new(bytes);
    batch
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never came true: {what}");
}

fn quarantined() -> ItemOutcome {
    ItemOutcome::Quarantined {
        code: "PAYLOAD_HASH_MISMATCH".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_admitted_once_and_its_copies_are_duplicates() {
    let world = world(4, 1_000).await;
    use ItemOutcome::{Admitted, Duplicate};
    assert_eq!(
        world
            .push(&[("e1", 1, 1), ("e2", 2, 1), ("e1", 1, 1)])
            .await,
        [Admitted, Admitted, Duplicate]
    );
    assert_eq!(
        world
            .push(&[("e2", 2, 1), ("e3", 3, 1), ("e1", 1, 2)])
            .await,
        [Duplicate, Admitted, quarantined()]
    );
    let published: usize = world.disk.bus().values().map(Vec::len).sum();
    assert_eq!(published, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_copies_with_other_payloads_never_both_win() {
    let world = world(8, 10_000).await;
    let mut tasks = Vec::new();
    for sender in 0..8u64 {
        let client = world.client();
        tasks.push(tokio::spawn(async move {
            let ids: Vec<String> = (0..50).map(|number| format!("race-{number}")).collect();
            // Another key for each sender: the copies land on other partitions and other shards.
            let events: Vec<(&str, u64, u64)> =
                ids.iter().map(|id| (id.as_str(), sender, sender)).collect();
            client.submit(batch(&events)).await.unwrap().await.unwrap()
        }));
    }
    let mut admitted = 0;
    for task in tasks {
        let outcomes = task.await.unwrap();
        admitted += outcomes
            .iter()
            .filter(|outcome| **outcome == ItemOutcome::Admitted)
            .count();
        // A copy behind a parked one of the same key is sent back, never reordered.
        let settled = |outcome: &&ItemOutcome| {
            matches!(
                outcome,
                ItemOutcome::Admitted | ItemOutcome::Quarantined { .. }
            )
        };
        let sent_back = |code: &str| code == "PRECEDING_ITEM_RETRY";
        assert!(
            outcomes
                .iter()
                .all(|o| settled(&o)
                    || matches!(o, ItemOutcome::Retry { code, .. } if sent_back(code))),
            "{outcomes:?}"
        );
    }
    let mut ids: Vec<String> = world
        .disk
        .bus()
        .into_values()
        .flatten()
        .map(|(_, id)| id)
        .collect();
    assert_eq!(ids.len(), admitted);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), admitted, "an event is on the bus twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_is_recovered_from_and_nothing_is_lost_or_doubled() {
    for after_write in [false, true] {
        let world = world(1, 1_000).await;
        world.push(&[("e1", 1, 1)]).await;
        world
            .disk
            .fail_after_write
            .store(after_write, Ordering::SeqCst);
        world.disk.fail_next.store(true, Ordering::SeqCst);
        let outcomes = world.push(&[("e2", 1, 1), ("e3", 1, 1)]).await;
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, ItemOutcome::Retry { .. })),
            "{outcomes:?}"
        );
        // The sender sends the same bytes again: admitted now, or known when the frame was written.
        let expected = if after_write {
            ItemOutcome::Duplicate
        } else {
            ItemOutcome::Admitted
        };
        let decided = loop {
            // The dying generation may still be found; it answers nothing and loses nothing.
            let outcomes = world.push(&[("e2", 1, 1), ("e3", 1, 1)]).await;
            let again = |outcome: &ItemOutcome| matches!(outcome, ItemOutcome::Retry { .. });
            if !outcomes.iter().any(again) {
                break outcomes;
            }
        };
        assert_eq!(decided, [expected.clone(), expected]);
        let bus = world.disk.bus();
        let ids: Vec<(u64, String)> = bus[&("t.a".to_owned(), 0)].clone();
        assert_eq!(
            ids,
            [
                (0, "e1".to_owned()),
                (1, "e2".to_owned()),
                (2, "e3".to_owned())
            ]
        );
        assert!(
            world.disk.writers.load(Ordering::SeqCst) <= 2,
            "an old writer is still there"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_within_a_key_is_kept_across_batches() {
    let world = world(4, 1_000).await;
    let client = world.client();
    let mut pending = Vec::new();
    for number in 0..40u64 {
        let ids: Vec<String> = (0..5).map(|key| format!("{key}-{number:03}")).collect();
        let events: Vec<(&str, u64, u64)> = ids
            .iter()
            .enumerate()
            .map(|(key, id)| (id.as_str(), key as u64, number))
            .collect();
        pending.push(client.submit(batch(&events)).await.unwrap());
    }
    for answers in pending {
        assert!(
            answers
                .await
                .unwrap()
                .iter()
                .all(|outcome| *outcome == ItemOutcome::Admitted)
        );
    }
    for records in world.disk.bus().values() {
        let offsets: Vec<u64> = records.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..records.len() as u64).collect::<Vec<_>>());
        for key in 0..5 {
            let of_key: Vec<&String> = records
                .iter()
                .map(|(_, id)| id)
                .filter(|id| id.starts_with(&format!("{key}-")))
                .collect();
            assert!(of_key.is_sorted(), "{of_key:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_open_on_demand_and_idle_ones_make_room() {
    let world = world(1, 1_000).await;
    let gate = &world.gate.handle;
    let ids: Vec<PlatformRunId> = (1..=4)
        .map(|second| PlatformRunId::parse(&format!("platform_20260101T00000{second}Z")).unwrap())
        .collect();
    for run in &ids {
        gate.open_run(run).await.unwrap();
    }
    assert_eq!(
        gate.open_runs(),
        ids[2..],
        "two runs at once, the oldest idle one makes room"
    );
    // The run in RUN is opened by its first event, keeps its records, and is no longer idle while one waits.
    world.push(&[("e1", 1, 1)]).await;
    world.disk.stall(true);
    let client = world.client();
    let waiting = tokio::spawn(async move {
        client
            .submit(batch(&[("e2", 1, 1)]))
            .await
            .unwrap()
            .await
            .unwrap()
    });
    until("the event is in flight", || {
        gate.credits().gauges().events_in_use == 1
    })
    .await;
    gate.open_run(&ids[0]).await.unwrap();
    assert!(
        gate.open_runs().iter().any(|run| run.as_str() == RUN),
        "a run at work stays open"
    );
    // Both places are at work: a third run is told to come back, and comes when there is room again.
    let other = world.client();
    let first = ids[0].clone();
    let also_waiting = tokio::spawn(async move {
        let events = batch_of(first.as_str(), &[("e3", 1, 1)]);
        other.submit(events).await.unwrap().await.unwrap()
    });
    until("both runs are at work", || {
        gate.credits().gauges().events_in_use == 2
    })
    .await;
    let refused = gate.open_run(&ids[1]).await.unwrap_err();
    assert!(refused.contains("OPEN_RUNS_EXHAUSTED"), "{refused}");
    world.disk.stall(false);
    assert_eq!(waiting.await.unwrap(), [ItemOutcome::Admitted]);
    assert_eq!(also_waiting.await.unwrap(), [ItemOutcome::Admitted]);
    gate.open_run(&ids[1]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_the_order_of_its_keys_while_shards_are_replaced() {
    use crate::runtime::no_jitter;
    use crate::world_stream::batch::{PartEnd, StreamBatch};
    use crate::world_stream::gate_sender::{GateSender, SenderEvent};
    use crate::world_stream::progress::OutputProgress;
    use wellspring_domain::stream::retry::RetryPolicy;
    use wellspring_domain::stream::source::PartName;

    const BATCHES: u64 = 300;
    let world = world(4, 1_000).await;
    let progress = Arc::new(OutputProgress::new());
    let policy = RetryPolicy::default();
    let mut sender = GateSender::new(world.client(), policy, no_jitter(), progress.clone());
    let part = Arc::new(PartName {
        file: "/v/p".to_owned(),
        name: "p".to_owned(),
    });
    let (mut next, mut decided) = (0, 0);
    while decided < BATCHES {
        if next < BATCHES && sender.has_room() {
            // Two of the commits fail while more batches are on their way.
            if next == 100 || next == 200 {
                world.disk.fail_next.store(true, Ordering::SeqCst);
            }
            let ids: Vec<String> = (0..5).map(|key| format!("{key}-{next:03}")).collect();
            let events: Vec<(&str, u64, u64)> = (0..5u64)
                .map(|key| (ids[key as usize].as_str(), key, next))
                .collect();
            let batch = StreamBatch {
                envelopes: batch(&events),
                part: part.clone(),
                last_row: next,
                last_ts: Micros(0),
                ends_part: PartEnd::No,
            };
            sender.push(batch, Duration::ZERO);
            next += 1;
            continue;
        }
        if let SenderEvent::Decided(batch) = sender.next().await.unwrap() {
            assert_eq!(batch.last_row, decided);
            decided += 1;
        }
    }
    assert_eq!(progress.accepted(), BATCHES * 5);
    let mut seen = 0;
    for records in world.disk.bus().values() {
        for key in 0..5 {
            let mut of_key: Vec<&(u64, String)> = records
                .iter()
                .filter(|(_, id)| id.starts_with(&format!("{key}-")))
                .collect();
            of_key.sort();
            seen += of_key.len();
            assert!(of_key.is_sorted_by_key(|(_, id)| id), "{of_key:?}");
        }
    }
    assert_eq!(seen as u64, BATCHES * 5, "each event is on the bus once");
}
