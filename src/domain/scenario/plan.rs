//! The run plan: which outputs must be proven and which gates must have passed (contract 5.2, 5.4).
//!
//! A plan is written once. Submitting the same run again uses the stored plan, because its times are
//! part of its hash (V5).

use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentError, FieldCheck};
use super::facts_view::PolicyRev;
use super::request::{CanonicalIntent, Strategy};
use super::settings::{ReusePolicy, ScenarioPolicy};
use crate::canonical_json::CanonicalError;
use crate::ids;
use crate::time_text::Micros;
use crate::world::catalogue::Catalogue;
use crate::world::gates::{GateMap, GateMapError};

/// Why a plan cannot be made, or a stored one not used (contract 5.4, step 6).
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The request names an output the catalogue does not know.
    #[error("output {output_id} is not in the catalogue")]
    UnknownOutput {
        /// The output.
        output_id: String,
    },
    /// An output or gate names a gate the map does not know.
    #[error("gate {gate_id} is not in the gate map")]
    UnknownGate {
        /// The gate.
        gate_id: String,
    },
    /// The plan breaks its own schema.
    #[error("the plan is not valid: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The stored plan was made for something else.
    #[error("the stored plan differs from this request: {difference}")]
    Drift {
        /// What differs.
        difference: String,
    },
}

impl PlanError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            PlanError::UnknownOutput { .. } => "UNKNOWN_OUTPUT_ID",
            PlanError::UnknownGate { .. } => "UNKNOWN_GATE_ID",
            PlanError::Invalid { .. } => "PLAN_INVALID",
            PlanError::Drift { .. } => "PLAN_DRIFT",
        }
    }
}

/// `run_plan/<run_id>.json` (contract 5.2); closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// The run.
    pub run_id: String,
    /// Hash over the other members (V5).
    pub plan_hash: String,
    /// The policy in force.
    pub policy_rev: PolicyRev,
    /// How evidence is found.
    pub strategy: Strategy,
    /// Outputs to prove, sorted.
    pub intended_outputs: Vec<String>,
    /// Gates that must have passed, sorted.
    pub required_gates: Vec<String>,
    /// Until when evidence may be missing (T-mod).
    pub evidence_deadline_utc: String,
    /// Engine attempts of this run.
    pub attempt_limit: u32,
    /// When the plan was made (T-mod).
    pub created_at_utc: String,
}

#[derive(Serialize)]
struct PlanHashInput<'a> {
    run_id: &'a str,
    policy_rev: &'a PolicyRev,
    strategy: Strategy,
    intended_outputs: &'a [String],
    required_gates: &'a [String],
    evidence_deadline_utc: &'a str,
    attempt_limit: u32,
    created_at_utc: &'a str,
}

impl RunPlan {
    /// `plan_hash` over the other members (V5).
    pub fn computed_hash(&self) -> Result<String, CanonicalError> {
        ids::hash_sj(&PlanHashInput {
            run_id: &self.run_id,
            policy_rev: &self.policy_rev,
            strategy: self.strategy,
            intended_outputs: &self.intended_outputs,
            required_gates: &self.required_gates,
            evidence_deadline_utc: &self.evidence_deadline_utc,
            attempt_limit: self.attempt_limit,
            created_at_utc: &self.created_at_utc,
        })
    }

    /// The evidence deadline as an instant.
    pub fn evidence_deadline(&self) -> Result<Micros, PlanError> {
        Micros::parse_any(&self.evidence_deadline_utc).map_err(|error| PlanError::Invalid {
            reason: error.to_string(),
        })
    }

