//! The Scenario Runner's policy and wiring files (contract 9.3).
//!
//! Policy decides outcomes and is stamped into every run; wiring says where things lie and who may ask.

use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentError, FieldCheck};
use super::facts_view::PolicyRev;
use super::ready::CONTROL_TOPIC;

/// Whether stored evidence may be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReusePolicy {
    /// Evidence in the engine root may be used.
    #[default]
    Allow,
    /// Every run invokes the engine.
    Deny,
}

/// `config/platform/sr/policy_v0.yaml` (contract 9.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioPolicy {
    /// The policy's name.
    pub policy_id: String,
    /// The policy's revision.
    pub revision: String,
    /// Stamped as written here, never computed.
    pub content_digest: String,
    /// Whether stored evidence may be used again.
    #[serde(default)]
    pub reuse_policy: ReusePolicy,
    /// How long missing evidence may stay missing.
    pub evidence_wait_seconds: u64,
    /// Engine attempts of one run.
    pub attempt_limit: u32,
    /// Outputs with the role `business_traffic`; proven by default.
    pub traffic_output_ids: Vec<String>,
    /// Outputs that accompany traffic; proven by default as well.
    #[serde(default)]
    pub context_output_ids: Vec<String>,
}

impl ScenarioPolicy {
    /// The policy as documents stamp it.
    pub fn policy_rev(&self) -> PolicyRev {
        PolicyRev {
            policy_id: self.policy_id.clone(),
            revision: self.revision.clone(),
            content_digest: Some(self.content_digest.clone()),
        }
    }

    /// What a request without `output_ids` asks for: traffic and its context, sorted.
    pub fn default_outputs(&self) -> Vec<String> {
        let mut outputs: Vec<String> = self
            .traffic_output_ids
            .iter()
            .chain(&self.context_output_ids)
            .cloned()
            .collect();
        outputs.sort_unstable();
        outputs.dedup();
        outputs
    }
}

impl Document for ScenarioPolicy {
    const KIND: &'static str = "sr_policy";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.text("policy_id", &self.policy_id, 256)?;
        check.text("revision", &self.revision, 256)?;
        check.hex64("content_digest", &self.content_digest)?;
        check.rule(
            "attempt_limit",
            self.attempt_limit >= 1,
            "must be at least 1",
        )?;
        let some = !self.traffic_output_ids.is_empty();
        check.rule("traffic_output_ids", some, "must name at least one output")
    }
}

/// Flat wiring keys of `config/platform/sr/wiring_*.yaml` (contract 9.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScenarioWiring {
    /// Stamped as environment; `dev` and `prod` want a sealed pack.
    pub profile_id: String,
    /// Where runs are kept.
    pub object_store_root: Option<String>,
    /// Topic of READY.
    pub control_bus_topic: String,
    /// Folder of a file control bus.
    pub control_bus_root: Option<String>,
    /// `file` or `kinesis`.
    pub control_bus_kind: String,
    /// Stream of a managed control bus.
    pub control_bus_stream: Option<String>,
    /// Its region.
    pub control_bus_region: Option<String>,
    /// Its endpoint.
    pub control_bus_endpoint_url: Option<String>,
    /// The catalogue file.
    pub engine_catalogue_path: Option<String>,
    /// The gate map file.
    pub gate_map_path: Option<String>,
    /// Folder of the platform's schemas.
    pub schema_root: Option<String>,
    /// Folder of the engine's contracts.
    pub engine_contracts_root: Option<String>,
    /// Folder that relative engine roots are below.
    pub oracle_root: Option<String>,
    /// The world; overrides what a request says.
    pub oracle_engine_run_root: Option<String>,
    /// Pins the scenario of the pack ref.
    pub oracle_scenario_id: Option<String>,
    /// Base of the stream views.
    pub oracle_stream_view_root: Option<String>,
    /// Program and arguments that run the engine, with tokens.
    pub engine_command: Vec<String>,
    /// Its working directory.
    pub engine_command_cwd: Option<String>,
    /// How long one attempt may take.
    pub engine_command_timeout_seconds: Option<f64>,
    /// Where equivalence and leases are kept.
    pub authority_store_dsn: Option<String>,
    /// Object store endpoint.
    pub s3_endpoint_url: Option<String>,
    /// Object store region.
    pub s3_region: Option<String>,
    /// Path-style addressing.
    pub s3_path_style: Option<bool>,
    /// `disabled`, or anything else to check `auth_allowlist`.
    pub auth_mode: String,
    /// Who may submit (and re-emit, when there is no `reemit_allowlist`).
    pub auth_allowlist: Vec<String>,
    /// Who may re-emit.
    pub reemit_allowlist: Vec<String>,
    /// Re-emits per window; none means no limit.
    pub reemit_rate_limit_max: Option<u64>,
    /// The window of the re-emit limit.
    pub reemit_rate_limit_window_seconds: u64,
    /// Which acceptance rules apply.
    pub acceptance_mode: String,
    /// Where the runner executes.
    pub execution_mode: String,
    /// Launch reference of a managed runner.
    pub execution_launch_ref: Option<String>,
    /// Variable that holds a managed runner's identity.
    pub execution_identity_env: Option<String>,
    /// Where state is kept.
    pub state_mode: String,
    /// True refuses a re-emit into another platform run unless overridden.
    pub reemit_same_platform_run_only: bool,
    /// True wants an approved override for it.
    pub reemit_cross_run_override_required: bool,
    /// Reasons an override may give.
    pub reemit_cross_run_reason_allowlist: Vec<String>,
}

