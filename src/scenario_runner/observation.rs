//! What operators see of the Scenario Runner while it works (contract 5.11).
//!
//! Emission is best effort: it goes to the trace stream and never fails a run.

use serde_json::{Map, Value};

/// The part of the work an observation is about.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// A request came in.
    Ingress,
    /// Equivalence and leases.
    Authority,
    /// The plan.
    Plan,
    /// The engine.
    Engine,
    /// The evidence.
    Evidence,
    /// Committing and publishing.
    Commit,
    /// Re-emit.
    Reemit,
}

/// How that part went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Ok,
    /// It waits.
    Waiting,
    /// It failed.
    Fail,
    /// It contradicts itself.
    Conflict,
    /// There was nothing to do.
    Skip,
    /// It may be tried again.
    Retry,
}

/// One observation of a run.
pub struct Observation<'a> {
    /// The kind, for example `READY_COMMITTED`.
    pub kind: &'a str,
    /// The part of the work.
    pub phase: Phase,
    /// How it went.
    pub outcome: Outcome,
    /// The run, empty while it is not known.
    pub run_id: &'a str,
    /// The platform run.
    pub platform_run_id: &'a str,
    /// More about it.
    pub details: &'a Map<String, Value>,
}

impl Observation<'_> {
    /// Emits the observation; failures and conflicts are warnings, the rest is information.
    pub fn emit(&self) {
        let phase = match self.phase {
            Phase::Ingress => "INGRESS",
            Phase::Authority => "AUTHORITY",
            Phase::Plan => "PLAN",
            Phase::Engine => "ENGINE",
            Phase::Evidence => "EVIDENCE",
            Phase::Commit => "COMMIT",
            Phase::Reemit => "REEMIT",
        };
        let (outcome, serious) = match self.outcome {
            Outcome::Ok => ("OK", false),
            Outcome::Waiting => ("WAITING", false),
            Outcome::Skip => ("SKIP", false),
            Outcome::Fail => ("FAIL", true),
            Outcome::Conflict => ("CONFLICT", true),
            Outcome::Retry => ("RETRY", true),
        };
        let (run_id, platform_run_id) = (self.run_id, self.platform_run_id);
        let details = serde_json::to_string(self.details).unwrap_or_default();
        let event_kind = self.kind;
        if serious {
            tracing::warn!(
                target: "wellspring::sr",
                event_kind, phase, outcome, severity = "WARN", run_id, platform_run_id, details
            );
        } else {
            tracing::info!(
                target: "wellspring::sr",
                event_kind, phase, outcome, severity = "INFO", run_id, platform_run_id, details
            );
        }
    }
}
