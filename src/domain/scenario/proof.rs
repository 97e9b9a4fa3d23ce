//! Proof documents: output locators, gate receipts and instance proofs (contract 3.4, 3.5).
//!
//! Their JSON goes into `bundle_hash`, so absent members stay absent: nothing is written as null.

use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentError, FieldCheck};

/// The longest path a locator may carry (contract 3.5).
pub const LOCATOR_PATH_CHARS_MAX: usize = 2048;

/// A SHA-256 digest as documents carry it: `{algo: "sha256", hex}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Always `sha256`.
    pub algo: String,
    /// 64 lowercase hex digits.
    pub hex: String,
}

impl Digest {
    /// A SHA-256 digest from its hex text.
    pub fn sha256(hex: impl Into<String>) -> Digest {
        Digest {
            algo: "sha256".to_owned(),
            hex: hex.into(),
        }
    }

    fn validate(&self, check: &FieldCheck, field: &str) -> Result<(), DocumentError> {
        check.rule(field, self.algo == "sha256", "algo must be sha256")?;
        check.hex64(field, &self.hex)
    }
}

/// The pins a locator or a proof may carry; each output carries those of its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofScope {
    /// The sealed world.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_fingerprint: Option<String>,
    /// The parameter bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter_hash: Option<String>,
    /// The world's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario_id: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The day of a day-partitioned output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utc_day: Option<String>,
}

/// Where one engine output lies and what its bytes are (contract 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineOutputLocator {
    /// The output.
    pub output_id: String,
    /// Engine root joined with the rendered template; the `part-*` glob is kept.
    pub path: String,
    /// The sealed world.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_fingerprint: Option<String>,
    /// The parameter bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter_hash: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario_id: Option<String>,
    /// The world's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Row schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_ref: Option<String>,
    /// Data dictionary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary_ref: Option<String>,
    /// When the engine produced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub produced_at_utc: Option<String>,
    /// SHA-256 over the bytes of all matched files in path order (contract 1.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_digest: Option<Digest>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

impl Document for EngineOutputLocator {
    const KIND: &'static str = "engine_output_locator";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.output_id("output_id", &self.output_id)?;
        check.text("path", &self.path, LOCATOR_PATH_CHARS_MAX)?;
        if let Some(hex) = &self.manifest_fingerprint {
            check.hex64("manifest_fingerprint", hex)?;
        }
        if let Some(hex) = &self.parameter_hash {
            check.hex64("parameter_hash", hex)?;
        }
        if let Some(hex) = &self.run_id {
            check.hex32("run_id", hex)?;
        }
        check.optional_text("scenario_id", self.scenario_id.as_deref(), 512)?;
        let pinned = self.manifest_fingerprint.is_some()
            || self.parameter_hash.is_some()
            || self.run_id.is_some()
            || self.scenario_id.is_some();
        check.rule(
            "manifest_fingerprint",
            pinned,
            "at least one pin must be present",
        )?;
        match &self.content_digest {
            Some(digest) => digest.validate(&check, "content_digest"),
            None => Ok(()),
        }
    }
}

/// The outcome a proof states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProofStatus {
    /// The bytes are what was promised.
    Pass,
    /// They are not.
    Fail,
}

/// Where a gate's proof lies, paths prefixed by the engine root (contract 3.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateArtifacts {
    /// The validation bundle.
    pub validation_bundle_root: String,
    /// The bundle's index, for gates that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_path: Option<String>,
    /// The flag file.
    pub passed_flag_path: String,
}

/// One verified gate (contract 3.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateReceipt {
    /// The gate.
    pub gate_id: String,
    /// PASS when the recomputed digest equals the flag's.
    pub status: ProofStatus,
    /// What the gate speaks about.
    pub scope: ProofScope,
    /// Always `passed_flag`.
    pub receipt_kind: String,
    /// The recomputed digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Where the proof lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<GateArtifacts>,
}

impl Document for GateReceipt {
    const KIND: &'static str = "gate_receipt";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.text("gate_id", &self.gate_id, 128)?;
        check.rule(
            "receipt_kind",
            self.receipt_kind == "passed_flag",
            "must be passed_flag",
        )?;
        if let Some(hex) = &self.scope.manifest_fingerprint {
            check.hex64("scope.manifest_fingerprint", hex)?;
        }
        match &self.digest {
            Some(digest) => digest.validate(&check, "digest"),
            None => Ok(()),
        }
    }
}

/// Where an instance proof was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceArtifacts {
    /// The store key of the receipt.
    pub receipt_path: String,
}

/// Proof that one output instance holds the bytes its locator names (contract 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceReceipt {
    /// The output.
    pub output_id: String,
    /// PASS when the digest was computed from present bytes.
    pub status: ProofStatus,
    /// `manifest_fingerprint` and the output's partitions.
    pub scope: ProofScope,
    /// The locator that was proven.
    pub target_ref: EngineOutputLocator,
    /// The digest of the locator's bytes.
    pub target_digest: Digest,
    /// Always `instance_proof`.
    pub receipt_kind: String,
    /// Where this receipt lies.
    pub artifacts: InstanceArtifacts,
    /// A bundle manifest, when the engine wrote one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_manifest_ref: Option<String>,
    /// When the proof was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub produced_at_utc: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

impl Document for InstanceReceipt {
    const KIND: &'static str = "instance_receipt";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.output_id("output_id", &self.output_id)?;
        check.rule(
            "receipt_kind",
            self.receipt_kind == "instance_proof",
            "must be instance_proof",
        )?;
        check.rule(
            "scope.manifest_fingerprint",
            self.scope.manifest_fingerprint.is_some(),
            "must be present",
        )?;
        self.target_ref.validate()?;
        self.target_digest.validate(&check, "target_digest")?;
        check.text(
            "artifacts.receipt_path",
            &self.artifacts.receipt_path,
            LOCATOR_PATH_CHARS_MAX,
        )
    }
}
