//! The flow of a run: authorise, anchor, plan, prove, commit (contract 5.4).

use wellspring_actors::telemetry::SessionEvents;
use serde_json::{Map, Value, json};
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::ids;
use wellspring_domain::ports::{EquivalenceOutcome, ObjectStore, PutOutcome, StoreError};
use wellspring_domain::scenario::control::{
    ReemitResponse, Refusal, RunResponse, RunVerdict, ScenarioControl,
};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::engine::EngineFailure;
use wellspring_domain::scenario::evidence::{EvidenceFailure, EvidenceVerdict, judge};
use wellspring_domain::scenario::facts_view::RunFactsView;
use wellspring_domain::scenario::plan::{PlanError, RunPlan, make_plan};
use wellspring_domain::scenario::reemit::ReemitRequest;
use wellspring_domain::scenario::request::{CanonicalIntent, RunRequest, Strategy};
use wellspring_domain::scenario::run_record::{QuarantineFile, RecordEvent, RecordKind, RunStatus};
use wellspring_domain::scenario::state_machine::RunState;
use wellspring_domain::world::locator::resolve_root;

use super::commit::{FactsInput, Publication, ReadyCommit, check_stored_facts, facts_view};
use super::config::ScenarioRunnerConfig;
use super::engine_invocation::{EngineRun, invocation_of};
use super::error::RunError;
use super::evidence::WorldUnderProof;
use super::ledger::{HeldLease, LedgerKeys, RunLedger, read_status};
use super::observation::{Observation, Outcome, Phase};
use crate::session_ledger::SessionLedger;
use crate::world_files::evidence_digest::EvidenceDigests;

/// Seconds a run's lease lasts without being renewed (contract 5.3).
const LEASE_SECONDS: u64 = 300;
/// Owner of a run's lease (contract 5.3).
const LEASE_OWNER: &str = "sr-local";

/// The Scenario Runner. Calls block; runs are serialised by their leases.
pub struct ScenarioRunner {
    pub(super) config: ScenarioRunnerConfig,
    pub(super) session: SessionLedger,
    digests: EvidenceDigests,
}

/// How far a submission came.
struct Progress {
    status: RunStatus,
    message: String,
    verdict: RunVerdict,
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

    /// Step 1: an unknown caller gets an answer and leaves a fact; the run's status is not touched.
    fn deny(&self, request: &RunRequest) -> Result<RunResponse, RunError> {
        let keys = self.keys(&ids::scenario_run_id(&request.run_equivalence_key));
        self.record_denial(&keys, json!({"action": "run", "invoker": request.invoker}))?;
        self.observe(
            "AUTH_DENIED",
            Phase::Ingress,
            Outcome::Fail,
            keys.run_id(),
            json!({}),
        );
        Ok(RunResponse {
            run_id: keys.run_id().to_owned(),
            state: RunState::Failed,
            status_ref: None,
            record_ref: Some(keys.record()),
            facts_view_ref: None,
            message: "Unauthorized.".to_owned(),
            verdict: RunVerdict::Unauthorized,
            reason_code: Some("AUTH_DENIED".to_owned()),
        })
    }

