//! An installation on the parity stack: its own runs root, streams and database, driven through the built program.

use super::finished::Finished;
use super::world::{SharedWorld, shared};
use crate::support;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use wellspring::blocking_runtime::{block_on, handle};

/// No command of a test may take longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(240);

/// Leases of these tests: short, so that what is left behind is settled soon.
pub const LEASE: Duration = Duration::from_millis(3_000);

/// One bucket holds all installations: the stand-in reserves much room for each bucket.
pub const BUCKET: &str = "plane";

/// An installation; its database is dropped with it.
pub struct Site {
    folder: tempfile::TempDir,
    database: String,
    env: BTreeMap<String, String>,
    /// The world its runs stream.
    pub world: &'static SharedWorld,
    /// The stream of all topics.
    pub stream: String,
}

impl Site {
    /// An installation, bootstrapped, over the shared world.
    pub fn new() -> Site {
        let site = Site::without_bootstrap();
        site.run(&["bootstrap"]).ok();
        site
    }

    fn without_bootstrap() -> Site {
        let world = shared();
        let name = support::unique_name("plane");
        let server = support::postgres_dsn();
        rows(&server, &format!("CREATE DATABASE \"{name}\""));
        let dsn = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        let mut env = base_environment();
        for (key, value) in [
            ("PLATFORM_STORE_ROOT", format!("s3://{BUCKET}/{name}")),
            ("EVENT_BUS_STREAM", format!("{name}-events")),
            ("CONTROL_BUS_STREAM", format!("{name}-control")),
            ("IG_ADMISSION_DSN", dsn.clone()),
            ("WSP_CHECKPOINT_DSN", dsn.clone()),
            ("SR_AUTHORITY_STORE_DSN", dsn.clone()),
            (
                "WELLSPRING_WIRING_CLUSTER_LEASE_TTL_MS",
                LEASE.as_millis().to_string(),
            ),
        ] {
            env.insert(key.to_owned(), value);
        }
        env.extend(world.variables());
        let site = Site {
            folder: tempfile::tempdir().unwrap(),
            stream: format!("{name}-events"),
            database: dsn,
            env,
            world,
        };
        site.write_scenario_wiring(&name);
        site
    }

    /// The shipped wiring of the Scenario Runner, with this installation's root.
    fn write_scenario_wiring(&self, name: &str) {
        let shipped = repository().join("config/platform/sr/wiring_local_parity.yaml");
        let text = fs::read_to_string(shipped).unwrap();
        let own = text.replace("s3://fraud-platform", &format!("s3://{BUCKET}/{name}"));
        fs::write(self.path().join("sr_wiring.yaml"), own).unwrap();
    }

