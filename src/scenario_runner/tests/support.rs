//! A tiny world with two gates and three outputs, and a bench around it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use serde_json::{Value, json};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{
    Clock, ControlBus, ControlRecord, EquivalenceOutcome, LeaseGrant, Leases, ObjectMeta,
    ObjectStore, ObjectWriter, PutOutcome, RunEquivalence, StoreError, WriteMode,
};
use wellspring_domain::provenance::Provenance;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::scenario::control::RunResponse;
use wellspring_domain::scenario::request::RunRequest;
use wellspring_domain::scenario::settings::{ScenarioPolicy, ScenarioWiring};
use wellspring_domain::time_text::Micros;

use super::super::{RunError, ScenarioPorts, ScenarioRunner, ScenarioRunnerConfig, world_opener};
use crate::control_bus::FileControlBus;
use crate::object_store::{LocalFiles, ObjectStores};
use crate::state_store::embedded::authority::AuthorityStore;
use crate::world_files::contract_files::ContractFiles;

pub const PLATFORM_RUN: &str = "platform_20260101T000000Z";
pub const KEY: &str = "parity_20260101T000000Z";
/// V1: the run id of [`KEY`].
pub const RUN_ID: &str = "e4f2285913cc771d0d8dd1ad475f7a01";

const CATALOGUE: &str = r#"
version: v0
outputs:
  - output_id: traffic
    scope: scope_seed_manifest_fingerprint_scenario_id
    path_template: "data/traffic/seed={seed}/manifest_fingerprint={manifest_fingerprint}/part-*.parquet"
    partitions: [seed, manifest_fingerprint, scenario_id]
    primary_key: [id]
    read_requires_gates: [gate.top]
  - output_id: context
    scope: scope_seed_manifest_fingerprint
    path_template: "data/context/part-*.parquet"
    partitions: [seed, manifest_fingerprint]
    primary_key: [id]
  - output_id: extra
    scope: scope_manifest_fingerprint
    path_template: "data/extra/part-*.parquet"
    primary_key: [id]
    availability: optional
  - output_id: unpinned
    scope: scope_other
    path_template: "data/context/part-*.parquet"
    partitions: [seed]
    primary_key: [id]
  - output_id: daily
    scope: scope_seed
    path_template: "data/context/part-*.parquet"
    partitions: [manifest_fingerprint, utc_day]
    primary_key: [id]
  - output_id: pathless
    scope: scope_seed
    path_template: "data/{utc_day}/part-*.parquet"
    partitions: [manifest_fingerprint]
    primary_key: [id]
"#;

const GATE_MAP: &str = r#"
version: v0
gates:
  - gate_id: gate.base
    scope: fingerprint
    bundle_root_template: "data/base/{manifest_fingerprint}/"
    passed_flag_template: "data/base/{manifest_fingerprint}/_passed.flag"
    verification: {kind: sha256_bundle_digest, digest_field: sha256_hex, order: ascii_lex, path_base: bundle, exclude: [_passed.flag]}
    authorizes_outputs: [context]
  - gate_id: gate.top
    scope: fingerprint
    bundle_root_template: "data/top/{manifest_fingerprint}/"
    passed_flag_template: "data/top/{manifest_fingerprint}/_passed.flag"
    verification: {kind: sha256_bundle_digest, digest_field: sha256_hex, order: ascii_lex, path_base: bundle, exclude: [_passed.flag]}
    upstream: [gate.base]
"#;

/// A clock that stands still until it is told to move.
pub struct HandClock {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl HandClock {
    pub fn pass_seconds(&self, seconds: i64) {
        self.wall.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
        self.monotonic
            .fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Micros {
        Micros(self.wall.load(Ordering::Relaxed))
    }
    fn monotonic_micros(&self) -> u64 {
        // A little passes with every look, so that a running engine reaches its limit.
        self.monotonic.fetch_add(1_000, Ordering::Relaxed) as u64
    }
}

/// Ends a runner's life at one of its writes: everything after it fails too, as if it was killed.
#[derive(Default)]
pub struct Death {
    writes_left: AtomicI64,
    after_the_write: AtomicBool,
    armed: AtomicBool,
}

impl Death {
    pub fn at(write: i64, after_the_write: bool) -> Arc<Death> {
        let death = Death::default();
        death.writes_left.store(write, Ordering::Relaxed);
        death
            .after_the_write
            .store(after_the_write, Ordering::Relaxed);
        death.armed.store(true, Ordering::Relaxed);
        Arc::new(death)
    }

    pub fn never() -> Arc<Death> {
        Arc::default()
    }

    pub fn struck(&self) -> bool {
        self.armed.load(Ordering::Relaxed) && self.writes_left.load(Ordering::Relaxed) < 0
    }

