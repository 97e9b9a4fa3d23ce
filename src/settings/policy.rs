//! Policy: what affects outcomes, versioned and stamped (contract 9.1, 9.2).

use super::layers::Origin;
use super::section::{Section, key};

/// What the Gate does about missing gate passes (decision D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyGates {
    /// Not looked at.
    Off,
    /// Admitted, counted and logged.
    Warn,
    /// Quarantined with `GATE_PASS_MISSING`.
    Enforce,
}

/// How receipts are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptsLayout {
    /// Rows in journal segments, rendered to the contract's bytes on read.
    Segments,
    /// One write-once object per receipt besides, the layout other tools read.
    Objects,
}

/// The `policy` section.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySettings {
    /// Revision stamped into receipts.
    pub policy_rev: String,
    /// File of partitioning profiles.
    pub partitioning_profiles_ref: String,
    /// Partitioning profile of event types that have none of their own.
    pub partitioning_profile_id: String,
    /// Schema policy file.
    pub schema_policy_ref: String,
    /// Class map file.
    pub class_map_ref: String,
    /// Whether a stream needs the gate flags of its outputs.
    pub require_gate_pass: bool,
    /// What the Gate does about missing gate passes.
    pub verify_gates: VerifyGates,
    /// How receipts are laid out.
    pub receipts_layout: ReceiptsLayout,
    /// World seconds per real second; 0 or less streams as fast as possible.
    pub stream_speedup: f64,
    /// Traffic outputs named directly; beats the list file.
    pub traffic_output_ids: Vec<String>,
    /// Traffic list file.
    pub traffic_output_ids_ref: Option<String>,
    /// Context outputs named directly; beats the list files.
    pub context_output_ids: Vec<String>,
    /// Context list file.
    pub context_output_ids_ref: Option<String>,
    /// Context list file when only baseline traffic is selected.
    pub context_output_ids_baseline_ref: Option<String>,
    /// Scenario Runner policy file (contract 9.3).
    pub scenario_policy_ref: String,
}

impl PolicySettings {
    pub(super) fn read(mut section: Section<'_, '_>, profile_id: &str) -> Self {
        let s = &mut section;
        let (traffic_output_ids, traffic_output_ids_ref) = list(
            s,
            "traffic_output_ids",
            "traffic_output_ids_ref",
            ENV_TRAFFIC,
        );
        let (context_output_ids, context_output_ids_ref) = list(
            s,
            "context_output_ids",
            "context_output_ids_ref",
            ENV_CONTEXT,
        );
        let verify_default = if profile_id == "local" {
            "warn"
        } else {
            "enforce"
        };
        let policy = PolicySettings {
            policy_rev: s.text(key("policy_rev"), profile_id),
            partitioning_profiles_ref: s.text(
                key("partitioning_profiles_ref"),
                "config/platform/ig/partitioning_profiles_v0.yaml",
            ),
            partitioning_profile_id: s
                .text(key("partitioning_profile_id"), "ig.partitioning.v0.traffic"),
            schema_policy_ref: s.text(
                key("schema_policy_ref"),
                "config/platform/ig/schema_policy_v0.yaml",
            ),
            class_map_ref: s.text(key("class_map_ref"), "config/platform/ig/class_map_v0.yaml"),
            require_gate_pass: s.switch(key("require_gate_pass"), true),
            verify_gates: s.choice(
                key("verify_gates"),
                verify_default,
                &[
                    ("off", VerifyGates::Off),
                    ("warn", VerifyGates::Warn),
                    ("enforce", VerifyGates::Enforce),
                ],
                "CONFIG_VALUE_INVALID",
            ),
            receipts_layout: s.choice(
                key("receipts_layout"),
                "segments",
                &[
                    ("segments", ReceiptsLayout::Segments),
                    ("objects", ReceiptsLayout::Objects),
                ],
                "CONFIG_VALUE_INVALID",
            ),
            stream_speedup: s.number(key("stream_speedup"), 1.0),
            traffic_output_ids,
            traffic_output_ids_ref,
            context_output_ids,
            context_output_ids_ref,
            context_output_ids_baseline_ref: s
                .optional_text(key("context_output_ids_baseline_ref")),
            scenario_policy_ref: s.text(
                key("scenario_policy_ref"),
                "config/platform/sr/policy_v0.yaml",
            ),
        };
        super::skip_other_planes(s);
        section.finish();
        policy
    }
}

const ENV_TRAFFIC: [&str; 2] = ["WSP_TRAFFIC_OUTPUT_IDS", "WSP_TRAFFIC_OUTPUT_IDS_REF"];
const ENV_CONTEXT: [&str; 2] = ["WSP_CONTEXT_OUTPUT_IDS", "WSP_CONTEXT_OUTPUT_IDS_REF"];

/// An output list and its file (contract 6.5): environment ids, environment file, profile ids,
/// profile file. Only the winner is kept.
fn list(
    section: &mut Section<'_, '_>,
    ids: &'static str,
    file: &'static str,
    [ids_variable, file_variable]: [&'static str; 2],
) -> (Vec<String>, Option<String>) {
    let (output_ids, ids_origin) = section.texts(key(ids).env(ids_variable));
    let (list_ref, ref_origin) = section.optional_text_from(key(file).env(file_variable));
    let from_outside = |origin: &Origin| matches!(origin, Origin::Environment(_) | Origin::Flag);
    let file_wins = from_outside(&ref_origin) && !from_outside(&ids_origin);
    match output_ids.is_empty() || (file_wins && list_ref.is_some()) {
        true => (Vec::new(), list_ref),
        false => (output_ids, None),
    }
}
