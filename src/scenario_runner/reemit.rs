//! Says READY or a terminal state again (contract 5.10).

use serde_json::json;
use wellspring_actors::telemetry::SessionEvents;
use wellspring_domain::ids;
use wellspring_domain::ports::PutOutcome;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::scenario::control::{ReemitResponse, ReemitVerdict};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::facts_view::RunFactsView;
use wellspring_domain::scenario::ready::{TerminalSignal, TerminalState};
use wellspring_domain::scenario::reemit::{
    ReemitKind, ReemitRefusal, ReemitRequest, ReemitSignal, applicable, authorise_cross_run,
    next_attempt_no, rate_limited, requested_details,
};
use wellspring_domain::scenario::run_record::{RecordKind, RunStatus};
use wellspring_domain::scenario::state_machine::RunState;

use super::commit::{publish_signal, ready_signal};
use super::error::RunError;
use super::lease::HeldLease;
use super::ledger::{RunLedger, TornLine, read_status};
use super::observation::{Outcome, Phase};
use super::runner::{ScenarioRunner, object};

/// Seconds a re-emit's lease lasts (contract 5.3).
const LEASE_SECONDS: u64 = 60;
/// Owner of a re-emit's lease (contract 5.3).
const LEASE_OWNER: &str = "sr-reemit";

/// A re-emit under way.
struct Reemit<'a, 'l> {
    request: &'a ReemitRequest,
    ledger: &'a mut RunLedger<'l>,
    status: RunStatus,
    facts: Option<RunFactsView>,
    attempt_no: u64,
}

impl ScenarioRunner {
    /// Publishes READY or the terminal signal of a run once more, or says what it would publish.
    pub fn reemit(&self, request: &ReemitRequest) -> Result<ReemitResponse, RunError> {
        request.validate()?;
        let response = self.reemit_checked(request)?;
        self.session.session_event(
            "sr",
            "reemit",
            json!({"run_id": response.run_id, "status_state": response.status_state,
                    "published": response.published}),
        );
        Ok(response)
    }

    fn reemit_checked(&self, request: &ReemitRequest) -> Result<ReemitResponse, RunError> {
        let keys = self.keys(&request.run_id);
        let run_id = request.run_id.as_str();
        let see = |kind: &str, outcome: Outcome| {
            self.observe(kind, Phase::Reemit, outcome, run_id, json!({}));
        };
        if !self
            .config
            .wiring
            .may_reemit(request.requested_by.as_deref())
        {
            let fact = json!({"action": "reemit", "requested_by": request.requested_by});
            self.record_denial(&keys, fact)?;
            see("AUTH_DENIED", Outcome::Fail);
            let verdict = ReemitVerdict::Unauthorized;
            return Ok(silent(
                run_id,
                None,
                verdict,
                "Unauthorized.",
                Some("AUTH_DENIED"),
            ));
        }
        let ports = &self.config.ports;
        let lease_key = format!("reemit:{run_id}:{}", request.reemit_kind.as_str());
        let (leases, clock) = (ports.leases.as_ref(), ports.clock.as_ref());
        let lease = HeldLease::acquire(leases, clock, &lease_key, LEASE_OWNER, LEASE_SECONDS)?;
        let Some(lease) = lease else {
            see("REEMIT_BUSY", Outcome::Retry);
            let message = "Reemit busy; another operator is active.";
            let verdict = ReemitVerdict::Busy;
            return Ok(silent(run_id, None, verdict, message, Some("REEMIT_BUSY")));
        };
        let Some(status) = read_status(self.store(), &keys)? else {
            see("REEMIT_NOT_FOUND", Outcome::Skip);
            let verdict = ReemitVerdict::NotFound;
            return Ok(silent(
                run_id,
                None,
                verdict,
                "Run not found.",
                Some("RUN_NOT_FOUND"),
            ));
        };
        let mut ledger = RunLedger::open(self.store(), clock, keys, lease, TornLine::Skip)?;
        let attempt_no = next_attempt_no(ledger.record());
        ledger.fact(
            RecordKind::ReemitRequested,
            requested_details(request, attempt_no),
        )?;
        see("REEMIT_REQUESTED", Outcome::Ok);
        let facts = ledger.read(&ledger.keys().facts_view())?;
        self.work(Reemit {
            request,
            ledger: &mut ledger,
            status,
            facts,
            attempt_no,
        })
    }

    fn work(&self, mut reemit: Reemit<'_, '_>) -> Result<ReemitResponse, RunError> {
        let target = match self.target_run(&mut reemit)? {
            Ok(target) => target,
            Err(refusal) => return self.refuse(&mut reemit, refusal),
        };
        let signal = applicable(reemit.request.reemit_kind, reemit.status.state);
        if reemit.request.dry_run {
            return self.dry_run(&mut reemit, signal.ok(), &target);
        }
        let record = reemit.ledger.record();
        if rate_limited(&self.config.wiring, record, self.config.ports.clock.now()) {
            return self.refuse(&mut reemit, ReemitRefusal::RateLimit);
        }
        match signal {
            Ok(ReemitSignal::Ready) => self.ready_again(&mut reemit, &target),
            Ok(ReemitSignal::Terminal) => self.terminal_again(&mut reemit),
            Err(refusal) => self.refuse(&mut reemit, refusal),
        }
    }

