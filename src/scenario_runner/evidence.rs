//! Collects the evidence of a run from its engine root (contract 5.5).
//!
//! Gates and outputs are verified beside each other and only read. Instance proofs are written once
//! everything else is there: an output that is still being written must not be proven.

use std::collections::BTreeMap;

use wellspring_domain::ports::{ObjectMeta, ObjectStore, PutOutcome, StoreError};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::evidence::{EvidenceFailure, EvidenceFindings};
use wellspring_domain::scenario::facts_view::OraclePackRef;
use wellspring_domain::scenario::instance_proof::{prove_instance, states_the_same};
use wellspring_domain::scenario::plan::RunPlan;
use wellspring_domain::scenario::proof::InstanceReceipt;
use wellspring_domain::scenario::request::CanonicalIntent;
use wellspring_domain::scenario::settings::ScenarioWiring;
use wellspring_domain::world::catalogue::{OutputEntry, WorldTokens};
use wellspring_domain::world::gates::Gate;
use wellspring_domain::world::locator::join_root;
use wellspring_domain::world::pack::PACK_MANIFEST_FILE;
use wellspring_domain::world::seal::SealRefusal;
use wellspring_domain::world::world_key::WorldKey;

use super::error::RunError;
use super::ledger::RunLedger;
use crate::world_files::contract_files::ContractFiles;
use crate::world_files::evidence_digest::{
    EvidenceDigests, EvidenceError, LocatorOutcome, world_digest,
};
use crate::world_files::gate_verification::{GateOutcome, verify_gates};
use crate::world_files::pack_files::{
    ManifestReadError, read_pack_manifest, read_run_receipt, read_seal,
};

/// A world as a run sees it.
pub struct WorldUnderProof<'a> {
    /// Its files.
    pub world: &'a dyn ObjectStore,
    /// The root as resolved; written into every reference.
    pub engine_run_root: &'a str,
    /// What the run is about.
    pub intent: &'a CanonicalIntent,
    /// How worlds are read.
    pub contract_files: &'a ContractFiles,
    /// Where things lie.
    pub wiring: &'a ScenarioWiring,
}

/// Findings and what else the facts view needs.
pub struct Collected {
    /// What was found.
    pub findings: EvidenceFindings,
    /// Where the world lies, with its pack when it has one.
    pub pack_ref: OraclePackRef,
    /// The digest over the world's files that does not depend on where it lies (W28); `None` unless
    /// everything was found.
    pub world_digest: Option<String>,
}

