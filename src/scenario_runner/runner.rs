//! The flow of a run: authorise, anchor, plan, prove, commit (contract 5.4).

use serde_json::{Map, Value, json};
use wellspring_actors::telemetry::SessionEvents;
use wellspring_domain::ports::{EquivalenceOutcome, ObjectStore, StoreError};
use wellspring_domain::scenario::control::{
    ReemitResponse, Refusal, RunResponse, RunVerdict, ScenarioControl,
};
use wellspring_domain::scenario::facts_view::RunFactsView;
use wellspring_domain::scenario::reemit::ReemitRequest;
use wellspring_domain::scenario::request::{CanonicalIntent, RunRequest};
use wellspring_domain::scenario::run_record::{RecordKind, RunStatus};
use wellspring_domain::scenario::state_machine::RunState;

use super::commit::check_stored_facts;
use super::config::ScenarioRunnerConfig;
use super::error::RunError;
use super::lease::HeldLease;
use super::ledger::{LedgerKeys, RunLedger, TornLine, read_status};
use super::observation::{Observation, Outcome, Phase};
use crate::session_ledger::SessionLedger;
use crate::world_files::evidence_digest::EvidenceDigests;
use crate::world_files::world_root::resolve_engine_root;

/// Seconds a run's lease lasts without being renewed (contract 5.3).
const LEASE_SECONDS: u64 = 300;
/// Owner of a run's lease (contract 5.3).
const LEASE_OWNER: &str = "sr-local";

/// The Scenario Runner. Calls block; runs are serialised by their leases.
pub struct ScenarioRunner {
    pub(super) config: ScenarioRunnerConfig,
    pub(super) session: SessionLedger,
    pub(super) digests: EvidenceDigests,
}

/// How far a submission came.
pub(super) struct Progress {
    pub(super) status: RunStatus,
    pub(super) message: String,
    pub(super) verdict: RunVerdict,
}

impl ScenarioRunner {
    /// A Scenario Runner of one platform run.
    pub fn new(config: ScenarioRunnerConfig) -> ScenarioRunner {
        ScenarioRunner {
            session: SessionLedger::new(
                config.ports.store.clone(),
                &config.run_paths,
                config.ports.clock.clone(),
            ),
            config,
            digests: EvidenceDigests::default(),
        }
    }

    /// Works on a run as far as its evidence allows. Submitting the same request again goes on where
    /// the run stands: it re-checks missing evidence and finishes what was cut off.
    pub fn submit(&self, request: &RunRequest) -> Result<RunResponse, RunError> {
        let invoker = request.invoker.as_deref();
        self.observe(
            "RUN_REQUEST_RECEIVED",
            Phase::Ingress,
            Outcome::Ok,
            "",
            json!({}),
        );
        if !self.config.wiring.may_submit(invoker) {
            return self.deny(request);
        }
        let intent = request.canonicalise()?;
        let fingerprint = intent.fingerprint()?;
        let intent = self.resolve(intent, &fingerprint)?;
        let keys = self.keys(&intent.run_id);
        let ports = &self.config.ports;
        let lease = HeldLease::acquire(
            ports.leases.as_ref(),
            ports.clock.as_ref(),
            &intent.run_id,
            LEASE_OWNER,
            LEASE_SECONDS,
        )?;
        let Some(lease) = lease else {
            return self.lease_busy(&keys);
        };
        let mut ledger = RunLedger::open(
            ports.store.as_ref(),
            ports.clock.as_ref(),
            keys.clone(),
            lease,
            TornLine::Drop,
        )?;
        let progress = self.advance(&mut ledger, &intent, &fingerprint)?;
        drop(ledger); // gives the lease back before anybody hears the answer
        let response = response(&keys, progress);
        self.session.session_event(
            "sr",
            "run_submit",
            json!({"run_id": response.run_id, "state": response.state,
                    "status_ref": response.status_ref, "facts_view_ref": response.facts_view_ref}),
        );
        Ok(response)
    }

    /// The keys of a run's documents.
    pub fn keys(&self, run_id: &str) -> LedgerKeys {
        LedgerKeys::new(&self.config.run_paths.store_prefix(), run_id)
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        self.config.ports.store.as_ref()
    }

    pub(super) fn observe(
        &self,
        kind: &str,
        phase: Phase,
        outcome: Outcome,
        run_id: &str,
        details: Value,
    ) {
        let platform_run_id = self.config.run_paths.run_id().as_str();
        let details = object(details);
        Observation {
            kind,
            phase,
            outcome,
            run_id,
            platform_run_id,
            details: &details,
        }
        .emit();
    }

    /// Step 4: the equivalence key decides the run.
    fn resolve(
        &self,
        intent: CanonicalIntent,
        fingerprint: &str,
    ) -> Result<CanonicalIntent, RunError> {
        let key = &intent.run_equivalence_key;
        match self
            .config
            .ports
            .equivalence
            .resolve(key, &intent.run_id, fingerprint)?
        {
            EquivalenceOutcome::Resolved { run_id } => Ok(CanonicalIntent { run_id, ..intent }),
            EquivalenceOutcome::Collision { intent_fingerprint } => {
                Err(RunError::EquivalenceCollision {
                    stored: intent_fingerprint,
                    asked: fingerprint.to_owned(),
                })
            }
            EquivalenceOutcome::Vanished => Err(RunError::EquivalenceUnresolved),
        }
    }

