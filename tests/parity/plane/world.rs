//! The world all tests of the plane stream, in S3; and what its embedded run puts on the bus, as the reference.

use super::site::{BUCKET, base_environment, finish};
use crate::support;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The equivalence key of every run made here: runs of one key give the same events.
pub const KEY: &str = "plane";

/// What `local_parity` streams.
pub const STREAMED: [&str; 4] = [
    "arrival_events_5B",
    "s1_arrival_entities_6B",
    "s3_flow_anchor_with_fraud_6B",
    "s3_event_stream_with_fraud_6B",
];

/// Event ids of each `(topic, partition key)`, in order.
pub type Contents = BTreeMap<(String, String), Vec<String>>;

/// A sealed and sorted world in S3.
pub struct SharedWorld {
    /// Its engine run root.
    pub root: String,
    /// What must be on the bus after a run.
    pub reference: Contents,
    /// The fingerprints of the embedded run.
    pub fingerprints: Value,
    /// Seconds its events span.
    pub seconds: f64,
}

impl SharedWorld {
    /// Variables that name it.
    pub fn variables(&self) -> [(String, String); 3] {
        variables(&self.root)
    }

    /// Records on the bus after a whole run.
    pub fn events(&self) -> u64 {
        self.reference.values().map(|ids| ids.len() as u64).sum()
    }

    /// The speed at which a run takes about so many seconds.
    pub fn speedup(&self, run_seconds: f64) -> String {
        (self.seconds / run_seconds).to_string()
    }
}

fn variables(root: &str) -> [(String, String); 3] {
    [
        ("ORACLE_ENGINE_RUN_ROOT".to_owned(), root.to_owned()),
        ("ORACLE_SCENARIO_ID".to_owned(), "baseline_v1".to_owned()),
        (
            "ORACLE_STREAM_VIEW_ROOT".to_owned(),
            format!("{root}/stream_view/ts_utc"),
        ),
    ]
}

/// Events of a run: `WELLSPRING_PARITY_EVENTS`, traffic and context together.
pub fn events_of_a_run() -> u64 {
    let set = std::env::var("WELLSPRING_PARITY_EVENTS").ok();
    set.map_or(5_000, |text| text.parse().expect("a number of events"))
}

/// The world, made once per test process.
pub fn shared() -> &'static SharedWorld {
    static WORLD: OnceLock<SharedWorld> = OnceLock::new();
    WORLD.get_or_init(make)
}

fn make() -> SharedWorld {
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("world").display().to_string();
    // Two traffic events and three context rows per flow.
    let traffic = (events_of_a_run() * 2 / 5 / 2 * 2).to_string();
    let generate = ["world", "generate", "--out", &local, "--events", &traffic];
    embedded(
        folder.path(),
        &[&generate[..], &["--seed", "61", "--parts", "3"]].concat(),
    );
    let name = support::unique_name("world");
    let root = format!("s3://{BUCKET}/{name}/world");
    let on_stack = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
        command.current_dir(folder.path()).env_clear();
        command.envs(base_environment()).envs(variables(&root));
        command.envs([
            ("PLATFORM_STORE_ROOT", format!("s3://{BUCKET}/{name}")),
            ("EVENT_BUS_STREAM", format!("{name}-events")),
            ("CONTROL_BUS_STREAM", format!("{name}-control")),
            ("IG_ADMISSION_DSN", support::postgres_dsn()),
            ("WSP_CHECKPOINT_DSN", support::postgres_dsn()),
        ]);
        finish(
            {
                command.args(args);
                command
            },
            folder.path(),
        )
        .ok();
    };
    on_stack(&["bootstrap"]);
    on_stack(&["oracle", "sync", "--from", &local, "--to", &root]);
    on_stack(&["oracle", "pack"]);
    let ids: Vec<&str> = STREAMED.iter().flat_map(|id| ["--output-id", id]).collect();
    on_stack(&[&["oracle", "sort"][..], &ids].concat());
    let (reference, fingerprints) = embedded_run(folder.path(), &local, &ids);
    SharedWorld {
        root,
        reference,
        fingerprints,
        seconds: 7.0 * 86_400.0,
    }
}

/// The same world on this machine's own backends.
fn embedded_run(folder: &Path, local: &str, ids: &[&str]) -> (Contents, Value) {
    let world = ["--engine-run-root", local, "--scenario-id", "baseline_v1"];
    embedded(folder, &[&["oracle", "pack"][..], &world].concat());
    embedded(folder, &[&["oracle", "sort"][..], &world, ids].concat());
    let run = embedded(folder, &["--format", "json", "run", "new"]);
    let run = run["platform_run_id"].as_str().unwrap().to_owned();
    let scenario = ["scenario", "run", "--run-equivalence-key", KEY];
    embedded(folder, &[&scenario[..], &world].concat());
    embedded(folder, &["up", "--once", "--port", "0", "--speedup", "0"]);
    let verified = embedded(folder, &["--format", "json", "bus", "verify", "--digest"]);
    let bus = folder.join("runs/fraud-platform").join(run).join("eb");
    (contents(&bus), verified["fingerprints"].clone())
}

fn embedded(folder: &Path, args: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
    command.current_dir(folder).env_clear().args(args);
    let finished = finish(command, folder).ok();
    serde_json::from_str(&finished.stdout).unwrap_or_default()
}

fn contents(bus: &Path) -> Contents {
    let mut contents = Contents::new();
    for topic in fs::read_dir(bus).unwrap() {
        let topic = topic.unwrap();
        let name = topic.file_name().into_string().unwrap();
        for file in fs::read_dir(topic.path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "jsonl") {
                continue;
            }
            for line in fs::read_to_string(&path).unwrap().lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                let key = record["partition_key"].as_str().unwrap().to_owned();
                let event = record["payload"]["event_id"].as_str().unwrap().to_owned();
                contents.entry((name.clone(), key)).or_default().push(event);
            }
        }
    }
    contents
}
