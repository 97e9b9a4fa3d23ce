//! Proving the gates of a world against their files (contract 3.4).
//!
//! A flag is only a claim: the digest of the bundle is recomputed and must be what the flag says. Nothing
//! here writes.

use crate::long_digest::LongDigest;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::scenario::proof::{
    Digest, GateArtifacts, GateReceipt, ProofScope, ProofStatus,
};
use wellspring_domain::world::catalogue::WorldTokens;
use wellspring_domain::world::gate_evidence::{
    GateConflict, index_paths, member_digests, parse_flag,
};
use wellspring_domain::world::gates::{DigestKind, Gate, GatePaths, PathBase};
use wellspring_domain::world::locator::join_root;

use super::evidence_digest::{hash_into, in_parallel};

/// What the files say about a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateOutcome {
    /// The recomputed digest is the flag's.
    Pass(GateReceipt),
    /// It is another: the evidence contradicts itself. The receipt says FAIL.
    Fail {
        /// The receipt with the recomputed digest.
        receipt: GateReceipt,
        /// Both digests.
        conflict: GateConflict,
    },
    /// The flag or the index is there and makes no sense; there is nothing to put into a receipt.
    Conflict(GateConflict),
    /// A file is not there (yet).
    Missing {
        /// The path looked for, prefixed by the engine root.
        path: String,
    },
}

impl GateOutcome {
    /// True for a proven gate: nothing else may be read on.
    pub fn is_pass(&self) -> bool {
        matches!(self, GateOutcome::Pass(_))
    }

    /// True when the evidence contradicts itself; waiting will not help.
    pub fn is_conflict(&self) -> bool {
        matches!(self, GateOutcome::Fail { .. } | GateOutcome::Conflict(_))
    }

    /// The receipt, when there is one.
    pub fn receipt(&self) -> Option<&GateReceipt> {
        match self {
            GateOutcome::Pass(receipt) | GateOutcome::Fail { receipt, .. } => Some(receipt),
            GateOutcome::Conflict(_) | GateOutcome::Missing { .. } => None,
        }
    }

    /// Why the gate has not passed, for a person.
    pub fn reason(&self) -> Option<String> {
        match self {
            GateOutcome::Pass(_) => None,
            GateOutcome::Fail { conflict, .. } | GateOutcome::Conflict(conflict) => {
                Some(conflict.to_string())
            }
            GateOutcome::Missing { path } => Some(format!("{path} is missing")),
        }
    }
}

/// The gate's digest, or why there is none.
enum Recomputed {
    Digest(Hash32),
    Conflict(GateConflict),
    Missing(String),
}

/// Verifies one gate of the world in `store`; `engine_run_root` is how the root is written in receipts.
pub fn verify_gate(
    store: &dyn ObjectStore,
    engine_run_root: &str,
    gate: &Gate,
    tokens: &WorldTokens,
) -> Result<GateOutcome, StoreError> {
    let missing = |path: &str| {
        Ok(GateOutcome::Missing {
            path: join_root(engine_run_root, path),
        })
    };
    let paths = match gate.paths(tokens) {
        Ok(paths) => paths,
        Err(path) => return missing(&path),
    };
    let Some(flag) = store.get(&paths.passed_flag)? else {
        return missing(&paths.passed_flag);
    };
    let files = bundle_files(store, gate, &paths)?;
    if files.is_empty() {
        return missing(&paths.bundle_root);
    }
    let flag = match parse_flag(&flag, &gate.verification.digest_field) {
        Ok(flag) => flag,
        Err(conflict) => return Ok(GateOutcome::Conflict(conflict)),
    };
    let actual = match recompute(store, gate, &paths, &files)? {
        Recomputed::Digest(digest) => digest.to_string(),
        Recomputed::Conflict(conflict) => return Ok(GateOutcome::Conflict(conflict)),
        Recomputed::Missing(path) => return missing(&path),
    };
    let passed = flag == actual;
    let receipt = receipt(gate, engine_run_root, &paths, tokens, &actual, passed);
    match passed {
        true => Ok(GateOutcome::Pass(receipt)),
        false => Ok(GateOutcome::Fail {
            receipt,
            conflict: GateConflict::DigestDiffers { flag, actual },
        }),
    }
}

