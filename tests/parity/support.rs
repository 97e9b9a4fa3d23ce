//! Where the servers are, and how a test ends and starts one.
//!
//! Everything comes from the environment that `infra/parity/up` writes; a missing variable fails the test with
//! the way out. Buckets, streams and databases made by a test carry a name of their own (`unique_name`), so that
//! tests do not meet each other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const S3_ENDPOINT: &str = "WELLSPRING_TEST_S3_ENDPOINT";
const KINESIS_ENDPOINT: &str = "WELLSPRING_TEST_KINESIS_ENDPOINT";
const KINESIS_MOCK_ENDPOINT: &str = "WELLSPRING_TEST_KINESIS_MOCK_ENDPOINT";
const POSTGRES_DSN: &str = "WELLSPRING_TEST_POSTGRES_DSN";

/// Restarting a server takes it from every other test of the binary, too.
static ONE_FAULT_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A variable of the parity environment, or a failure that says where it comes from.
pub fn variable(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!(
            "{name} is not set: this test needs the parity stack. `make parity-test` starts it and runs these tests; \
             by hand: `make parity-up`, then `infra/parity/with cargo test --test parity`"
        ),
    }
}

/// Endpoint of the S3 server.
pub fn s3_endpoint() -> String {
    variable(S3_ENDPOINT)
}

/// Endpoint of the Kinesis server that carries load and survives restarts.
pub fn kinesis_endpoint() -> String {
    variable(KINESIS_ENDPOINT)
}

/// Endpoint of the Kinesis server that knows every call of the API, for small volumes.
pub fn kinesis_mock_endpoint() -> String {
    variable(KINESIS_MOCK_ENDPOINT)
}

/// Connection to PostgreSQL, with the password.
pub fn postgres_dsn() -> String {
    variable(POSTGRES_DSN)
}

/// Credentials the S3 server accepts; the Kinesis servers take any.
pub struct AwsKeys {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

/// The credentials of the stack.
pub fn aws_keys() -> AwsKeys {
    AwsKeys {
        access_key_id: variable("AWS_ACCESS_KEY_ID"),
        secret_access_key: variable("AWS_SECRET_ACCESS_KEY"),
    }
}

/// Region of every server.
pub fn region() -> String {
    std::env::var("AWS_DEFAULT_REGION").unwrap_or_else(|_| "us-east-1".to_owned())
}

/// A name no other test and no earlier run has: fit for a bucket, a stream, a database, a table.
pub fn unique_name(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    format!(
        "{prefix}-{}-{:x}-{number}",
        std::process::id(),
        since.as_micros()
    )
}

/// One server of the stack, by the name the scripts know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// SeaweedFS.
    S3,
    /// kinesalite.
    Kinesis,
    /// kinesis-mock.
    KinesisMock,
    /// PostgreSQL.
    Postgres,
}

impl Server {
    /// Its name on the command line of the scripts.
    pub fn name(self) -> &'static str {
        match self {
            Server::S3 => "s3",
            Server::Kinesis => "kinesis",
            Server::KinesisMock => "kinesis_mock",
            Server::Postgres => "postgres",
        }
    }
}

/// Leave to disturb servers; every server runs again when it is dropped.
pub struct Faults {
    _alone: MutexGuard<'static, ()>,
}

impl Faults {
    /// Waits until no other test disturbs servers. Only tests in a module named `faults` may: they run last and
    /// alone (`infra/parity/test`), so that no other test loses its server.
    pub fn begin() -> Self {
        let test = std::thread::current();
        let test = test.name().unwrap_or_default();
        assert!(
            test == "main" || test.contains("faults"),
            "{test} ends servers: move it into a module named `faults`"
        );
        let alone = ONE_FAULT_AT_A_TIME.lock();
        Faults {
            _alone: alone.unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Ends a server at once, as a power cut of its process would; it stays away.
    pub fn kill(&self, server: Server) {
        script("kill", &[server.name()]);
    }

    /// Starts a server again, on its port and with its data; ends it in good order first when it runs.
    pub fn restart(&self, server: Server) {
        script("restart", &[server.name()]);
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // A panic on the way out of a failing test would hide what failed.
        let repaired = run_script("up", &[]);
        if !std::thread::panicking() {
            repaired.unwrap();
        }
    }
}

fn script(name: &str, arguments: &[&str]) {
    run_script(name, arguments).unwrap();
}

/// Folder of the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/parity")
}

fn run_script(name: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(scripts().join(name))
        .args(arguments)
        .output()
        .map_err(|error| format!("infra/parity/{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("infra/parity/{name} {arguments:?} failed: {said}")),
    }
}

/// Waits until something holds; fails when it does not within the time.
pub fn wait_until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < at_most, "not within {at_most:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