impl Default for ScenarioWiring {
    fn default() -> Self {
        ScenarioWiring {
            profile_id: "local".to_owned(),
            object_store_root: None,
            control_bus_topic: CONTROL_TOPIC.to_owned(),
            control_bus_root: None,
            control_bus_kind: "file".to_owned(),
            control_bus_stream: None,
            control_bus_region: None,
            control_bus_endpoint_url: None,
            engine_catalogue_path: None,
            gate_map_path: None,
            schema_root: None,
            engine_contracts_root: None,
            oracle_root: None,
            oracle_engine_run_root: None,
            oracle_scenario_id: None,
            oracle_stream_view_root: None,
            engine_command: Vec::new(),
            engine_command_cwd: None,
            engine_command_timeout_seconds: None,
            authority_store_dsn: None,
            s3_endpoint_url: None,
            s3_region: None,
            s3_path_style: None,
            auth_mode: "disabled".to_owned(),
            auth_allowlist: Vec::new(),
            reemit_allowlist: Vec::new(),
            reemit_rate_limit_max: None,
            reemit_rate_limit_window_seconds: 3600,
            acceptance_mode: "local_parity".to_owned(),
            execution_mode: "local".to_owned(),
            execution_launch_ref: None,
            execution_identity_env: None,
            state_mode: "local".to_owned(),
            reemit_same_platform_run_only: false,
            reemit_cross_run_override_required: true,
            reemit_cross_run_reason_allowlist: Vec::new(),
        }
    }
}

impl ScenarioWiring {
    /// True when a world must be sealed before READY (D10).
    pub fn strict_seal(&self) -> bool {
        matches!(self.profile_id.as_str(), "dev" | "prod")
    }

    /// True when `actor` may submit runs (contract 5.4, step 1).
    pub fn may_submit(&self, actor: Option<&str>) -> bool {
        self.auth_mode == "disabled" || listed(&self.auth_allowlist, actor)
    }

    /// True when `actor` may re-emit (contract 5.10).
    pub fn may_reemit(&self, actor: Option<&str>) -> bool {
        let own_list = !self.reemit_allowlist.is_empty();
        let list = if own_list {
            &self.reemit_allowlist
        } else {
            &self.auth_allowlist
        };
        self.auth_mode == "disabled" || listed(list, actor)
    }
}

fn listed(list: &[String], actor: Option<&str>) -> bool {
    actor.is_some_and(|actor| list.iter().any(|allowed| allowed == actor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dev_and_prod_want_a_seal() {
        for (profile, strict) in [
            ("local", false),
            ("local_parity", false),
            ("dev", true),
            ("prod", true),
        ] {
            let wiring = ScenarioWiring {
                profile_id: profile.to_owned(),
                ..ScenarioWiring::default()
            };
            assert_eq!(wiring.strict_seal(), strict, "{profile}");
        }
    }

    #[test]
    fn a_reemit_list_replaces_the_general_list_and_nobody_is_listed_by_saying_nothing() {
        let wiring = ScenarioWiring {
            auth_mode: "allowlist".to_owned(),
            auth_allowlist: vec!["ops".to_owned()],
            ..ScenarioWiring::default()
        };
        assert!(wiring.may_submit(Some("ops")) && wiring.may_reemit(Some("ops")));
        assert!(!wiring.may_submit(None) && !wiring.may_submit(Some("guest")));
        let narrowed = ScenarioWiring {
            reemit_allowlist: vec!["lead".to_owned()],
            ..wiring
        };
        assert!(!narrowed.may_reemit(Some("ops")) && narrowed.may_reemit(Some("lead")));
    }

    #[test]
    fn default_outputs_are_traffic_and_context_without_repeats() {
        let policy: ScenarioPolicy = serde_json::from_value(serde_json::json!({
            "policy_id": "p", "revision": "r", "content_digest": "c".repeat(64),
            "evidence_wait_seconds": 600, "attempt_limit": 1,
            "traffic_output_ids": ["t2", "t1"], "context_output_ids": ["c1", "t1"]
        }))
        .unwrap();
        assert_eq!(policy.default_outputs(), ["c1", "t1", "t2"]);
        assert_eq!(policy.reuse_policy, ReusePolicy::Allow);
    }
}