    /// Appends `AUTH_DENIED` without the run's lease: one line in one write, once per denied caller.
    /// The index is left to the next holder of the lease.
    pub(super) fn record_denial(&self, keys: &LedgerKeys, details: Value) -> Result<(), RunError> {
        let now = self.config.ports.clock.now();
        let event = RecordEvent::new(RecordKind::AuthDenied, keys.run_id(), object(details), now)?;
        let record = self.store().get(&keys.record())?.unwrap_or_default();
        if !String::from_utf8_lossy(&record).contains(&event.event_id) {
            self.store()
                .append_line(&keys.record(), to_cj(&event)?.as_bytes())?;
        }
        Ok(())
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
            let message = format!("Run already ended {}.", status.state.as_str());
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

    /// Step 6: the stored plan, or a new one. A request that cannot be planned ends the run.
    fn plan(
        &self,
        ledger: &mut RunLedger<'_>,
        intent: &CanonicalIntent,
    ) -> Result<Result<RunPlan, Progress>, RunError> {
        let key = ledger.keys().plan();
        let plan = match self.stored_plan(ledger, &key)? {
            Some(plan) => plan,
            None => match self.new_plan(intent) {
                Ok(plan) => {
                    if ledger.create(&key, &plan)? == PutOutcome::AlreadyExists {
                        return Err(plan_drift(format!("{key} was written meanwhile")));
                    }
                    plan
                }
                Err((code, detail)) => {
                    let outcome = Outcome::Fail;
                    let fields = json!({"reason": code, "detail": detail});
                    self.observe("PLAN_FAILED", Phase::Plan, outcome, &intent.run_id, fields);
                    return Ok(Err(self.fail(ledger, code, &detail)?));
                }
            },
        };
        let drifted = plan.check_stored(intent, &self.config.policy);
        drifted.map_err(|error| plan_drift(error.to_string()))?;
        let hash = || object(json!({"plan_hash": plan.plan_hash}));
        let new = ledger.fact(RecordKind::PlanCommitted, hash())?;
        let policy = object(json!({"policy_rev": plan.policy_rev}));
        ledger.fact(RecordKind::GovPolicyRev, policy)?;
        ledger.fact(RecordKind::GovPlanHash, hash())?;
        ledger.set_state(RunState::Planned, None, None)?;
        if new {
            self.observe(
                "PLAN_COMMITTED",
                Phase::Plan,
                Outcome::Ok,
                &intent.run_id,
                json!({"plan_hash": plan.plan_hash}),
            );
        }
        Ok(Ok(plan))
    }

    fn stored_plan(&self, ledger: &RunLedger<'_>, key: &str) -> Result<Option<RunPlan>, RunError> {
        match ledger.read::<RunPlan>(key) {
            Err(RunError::Store(StoreError::Damaged { cause, .. })) => Err(plan_drift(cause)),
            other => other,
        }
    }

    fn new_plan(&self, intent: &CanonicalIntent) -> Result<RunPlan, (&'static str, String)> {
        let root = self.engine_root(intent);
        invocation_of(intent, root.as_deref())
            .validate()
            .map_err(|error| (EngineFailure::InvocationInvalid.code(), error.to_string()))?;
        let files = &self.config.contract_files;
        let now = self.config.ports.clock.now();
        make_plan(
            intent,
            &self.config.policy,
            &files.catalogue,
            &files.gate_map,
            now,
        )
        .map_err(|error: PlanError| (error.code(), error.to_string()))
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
    fn engine_root(&self, intent: &CanonicalIntent) -> Option<String> {
        let wiring = &self.config.wiring;
        let pinned = wiring
            .oracle_engine_run_root
            .clone()
            .filter(|root| !root.is_empty());
        let root = pinned.or_else(|| intent.engine_run_root.clone())?;
        let exists = std::path::Path::new(&root).exists();
        Some(resolve_root(&root, wiring.oracle_root.as_deref(), exists))
    }

    /// Steps 7 and 8: run the engine if the plan says so, then look at the evidence.
    fn prove(
        &self,
        ledger: &mut RunLedger<'_>,
        intent: &CanonicalIntent,
        plan: &RunPlan,
    ) -> Result<Progress, RunError> {
        let root = self.engine_root(intent);
        if plan.strategy == Strategy::ForceInvoke {
            self.observe(
                "ENGINE_ATTEMPT_START",
                Phase::Engine,
                Outcome::Ok,
                &intent.run_id,
                json!({}),
            );
            let run = EngineRun {
                intent,
                plan,
                wiring: &self.config.wiring,
                engine_run_root: root.as_deref(),
                worlds: &self.config.ports.worlds,
                clock: self.config.ports.clock.as_ref(),
            };
            if let Err(failure) = run.run(ledger)? {
                let details = json!({"reason": failure.code()});
                self.observe(
                    "ENGINE_FAILED",
                    Phase::Engine,
                    Outcome::Fail,
                    &intent.run_id,
                    details,
                );
                return self.fail(ledger, failure.code(), "the engine did not write the world");
            }
            self.observe(
                "ENGINE_ATTEMPT_FINISH",
                Phase::Engine,
                Outcome::Ok,
                &intent.run_id,
                json!({}),
            );
        }
        let world = match &root {
            Some(root) => (self.config.ports.worlds)(root)?,
            None => None,
        };
        let (Some(root), Some(world)) = (&root, world) else {
            let subject = root.unwrap_or_else(|| "no engine_run_root was given".to_owned());
            return self.evidence_failed(ledger, EvidenceFailure::EngineRootMissing, vec![subject]);
        };
        let proof = WorldUnderProof {
            world: world.as_ref(),
            engine_run_root: root,
            intent,
            contract_files: &self.config.contract_files,
            wiring: &self.config.wiring,
        };
        self.judge_world(ledger, &proof, plan)
    }

    fn judge_world(
        &self,
        ledger: &mut RunLedger<'_>,
        proof: &WorldUnderProof<'_>,
        plan: &RunPlan,
    ) -> Result<Progress, RunError> {
        let collected = proof.collect(plan, &self.digests, ledger)?;
        let deadline = plan
            .evidence_deadline()
            .map_err(|error| plan_drift(error.to_string()))?;
        let now = self.config.ports.clock.now();
        let verdict = judge(collected.findings, &plan.policy_rev, now, deadline)?;
        let run_id = proof.intent.run_id.as_str();
        let observe = |outcome: Outcome, missing: &[String]| {
            let details = json!({"missing": missing});
            self.observe(
                "EVIDENCE_REUSE_RESULT",
                Phase::Evidence,
                outcome,
                run_id,
                details,
            );
        };
        match verdict {
            EvidenceVerdict::Complete(bundle) => {
                observe(Outcome::Ok, &[]);
                let details = json!({"bundle_hash": bundle.bundle_hash});
                self.observe(
                    "EVIDENCE_COMPLETE",
                    Phase::Evidence,
                    Outcome::Ok,
                    run_id,
                    details,
                );
                let input = FactsInput {
                    intent: proof.intent,
                    platform_run_id: self.config.run_paths.run_id(),
                    plan,
                    policy: &self.config.policy,
                    bundle,
                    pack_ref: collected.pack_ref,
                    world_digest: proof.world_digest(&collected.files)?,
                    provenance: &self.config.provenance,
                };
                let facts = facts_view(input, ledger);
                facts.validate()?;
                let facts = self.ready_commit().store_facts(ledger, facts)?;
                self.commit(ledger, &facts, plan)
            }
            EvidenceVerdict::Waiting { missing } => {
                observe(Outcome::Waiting, &missing);
                self.wait(ledger, missing, plan)
            }
            EvidenceVerdict::Fail { reason, missing } => {
                observe(Outcome::Fail, &missing);
                if matches!(
                    reason,
                    EvidenceFailure::OraclePackInvalid | EvidenceFailure::OraclePackMismatch
                ) {
                    let details = json!({"reason": reason.code()});
                    let outcome = Outcome::Fail;
                    self.observe(
                        "ORACLE_PACK_INVALID",
                        Phase::Evidence,
                        outcome,
                        run_id,
                        details,
                    );
                }
                self.evidence_failed(ledger, reason, missing)
            }
            EvidenceVerdict::Conflict { missing } => {
                observe(Outcome::Conflict, &missing);
                self.quarantine(ledger, missing)
            }
        }
    }

    fn ready_commit(&self) -> ReadyCommit<'_> {
        ReadyCommit {
            control_bus: self.config.ports.control_bus.as_ref(),
            topic: &self.config.wiring.control_bus_topic,
            clock: self.config.ports.clock.as_ref(),
        }
    }

    fn commit(
        &self,
        ledger: &mut RunLedger<'_>,
        facts: &RunFactsView,
        plan: &RunPlan,
    ) -> Result<Progress, RunError> {
        let run_id = facts.run_id.as_str();
        let publication = self.ready_commit().finish(ledger, facts, &plan.plan_hash)?;
        let details = || json!({"bundle_hash": facts.bundle_hash});
        self.observe(
            "READY_COMMITTED",
            Phase::Commit,
            Outcome::Ok,
            run_id,
            details(),
        );
        let status = self.stored_status(ledger)?;
        let (verdict, message) = match publication {
            Publication::Published => (RunVerdict::Ready, "READY published.".to_owned()),
            Publication::Known => (
                RunVerdict::Ready,
                "READY was published before; nothing was changed.".to_owned(),
            ),
            Publication::Failed { error } => (
                RunVerdict::ReadyUnpublished,
                format!("READY is committed and could not be published: {error}. Submit again."),
            ),
        };
        match verdict {
            RunVerdict::Ready => {
                self.observe(
                    "READY_PUBLISHED",
                    Phase::Commit,
                    Outcome::Ok,
                    run_id,
                    details(),
                );
            }
            _ => {
                let outcome = Outcome::Retry;
                self.observe(
                    "READY_PUBLISH_FAILED",
                    Phase::Commit,
                    outcome,
                    run_id,
                    details(),
                );
            }
        }
        Ok(Progress {
            status,
            message,
            verdict,
        })
    }

    fn stored_status(&self, ledger: &RunLedger<'_>) -> Result<RunStatus, RunError> {
        ledger.status()?.ok_or_else(|| {
            RunError::Store(StoreError::Damaged {
                key: ledger.keys().status(),
                offset: 0,
                cause: "the status that was just written is gone".to_owned(),
            })
        })
    }

    fn wait(
        &self,
        ledger: &mut RunLedger<'_>,
        missing: Vec<String>,
        plan: &RunPlan,
    ) -> Result<Progress, RunError> {
        let seal_only = missing == [EvidenceFailure::PackNotSealed.code()];
        let reason = if seal_only {
            EvidenceFailure::PackNotSealed.code()
        } else {
            "EVIDENCE_WAITING"
        };
        ledger.fact(
            RecordKind::EvidenceWaiting,
            object(json!({"missing": missing})),
        )?;
        let status = ledger.set_state(RunState::WaitingEvidence, Some(reason), None)?;
        let message = format!(
            "Evidence is missing until {} at the latest: {}. Submit again to re-check.",
            plan.evidence_deadline_utc,
            missing.join(", ")
        );
        Ok(Progress {
            status,
            message,
            verdict: RunVerdict::Waiting,
        })
    }

    fn evidence_failed(
        &self,
        ledger: &mut RunLedger<'_>,
        reason: EvidenceFailure,
        missing: Vec<String>,
    ) -> Result<Progress, RunError> {
        let fact = json!({"reason": reason.code(), "missing": missing});
        ledger.fact(RecordKind::EvidenceFail, object(fact))?;
        let status = ledger.set_state(RunState::Failed, Some(reason.code()), None)?;
        Ok(ended(
            status,
            format!(
                "Evidence failed: {} ({}).",
                reason.code(),
                missing.join(", ")
            ),
        ))
    }

    fn quarantine(
        &self,
        ledger: &mut RunLedger<'_>,
        missing: Vec<String>,
    ) -> Result<Progress, RunError> {
        const REASON: &str = "EVIDENCE_CONFLICT";
        let fact = json!({"reason": REASON, "missing": missing});
        ledger.fact(RecordKind::EvidenceConflict, object(fact))?;
        let keys = ledger.keys().clone();
        let file = QuarantineFile {
            run_id: keys.run_id().to_owned(),
            reason: REASON.to_owned(),
            missing: missing.clone(),
            record_ref: keys.record(),
            status_ref: keys.status(),
            ts_utc: self.config.ports.clock.now().format_off(),
        };
        // The file comes first: a QUARANTINED run always has one.
        ledger.replace_json(&keys.quarantine(), &file)?;
        let status = ledger.set_state(RunState::Quarantined, Some(REASON), None)?;
        Ok(ended(
            status,
            format!("Evidence contradicts itself: {}.", missing.join(", ")),
        ))
    }

    /// Ends the run for a reason other than its evidence.
    fn fail(
        &self,
        ledger: &mut RunLedger<'_>,
        code: &str,
        detail: &str,
    ) -> Result<Progress, RunError> {
        let fact = json!({"reason": code, "detail": detail});
        ledger.fact(RecordKind::RunFailed, object(fact))?;
        let status = ledger.set_state(RunState::Failed, Some(code), None)?;
        Ok(ended(status, format!("Run failed: {code}: {detail}.")))
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

fn plan_drift(detail: String) -> RunError {
    RunError::Drift {
        code: "PLAN_DRIFT",
        detail,
    }
}

fn ended(status: RunStatus, message: String) -> Progress {
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
