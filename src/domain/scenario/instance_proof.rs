//! Instance proofs: the Scenario Runner's own receipts about outputs (contract 3.5, 5.5).

use super::document::Document;
use super::evidence::EvidenceFailure;
use super::proof::{
    EngineOutputLocator, InstanceArtifacts, InstanceReceipt, ProofScope, ProofStatus,
};
use crate::world::catalogue::{OutputEntry, WorldTokens};

/// The scope of an output's proof: the fingerprint and a value for each partition (contract 5.5).
/// A partition without a value means that the instance is not determined.
pub fn instance_scope(
    entry: &OutputEntry,
    tokens: &WorldTokens,
) -> Result<ProofScope, EvidenceFailure> {
    let missing = EvidenceFailure::InstanceScopeMissing;
    let mut scope = ProofScope {
        manifest_fingerprint: Some(tokens.manifest_fingerprint.clone().ok_or(missing)?),
        ..ProofScope::default()
    };
    for partition in &entry.partitions {
        match partition.as_str() {
            "manifest_fingerprint" => {}
            "parameter_hash" => {
                scope.parameter_hash = Some(tokens.parameter_hash.clone().ok_or(missing)?);
            }
            "seed" => scope.seed = Some(tokens.seed.ok_or(missing)?),
            "scenario_id" => scope.scenario_id = Some(tokens.scenario_id.clone().ok_or(missing)?),
            "run_id" => scope.run_id = Some(tokens.run_id.clone().ok_or(missing)?),
            "utc_day" => scope.utc_day = Some(tokens.utc_day.clone().ok_or(missing)?),
            _no_known_pin => return Err(missing),
        }
    }
    Ok(scope)
}

/// Where a proof is written below the Scenario Runner's prefix. This one path keeps its own token
/// order, because it is part of the bundle hash (D13); only pins of the scope appear.
pub fn instance_receipt_path(output_id: &str, scope: &ProofScope) -> String {
    let seed = scope.seed.map(|seed| seed.to_string());
    let pins = [
        ("manifest_fingerprint", &scope.manifest_fingerprint),
        ("parameter_hash", &scope.parameter_hash),
        ("seed", &seed),
        ("scenario_id", &scope.scenario_id),
        ("run_id", &scope.run_id),
    ];
    let mut path = format!("instance_receipts/output_id={output_id}");
    for (name, value) in pins {
        if let Some(value) = value {
            path.push_str(&format!("/{name}={value}"));
        }
    }
    path.push_str("/instance_receipt.json");
    path
}

/// The proof about one located output; `prefix` is the Scenario Runner's store prefix.
pub fn prove_instance(
    entry: &OutputEntry,
    locator: &EngineOutputLocator,
    tokens: &WorldTokens,
    prefix: &str,
) -> Result<InstanceReceipt, EvidenceFailure> {
    let digest = locator
        .content_digest
        .clone()
        .ok_or(EvidenceFailure::InstanceDigestMissing)?;
    let scope = instance_scope(entry, tokens)?;
    let receipt = InstanceReceipt {
        output_id: entry.output_id.clone(),
        status: ProofStatus::Pass,
        artifacts: InstanceArtifacts {
            receipt_path: format!(
                "{prefix}/{}",
                instance_receipt_path(&entry.output_id, &scope)
            ),
        },
        scope,
        target_ref: locator.clone(),
        target_digest: digest,
        receipt_kind: "instance_proof".to_owned(),
        bundle_manifest_ref: None,
        produced_at_utc: None,
        notes: None,
    };
    match receipt.validate() {
        Ok(()) => Ok(receipt),
        Err(_invalid) => Err(EvidenceFailure::InstanceReceiptSchemaInvalid),
    }
}

/// True when a stored proof states the same, whenever it was made (contract 5.2).
pub fn states_the_same(stored: &InstanceReceipt, proven: &InstanceReceipt) -> bool {
    let timeless = |receipt: &InstanceReceipt| InstanceReceipt {
        produced_at_utc: None,
        ..receipt.clone()
    };
    timeless(stored) == timeless(proven)
}

#[cfg(test)]
mod tests {
    use super::super::proof::Digest;
    use super::*;
    use crate::world::locator::engine_locator;
    use serde::Deserialize;
    use serde_json::json;

    fn entry(partitions: &[&str]) -> OutputEntry {
        OutputEntry::deserialize(&json!({
            "output_id": "o", "scope": "scope_seed", "path_template": "data/part-*",
            "primary_key": [], "partitions": partitions
        }))
        .unwrap()
    }

    fn tokens() -> WorldTokens {
        WorldTokens {
            seed: Some(7),
            manifest_fingerprint: Some("a".repeat(64)),
            parameter_hash: Some("b".repeat(64)),
            scenario_id: Some("s".to_owned()),
            ..WorldTokens::default()
        }
    }

    fn proven(entry: &OutputEntry, digest: Option<&str>) -> Result<InstanceReceipt, &'static str> {
        let digest = digest.map(Digest::sha256);
        let locator = engine_locator("/w", entry, "data/part-*", &tokens(), digest);
        prove_instance(entry, &locator, &tokens(), "p/sr").map_err(EvidenceFailure::code)
    }

    #[test]
    fn the_receipt_path_has_its_own_token_order_and_only_the_pins_of_the_scope() {
        let all = entry(&[
            "seed",
            "manifest_fingerprint",
            "parameter_hash",
            "scenario_id",
        ]);
        let receipt = proven(&all, Some(&"d".repeat(64))).unwrap();
        let (mf, ph) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(
            receipt.artifacts.receipt_path,
            format!(
                "p/sr/instance_receipts/output_id=o/manifest_fingerprint={mf}/parameter_hash={ph}\
                 /seed=7/scenario_id=s/instance_receipt.json"
            )
        );
        let few = proven(
            &entry(&["seed", "manifest_fingerprint"]),
            Some(&"d".repeat(64)),
        );
        assert!(!few.unwrap().artifacts.receipt_path.contains("scenario_id"));
    }

    #[test]
    fn a_proof_without_digest_scope_or_schema_has_its_code() {
        let digest = "d".repeat(64);
        let cases = [
            (
                entry(&["seed", "manifest_fingerprint"]),
                None,
                "INSTANCE_DIGEST_MISSING",
            ),
            (
                entry(&["run_id", "manifest_fingerprint"]),
                Some(&digest),
                "INSTANCE_SCOPE_MISSING",
            ),
            (
                entry(&["colour", "manifest_fingerprint"]),
                Some(&digest),
                "INSTANCE_SCOPE_MISSING",
            ),
            (
                entry(&["seed"]),
                Some(&digest),
                "INSTANCE_RECEIPT_SCHEMA_INVALID",
            ),
        ];
        for (entry, digest, code) in cases {
            assert_eq!(
                proven(&entry, digest.map(String::as_str)).unwrap_err(),
                code
            );
        }
    }

    #[test]
    fn a_stored_proof_may_differ_in_its_time_only() {
        let receipt = proven(&entry(&["manifest_fingerprint"]), Some(&"d".repeat(64))).unwrap();
        let later = InstanceReceipt {
            produced_at_utc: Some("2026-01-01T00:00:00+00:00".to_owned()),
            ..receipt.clone()
        };
        assert!(states_the_same(&later, &receipt));
        let other = InstanceReceipt {
            target_digest: Digest::sha256("e".repeat(64)),
            ..receipt.clone()
        };
        assert!(!states_the_same(&other, &receipt));
    }
}