    fn lease_busy(&self, keys: &LedgerKeys) -> Result<RunResponse, RunError> {
        self.observe(
            "LEASE_BUSY",
            Phase::Authority,
            Outcome::Retry,
            keys.run_id(),
            json!({}),
        );
        let status = read_status(self.store(), keys)?;
        Ok(RunResponse {
            run_id: keys.run_id().to_owned(),
            state: status
                .as_ref()
                .map_or(RunState::Open, |status| status.state),
            status_ref: status.as_ref().map(|_| keys.status()),
            record_ref: status.as_ref().map(|status| status.record_ref.clone()),
            facts_view_ref: status
                .as_ref()
                .and_then(|status| status.facts_view_ref.clone()),
            message: "Lease held by another runner; ask again when it is done.".to_owned(),
            verdict: RunVerdict::LeaseBusy,
            reason_code: Some("LEASE_BUSY".to_owned()),
        })
    }

    fn advance(
        &self,
        ledger: &mut RunLedger<'_>,
        intent: &CanonicalIntent,
        fingerprint: &str,
    ) -> Result<Progress, RunError> {
        let run_id = intent.run_id.as_str();
        let accepted = object(json!({"intent_fingerprint": fingerprint}));
        if ledger.fact(RecordKind::RunAccepted, accepted)? {
            self.observe(
                "RUN_ACCEPTED",
                Phase::Authority,
                Outcome::Ok,
                run_id,
                json!({}),
            );
        }
        let status = match ledger.status()? {
            Some(status) => status,
            None => ledger.set_state(RunState::Open, None, None)?,
        };
        self.observe(
            "RUN_ANCHORED",
            Phase::Authority,
            Outcome::Ok,
            run_id,
            json!({}),
        );
        if matches!(status.state, RunState::Failed | RunState::Quarantined) {
            let reason = status.reason_code.as_deref().unwrap_or("no reason given");
            let message = format!("Run already ended {}: {reason}.", status.state.as_str());
            return Ok(ended(status, message));
        }
        let plan = match self.plan(ledger, intent)? {
            Ok(plan) => plan,
            Err(progress) => return Ok(progress),
        };
        // A stored facts view means that the evidence was complete: only the commit is left.
        if let Some(facts) = self.stored_facts(ledger)? {
            return self.commit(ledger, &facts, &plan);
        }
        self.prove(ledger, intent, &plan)
    }

    fn stored_facts(&self, ledger: &RunLedger<'_>) -> Result<Option<RunFactsView>, RunError> {
        let key = ledger.keys().facts_view();
        let facts: Option<RunFactsView> = match ledger.read(&key) {
            Err(RunError::Store(StoreError::Damaged { cause, .. })) => {
                return Err(RunError::Drift {
                    code: "FACTS_VIEW_DRIFT",
                    detail: cause,
                });
            }
            other => other?,
        };
        if let Some(facts) = &facts {
            check_stored_facts(facts, ledger.keys().run_id())?;
        }
        Ok(facts)
    }

    /// The world of a run: the wiring's root wins over the request's (contract 5).
    pub(super) fn engine_root(&self, intent: &CanonicalIntent) -> Option<String> {
        let wiring = &self.config.wiring;
        let pinned = wiring
            .oracle_engine_run_root
            .clone()
            .filter(|root| !root.is_empty());
        let root = pinned.or_else(|| intent.engine_run_root.clone())?;
        Some(resolve_engine_root(&root, wiring.oracle_root.as_deref()))
    }
}

impl ScenarioControl for ScenarioRunner {
    fn submit(&self, request: &RunRequest) -> Result<RunResponse, Refusal> {
        ScenarioRunner::submit(self, request).map_err(Refusal::from)
    }

    fn reemit(&self, request: &ReemitRequest) -> Result<ReemitResponse, Refusal> {
        ScenarioRunner::reemit(self, request).map_err(Refusal::from)
    }
}

pub(super) fn plan_drift(detail: String) -> RunError {
    RunError::Drift {
        code: "PLAN_DRIFT",
        detail,
    }
}

pub(super) fn ended(status: RunStatus, message: String) -> Progress {
    let verdict = match status.state {
        RunState::Quarantined => RunVerdict::Quarantined,
        _ => RunVerdict::Failed,
    };
    Progress {
        status,
        message,
        verdict,
    }
}

fn response(keys: &LedgerKeys, progress: Progress) -> RunResponse {
    let status = progress.status;
    RunResponse {
        run_id: status.run_id,
        state: status.state,
        status_ref: Some(keys.status()),
        record_ref: Some(status.record_ref),
        facts_view_ref: status.facts_view_ref,
        message: progress.message,
        verdict: progress.verdict,
        reason_code: status.reason_code,
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}
