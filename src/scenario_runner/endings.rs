//! How a submission ends short of READY: waiting, failed, quarantined, denied (contract 5.4, 5.5).

use serde_json::{Value, json};
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::ids;
use wellspring_domain::scenario::control::{RunResponse, RunVerdict};
use wellspring_domain::scenario::evidence::EvidenceFailure;
use wellspring_domain::scenario::plan::RunPlan;
use wellspring_domain::scenario::request::RunRequest;
use wellspring_domain::scenario::run_record::{QuarantineFile, RecordEvent, RecordKind};
use wellspring_domain::scenario::state_machine::RunState;

use super::error::RunError;
use super::ledger::{LedgerKeys, RunLedger};
use super::observation::{Outcome, Phase};
use super::runner::{Progress, ScenarioRunner, ended, object};

impl ScenarioRunner {
    /// Step 1: an unknown caller gets an answer and leaves a fact; the run's status is not touched.
    pub(super) fn deny(&self, request: &RunRequest) -> Result<RunResponse, RunError> {
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

    pub(super) fn wait(
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

    pub(super) fn evidence_failed(
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

    pub(super) fn quarantine(
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
    pub(super) fn fail(
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
