//! What the collected evidence amounts to (contract 5.5).
//!
//! The collector reports findings; the rules here turn them into one verdict. A contradiction is
//! looked at first, then broken evidence, then missing evidence against the deadline.

use serde::Serialize;

use super::facts_view::PolicyRev;
use super::proof::{EngineOutputLocator, GateReceipt, InstanceReceipt, ProofStatus};
use crate::canonical_json::CanonicalError;
use crate::ids;
use crate::time_text::Micros;

/// Why evidence fails (contract 5.5); each is a stable reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceFailure {
    /// A locator breaks its schema.
    LocatorSchemaInvalid,
    /// A gate receipt breaks its schema.
    ReceiptSchemaInvalid,
    /// The gate map does not know a required gate.
    UnknownGateId,
    /// An instance proof has no digest to state.
    InstanceDigestMissing,
    /// An instance proof lacks a pin of its scope.
    InstanceScopeMissing,
    /// An instance proof breaks its schema.
    InstanceReceiptSchemaInvalid,
    /// A stored instance proof says something else.
    InstanceReceiptDrift,
    /// Evidence was still missing at the deadline.
    EvidenceMissingDeadline,
    /// A gate's receipt says FAIL.
    GateFail,
    /// There is no engine root.
    EngineRootMissing,
    /// The profile wants a sealed pack and there is none.
    PackNotSealed,
    /// The pack was sealed as failed.
    PackSealedFailed,
    /// The seal cannot be read.
    PackSealInvalid,
    /// The pack manifest cannot be read.
    OraclePackInvalid,
    /// The pack is of another world.
    OraclePackMismatch,
}

impl EvidenceFailure {
    /// The stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            EvidenceFailure::LocatorSchemaInvalid => "LOCATOR_SCHEMA_INVALID",
            EvidenceFailure::ReceiptSchemaInvalid => "RECEIPT_SCHEMA_INVALID",
            EvidenceFailure::UnknownGateId => "UNKNOWN_GATE_ID",
            EvidenceFailure::InstanceDigestMissing => "INSTANCE_DIGEST_MISSING",
            EvidenceFailure::InstanceScopeMissing => "INSTANCE_SCOPE_MISSING",
            EvidenceFailure::InstanceReceiptSchemaInvalid => "INSTANCE_RECEIPT_SCHEMA_INVALID",
            EvidenceFailure::InstanceReceiptDrift => "INSTANCE_RECEIPT_DRIFT",
            EvidenceFailure::EvidenceMissingDeadline => "EVIDENCE_MISSING_DEADLINE",
            EvidenceFailure::GateFail => "GATE_FAIL",
            EvidenceFailure::EngineRootMissing => "ENGINE_ROOT_MISSING",
            EvidenceFailure::PackNotSealed => "PACK_NOT_SEALED",
            EvidenceFailure::PackSealedFailed => "PACK_SEALED_FAILED",
            EvidenceFailure::PackSealInvalid => "PACK_SEAL_INVALID",
            EvidenceFailure::OraclePackInvalid => "ORACLE_PACK_INVALID",
            EvidenceFailure::OraclePackMismatch => "ORACLE_PACK_MISMATCH",
        }
    }
}

/// Everything the collector found.
#[derive(Clone, Debug, Default)]
pub struct EvidenceFindings {
    /// Locators of present outputs.
    pub locators: Vec<EngineOutputLocator>,
    /// Receipts of verified gates.
    pub gate_receipts: Vec<GateReceipt>,
    /// Instance proofs.
    pub instance_receipts: Vec<InstanceReceipt>,
    /// Missing output ids, gate ids, `instance_proof:<output_id>` and `PACK_NOT_SEALED`.
    pub missing: Vec<String>,
    /// Gates that contradict themselves.
    pub conflicts: Vec<String>,
    /// Evidence that is there and broken, with what it is about.
    pub failures: Vec<(EvidenceFailure, String)>,
}

/// Complete evidence and the hash over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceBundle {
    /// Sorted by output id.
    pub locators: Vec<EngineOutputLocator>,
    /// Sorted by gate id.
    pub gate_receipts: Vec<GateReceipt>,
    /// Sorted by output id.
    pub instance_receipts: Vec<InstanceReceipt>,
    /// The hash over all of it (V7).
    pub bundle_hash: String,
}