    /// The platform run to speak in; another one than the facts view's may need an approval.
    fn target_run(
        &self,
        reemit: &mut Reemit<'_, '_>,
    ) -> Result<Result<String, ReemitRefusal>, RunError> {
        let own = || self.config.run_paths.run_id().to_string();
        let source = reemit
            .facts
            .as_ref()
            .map(|facts| facts.platform_run_id.clone());
        let Some(target) = reemit.request.emit_platform_run_id.clone() else {
            return Ok(Ok(source.unwrap_or_else(own)));
        };
        let Some(source) = source else {
            // Only READY is said in a platform run, and only facts say in which.
            let needs_facts = reemit.request.reemit_kind != ReemitKind::TerminalOnly
                && reemit.status.state == RunState::Ready;
            return Ok(if needs_facts {
                Err(ReemitRefusal::FactsViewMissing)
            } else {
                Ok(target)
            });
        };
        if target == source {
            return Ok(Ok(target));
        }
        let approval = reemit.request.cross_run_override.as_ref();
        match authorise_cross_run(&self.config.wiring, approval) {
            Ok(true) => {
                let fact = json!({
                    "override": approval, "source_platform_run_id": source,
                    "target_platform_run_id": target, "attempt_no": reemit.attempt_no,
                });
                reemit
                    .ledger
                    .fact(RecordKind::GovReemitOverrideApproved, object(fact))?;
                Ok(Ok(target))
            }
            Ok(false) => Ok(Ok(target)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn dry_run(
        &self,
        reemit: &mut Reemit<'_, '_>,
        signal: Option<ReemitSignal>,
        target: &str,
    ) -> Result<ReemitResponse, RunError> {
        let would_publish: Vec<&str> = signal.iter().map(|signal| signal.as_str()).collect();
        let source = reemit
            .facts
            .as_ref()
            .map(|facts| facts.platform_run_id.as_str());
        let mut fact = json!({
            "reemit_kind": reemit.request.reemit_kind.as_str(), "would_publish": would_publish,
            "target_platform_run_id": target, "attempt_no": reemit.attempt_no,
        });
        if let Some(source) = source {
            fact["source_platform_run_id"] = source.into();
        }
        reemit.ledger.fact(RecordKind::ReemitDryRun, object(fact))?;
        let message = match would_publish.is_empty() {
            true => "Dry run: nothing would be published.".to_owned(),
            false => format!("Dry run: {} would be published.", would_publish.join(", ")),
        };
        let state = Some(reemit.status.state);
        Ok(silent(
            &reemit.request.run_id,
            state,
            ReemitVerdict::DryRun,
            &message,
            None,
        ))
    }

    fn refuse(
        &self,
        reemit: &mut Reemit<'_, '_>,
        refusal: ReemitRefusal,
    ) -> Result<ReemitResponse, RunError> {
        let fact = json!({"reason": refusal.code(), "attempt_no": reemit.attempt_no});
        reemit.ledger.fact(RecordKind::ReemitFailed, object(fact))?;
        let (kind, message) = match refusal {
            ReemitRefusal::NotApplicable
            | ReemitRefusal::TerminalOnlyMismatch
            | ReemitRefusal::ReadyOnlyMismatch => {
                ("REEMIT_NOT_APPLICABLE", "Reemit not applicable.".to_owned())
            }
            other => (
                "REEMIT_FAILED",
                format!("Reemit refused: {}.", other.code()),
            ),
        };
        let run_id = reemit.request.run_id.as_str();
        let details = json!({"reason": refusal.code()});
        self.observe(kind, Phase::Reemit, Outcome::Skip, run_id, details);
        let state = Some(reemit.status.state);
        let verdict = ReemitVerdict::Refused;
        Ok(silent(
            run_id,
            state,
            verdict,
            &message,
            Some(refusal.code()),
        ))
    }

    fn ready_again(
        &self,
        reemit: &mut Reemit<'_, '_>,
        target: &str,
    ) -> Result<ReemitResponse, RunError> {
        let Some(mut facts) = reemit.facts.take() else {
            return self.refuse(reemit, ReemitRefusal::FactsViewMissing);
        };
        // Checked when the request was: a target is always a platform run id.
        let target = PlatformRunId::parse(target).map_err(|error| RunError::Drift {
            code: "FACTS_VIEW_DRIFT",
            detail: error.to_string(),
        })?;
        let own = facts.platform_run_id == target.as_str();
        facts.platform_run_id = target.to_string();
        let plan_hash = reemit
            .ledger
            .read::<wellspring_domain::scenario::plan::RunPlan>(&reemit.ledger.keys().plan())?
            .map(|plan| plan.plan_hash);
        let signal = ready_signal(
            &facts,
            plan_hash,
            reemit.ledger,
            self.config.ports.clock.as_ref(),
        );
        signal.validate()?;
        if own {
            // A runner that died before it stored READY has not said it either: what is said now is it.
            let key = reemit.ledger.keys().ready_signal();
            reemit.ledger.create(&key, &signal)?;
        }
        let attributes = [("kind", "READY_REEMIT"), ("run_id", signal.run_id.as_str())];
        let published = self.publish_again(reemit, &signal.message_id, attributes, &signal)?;
        self.settle_publish(reemit, ReemitSignal::Ready, &signal.message_id, published)
    }

    fn terminal_again(&self, reemit: &mut Reemit<'_, '_>) -> Result<ReemitResponse, RunError> {
        let status = &reemit.status;
        let state = status.state.as_str();
        let reemit_key = ids::terminal_reemit_key(&status.run_id, state, &status.hash()?);
        let signal = TerminalSignal {
            run_id: status.run_id.clone(),
            status_state: match status.state {
                RunState::Quarantined => TerminalState::Quarantined,
                _ => TerminalState::Failed,
            },
            status_ref: reemit.ledger.keys().status(),
            record_ref: status.record_ref.clone(),
            reemit_key: reemit_key.clone(),
            reason_code: status.reason_code.clone(),
            emitted_at_utc: Some(self.config.ports.clock.now().format_off()),
        };
        signal.validate()?;
        let attributes = [
            ("kind", "TERMINAL_REEMIT"),
            ("run_id", signal.run_id.as_str()),
            ("state", state),
        ];
        let published = self.publish_again(reemit, &reemit_key, attributes, &signal)?;
        self.settle_publish(reemit, ReemitSignal::Terminal, &reemit_key, published)
    }

    fn publish_again<'s, T: serde::Serialize>(
        &self,
        reemit: &mut Reemit<'_, '_>,
        message_id: &str,
        attributes: impl IntoIterator<Item = (&'s str, &'s str)>,
        signal: &T,
    ) -> Result<Result<PutOutcome, String>, RunError> {
        reemit.ledger.keep_lease()?;
        publish_signal(
            self.config.ports.control_bus.as_ref(),
            &self.config.wiring.control_bus_topic,
            message_id,
            &reemit.request.run_id,
            attributes,
            signal,
            self.config.ports.clock.as_ref(),
        )
    }

    /// Records what the bus said. The attempt number keeps equal re-emits apart, so that each one
    /// counts against the rate limit (W19).
    fn settle_publish(
        &self,
        reemit: &mut Reemit<'_, '_>,
        signal: ReemitSignal,
        message_id: &str,
        published: Result<PutOutcome, String>,
    ) -> Result<ReemitResponse, RunError> {
        let (run_id, kind) = (reemit.request.run_id.clone(), signal.as_str());
        let state = Some(reemit.status.state);
        let outcome = match published {
            Ok(outcome) => outcome,
            Err(error) => {
                let fact = json!({"kind": kind, "message_id": message_id, "error": error,
                                  "attempt_no": reemit.attempt_no});
                reemit.ledger.fact(RecordKind::ReemitFailed, object(fact))?;
                let details = json!({"error": error});
                self.observe(
                    "REEMIT_FAILED",
                    Phase::Reemit,
                    Outcome::Retry,
                    &run_id,
                    details,
                );
                let message = format!("{kind} could not be published: {error}.");
                let verdict = ReemitVerdict::PublishFailed;
                return Ok(silent(
                    &run_id,
                    state,
                    verdict,
                    &message,
                    Some("REEMIT_FAILED"),
                ));
            }
        };
        let fact = json!({"kind": kind, "message_id": message_id, "attempt_no": reemit.attempt_no,
                          "reemit_kind": reemit.request.reemit_kind.as_str()});
        reemit
            .ledger
            .fact(RecordKind::ReemitPublished, object(fact))?;
        let key = json!({"kind": kind, "reemit_key": message_id});
        reemit.ledger.fact(RecordKind::GovReemitKey, object(key))?;
        let message = match outcome {
            PutOutcome::Created => format!("{kind} re-emitted."),
            PutOutcome::AlreadyExists => {
                format!("{kind} re-emitted; the control bus still held this message.")
            }
        };
        Ok(ReemitResponse {
            published: vec![kind.to_owned()],
            ..silent(&run_id, state, ReemitVerdict::Published, &message, None)
        })
    }
}

fn silent(
    run_id: &str,
    status_state: Option<RunState>,
    verdict: ReemitVerdict,
    message: &str,
    reason_code: Option<&str>,
) -> ReemitResponse {
    ReemitResponse {
        run_id: run_id.to_owned(),
        status_state,
        published: Vec::new(),
        message: message.to_owned(),
        verdict,
        reason_code: reason_code.map(str::to_owned),
    }
}