impl WorldUnderProof<'_> {
    /// Looks at pack, gates and outputs. Only reads; takes as long as the world is big.
    pub fn look(&self, plan: &RunPlan, digests: &EvidenceDigests) -> Result<Collected, RunError> {
        let mut findings = EvidenceFindings::default();
        let pack_ref = self.look_at_pack(&mut findings)?;
        self.look_at_gates(plan, &mut findings)?;
        let files = self.look_at_outputs(plan, digests, &mut findings)?;
        let world_digest = match is_complete(&findings) {
            true => Some(world_digest(self.world, &files)?.to_string()),
            false => None,
        };
        Ok(Collected {
            findings,
            pack_ref,
            world_digest,
        })
    }

    fn tokens(&self) -> WorldTokens {
        WorldTokens {
            seed: Some(self.intent.seed),
            parameter_hash: Some(self.intent.parameter_hash.clone()),
            manifest_fingerprint: Some(self.intent.manifest_fingerprint.clone()),
            scenario_id: Some(self.intent.scenario_id.clone()),
            run_id: read_run_receipt(self.world)
                .ok()
                .map(|receipt| receipt.run_id),
            utc_day: None,
        }
    }

    /// Seal and pack manifest (contract 3.6, D10). A seal that is missing may still come.
    fn look_at_pack(&self, findings: &mut EvidenceFindings) -> Result<OraclePackRef, RunError> {
        let refusal = read_seal(self.world)?.refusal(self.wiring.strict_seal());
        let subject = || self.engine_run_root.to_owned();
        match refusal {
            None => {}
            Some(SealRefusal::NotSealed) => {
                findings
                    .missing
                    .push(EvidenceFailure::PackNotSealed.code().to_owned());
            }
            Some(SealRefusal::SealedFailed) => {
                findings
                    .failures
                    .push((EvidenceFailure::PackSealedFailed, subject()));
            }
            Some(SealRefusal::Unreadable) => {
                findings
                    .failures
                    .push((EvidenceFailure::PackSealInvalid, subject()));
            }
        }
        let mut pack_ref = self.plain_pack_ref();
        match read_pack_manifest(self.world) {
            Ok(None) => {}
            Ok(Some(manifest)) if manifest.world_key == self.world_key() => {
                pack_ref.oracle_pack_id = Some(manifest.oracle_pack_id);
                pack_ref.manifest_ref = Some(join_root(self.engine_run_root, PACK_MANIFEST_FILE));
                pack_ref.engine_release = Some(manifest.engine_release);
            }
            Ok(Some(_other_world)) => {
                findings
                    .failures
                    .push((EvidenceFailure::OraclePackMismatch, subject()));
            }
            Err(ManifestReadError::Invalid(_)) => {
                findings
                    .failures
                    .push((EvidenceFailure::OraclePackInvalid, subject()));
            }
            Err(ManifestReadError::Store(error)) => return Err(error.into()),
        }
        Ok(pack_ref)
    }

    fn world_key(&self) -> WorldKey {
        WorldKey {
            manifest_fingerprint: self.intent.manifest_fingerprint.clone(),
            parameter_hash: self.intent.parameter_hash.clone(),
            scenario_id: self.scenario_of_pack(),
            seed: self.intent.seed,
        }
    }

    fn scenario_of_pack(&self) -> String {
        let pinned = self
            .wiring
            .oracle_scenario_id
            .clone()
            .filter(|id| !id.is_empty());
        pinned.unwrap_or_else(|| self.intent.scenario_id.clone())
    }

    /// An oracle root that the world does not lie in says nothing about it.
    fn lies_below(&self, oracle_root: &str) -> bool {
        let folder = format!("{}/", oracle_root.trim_end_matches('/'));
        self.engine_run_root.starts_with(&folder)
    }

    /// The pack ref of a world without a pack (contract 5.6).
    fn plain_pack_ref(&self) -> OraclePackRef {
        let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        OraclePackRef {
            engine_run_root: Some(self.engine_run_root.to_owned()),
            scenario_id: Some(self.scenario_of_pack()),
            stream_view_root: non_empty(&self.wiring.oracle_stream_view_root),
            oracle_root: non_empty(&self.wiring.oracle_root).filter(|root| self.lies_below(root)),
            ..OraclePackRef::default()
        }
    }

    fn look_at_gates(
        &self,
        plan: &RunPlan,
        findings: &mut EvidenceFindings,
    ) -> Result<(), RunError> {
        let mut gates: Vec<&Gate> = Vec::new();
        for gate_id in &plan.required_gates {
            match self.contract_files.gate_map.gate(gate_id) {
                Ok(gate) => gates.push(gate),
                Err(_) => {
                    findings
                        .failures
                        .push((EvidenceFailure::UnknownGateId, gate_id.clone()));
                }
            }
        }
        let outcomes = verify_gates(self.world, self.engine_run_root, &gates, &self.tokens());
        for (gate, outcome) in gates.iter().zip(outcomes) {
            let gate_id = gate.gate_id.clone();
            match outcome? {
                GateOutcome::Pass(receipt) if receipt.validate().is_ok() => {
                    findings.gate_receipts.push(receipt);
                }
                GateOutcome::Pass(_) => {
                    findings
                        .failures
                        .push((EvidenceFailure::ReceiptSchemaInvalid, gate_id));
                }
                GateOutcome::Missing { path } => {
                    tracing::info!(gate_id, path, "gate is missing");
                    findings.missing.push(gate_id);
                }
                GateOutcome::Fail { conflict, .. } | GateOutcome::Conflict(conflict) => {
                    tracing::warn!(gate_id, %conflict, "gate contradicts itself");
                    findings.conflicts.push(gate_id);
                }
            }
        }
        Ok(())
    }

    fn look_at_outputs(
        &self,
        plan: &RunPlan,
        digests: &EvidenceDigests,
        findings: &mut EvidenceFindings,
    ) -> Result<Vec<ObjectMeta>, RunError> {
        let entries = self.entries(&plan.intended_outputs);
        let tokens = self.tokens();
        let outcomes = digests.locators_for(self.world, self.engine_run_root, &entries, &tokens);
        let mut files = Vec::new();
        for (entry, outcome) in entries.iter().zip(outcomes) {
            let output_id = entry.output_id.clone();
            match outcome {
                Ok(LocatorOutcome::Found(found)) if found.locator.validate().is_ok() => {
                    findings.locators.push(found.locator);
                    files.extend(found.files);
                }
                Ok(LocatorOutcome::Found(_)) => {
                    findings
                        .failures
                        .push((EvidenceFailure::LocatorSchemaInvalid, output_id));
                }
                Ok(LocatorOutcome::Missing { .. }) if entry.is_optional() => {}
                // A path that cannot be made points nowhere: the output is not there to be found.
                Ok(LocatorOutcome::Missing { .. }) | Err(EvidenceError::Path(_)) => {
                    if entry.is_instance_scoped() {
                        findings.missing.push(format!("instance_proof:{output_id}"));
                    }
                    findings.missing.push(output_id);
                }
                Err(EvidenceError::Store(error)) => return Err(error.into()),
            }
        }
        Ok(files)
    }

    /// Catalogue entries of the plan's outputs; the plan was made from the same catalogue.
    fn entries(&self, output_ids: &[String]) -> Vec<&OutputEntry> {
        let find = |id: &String| self.contract_files.catalogue.output(id).ok();
        output_ids.iter().filter_map(find).collect()
    }

    /// Writes the proof of every instance, once nothing else is missing.
    pub fn prove_instances(
        &self,
        ledger: &mut RunLedger<'_>,
        findings: &mut EvidenceFindings,
    ) -> Result<(), RunError> {
        if !is_complete(findings) {
            return Ok(());
        }
        let tokens = self.tokens();
        let entries: BTreeMap<&str, &OutputEntry> = self
            .contract_files
            .catalogue
            .outputs()
            .iter()
            .map(|entry| (entry.output_id.as_str(), entry))
            .collect();
        for locator in &findings.locators {
            let entry = entries.get(locator.output_id.as_str());
            let Some(entry) = entry.filter(|entry| entry.is_instance_scoped()) else {
                continue;
            };
            let prefix = ledger.keys().prefix().to_owned();
            match prove_instance(entry, locator, &tokens, &prefix) {
                Ok(receipt) => match store_proof(ledger, receipt)? {
                    Some(receipt) => findings.instance_receipts.push(receipt),
                    None => {
                        let drift = EvidenceFailure::InstanceReceiptDrift;
                        findings.failures.push((drift, locator.output_id.clone()));
                    }
                },
                Err(failure) => findings.failures.push((failure, locator.output_id.clone())),
            }
        }
        Ok(())
    }
}

/// True when all was found and nothing is wrong with it.
fn is_complete(findings: &EvidenceFindings) -> bool {
    findings.conflicts.is_empty() && findings.failures.is_empty() && findings.missing.is_empty()
}

/// Writes a proof once. `None` when another one is stored that states something else.
fn store_proof(
    ledger: &mut RunLedger<'_>,
    receipt: InstanceReceipt,
) -> Result<Option<InstanceReceipt>, RunError> {
    let key = receipt.artifacts.receipt_path.clone();
    if ledger.create(&key, &receipt)? == PutOutcome::Created {
        return Ok(Some(receipt));
    }
    // A stored proof that cannot be read states nothing, least of all the same.
    let stored: Option<InstanceReceipt> = match ledger.read(&key) {
        Err(RunError::Store(StoreError::Damaged { .. })) => None,
        other => other?,
    };
    Ok(stored.filter(|stored| states_the_same(stored, &receipt)))
}