/// The verdict (contract 5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvidenceVerdict {
    /// All there, all proven.
    Complete(EvidenceBundle),
    /// Something is missing and may still come.
    Waiting {
        /// What is missing, sorted.
        missing: Vec<String>,
    },
    /// Broken, or missing for too long.
    Fail {
        /// Why.
        reason: EvidenceFailure,
        /// What it is about, sorted.
        missing: Vec<String>,
    },
    /// The evidence contradicts itself.
    Conflict {
        /// The gates, sorted.
        missing: Vec<String>,
    },
}

#[derive(Serialize)]
struct BundleInput<'a> {
    locators: &'a [EngineOutputLocator],
    receipts: &'a [GateReceipt],
    instance_receipts: &'a [InstanceReceipt],
    policy_rev: &'a PolicyRev,
}

/// `bundle_hash` over evidence that is already sorted (V7).
pub fn bundle_hash(
    locators: &[EngineOutputLocator],
    receipts: &[GateReceipt],
    instance_receipts: &[InstanceReceipt],
    policy_rev: &PolicyRev,
) -> Result<String, CanonicalError> {
    ids::hash_cj(&BundleInput {
        locators,
        receipts,
        instance_receipts,
        policy_rev,
    })
}

/// Turns findings into a verdict; `now` is compared with the plan's evidence deadline.
pub fn judge(
    mut found: EvidenceFindings,
    policy_rev: &PolicyRev,
    now: Micros,
    deadline: Micros,
) -> Result<EvidenceVerdict, CanonicalError> {
    if !found.conflicts.is_empty() {
        return Ok(EvidenceVerdict::Conflict {
            missing: sorted(found.conflicts),
        });
    }
    if let Some((reason, subject)) = found.failures.into_iter().next() {
        return Ok(EvidenceVerdict::Fail {
            reason,
            missing: vec![subject],
        });
    }
    let failed: Vec<String> = found
        .gate_receipts
        .iter()
        .filter(|receipt| receipt.status == ProofStatus::Fail)
        .map(|receipt| receipt.gate_id.clone())
        .collect();
    if !failed.is_empty() {
        let missing = sorted(failed);
        return Ok(EvidenceVerdict::Fail {
            reason: EvidenceFailure::GateFail,
            missing,
        });
    }
    if !found.missing.is_empty() {
        let missing = sorted(found.missing);
        let only_the_seal = missing == [EvidenceFailure::PackNotSealed.code()];
        let late = now >= deadline;
        return Ok(match (late, only_the_seal) {
            (false, _) => EvidenceVerdict::Waiting { missing },
            (true, true) => EvidenceVerdict::Fail {
                reason: EvidenceFailure::PackNotSealed,
                missing,
            },
            (true, false) => {
                let reason = EvidenceFailure::EvidenceMissingDeadline;
                EvidenceVerdict::Fail { reason, missing }
            }
        });
    }
    found.locators.sort_by(|a, b| a.output_id.cmp(&b.output_id));
    found
        .gate_receipts
        .sort_by(|a, b| a.gate_id.cmp(&b.gate_id));
    found
        .instance_receipts
        .sort_by(|a, b| a.output_id.cmp(&b.output_id));
    let hash = bundle_hash(
        &found.locators,
        &found.gate_receipts,
        &found.instance_receipts,
        policy_rev,
    )?;
    Ok(EvidenceVerdict::Complete(EvidenceBundle {
        locators: found.locators,
        gate_receipts: found.gate_receipts,
        instance_receipts: found.instance_receipts,
        bundle_hash: hash,
    }))
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::super::proof::{Digest, ProofScope};
    use super::*;

    fn policy() -> PolicyRev {
        PolicyRev {
            policy_id: "sr_policy".to_owned(),
            revision: "v0-local".to_owned(),
            content_digest: Some("c".repeat(64)),
        }
    }

    fn locator() -> EngineOutputLocator {
        serde_json::from_value(serde_json::json!({
            "output_id": "s3_event_stream_with_fraud_6B",
            "path": "s3://oracle-store/local_full_run-5/run1/data/x/part-*.parquet",
            "manifest_fingerprint": "a".repeat(64), "seed": 42, "scenario_id": "baseline_v1",
            "content_digest": {"algo": "sha256", "hex": "d".repeat(64)}
        }))
        .unwrap()
    }

    fn receipt(status: ProofStatus) -> GateReceipt {
        GateReceipt {
            gate_id: "gate.layer3.6B.validation".to_owned(),
            status,
            scope: ProofScope {
                manifest_fingerprint: Some("a".repeat(64)),
                ..ProofScope::default()
            },
            receipt_kind: "passed_flag".to_owned(),
            digest: Some(Digest::sha256("e".repeat(64))),
            artifacts: None,
        }
    }

    fn judged(found: EvidenceFindings, now: i64) -> EvidenceVerdict {
        judge(found, &policy(), Micros(now), Micros(100)).unwrap()
    }

    #[test]
    fn complete_evidence_hashes_to_vector_v7_and_ready_to_v8() {
        let found = EvidenceFindings {
            locators: vec![locator()],
            gate_receipts: vec![receipt(ProofStatus::Pass)],
            ..EvidenceFindings::default()
        };
        let EvidenceVerdict::Complete(bundle) = judged(found, 1_000) else {
            panic!("not complete")
        };
        assert_eq!(
            bundle.bundle_hash,
            "795855462cd2cea7bc425e9e71ab221571c0d324acf36ebb9dd85acaea1ae892"
        );
        assert_eq!(
            ids::ready_message_id(
                "platform_20260101T000000Z",
                "e4f2285913cc771d0d8dd1ad475f7a01",
                &bundle.bundle_hash
            ),
            "0284b104d99b96935e1dc73aed1c1bea6a38d5b64e3439d18e2455b0526c9f2d"
        );
    }

    #[test]
    fn the_order_of_findings_does_not_change_the_hash() {
        let mut other = locator();
        other.output_id = "a_first".to_owned();
        let one = EvidenceFindings {
            locators: vec![locator(), other.clone()],
            ..EvidenceFindings::default()
        };
        let two = EvidenceFindings {
            locators: vec![other, locator()],
            ..EvidenceFindings::default()
        };
        assert_eq!(judged(one, 0), judged(two, 0));
    }

    #[test]
    fn a_conflict_is_seen_before_a_failure_and_a_failure_before_missing_evidence() {
        let mut found = EvidenceFindings {
            conflicts: vec!["g".to_owned()],
            failures: vec![(EvidenceFailure::InstanceReceiptDrift, "o".to_owned())],
            missing: vec!["m".to_owned()],
            ..EvidenceFindings::default()
        };
        assert_eq!(
            judged(found.clone(), 0),
            EvidenceVerdict::Conflict {
                missing: vec!["g".to_owned()]
            }
        );
        found.conflicts.clear();
        let failed = EvidenceVerdict::Fail {
            reason: EvidenceFailure::InstanceReceiptDrift,
            missing: vec!["o".to_owned()],
        };
        assert_eq!(judged(found, 0), failed);
    }

    #[test]
    fn missing_evidence_waits_until_the_deadline_and_fails_from_it_on() {
        let found = EvidenceFindings {
            missing: vec!["b".to_owned(), "a".to_owned(), "b".to_owned()],
            ..EvidenceFindings::default()
        };
        let missing = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            judged(found.clone(), 99),
            EvidenceVerdict::Waiting {
                missing: missing.clone()
            }
        );
        let reason = EvidenceFailure::EvidenceMissingDeadline;
        assert_eq!(
            judged(found, 100),
            EvidenceVerdict::Fail { reason, missing }
        );
    }

    #[test]
    fn a_missing_seal_waits_like_other_evidence_and_keeps_its_own_code_at_the_deadline() {
        let found = EvidenceFindings {
            missing: vec!["PACK_NOT_SEALED".to_owned()],
            ..EvidenceFindings::default()
        };
        let missing = found.missing.clone();
        assert_eq!(
            judged(found.clone(), 99),
            EvidenceVerdict::Waiting {
                missing: missing.clone()
            }
        );
        let reason = EvidenceFailure::PackNotSealed;
        assert_eq!(
            judged(found, 100),
            EvidenceVerdict::Fail { reason, missing }
        );
    }

    #[test]
    fn a_receipt_that_says_fail_is_a_gate_failure() {
        let found = EvidenceFindings {
            gate_receipts: vec![receipt(ProofStatus::Fail)],
            ..EvidenceFindings::default()
        };
        let EvidenceVerdict::Fail { reason, missing } = judged(found, 0) else {
            panic!("not a failure")
        };
        assert_eq!(reason.code(), "GATE_FAIL");
        assert_eq!(missing, ["gate.layer3.6B.validation"]);
    }
}
