//! Decides about READY messages with the product's rules, over simulated records, leases and worlds.

use crate::faults::Fault;
use crate::plan::RUNS;
use crate::sim::Sim;
use crate::stores::{SimCheckpoints, SimLeases};
use crate::world::{SimWorld, context};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use wellspring_actors::world_stream::pump::ProgressLogSettings;
use wellspring_actors::world_stream::ready_desk::{PreparedRun, ReadyDesk, ReadyOutcome, TakeUp};
use wellspring_actors::world_stream::result::{StreamResult, StreamStatus};
use wellspring_actors::world_stream::run_streams::{EventCaps, StreamRequest, StreamTuning};
use wellspring_domain::ports::{CheckpointStore, ControlRecord, Cursor, Leases, StoreError};
use wellspring_domain::stream::ready_decision::{
    FactsSummary, PriorVerdict, ReadyInputs, ReadyStatus, ReadyVerdict, RunIdentity, decide,
    prior_verdict,
};
use wellspring_domain::time_text::Micros;

/// How long a run's lease lasts without a sign of life.
const LEASE_SECONDS: u64 = 5;

/// A READY message of a run.
pub fn ready(message_id: &str, platform_run_id: &str, attempt: &str) -> Vec<u8> {
    let ready = json!({
        "message_id": message_id,
        "platform_run_id": platform_run_id,
        "scenario_run_id": "d".repeat(32),
        "attempt": attempt,
    });
    ready.to_string().into_bytes()
}

/// The desk of the process.
pub struct SimDesk(pub Arc<Sim>);

struct Ready {
    message_id: String,
    platform_run_id: String,
    attempt: String,
}

impl ReadyDesk for SimDesk {
    fn take_up(&self, record: &ControlRecord) -> Result<TakeUp, StoreError> {
        let Some(ready) = read(record) else {
            return Ok(TakeUp::NotReady {
                why: "it is garbage".to_owned(),
            });
        };
        let id = ready.message_id.clone();
        self.0.fails(Fault::RecordReadFails, "read", &id)?;
        let number = match prior_verdict(&self.prior(&id)) {
            PriorVerdict::Attempt(number) => number,
            PriorVerdict::Done => {
                self.0.judge().ended(&id);
                return Ok(ended(&id, ReadyStatus::SkippedDuplicate, 1));
            }
        };
        match decide(&self.inputs(&ready)) {
            ReadyVerdict::Stream { .. } => self.stream(ready, number),
            verdict => self.end(&id, &verdict, number),
        }
    }
}

fn read(record: &ControlRecord) -> Option<Ready> {
    let value: Value = serde_json::from_slice(&record.bytes).ok()?;
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some(Ready {
        message_id: text("message_id")?,
        platform_run_id: text("platform_run_id")?,
        attempt: text("attempt")?,
    })
}

fn ended(message_id: &str, status: ReadyStatus, attempt: u32) -> TakeUp {
    TakeUp::Ended(Box::new(outcome(message_id, status, attempt)))
}

fn outcome(message_id: &str, status: ReadyStatus, attempt: u32) -> ReadyOutcome {
    ReadyOutcome {
        message_id: message_id.to_owned(),
        run_id: "d".repeat(32),
        status,
        reason: Some(status.as_str().to_owned()),
        detail: None,
        emitted: 0,
        engine_run_root: None,
        scenario_id: None,
        attempt,
        outputs: Vec::new(),
    }
}

