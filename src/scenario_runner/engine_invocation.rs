//! Runs the engine as a subprocess and records the attempt (contract 5.4, step 8b).

use std::fs::File;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Map, Value, json};
use wellspring_domain::ids;
use wellspring_domain::ports::{Clock, ObjectStore, StoreError};
use wellspring_domain::scenario::engine::{
    EngineCommand, EngineFailure, check_engine_receipt, engine_command,
};
use wellspring_domain::scenario::plan::RunPlan;
use wellspring_domain::scenario::request::CanonicalIntent;
use wellspring_domain::scenario::run_record::{
    AttemptLogs, AttemptOutcome, EngineAttempt, EngineInvocation, RecordKind,
};
use wellspring_domain::scenario::settings::ScenarioWiring;
use wellspring_domain::scenario::state_machine::RunState;
use wellspring_domain::time_text::Micros;
use wellspring_domain::world::locator::join_root;
use wellspring_domain::world::world_key::RUN_RECEIPT_FILE;

use super::config::WorldOpener;
use super::error::RunError;
use super::ledger::RunLedger;

/// Who an attempt is recorded for when the request does not say.
const INVOKER_DEFAULT: &str = "sr-local";
/// How long an attempt may take when wiring does not say.
const TIMEOUT_SECONDS_DEFAULT: f64 = 3600.0;
/// How often a running engine is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How often the lease is renewed while the engine runs.
const LEASE_RENEWAL_MICROS: u64 = 30_000_000;
/// Bytes kept of each output stream of the engine.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// What an engine attempt needs to know.
pub struct EngineRun<'a> {
    /// What the run is about.
    pub intent: &'a CanonicalIntent,
    /// The plan, with the attempt limit.
    pub plan: &'a RunPlan,
    /// The command and its limits.
    pub wiring: &'a ScenarioWiring,
    /// Where the engine writes.
    pub engine_run_root: Option<&'a str>,
    /// Opens that root.
    pub worlds: &'a WorldOpener,
    /// Time.
    pub clock: &'a dyn Clock,
}

/// The invocation of an intent (contract 3.5).
pub fn invocation_of(intent: &CanonicalIntent, engine_run_root: Option<&str>) -> EngineInvocation {
    EngineInvocation {
        manifest_fingerprint: intent.manifest_fingerprint.clone(),
        parameter_hash: intent.parameter_hash.clone(),
        seed: intent.seed,
        run_id: intent.run_id.clone(),
        scenario_binding: intent.scenario_binding(),
        request_id: intent.request_id.clone(),
        invoker: intent.invoker.clone(),
        notes: intent.notes.clone().filter(|notes| !notes.is_empty()),
        engine_run_root: engine_run_root.map(str::to_owned),
    }
}

/// Number of finished attempts and whether the last one succeeded.
fn attempts_so_far(ledger: &RunLedger<'_>) -> (u32, bool) {
    let finished = ledger
        .record()
        .iter()
        .filter(|e| e.is(RecordKind::EngineAttemptFinished));
    finished.fold((0, false), |(count, _), event| {
        (count + 1, event.detail("outcome") == Some("SUCCEEDED"))
    })
}

