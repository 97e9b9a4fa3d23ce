//! What the proofs of a run say about the gates an event needs (contract 7.3, step 4b).

use crate::admission::envelope::{Envelope, Field};
use crate::admission::judged::{IntakeContext, ProofState, VerifyGates};
use crate::admission::policy::EventRule;

/// Whether the gates a rule asks for have passed.
pub(super) enum GateVerdict {
    /// All have, or none is asked for.
    Pass,
    /// What is missing.
    Missing(String),
    /// The proofs of this run must be looked up first: platform run and scenario run.
    NotLoaded(String, String),
    /// The store that has the proofs did not answer.
    Unavailable,
}

impl GateVerdict {
    /// The verdict on an event: the same for all events of its run and rule, as long as the proofs stay.
    pub(super) fn on(
        envelope: &Envelope<'_>,
        rule: &EventRule,
        context: &IntakeContext<'_>,
    ) -> GateVerdict {
        if context.verify_gates == VerifyGates::Off || rule.required_gates.is_empty() {
            return GateVerdict::Pass;
        }
        let run = envelope.string(Field::PlatformRunId).unwrap_or_default();
        let scenario_run = envelope.string(Field::ScenarioRunId).unwrap_or_default();
        match (context.proofs)(&run, &scenario_run) {
            ProofState::Proven(passed) => {
                let mut gates = rule.required_gates.iter();
                match gates.find(|gate| !passed.contains(*gate)) {
                    None => GateVerdict::Pass,
                    Some(gate) => GateVerdict::Missing(gate.clone()),
                }
            }
            ProofState::Absent => GateVerdict::Missing("no facts view for this run".to_owned()),
            ProofState::Unavailable => GateVerdict::Unavailable,
            ProofState::NotLoaded => {
                GateVerdict::NotLoaded(run.into_owned(), scenario_run.into_owned())
            }
        }
    }
}