/// Verifies several gates beside each other; outcomes are in the order of the gates.
pub fn verify_gates(
    store: &dyn ObjectStore,
    engine_run_root: &str,
    gates: &[&Gate],
    tokens: &WorldTokens,
) -> Vec<Result<GateOutcome, StoreError>> {
    in_parallel(gates, |gate| {
        verify_gate(store, engine_run_root, gate, tokens)
    })
}

/// The bundle's files that count, in path order.
fn bundle_files(
    store: &dyn ObjectStore,
    gate: &Gate,
    paths: &GatePaths,
) -> Result<Vec<String>, StoreError> {
    let listed = store.list(&paths.bundle_root)?;
    let counted = listed.into_iter().map(|file| file.key).filter(|key| {
        let relative = key.strip_prefix(&paths.bundle_root).unwrap_or(key);
        !gate.verification.excludes(relative)
    });
    Ok(counted.collect())
}

fn recompute(
    store: &dyn ObjectStore,
    gate: &Gate,
    paths: &GatePaths,
    files: &[String],
) -> Result<Recomputed, StoreError> {
    if gate.verification.kind == DigestKind::Bundle {
        return hash_all(store, files);
    }
    let Some(index_path) = &paths.index else {
        return Ok(Recomputed::Missing(paths.bundle_root.clone()));
    };
    let Some(index) = store.get(index_path)? else {
        return Ok(Recomputed::Missing(index_path.clone()));
    };
    if gate.verification.kind == DigestKind::MemberDigests {
        return Ok(match member_digests(&index, &gate.verification) {
            Ok(digests) => Recomputed::Digest(Hash32::of(digests.concat().as_bytes())),
            Err(conflict) => Recomputed::Conflict(conflict),
        });
    }
    match index_paths(&index, &gate.verification) {
        Ok(listed) => hash_all(store, &under_base(gate, paths, &listed)),
        Err(conflict) => Ok(Recomputed::Conflict(conflict)),
    }
}

fn under_base(gate: &Gate, paths: &GatePaths, listed: &[String]) -> Vec<String> {
    let base = match gate.verification.path_base {
        PathBase::Bundle => paths.bundle_root.as_str(),
        PathBase::RunRoot => "",
    };
    listed.iter().map(|path| format!("{base}{path}")).collect()
}

/// SHA-256 over the concatenated bytes of the files.
fn hash_all(store: &dyn ObjectStore, files: &[String]) -> Result<Recomputed, StoreError> {
    let mut hasher = LongDigest::new();
    for key in files {
        match store.head(key) {
            Ok(Some(_)) => hash_into(store, key, &mut hasher)?,
            Ok(None) => return Ok(Recomputed::Missing(key.clone())),
            // A path that leaves the root can only come from the index.
            Err(StoreError::InvalidKey { key }) => {
                let reason = format!("the path {key} is not allowed");
                return Ok(Recomputed::Conflict(GateConflict::IndexUnreadable {
                    reason,
                }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Recomputed::Digest(hasher.finish()))
}

fn receipt(
    gate: &Gate,
    engine_run_root: &str,
    paths: &GatePaths,
    tokens: &WorldTokens,
    actual: &str,
    passed: bool,
) -> GateReceipt {
    let names = |pin: &str| gate.scope.contains(pin);
    GateReceipt {
        gate_id: gate.gate_id.clone(),
        status: match passed {
            true => ProofStatus::Pass,
            false => ProofStatus::Fail,
        },
        scope: ProofScope {
            manifest_fingerprint: tokens.manifest_fingerprint.clone(),
            parameter_hash: tokens
                .parameter_hash
                .clone()
                .filter(|_| names("parameter_hash")),
            seed: tokens.seed.filter(|_| names("seed")),
            scenario_id: tokens.scenario_id.clone().filter(|_| names("scenario_id")),
            run_id: tokens.run_id.clone().filter(|_| names("run_id")),
            utc_day: tokens.utc_day.clone().filter(|_| names("utc_day")),
        },
        receipt_kind: "passed_flag".to_owned(),
        digest: Some(Digest::sha256(actual)),
        artifacts: Some(GateArtifacts {
            validation_bundle_root: join_root(engine_run_root, &paths.bundle_root),
            index_path: paths
                .index
                .as_deref()
                .map(|path| join_root(engine_run_root, path)),
            passed_flag_path: join_root(engine_run_root, &paths.passed_flag),
        }),
    }
}

#[cfg(test)]
#[path = "gate_verification_tests.rs"]
mod tests;