    /// Another value of an environment variable in every command from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    /// The folder commands run in.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program in this installation's environment.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
        command.current_dir(self.path()).env_clear().envs(&self.env);
        command
    }

    /// Runs one command to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        self.run_with(args, &[])
    }

    /// Runs one command to its end, with more variables.
    pub fn run_with(&self, args: &[&str], more: &[(&str, &str)]) -> Finished {
        let mut command = self.program();
        command.args(["--format", "json"]).args(args);
        command.envs(more.iter().copied());
        finish(command, self.path())
    }

    /// A new platform run.
    pub fn new_run(&self) -> String {
        let created = self.run(&["run", "new"]).ok().json();
        created["platform_run_id"].as_str().unwrap().to_owned()
    }

    /// Proves the world under this equivalence key and publishes READY.
    pub fn submit(&self, key: &str) {
        let args = ["scenario", "run", "--wiring", "sr_wiring.yaml"];
        let more = ["--run-equivalence-key", key, "--engine-run-root"];
        self.run(&[&args[..], &more, &[&self.world.root]].concat())
            .ok();
    }

    /// A new platform run with a READY of the shared world; its id.
    pub fn ready_run(&self) -> String {
        let id = self.new_run();
        self.submit(super::world::KEY);
        id
    }

    /// Streams what is READY as fast as possible.
    pub fn up_once(&self, more: &[&str]) -> Finished {
        let args = ["up", "--once", "--port", "0", "--speedup", "0"];
        self.run(&[&args[..], more].concat())
    }

    /// Streams what is READY so that it takes about so many seconds.
    pub fn up_once_within(&self, run_seconds: f64) -> Finished {
        let speedup = self.world.speedup(run_seconds);
        self.run(&["up", "--once", "--port", "0", "--speedup", &speedup])
    }

    /// Until the leases of writers are over whose node was killed: a gate that starts then settles all they left.
    #[track_caller]
    fn wait_for_ended_writers(&self) {
        let end = Instant::now() + LEASE * 2;
        let alive = "SELECT 1 FROM ws_writers WHERE NOT closed AND expires_at > clock_timestamp()";
        while !self.rows(alive).is_empty() {
            assert!(Instant::now() < end, "a killed node's writers still live");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `up --once` until it is not put off any more because of the lease of a node that has ended; what the READY
    /// came to, or that the node had ended it before it was stopped.
    #[track_caller]
    pub fn up_after_a_crash(&self) -> String {
        self.wait_for_ended_writers();
        let end = Instant::now() + LEASE * 2;
        loop {
            let late = Instant::now() > end;
            let finished = self.up_once(&[]).ok();
            let answers = finished.json();
            if answers.as_array().is_some_and(Vec::is_empty) {
                return "NOTHING_LEFT".to_owned();
            }
            let status = answers[0]["status"].as_str().unwrap().to_owned();
            if status != "DEFERRED_CLAIMED_ELSEWHERE" {
                return status;
            }
            assert!(
                !late,
                "still put off after two leases: {}",
                finished.everything()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// `bus verify --digest` and `receipts verify`, both without a difference; what the first said.
    #[track_caller]
    pub fn verify(&self) -> Value {
        let bus = self.run(&["bus", "verify", "--digest"]).ok().json();
        assert_eq!(bus["verified"], true, "{bus}");
        let receipts = self.run(&["receipts", "verify"]).ok().json();
        assert_eq!(receipts["verified"], true, "{receipts}");
        bus
    }

    /// Rows of a query, from outside of the program.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&self.database, sql)
    }

    /// The same while the server may be away.
    pub fn try_rows(&self, sql: &str) -> Option<Vec<Vec<String>>> {
        try_rows(&self.database, sql).ok()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let (_, name) = self.database.rsplit_once('/').unwrap();
        let drop = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
        let _ = try_rows(&support::postgres_dsn(), &drop);
    }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the program needs of the stack's environment, and nothing else of the test's.
pub fn base_environment() -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("WELLSPRING_PROFILE".to_owned(), "local_parity".to_owned())]);
    for name in [
        "OBJECT_STORE_ENDPOINT",
        "OBJECT_STORE_REGION",
        "ORACLE_ROOT",
        "IG_INGEST_URL",
        "EVENT_BUS_REGION",
        "EVENT_BUS_ENDPOINT_URL",
        "CONTROL_BUS_REGION",
        "CONTROL_BUS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
    ] {
        env.insert(name.to_owned(), support::variable(name));
    }
    env
}

/// Runs a command with a time limit; streams go through files so that no pipe can fill up.
pub fn finish(mut command: Command, scratch: &Path) -> Finished {
    let out = tempfile::NamedTempFile::new_in(scratch).unwrap();
    let err = tempfile::NamedTempFile::new_in(scratch).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(out.path()).unwrap())
        .stderr(File::create(err.path()).unwrap())
        .spawn()
        .expect("the program starts");
    let end = Instant::now() + COMMAND_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let (stdout, stderr) = (text(out.path()), text(err.path()));
    let Some(status) = status else {
        panic!("a command did not end within {COMMAND_TIMEOUT:?}\n{stdout}\n{stderr}");
    };
    Finished {
        code: status.code(),
        stdout,
        stderr,
    }
}

fn rows(dsn: &str, sql: &str) -> Vec<Vec<String>> {
    try_rows(dsn, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

fn try_rows(dsn: &str, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
    block_on(async {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
        handle().spawn(connection);
        let mut rows = Vec::new();
        for message in client.simple_query(sql).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let text = |column| row.get(column).unwrap_or("~").to_owned();
                rows.push((0..row.len()).map(text).collect());
            }
        }
        Ok(rows)
    })
}