    fn write<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if !self.armed.load(Ordering::Relaxed) {
            return work();
        }
        let dead = || StoreError::Unavailable {
            operation: "write",
            key: "-".to_owned(),
            cause: "killed".to_owned(),
        };
        match self.writes_left.fetch_sub(1, Ordering::Relaxed) {
            left if left > 0 => work(),
            0 if self.after_the_write.load(Ordering::Relaxed) => work().and_then(|_| Err(dead())),
            _ => Err(dead()),
        }
    }
}

struct MortalStore(LocalFiles, Arc<Death>);

impl ObjectStore for MortalStore {
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<PutOutcome, StoreError> {
        self.1.write(|| self.0.put_if_absent(key, bytes))
    }
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.1.write(|| self.0.put(key, bytes))
    }
    fn append_line(&self, key: &str, line: &[u8]) -> Result<(), StoreError> {
        self.1.write(|| self.0.append_line(key, line))
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }
    fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        self.0.get_range(key, start, length)
    }
    fn open_reader(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        self.0.open_reader(key)
    }
    fn open_writer(&self, key: &str, mode: WriteMode) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.0.open_writer(key, mode)
    }
    fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.0.head(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.0.list(prefix)
    }
    fn absolute(&self, key: &str) -> String {
        self.0.absolute(key)
    }
}

struct MortalBus(FileControlBus, Arc<Death>);

impl ControlBus for MortalBus {
    fn publish(&self, t: &str, m: &str, k: &str, bytes: &[u8]) -> Result<PutOutcome, StoreError> {
        self.1.write(|| self.0.publish(t, m, k, bytes))
    }
    fn poll(&self, topic: &str, max: usize) -> Result<Vec<ControlRecord>, StoreError> {
        self.0.poll(topic, max)
    }
    fn settle(&self, topic: &str, record: &ControlRecord) -> Result<(), StoreError> {
        self.0.settle(topic, record)
    }
}

struct MortalAuthority(AuthorityStore, Arc<Death>);

impl RunEquivalence for MortalAuthority {
    fn resolve(&self, key: &str, run: &str, f: &str) -> Result<EquivalenceOutcome, StoreError> {
        self.1.write(|| self.0.resolve(key, run, f))
    }
}

impl Leases for MortalAuthority {
    fn acquire(&self, k: &str, o: &str, ttl: u64) -> Result<Option<LeaseGrant>, StoreError> {
        self.1.write(|| self.0.acquire(k, o, ttl))
    }
    fn renew(&self, k: &str, t: &str, ttl: u64) -> Result<Option<LeaseGrant>, StoreError> {
        self.0.renew(k, t, ttl)
    }
    fn holds(&self, k: &str, t: &str) -> Result<bool, StoreError> {
        self.0.holds(k, t)
    }
    fn release(&self, k: &str, t: &str) -> Result<(), StoreError> {
        self.1.write(|| self.0.release(k, t))
    }
}

/// A world, a runs root, a clock.
pub struct Bench {
    folder: tempfile::TempDir,
    pub clock: Arc<HandClock>,
    pub policy: ScenarioPolicy,
    pub wiring: ScenarioWiring,
    pub contract_files: Arc<ContractFiles>,
}

impl Bench {
    /// A bench with a complete world.
    pub fn new() -> Bench {
        let bench = Bench {
            folder: memory_folder(),
            clock: Arc::new(HandClock {
                wall: AtomicI64::new(1_767_225_600_123_456),
                monotonic: AtomicI64::new(0),
            }),
            policy: serde_json::from_value(json!({
                "policy_id": "sr_policy", "revision": "v0-local", "content_digest": "c".repeat(64),
                "evidence_wait_seconds": 600, "attempt_limit": 1,
                "traffic_output_ids": ["traffic"], "context_output_ids": ["context"]
            }))
            .unwrap(),
            wiring: ScenarioWiring::default(),
            contract_files: contract_files("gate.top"),
        };
        write_world(&bench.world());
        bench
    }

    pub fn world(&self) -> PathBuf {
        self.folder.path().join("world")
    }

    pub fn runs(&self) -> LocalFiles {
        LocalFiles::new(self.folder.path().join("runs"))
    }

    pub fn paths(&self) -> RunPaths {
        let run = PlatformRunId::parse(PLATFORM_RUN).unwrap();
        RunPaths::new(&self.folder.path().join("runs").display().to_string(), &run)
    }

    pub fn ports(&self, death: &Arc<Death>) -> ScenarioPorts {
        let database = format!("{}/index/sr_authority.db", self.paths().sr());
        let authority = AuthorityStore::open(database, self.clock.clone()).unwrap();
        let authority = Arc::new(MortalAuthority(authority, death.clone()));
        let bus = FileControlBus::new(self.paths().control_bus());
        ScenarioPorts {
            store: Arc::new(MortalStore(self.runs(), death.clone())),
            control_bus: Arc::new(MortalBus(bus, death.clone())),
            leases: authority.clone(),
            equivalence: authority,
            clock: self.clock.clone(),
            worlds: world_opener(ObjectStores::folders()),
        }
    }