impl EngineRun<'_> {
    /// Runs the engine until an attempt succeeds, none is left, or another would end the same way.
    /// An attempt that succeeded before is not repeated: only its evidence is looked at again.
    pub fn run(&self, ledger: &mut RunLedger<'_>) -> Result<Result<(), EngineFailure>, RunError> {
        let (mut finished, succeeded) = attempts_so_far(ledger);
        if succeeded {
            return Ok(Ok(()));
        }
        loop {
            let attempt_no = finished + 1;
            if attempt_no > self.plan.attempt_limit {
                return Ok(Err(EngineFailure::AttemptLimitExceeded));
            }
            let failure = match self.attempt(ledger, attempt_no)? {
                Ok(()) => return Ok(Ok(())),
                Err(failure) => failure,
            };
            finished = attempt_no;
            if !failure.may_pass_next_time() || finished >= self.plan.attempt_limit {
                return Ok(Err(failure));
            }
        }
    }

    fn attempt(
        &self,
        ledger: &mut RunLedger<'_>,
        attempt_no: u32,
    ) -> Result<Result<(), EngineFailure>, RunError> {
        let invocation = invocation_of(self.intent, self.engine_run_root);
        let attempt_id = ids::attempt_id(&self.intent.run_id, attempt_no);
        let request = json!({
            "attempt_id": attempt_id, "attempt_no": attempt_no, "invocation": invocation
        });
        ledger.fact(RecordKind::EngineAttemptLaunchRequested, object(request))?;
        ledger.set_state(RunState::Executing, None, None)?;
        let (started_at, started) = (self.clock.now(), self.clock.monotonic_micros());
        let mut logs = AttemptLogs::default();
        let result = self.invoke(ledger, attempt_no, &invocation, &mut logs)?;
        let duration = self.clock.monotonic_micros().saturating_sub(started);
        let root = self.engine_run_root;
        let attempt = EngineAttempt {
            run_id: self.intent.run_id.clone(),
            attempt_id,
            attempt_no,
            invoker: self
                .intent
                .invoker
                .clone()
                .unwrap_or_else(|| INVOKER_DEFAULT.to_owned()),
            outcome: match result {
                Ok(()) => AttemptOutcome::Succeeded,
                Err(_) => AttemptOutcome::Failed,
            },
            reason_code: result.err().map(|failure| failure.code().to_owned()),
            engine_run_root: root.map(str::to_owned),
            run_receipt_ref: root
                .filter(|_| result.is_ok())
                .map(|root| join_root(root, RUN_RECEIPT_FILE)),
            started_at_utc: started_at.format_off(),
            ended_at_utc: ended_at(started_at, duration).format_off(),
            duration_ms: duration / 1_000,
            invocation,
            logs_ref: Some(logs).filter(|logs| *logs != AttemptLogs::default()),
        };
        let details =
            serde_json::to_value(&attempt).map_err(|error| RunError::Canonical(error.into()))?;
        ledger.fact(RecordKind::EngineAttemptFinished, object(details))?;
        Ok(result)
    }

    fn invoke(
        &self,
        ledger: &mut RunLedger<'_>,
        attempt_no: u32,
        invocation: &EngineInvocation,
        logs: &mut AttemptLogs,
    ) -> Result<Result<(), EngineFailure>, RunError> {
        let Some(root) = self.engine_run_root else {
            return Ok(Err(EngineFailure::RootMissing));
        };
        let command = engine_command(&self.wiring.engine_command, invocation, self.intent, root)?;
        let command = match command {
            Ok(command) => command,
            Err(failure) => return Ok(Err(failure)),
        };
        let ended = self.run_command(ledger, attempt_no, &command, logs)?;
        if let Err(failure) = ended {
            return Ok(Err(failure));
        }
        let receipt = match (self.worlds)(root)? {
            Some(world) => read_receipt(world.as_ref())?,
            None => None,
        };
        Ok(check_engine_receipt(receipt.as_deref(), invocation))
    }

    fn run_command(
        &self,
        ledger: &mut RunLedger<'_>,
        attempt_no: u32,
        command: &EngineCommand,
        logs: &mut AttemptLogs,
    ) -> Result<Result<(), EngineFailure>, RunError> {
        let scratch = tempfile::tempdir().map_err(|error| scratch_error(&error))?;
        let (stdout, stderr) = (scratch.path().join("stdout"), scratch.path().join("stderr"));
        let child = self.start(command, &stdout, &stderr);
        let result = match child {
            Ok(child) => self.watch(ledger, child)?,
            Err(error) => {
                tracing::warn!(%error, program = command.program, "engine could not be started");
                Err(EngineFailure::Failed)
            }
        };
        for (path, stream) in [(&stdout, "stdout"), (&stderr, "stderr")] {
            let Ok(bytes) = read_start(path) else {
                continue;
            };
            let key = ledger.keys().attempt_log(attempt_no, stream);
            ledger.replace(&key, &bytes)?;
            match stream {
                "stdout" => logs.stdout_ref = Some(key),
                _ => logs.stderr_ref = Some(key),
            }
        }
        Ok(result)
    }

    fn start(
        &self,
        command: &EngineCommand,
        stdout: &std::path::Path,
        stderr: &std::path::Path,
    ) -> io::Result<Child> {
        let mut process = Command::new(&command.program);
        process
            .args(&command.arguments)
            .env("SR_ENGINE_INVOCATION_JSON", &command.invocation_json)
            .env("SR_ENGINE_RUN_ROOT", &command.engine_run_root)
            .stdin(Stdio::null())
            .stdout(File::create(stdout)?)
            .stderr(File::create(stderr)?);
        if let Some(folder) = self
            .wiring
            .engine_command_cwd
            .as_ref()
            .filter(|f| !f.is_empty())
        {
            process.current_dir(folder);
        }
        process.spawn()
    }

    /// Waits for the engine, keeps the lease meanwhile, and stops the engine at its time limit or
    /// when the lease is lost.
    fn watch(
        &self,
        ledger: &mut RunLedger<'_>,
        mut child: Child,
    ) -> Result<Result<(), EngineFailure>, RunError> {
        let seconds = self
            .wiring
            .engine_command_timeout_seconds
            .unwrap_or(TIMEOUT_SECONDS_DEFAULT);
        let limit = (seconds.max(0.0) * 1e6) as u64;
        let started = self.clock.monotonic_micros();
        let mut renewed = started;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(exit_outcome(status)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "engine could not be watched");
                    stop(&mut child);
                    return Ok(Err(EngineFailure::Failed));
                }
            }
            let now = self.clock.monotonic_micros();
            if now.saturating_sub(started) >= limit {
                stop(&mut child);
                return Ok(Err(EngineFailure::Timeout));
            }
            if now.saturating_sub(renewed) >= LEASE_RENEWAL_MICROS {
                if let Err(lost) = ledger.keep_lease() {
                    stop(&mut child);
                    return Err(lost);
                }
                renewed = now;
            }
            std::thread::sleep(POLL);
        }
    }
}

fn exit_outcome(status: ExitStatus) -> Result<(), EngineFailure> {
    match status.success() {
        true => Ok(()),
        false => Err(EngineFailure::ExitNonzero),
    }
}

fn stop(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        tracing::warn!(%error, "engine could not be stopped");
    }
}

fn read_receipt(world: &dyn ObjectStore) -> Result<Option<Vec<u8>>, RunError> {
    Ok(world.get(RUN_RECEIPT_FILE)?)
}

/// The first bytes of a log file; an engine may write without end.
fn read_start(path: &std::path::Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LOG_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn scratch_error(error: &io::Error) -> RunError {
    RunError::Store(StoreError::Unavailable {
        operation: "create",
        key: "temporary folder for engine output".to_owned(),
        cause: error.to_string(),
    })
}

fn ended_at(started_at: Micros, duration_micros: u64) -> Micros {
    Micros(
        started_at
            .0
            .saturating_add(i64::try_from(duration_micros).unwrap_or(i64::MAX)),
    )
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}
