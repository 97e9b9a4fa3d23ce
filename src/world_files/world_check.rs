//! The Oracle checker on an engine run root (contract 4.1).
//!
//! Gates are proven, not only looked for: a flag whose bundle says otherwise counts as no PASS (contract 11,
//! W17). Nothing here writes.

use serde_json::{Value, json};
use wellspring_domain::canonical_json::{CanonicalError, to_sj};
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::world::catalogue::WorldTokens;
use wellspring_domain::world::checker::{CheckReport, SealRule, Severity};
use wellspring_domain::world::gates::Gate;
use wellspring_domain::world::locator::join_root;
use wellspring_domain::world::seal::{SealRefusal, SealState};
use wellspring_domain::world::world_key::{RunReceipt, RunReceiptError, WorldKey};

use super::contract_files::ContractFiles;
use super::evidence_digest::matched_files;
use super::gate_verification::{GateOutcome, verify_gates};
use super::pack_files::{ManifestReadError, read_pack_manifest, read_run_receipt, read_seal};
use super::world_root::{ScenarioDiscovery, discover_scenario};

/// Why a check could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The store failed: nothing is known about the world.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A finding cannot be written as canonical JSON.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl CheckError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            CheckError::Store(error) => error.code(),
            CheckError::Canonical(_) => "CANONICAL_JSON_INVALID",
        }
    }
}

/// What to check.
#[derive(Clone, Debug)]
pub struct WorldCheck<'a> {
    /// How the root is written in the report.
    pub engine_run_root: &'a str,
    /// The scenario, when it is known.
    pub scenario_id: Option<&'a str>,
    /// Outputs that must exist. Without any, every required output of the catalogue is looked for and a
    /// missing one is a warning.
    pub output_ids: Option<&'a [String]>,
    /// Whether a missing seal is an error.
    pub seal_rule: SealRule,
    /// Whether gates are checked at all (profile `require_gate_pass`).
    pub require_gate_pass: bool,
}

/// Checks the world in `world`.
pub fn check_world(
    world: &dyn ObjectStore,
    contract: &ContractFiles,
    check: &WorldCheck<'_>,
) -> Result<CheckReport, CheckError> {
    let mut report = CheckReport::default();
    report.detail("engine_run_root", json!(check.engine_run_root));
    for list in ["pack_manifests", "gates_missing", "outputs_missing"] {
        report.detail(list, json!([]));
    }
    report.detail("world_key", Value::Null);
    let Some((receipt, scenario_id)) = identify(world, check, &mut report)? else {
        return Ok(report);
    };
    let world_key = receipt.world_key(&scenario_id);
    report.detail("world_key", json!(world_key));
    let tokens = receipt.tokens(&scenario_id);
    if check.require_gate_pass {
        check_gates(world, contract, check, &tokens, &mut report)?;
    }
    check_outputs(world, contract, check, &tokens, &mut report)?;
    check_seal(&read_seal(world)?, check.seal_rule, &mut report);
    check_manifest(world, check.engine_run_root, &world_key, &mut report)?;
    Ok(report)
}

/// The run receipt and the scenario; `None` when the report says why the check ends here.
fn identify(
    world: &dyn ObjectStore,
    check: &WorldCheck<'_>,
    report: &mut CheckReport,
) -> Result<Option<(RunReceipt, String)>, StoreError> {
    let receipt = read_run_receipt(world);
    if let Err(error @ RunReceiptError::Unreadable { .. }) = &receipt {
        report.error(error.code(), error.to_string());
        return Ok(None);
    }
    let Some(scenario_id) = scenario(world, check, report)? else {
        return Ok(None);
    };
    match receipt {
        Ok(receipt) => Ok(Some((receipt, scenario_id))),
        Err(error) => {
            report.error(error.code(), error.to_string());
            Ok(None)
        }
    }
}

fn scenario(
    world: &dyn ObjectStore,
    check: &WorldCheck<'_>,
    report: &mut CheckReport,
) -> Result<Option<String>, StoreError> {
    if let Some(given) = check.scenario_id.map(str::trim).filter(|id| !id.is_empty()) {
        return Ok(Some(given.to_owned()));
    }
    match discover_scenario(world)? {
        ScenarioDiscovery::One(only) => Ok(Some(only)),
        ScenarioDiscovery::Missing => {
            report.add("SCENARIO_ID_MISSING", Severity::Error, None);
            Ok(None)
        }
        ScenarioDiscovery::Ambiguous(found) => {
            report.error("SCENARIO_ID_AMBIGUOUS", found.join(","));
            Ok(None)
        }
    }
}

