//! The run facts view: everything a run may rely on, by reference and digest (contract 5.6).
//!
//! Written once per run. Readers take the locators, gate receipts and pins from here and look for
//! nothing else; the schema is closed, so additions travel as `evidence_notes`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentError, FieldCheck};
use super::proof::{EngineOutputLocator, GateReceipt, InstanceReceipt, ProofStatus};
use crate::provenance::Provenance;

/// The note that says who delivers traffic for a run: the World Streamer, nobody else.
pub const DELIVERY_NOTE_STREAM: &str = "traffic_delivery_mode=STREAM";
/// How the delivery note starts; its value decides whether a run may be streamed.
pub const DELIVERY_NOTE_PREFIX: &str = "traffic_delivery_mode=";
/// How the note with the per-file digest over the proven world starts.
pub const WORLD_DIGEST_NOTE_PREFIX: &str = "world_digest=";

/// Which policy file was in force: id, revision and its content digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRev {
    /// The policy's name.
    pub policy_id: String,
    /// The policy's revision.
    pub revision: String,
    /// 64 hex digits over the policy's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_digest: Option<String>,
}

/// The run's join identity; closed (contract 5.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactsPins {
    /// The sealed world.
    pub manifest_fingerprint: String,
    /// The parameter bundle.
    pub parameter_hash: String,
    /// The world's seed.
    pub seed: u64,
    /// The scenario.
    pub scenario_id: String,
    /// The Scenario Runner's run id.
    pub run_id: String,
    /// The platform run.
    pub platform_run_id: String,
    /// The same as `run_id`.
    pub scenario_run_id: String,
}

/// What an output is to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputRole {
    /// Traffic of the Scenario Runner's policy list.
    BusinessTraffic,
    /// Everything else, context included.
    NonTraffic,
}

/// Where the proven world lies (contract 5.6); closed, at least one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OraclePackRef {
    /// The engine run root as resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_run_root: Option<String>,
    /// The scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario_id: Option<String>,
    /// The base of the stream views.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_view_root: Option<String>,
    /// Stream view folder per output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_view_output_refs: Option<BTreeMap<String, String>>,
    /// The folder that relative engine roots are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle_root: Option<String>,
    /// The pack's id, when the world is packed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle_pack_id: Option<String>,
    /// The pack manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_ref: Option<String>,
    /// The engine release of the pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_release: Option<String>,
}

impl OraclePackRef {
    /// Checks that the ref says something (contract 5.6).
    pub fn validate(&self, document: &'static str) -> Result<(), DocumentError> {
        let check = FieldCheck(document);
        check.rule(
            "oracle_pack_ref",
            *self != OraclePackRef::default(),
            "must have at least one member",
        )?;
        match &self.oracle_pack_id {
            Some(id) => check.hex64("oracle_pack_ref.oracle_pack_id", id),
            None => Ok(()),
        }
    }
}

/// `run_facts_view` (contract 5.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFactsView {
    /// The Scenario Runner's run id.
    pub run_id: String,
    /// The platform run.
    pub platform_run_id: String,
    /// The same as `run_id`.
    pub scenario_run_id: String,
    /// The join identity.
    pub pins: FactsPins,
    /// One locator per proven output.
    pub locators: Vec<EngineOutputLocator>,
    /// One receipt per required gate.
    pub gate_receipts: Vec<GateReceipt>,
    /// The role of every output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_roles: Option<BTreeMap<String, OutputRole>>,
    /// The outputs of the plan, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intended_outputs: Option<Vec<String>>,
    /// Instance proofs, one per instance-scoped output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_receipts: Option<Vec<InstanceReceipt>>,
    /// The Scenario Runner's policy.
    pub policy_rev: PolicyRev,
    /// The hash over all evidence.
    pub bundle_hash: String,
    /// Store key of the plan.
    pub plan_ref: String,
    /// Store key of the record.
    pub record_ref: String,
    /// Store key of the status.
    pub status_ref: String,
    /// The Scenario Runner policy's content digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_config_digest: Option<String>,
    /// The release that proved the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_release_id: Option<String>,
    /// The environment it ran in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The provenance block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Where the world lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle_pack_ref: Option<OraclePackRef>,
    /// Open list of notes (not hashed), for example the delivery mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence_notes: Option<Vec<String>>,
}

impl RunFactsView {
    /// The delivery mode of the notes, upper case; `None` when no note says it.
    pub fn delivery_mode(&self) -> Option<String> {
        let notes = self.evidence_notes.iter().flatten();
        let mut modes = notes.filter_map(|note| note.strip_prefix(DELIVERY_NOTE_PREFIX));
        modes.next().map(|mode| mode.trim().to_ascii_uppercase())
    }

    /// The locator of one output.
    pub fn locator(&self, output_id: &str) -> Option<&EngineOutputLocator> {
        self.locators
            .iter()
            .find(|locator| locator.output_id == output_id)
    }

    /// True when the facts hold a PASS receipt of this gate.
    pub fn gate_passed(&self, gate_id: &str) -> bool {
        self.gate_receipts
            .iter()
            .any(|receipt| receipt.gate_id == gate_id && receipt.status == ProofStatus::Pass)
    }
}

impl Document for RunFactsView {
    const KIND: &'static str = "run_facts_view";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.hex32("run_id", &self.run_id)?;
        check.platform_run_id("platform_run_id", &self.platform_run_id)?;
        check.hex32("scenario_run_id", &self.scenario_run_id)?;
        check.hex64("pins.manifest_fingerprint", &self.pins.manifest_fingerprint)?;
        check.hex64("pins.parameter_hash", &self.pins.parameter_hash)?;
        check.text("pins.scenario_id", &self.pins.scenario_id, 512)?;
        check.hex32("pins.run_id", &self.pins.run_id)?;
        check.platform_run_id("pins.platform_run_id", &self.pins.platform_run_id)?;
        check.hex32("pins.scenario_run_id", &self.pins.scenario_run_id)?;
        check.hex64("bundle_hash", &self.bundle_hash)?;
        check.text("policy_rev.policy_id", &self.policy_rev.policy_id, 256)?;
        check.text("policy_rev.revision", &self.policy_rev.revision, 256)?;
        for (field, text) in [
            ("plan_ref", &self.plan_ref),
            ("record_ref", &self.record_ref),
            ("status_ref", &self.status_ref),
        ] {
            check.text(field, text, 2048)?;
        }
        self.locators.iter().try_for_each(Document::validate)?;
        self.gate_receipts.iter().try_for_each(Document::validate)?;
        self.instance_receipts
            .iter()
            .flatten()
            .try_for_each(Document::validate)?;
        if let Some(pack) = &self.oracle_pack_ref {
            pack.validate(Self::KIND)?;
        }
        let notes = self.evidence_notes.iter().flatten();
        let blank = notes.filter(|note| note.is_empty()).count();
        check.rule("evidence_notes", blank == 0, "notes must not be empty")
    }
}