    /// Checks that a stored plan is whole and was made for this request. Only what the request says
    /// itself can drift: defaults of the policy were settled when the plan was made.
    pub fn check_stored(
        &self,
        intent: &CanonicalIntent,
        policy: &ScenarioPolicy,
    ) -> Result<(), PlanError> {
        let drift = |difference: String| Err(PlanError::Drift { difference });
        let hash = self.computed_hash().map_err(invalid)?;
        if hash != self.plan_hash {
            return drift(format!(
                "plan_hash is {}, its content hashes to {hash}",
                self.plan_hash
            ));
        }
        if self.run_id != intent.run_id {
            return drift(format!("it belongs to run {}", self.run_id));
        }
        if let Some(outputs) = intent
            .output_ids
            .as_ref()
            .filter(|o| **o != self.intended_outputs)
        {
            return drift(format!(
                "outputs [{}], the plan has [{}]",
                outputs.join(", "),
                self.intended_outputs.join(", ")
            ));
        }
        let asked = intent
            .requested_strategy
            .map(|asked| choose_strategy(policy, Some(asked)));
        match asked.filter(|asked| *asked != self.strategy) {
            Some(asked) => drift(format!(
                "strategy {}, the plan has {}",
                asked.as_str(),
                self.strategy.as_str()
            )),
            None => Ok(()),
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> PlanError {
    PlanError::Invalid {
        reason: error.to_string(),
    }
}

impl Document for RunPlan {
    const KIND: &'static str = "run_plan";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.hex32("run_id", &self.run_id)?;
        check.hex64("plan_hash", &self.plan_hash)?;
        check.rule(
            "intended_outputs",
            !self.intended_outputs.is_empty(),
            "must not be empty",
        )?;
        check.rule(
            "attempt_limit",
            self.attempt_limit >= 1,
            "must be at least 1",
        )?;
        for (field, text) in [
            ("evidence_deadline_utc", &self.evidence_deadline_utc),
            ("created_at_utc", &self.created_at_utc),
        ] {
            check.rule(
                field,
                Micros::parse_any(text).is_ok(),
                "must be a timestamp",
            )?;
        }
        Ok(())
    }
}

/// How a run finds its evidence: a policy without reuse always invokes the engine (contract 5.4).
pub fn choose_strategy(policy: &ScenarioPolicy, requested: Option<Strategy>) -> Strategy {
    match policy.reuse_policy {
        ReusePolicy::Deny => Strategy::ForceInvoke,
        ReusePolicy::Allow => requested.unwrap_or(Strategy::Auto),
    }
}

/// Gates these outputs need: those that authorise one of them and those they name, with everything
/// upstream; sorted by id.
pub fn required_gates(
    outputs: &[String],
    catalogue: &Catalogue,
    gates: &GateMap,
) -> Result<Vec<String>, PlanError> {
    let mut direct: Vec<&str> = Vec::new();
    for output_id in outputs {
        let entry = catalogue
            .output(output_id)
            .map_err(|_| PlanError::UnknownOutput {
                output_id: output_id.clone(),
            })?;
        direct.extend(entry.read_requires_gates.iter().map(String::as_str));
    }
    let authorises = |authorised: &[String]| authorised.iter().any(|id| outputs.contains(id));
    let authorising = gates
        .gates()
        .iter()
        .filter(|gate| authorises(&gate.authorizes_outputs));
    direct.extend(authorising.map(|gate| gate.gate_id.as_str()));
    let closure = gates.closure(direct).map_err(|error| match error {
        GateMapError::UnknownGate { gate_id } => PlanError::UnknownGate { gate_id },
        other => invalid(other),
    })?;
    let mut ids: Vec<String> = closure
        .into_iter()
        .map(|gate| gate.gate_id.clone())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Makes the plan of a new run.
pub fn make_plan(
    intent: &CanonicalIntent,
    policy: &ScenarioPolicy,
    catalogue: &Catalogue,
    gates: &GateMap,
    now: Micros,
) -> Result<RunPlan, PlanError> {
    let intended_outputs = intent
        .output_ids
        .clone()
        .unwrap_or_else(|| policy.default_outputs());
    let required_gates = required_gates(&intended_outputs, catalogue, gates)?;
    let wait_micros = i64::try_from(policy.evidence_wait_seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000_000))
        .and_then(|micros| now.0.checked_add(micros))
        .ok_or_else(|| invalid("evidence_wait_seconds is too long"))?;
    let mut plan = RunPlan {
        run_id: intent.run_id.clone(),
        plan_hash: String::new(),
        policy_rev: policy.policy_rev(),
        strategy: choose_strategy(policy, intent.requested_strategy),
        intended_outputs,
        required_gates,
        evidence_deadline_utc: Micros(wait_micros).format_mod(),
        attempt_limit: policy.attempt_limit,
        created_at_utc: now.format_mod(),
    };
    plan.plan_hash = plan.computed_hash().map_err(invalid)?;
    plan.validate().map_err(invalid)?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn catalogue() -> Catalogue {
        let output = |id: &str, gates: &[&str]| {
            json!({"output_id": id, "scope": "scope_seed", "path_template": "p",
                   "primary_key": [], "read_requires_gates": gates})
        };
        let outputs = [
            output("a", &["g3"]),
            output("b", &[]),
            output("c", &["nowhere"]),
        ];
        Catalogue::parse(&json!({ "outputs": outputs })).unwrap()
    }

    fn gates() -> GateMap {
        let gate = |id: &str, upstream: &[&str], authorises: &[&str]| -> Value {
            json!({"gate_id": id, "scope": "fingerprint", "bundle_root_template": "b",
                   "passed_flag_template": "f", "upstream": upstream,
                   "authorizes_outputs": authorises,
                   "verification": {"kind": "sha256_bundle_digest", "digest_field": "sha256_hex",
                                    "order": "ascii_lex", "path_base": "bundle"}})
        };
        let all = [
            gate("g1", &[], &[]),
            gate("g2", &["g1"], &["b"]),
            gate("g3", &["g2"], &[]),
        ];
        let mut all = all.to_vec();
        all.push(gate("unrelated", &[], &["z"]));
        GateMap::parse(&json!({ "gates": all })).unwrap()
    }

    fn policy() -> ScenarioPolicy {
        serde_json::from_value(json!({
            "policy_id": "sr_policy", "revision": "v0-local", "content_digest": "c".repeat(64),
            "evidence_wait_seconds": 600, "attempt_limit": 1,
            "traffic_output_ids": ["a"], "context_output_ids": ["b"]
        }))
        .unwrap()
    }

    fn intent(outputs: Option<&[&str]>) -> CanonicalIntent {
        let request = json!({
            "run_equivalence_key": "parity_20260101T000000Z",
            "manifest_fingerprint": "a".repeat(64), "parameter_hash": "b".repeat(64), "seed": 42,
            "scenario": {"scenario_id": "baseline_v1"},
            "window": {"window_start_utc": "2026-01-01T00:00:00Z",
                       "window_end_utc": "2026-01-02T00:00:00Z"},
            "output_ids": outputs
        });
        let request: super::super::request::RunRequest = serde_json::from_value(request).unwrap();
        request.canonicalise().unwrap()
    }

    fn planned(outputs: Option<&[&str]>) -> Result<RunPlan, PlanError> {
        let now = Micros::parse_any("2026-01-01T00:00:00.123456Z").unwrap();
        make_plan(&intent(outputs), &policy(), &catalogue(), &gates(), now)
    }

    #[test]
    fn the_plan_hash_equals_vector_v5() {
        let mut plan = planned(Some(&["a"])).unwrap();
        plan.intended_outputs = vec!["s3_event_stream_with_fraud_6B".to_owned()];
        plan.required_gates = vec!["gate.layer3.6B.validation".to_owned()];
        assert_eq!(plan.evidence_deadline_utc, "2026-01-01T00:10:00.123456Z");
        assert_eq!(
            plan.computed_hash().unwrap(),
            "cc2b7510fb6093dad7d72545153ae9cc08f4b84cb889b17ac0221eb912f91564"
        );
    }

    #[test]
    fn gates_are_those_named_those_that_authorise_and_everything_upstream() {
        assert_eq!(
            planned(Some(&["a"])).unwrap().required_gates,
            ["g1", "g2", "g3"]
        );
        assert_eq!(planned(Some(&["b"])).unwrap().required_gates, ["g1", "g2"]);
    }

    #[test]
    fn without_a_request_traffic_and_context_are_proven() {
        assert_eq!(planned(None).unwrap().intended_outputs, ["a", "b"]);
    }

    #[test]
    fn unknown_outputs_and_gates_have_their_codes() {
        assert_eq!(
            planned(Some(&["x"])).unwrap_err().code(),
            "UNKNOWN_OUTPUT_ID"
        );
        assert_eq!(planned(Some(&["c"])).unwrap_err().code(), "UNKNOWN_GATE_ID");
        let endless = ScenarioPolicy {
            evidence_wait_seconds: u64::MAX,
            ..policy()
        };
        let now = Micros(0);
        let plan = make_plan(&intent(None), &endless, &catalogue(), &gates(), now);
        assert_eq!(plan.unwrap_err().code(), "PLAN_INVALID");
    }

    #[test]
    fn a_policy_without_reuse_always_invokes() {
        let deny = ScenarioPolicy {
            reuse_policy: ReusePolicy::Deny,
            ..policy()
        };
        assert_eq!(
            choose_strategy(&deny, Some(Strategy::Auto)),
            Strategy::ForceInvoke
        );
        assert_eq!(choose_strategy(&policy(), None), Strategy::Auto);
        let reuse = Some(Strategy::ForceReuse);
        assert_eq!(choose_strategy(&policy(), reuse), Strategy::ForceReuse);
    }

    #[test]
    fn a_stored_plan_is_used_again_unless_the_request_or_the_file_says_something_else() {
        let plan = planned(Some(&["a"])).unwrap();
        plan.check_stored(&intent(None), &policy()).unwrap();
        plan.check_stored(&intent(Some(&["a"])), &policy()).unwrap();
        let other = plan
            .check_stored(&intent(Some(&["b"])), &policy())
            .unwrap_err();
        assert_eq!(other.code(), "PLAN_DRIFT");
        let forced = CanonicalIntent {
            requested_strategy: Some(Strategy::ForceReuse),
            ..intent(None)
        };
        assert_eq!(
            plan.check_stored(&forced, &policy()).unwrap_err().code(),
            "PLAN_DRIFT"
        );
        let edited = RunPlan {
            attempt_limit: 9,
            ..plan
        };
        assert_eq!(
            edited
                .check_stored(&intent(None), &policy())
                .unwrap_err()
                .code(),
            "PLAN_DRIFT"
        );
    }
}