/// Every gate of the map must have passed. Gates without a PASS are one issue; those whose evidence
/// contradicts itself are named in a second one with the reason.
fn check_gates(
    world: &dyn ObjectStore,
    contract: &ContractFiles,
    check: &WorldCheck<'_>,
    tokens: &WorldTokens,
    report: &mut CheckReport,
) -> Result<(), CheckError> {
    let gates: Vec<&Gate> = contract.gate_map.gates().iter().collect();
    let outcomes = verify_gates(world, check.engine_run_root, &gates, tokens);
    let (mut missing, mut details, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (gate, outcome) in gates.iter().zip(outcomes) {
        let outcome = outcome?;
        let Some(why) = outcome.reason() else {
            continue;
        };
        let path = missing_path(check.engine_run_root, gate, tokens, &outcome);
        missing.push(json!({"gate_id": gate.gate_id, "path": path}));
        details.push(json!({"gate_id": gate.gate_id, "path": path, "why": why}));
        if outcome.is_conflict() {
            failed.push(json!({"gate_id": gate.gate_id, "why": why}));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    report.error("GATE_PASS_MISSING", to_sj(&missing)?);
    report.detail("gates_missing", Value::Array(details));
    if !failed.is_empty() {
        report.error("GATE_FAIL", to_sj(&failed)?);
    }
    Ok(())
}

/// The file that is not there, or the flag that does not hold.
fn missing_path(
    engine_run_root: &str,
    gate: &Gate,
    tokens: &WorldTokens,
    outcome: &GateOutcome,
) -> String {
    match (outcome, gate.paths(tokens)) {
        (GateOutcome::Missing { path }, _) => path.clone(),
        (_, Ok(paths)) => join_root(engine_run_root, &paths.passed_flag),
        (_, Err(path)) => join_root(engine_run_root, &path),
    }
}

fn check_outputs(
    world: &dyn ObjectStore,
    contract: &ContractFiles,
    check: &WorldCheck<'_>,
    tokens: &WorldTokens,
    report: &mut CheckReport,
) -> Result<(), CheckError> {
    let required = contract
        .catalogue
        .outputs()
        .iter()
        .filter(|entry| !entry.is_optional());
    let (output_ids, severity) = match check.output_ids {
        Some(requested) => (requested.to_vec(), Severity::Error),
        None => (
            required.map(|entry| entry.output_id.clone()).collect(),
            Severity::Warn,
        ),
    };
    let mut missing = Vec::new();
    for output_id in &output_ids {
        let entry = contract.catalogue.output(output_id);
        let path = match entry.and_then(|entry| entry.render_path(tokens)) {
            Ok(path) => path,
            Err(error) => {
                let about = error.coded();
                let detail = about.split_once(':').map(|(_, detail)| detail.to_owned());
                report.add(error.code(), Severity::Error, detail);
                continue;
            }
        };
        if matched_files(world, &path)?.is_empty() {
            report.add("LOCATOR_MISSING", severity, Some(output_id.clone()));
            let path = join_root(check.engine_run_root, &path);
            missing.push(json!({"output_id": output_id, "path": path}));
        }
    }
    report.detail("outputs_missing", Value::Array(missing));
    Ok(())
}

/// A missing seal is as bad as the rule says; one that forbids reading is always an error.
pub(crate) fn check_seal(seal: &SealState, rule: SealRule, report: &mut CheckReport) {
    match seal.refusal(true) {
        None => {}
        Some(SealRefusal::NotSealed) => {
            report.add(SealRefusal::NotSealed.code(), rule.severity(), None);
        }
        Some(refusal) => report.error(refusal.code(), refusal.to_string()),
    }
}

fn check_manifest(
    world: &dyn ObjectStore,
    pack_root: &str,
    world_key: &WorldKey,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    match read_pack_manifest(world) {
        Ok(None) => report.add("PACK_MANIFEST_MISSING", Severity::Warn, None),
        Ok(Some(manifest)) => {
            if manifest.world_key != *world_key {
                report.error("PACK_MANIFEST_INVALID", "WORLD_KEY_MISMATCH");
            }
            let found = json!([{"pack_root": pack_root, "oracle_pack_id": manifest.oracle_pack_id,
                "engine_release": manifest.engine_release}]);
            report.detail("pack_manifests", found);
        }
        Err(ManifestReadError::Invalid(error)) => report.error(error.code(), error.to_string()),
        Err(ManifestReadError::Store(error)) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
#[path = "world_check_tests.rs"]
mod tests;