impl SimDesk {
    fn prior(
        &self,
        message_id: &str,
    ) -> Vec<wellspring_domain::stream::ready_decision::PriorRecord> {
        let stores = self.0.stores();
        let lines = stores.records.get(message_id).into_iter().flatten();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn inputs(&self, ready: &Ready) -> ReadyInputs {
        let identity = RunIdentity {
            platform_run_id: Some(ready.platform_run_id.clone()),
            scenario_run_id: Some("d".repeat(32)),
        };
        let missing = self.0.strikes(Fault::PacksNotReady);
        ReadyInputs {
            ready: identity.clone(),
            facts: Ok(FactsSummary {
                identity,
                scenario_id: Some("s".to_owned()),
                delivery_mode: Some("STREAM".to_owned()),
            }),
            active_run: Some(RUNS[0].to_owned()),
            pack_problems: missing
                .then(|| "a pack is missing".to_owned())
                .into_iter()
                .collect(),
            engine_run_root: Some("/world".to_owned()),
        }
    }

    fn end(&self, id: &str, verdict: &ReadyVerdict, number: u32) -> Result<TakeUp, StoreError> {
        let ReadyVerdict::End { status, .. } = verdict else {
            unreachable!("a verdict to stream does not end here");
        };
        if verdict.writes_record() {
            append(&self.0, id, *status)?;
        }
        if status.settles() {
            self.0.judge().ended(id);
        }
        Ok(ended(id, *status, number))
    }

    fn stream(&self, ready: Ready, number: u32) -> Result<TakeUp, StoreError> {
        let leases = SimLeases(self.0.clone());
        let key = format!("ready:{}", ready.message_id);
        if self.0.strikes(Fault::LeaseHeld) {
            leases.steal(&key);
        }
        let Some(grant) = leases.acquire(&key, "node", LEASE_SECONDS)? else {
            let status = ReadyStatus::DeferredClaimedElsewhere;
            return Ok(ended(&ready.message_id, status, number));
        };
        let lease = Arc::new(RunLease::renewed(&self.0, key, grant.token));
        let sim = self.0.clone();
        sim.note(format!("stream {} attempt {number}", ready.message_id));
        let outputs = sim.plan.outputs.iter();
        let outputs = outputs.map(|output| context(&output.output_id, &ready.attempt));
        let request = StreamRequest {
            engine_run_root: "/world".to_owned(),
            engine_run_id: "c".repeat(32),
            scenario_id: "s".to_owned(),
            outputs: outputs.collect(),
            checkpoint_pack_key: ready.attempt.clone(),
            speedup: sim.plan.speedup,
            caps: EventCaps::default(),
            output_concurrency: sim.plan.output_concurrency,
        };
        let checkpoints = Leased {
            inner: SimCheckpoints(sim.clone()),
            lease: lease.clone(),
        };
        Ok(TakeUp::Stream(Box::new(PreparedRun {
            message_id: ready.message_id.clone(),
            platform_run_id: ready.platform_run_id.clone(),
            request,
            tuning: tuning(&sim),
            source: Arc::new(SimWorld(sim.clone())),
            checkpoints: Arc::new(checkpoints),
            on_saved: Arc::new(|_, _| {}),
            finish: Box::new(move |result| finish(&sim, &lease, &ready, number, result)),
        })))
    }
}

fn tuning(sim: &Sim) -> StreamTuning {
    StreamTuning {
        limits: sim.plan.batch,
        retry: sim.plan.retry,
        restart: sim.plan.stream_restart.clone(),
        flush: sim.plan.flush,
        log: ProgressLogSettings::default(),
    }
}

/// Writes the end of a stream down, as the product's desk does.
fn finish(
    sim: &Arc<Sim>,
    lease: &Arc<RunLease>,
    ready: &Ready,
    number: u32,
    result: &StreamResult,
) -> ReadyOutcome {
    let id = &ready.message_id;
    let status = match result.status {
        StreamStatus::Streamed => ReadyStatus::Streamed,
        StreamStatus::Stopped => ReadyStatus::Interrupted,
        StreamStatus::Failed => ReadyStatus::Failed,
    };
    let (reason, detail) = (&result.reason, &result.detail);
    sim.note(format!("finish {id} {status:?} {reason:?} {detail:?}"));
    check_sums(sim, result);
    let outcome = ReadyOutcome {
        reason: result.reason.clone(),
        ..outcome(id, status, number)
    };
    if status == ReadyStatus::Interrupted {
        return outcome;
    }
    if lease.check().is_err() {
        let status = ReadyStatus::Interrupted;
        return ReadyOutcome { status, ..outcome };
    }
    if status == ReadyStatus::Streamed {
        sim.judge().streamed(&ready.attempt);
    }
    if append(sim, id, status).is_ok() {
        sim.count("record written");
    }
    if status.settles() && !sim.is_dead() {
        sim.judge().ended(id);
    }
    outcome
}

fn check_sums(sim: &Sim, result: &StreamResult) {
    for output in &result.outputs {
        let (rows, id) = (output.rows, &output.output_id);
        if rows != output.admitted + output.duplicate + output.quarantined {
            sim.broken(format!("{id} streamed {rows}, its decisions do not add up"));
        }
    }
    if result.emitted != result.outputs.iter().map(|output| output.rows).sum::<u64>() {
        sim.broken("the outputs of a run do not add up to it");
    }
}

fn append(sim: &Sim, message_id: &str, status: ReadyStatus) -> Result<(), StoreError> {
    sim.dies(Fault::DiesBeforeRecord, "append", message_id)?;
    sim.fails(Fault::RecordWriteFails, "append", message_id)?;
    let line = json!({"status": status.in_records()}).to_string();
    let mut stores = sim.stores();
    let lines = stores.records.entry(message_id.to_owned()).or_default();
    lines.push(line);
    drop(stores);
    sim.dies(Fault::DiesAfterRecord, "append", message_id)
}

/// The lease a run is streamed under, renewed for as long as it is held.
struct RunLease {
    sim: Arc<Sim>,
    key: String,
    token: String,
    renewing: JoinHandle<()>,
}

impl Drop for RunLease {
    fn drop(&mut self) {
        self.renewing.abort();
        // A lease that was lost meanwhile need not be given back.
        let _ = SimLeases(self.sim.clone()).release(&self.key, &self.token);
    }
}

impl RunLease {
    fn renewed(sim: &Arc<Sim>, key: String, token: String) -> RunLease {
        let leases = SimLeases(sim.clone());
        let (renewed, proof) = (key.clone(), token.clone());
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if !matches!(leases.renew(&renewed, &proof, LEASE_SECONDS), Ok(Some(_))) {
                    return;
                }
            }
        });
        RunLease {
            sim: sim.clone(),
            key,
            token,
            renewing,
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let leases = SimLeases(self.sim.clone());
        if self.sim.strikes(Fault::LeaseLost) {
            leases.steal(&self.key);
        }
        match leases.holds(&self.key, &self.token)? {
            true => Ok(()),
            false => Err(StoreError::Refused {
                code: "LEASE_LOST",
                key: self.key.clone(),
                cause: "simulated".to_owned(),
            }),
        }
    }
}

/// Checkpoints that are saved only under the lease.
struct Leased {
    inner: SimCheckpoints,
    lease: Arc<RunLease>,
}

impl CheckpointStore for Leased {
    fn load(&self, pack_key: &str, output_id: &str) -> Result<Option<Cursor>, StoreError> {
        self.inner.load(pack_key, output_id)
    }

    fn save(&self, cursor: &Cursor, updated_at: Micros) -> Result<(), StoreError> {
        self.lease.check()?;
        self.inner.save(cursor, updated_at)
    }
}
