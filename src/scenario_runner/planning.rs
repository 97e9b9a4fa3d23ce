//! The plan step: the stored plan, or a new one (contract 5.4, step 6).

use serde_json::json;
use wellspring_domain::ports::{PutOutcome, StoreError};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::engine::EngineFailure;
use wellspring_domain::scenario::plan::{PlanError, RunPlan, make_plan};
use wellspring_domain::scenario::request::CanonicalIntent;
use wellspring_domain::scenario::run_record::RecordKind;
use wellspring_domain::scenario::state_machine::RunState;

use super::engine_invocation::invocation_of;
use super::error::RunError;
use super::ledger::RunLedger;
use super::observation::{Outcome, Phase};
use super::runner::{Progress, ScenarioRunner, object, plan_drift};

impl ScenarioRunner {
    /// Step 6: the stored plan, or a new one. A request that cannot be planned ends the run.
    pub(super) fn plan(
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
}