    pub fn runner_with(&self, ports: ScenarioPorts) -> ScenarioRunner {
        ScenarioRunner::new(ScenarioRunnerConfig {
            policy: self.policy.clone(),
            wiring: self.wiring.clone(),
            contract_files: self.contract_files.clone(),
            run_paths: self.paths(),
            provenance: Provenance {
                service_release_id: "dev-local".to_owned(),
                environment: self.wiring.profile_id.clone(),
                ..Provenance::default()
            },
            ports,
        })
    }

    pub fn runner(&self) -> ScenarioRunner {
        self.runner_with(self.ports(&Death::never()))
    }

    pub fn submit(&self, change: Value) -> Result<RunResponse, RunError> {
        self.runner().submit(&self.request(change))
    }

    /// The standard request with members replaced.
    pub fn request(&self, change: Value) -> RunRequest {
        let mut request = json!({
            "run_equivalence_key": KEY, "manifest_fingerprint": "a".repeat(64),
            "parameter_hash": "b".repeat(64), "seed": 42,
            "scenario": {"scenario_id": "baseline_v1"},
            "window": {"window_start_utc": "2026-01-01T00:00:00Z",
                       "window_end_utc": "2026-01-02T00:00:00Z"},
            "engine_run_root": self.world().display().to_string()
        });
        for (name, value) in change.as_object().unwrap() {
            request[name] = value.clone();
        }
        serde_json::from_value(request).unwrap()
    }

    /// A document of the standard run, `null` when absent.
    pub fn document(&self, folder: &str) -> Value {
        let key = format!("fraud-platform/{PLATFORM_RUN}/sr/{folder}/{RUN_ID}.json");
        match self.runs().get(&key).unwrap() {
            Some(bytes) => serde_json::from_slice(&bytes).unwrap(),
            None => Value::Null,
        }
    }

    /// How often each kind of fact is in the record.
    pub fn facts(&self) -> BTreeMap<String, usize> {
        let mut facts = BTreeMap::new();
        for event in self.record() {
            *facts
                .entry(event["event_kind"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        facts
    }

    pub fn record(&self) -> Vec<Value> {
        let key = format!("fraud-platform/{PLATFORM_RUN}/sr/run_record/{RUN_ID}.jsonl");
        let bytes = self.runs().get(&key).unwrap().unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// All envelopes on the control bus.
    pub fn bus(&self) -> Vec<Value> {
        let bus = FileControlBus::new(self.paths().control_bus());
        let records = bus.poll(&self.wiring.control_bus_topic, 100).unwrap();
        records
            .iter()
            .map(|record| serde_json::from_slice(&record.bytes).unwrap())
            .collect()
    }

    pub fn reason(&self) -> Value {
        self.document("run_status")["reason_code"].clone()
    }
}

/// A folder in memory where there is one: these tests sync thousands of small files.
fn memory_folder() -> tempfile::TempDir {
    let shared_memory = Path::new("/dev/shm");
    match shared_memory.is_dir() {
        true => tempfile::tempdir_in(shared_memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// The tiny world's contract files, its upper gate under another name.
pub fn contract_files(top_gate: &str) -> Arc<ContractFiles> {
    let named = |text: &str| text.replace("gate.top", top_gate).into_bytes();
    Arc::new(ContractFiles::parse(&named(CATALOGUE), &named(GATE_MAP)).unwrap())
}

/// Writes a complete world: outputs in two parts, two proven gates, a run receipt.
pub fn write_world(root: &Path) {
    let fingerprint = "a".repeat(64);
    let traffic = format!("data/traffic/seed=42/manifest_fingerprint={fingerprint}");
    write(root, &format!("{traffic}/part-0.parquet"), b"rows one");
    write(root, &format!("{traffic}/part-1.parquet"), b"rows two");
    write(root, "data/context/part-0.parquet", b"context");
    for gate in ["base", "top"] {
        write_gate(root, gate, b"validation report");
    }
    write(
        root,
        "run_receipt.json",
        receipt(&"d".repeat(32), 42).as_bytes(),
    );
}

pub fn write_gate(root: &Path, gate: &str, report: &[u8]) {
    let bundle = format!("data/{gate}/{}", "a".repeat(64));
    write(root, &format!("{bundle}/report.json"), report);
    let flag = format!("sha256_hex = {}\n", Hash32::of(report));
    write(root, &format!("{bundle}/_passed.flag"), flag.as_bytes());
}

pub fn receipt(run_id: &str, seed: u64) -> String {
    json!({"run_id": run_id, "manifest_fingerprint": "a".repeat(64),
           "parameter_hash": "b".repeat(64), "seed": seed})
    .to_string()
}

pub fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
