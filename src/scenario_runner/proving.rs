//! Proving a run: the engine if the plan says so, the evidence, the verdict, the commit
//! (contract 5.4, steps 7 to 9).

use serde_json::{Value, json};
use wellspring_domain::ports::StoreError;
use wellspring_domain::scenario::control::RunVerdict;
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::evidence::{EvidenceFailure, EvidenceVerdict, judge};
use wellspring_domain::scenario::facts_view::RunFactsView;
use wellspring_domain::scenario::plan::RunPlan;
use wellspring_domain::scenario::request::{CanonicalIntent, Strategy};
use wellspring_domain::scenario::run_record::RunStatus;

use super::commit::{FactsInput, Publication, ReadyCommit, facts_view};
use super::engine_invocation::EngineRun;
use super::error::RunError;
use super::evidence::WorldUnderProof;
use super::ledger::RunLedger;
use super::observation::{Outcome, Phase};
use super::runner::{Progress, ScenarioRunner, plan_drift};

impl ScenarioRunner {
    /// Steps 7 and 8: run the engine if the plan says so, then look at the evidence.
    pub(super) fn prove(
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
        let mut collected = ledger.keep_lease_while(|| proof.look(plan, &self.digests))??;
        proof.prove_instances(ledger, &mut collected.findings)?;
        let deadline = plan
            .evidence_deadline()
            .map_err(|error| plan_drift(error.to_string()))?;
        let now = self.config.ports.clock.now();
        let found = std::mem::take(&mut collected.findings);
        let verdict = judge(found, &plan.policy_rev, now, deadline)?;
        self.observe_verdict(proof.intent.run_id.as_str(), &verdict);
        match verdict {
            EvidenceVerdict::Complete(bundle) => {
                let facts = facts_view(
                    FactsInput {
                        intent: proof.intent,
                        platform_run_id: self.config.run_paths.run_id(),
                        plan,
                        policy: &self.config.policy,
                        bundle,
                        pack_ref: collected.pack_ref,
                        world_digest: collected.world_digest,
                        provenance: &self.config.provenance,
                    },
                    ledger,
                );
                facts.validate()?;
                let facts = self.ready_commit().store_facts(ledger, facts)?;
                self.commit(ledger, &facts, plan)
            }
            EvidenceVerdict::Waiting { missing } => self.wait(ledger, missing, plan),
            EvidenceVerdict::Fail { reason, missing } => {
                self.evidence_failed(ledger, reason, missing)
            }
            EvidenceVerdict::Conflict { missing } => self.quarantine(ledger, missing),
        }
    }

    fn observe_verdict(&self, run_id: &str, verdict: &EvidenceVerdict) {
        let see = |kind: &str, outcome: Outcome, details: Value| {
            self.observe(kind, Phase::Evidence, outcome, run_id, details);
        };
        const RESULT: &str = "EVIDENCE_REUSE_RESULT";
        match verdict {
            EvidenceVerdict::Complete(bundle) => {
                see(RESULT, Outcome::Ok, json!({}));
                let details = json!({"bundle_hash": bundle.bundle_hash});
                see("EVIDENCE_COMPLETE", Outcome::Ok, details);
            }
            EvidenceVerdict::Waiting { missing } => {
                see(RESULT, Outcome::Waiting, json!({"missing": missing}));
            }
            EvidenceVerdict::Fail { reason, missing } => {
                let details = json!({"reason": reason.code(), "missing": missing});
                see(RESULT, Outcome::Fail, details.clone());
                use EvidenceFailure::{OraclePackInvalid, OraclePackMismatch};
                if matches!(reason, OraclePackInvalid | OraclePackMismatch) {
                    see("ORACLE_PACK_INVALID", Outcome::Fail, details);
                }
            }
            EvidenceVerdict::Conflict { missing } => {
                see(RESULT, Outcome::Conflict, json!({"missing": missing}));
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

    pub(super) fn commit(
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
}
