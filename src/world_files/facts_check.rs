//! The Oracle checker on a run's facts view (contract 4.2): are the proofs in it complete, and is what it
//! points at still there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use wellspring_domain::canonical_json::to_sj;
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::facts_view::RunFactsView;
use wellspring_domain::scenario::proof::EngineOutputLocator;
use wellspring_domain::world::checker::{CheckReport, SealRule, Severity, unproven_outputs};
use wellspring_domain::world::locator::pack_root_of;
use wellspring_domain::world::seal::SealState;

use super::contract_files::ContractFiles;
use super::evidence_digest::matched_files;
use super::pack_files::read_seal;
use super::world_check::{CheckError, check_seal};
use crate::object_store::{ObjectStores, OpenStoreError};

/// What to check facts by.
#[derive(Clone, Debug)]
pub struct FactsCheck<'a> {
    /// How the facts are named in the report.
    pub run_facts_ref: &'a str,
    /// The folder that relative engine roots are below.
    pub oracle_root: &'a str,
    /// Whether a missing seal is an error.
    pub seal_rule: SealRule,
    /// How bad a locator without a digest is.
    pub missing_digest: Severity,
}

/// Checks a facts view; `facts` is `None` when nothing lies under the reference. `stores` opens the worlds
/// the facts point at.
pub fn check_facts(
    facts: Option<&[u8]>,
    contract: &ContractFiles,
    check: &FactsCheck<'_>,
    stores: &ObjectStores,
) -> Result<CheckReport, CheckError> {
    let mut report = CheckReport::default();
    report.detail("run_facts_ref", json!(check.run_facts_ref));
    let Some(facts) = read_facts(facts, &mut report) else {
        return Ok(report);
    };
    check_gates(&facts, contract, &mut report)?;
    let mut pack_roots = BTreeSet::new();
    let (mut missing, mut missing_digest) = (Vec::new(), Vec::new());
    for locator in &facts.locators {
        let pack_root = pack_root(locator, &facts, check.oracle_root);
        if locator.content_digest.is_none() {
            missing_digest.push(locator.output_id.clone());
        }
        let found = match &pack_root {
            Some(root) => exists(stores, root, &locator.path)?,
            None => false,
        };
        if !found {
            missing.push(locator.output_id.clone());
        }
        pack_roots.extend(pack_root);
    }
    for root in &pack_roots {
        check_seal(&seal_of(stores, root)?, check.seal_rule, &mut report);
    }
    for output_id in &missing_digest {
        let detail = Some(output_id.clone());
        report.add("DIGEST_MISSING", check.missing_digest, detail);
    }
    for output_id in &missing {
        report.error("LOCATOR_MISSING", output_id);
    }
    report.detail("locators_total", json!(facts.locators.len()));
    report.detail("locators_missing", json!(missing));
    report.detail("locators_missing_digest", json!(missing_digest));
    report.detail("pack_roots", json!(pack_roots));
    Ok(report)
}

fn read_facts(facts: Option<&[u8]>, report: &mut CheckReport) -> Option<RunFactsView> {
    let parsed = facts.map(serde_json::from_slice::<Value>);
    match parsed {
        None => report.error("RUN_FACTS_UNREADABLE", "nothing lies under the reference"),
        Some(Err(error)) => report.error("RUN_FACTS_UNREADABLE", error.to_string()),
        Some(Ok(value)) => match RunFactsView::from_value(value) {
            Ok(facts) => return Some(facts),
            Err(error) => report.error("RUN_FACTS_INVALID", error.to_string()),
        },
    }
    None
}

fn check_gates(
    facts: &RunFactsView,
    contract: &ContractFiles,
    report: &mut CheckReport,
) -> Result<(), CheckError> {
    match unproven_outputs(facts, &contract.catalogue) {
        Ok(unproven) if unproven.is_empty() => {}
        Ok(unproven) => report.error("GATE_PASS_MISSING", to_sj(&unproven)?),
        Err(error) => report.error(error.code(), error.to_string()),
    }
    Ok(())
}

/// The root the locator's pack lies at: the one the facts name, when the locator is below it, else by the
/// locator's path alone.
fn pack_root(
    locator: &EngineOutputLocator,
    facts: &RunFactsView,
    oracle_root: &str,
) -> Option<String> {
    let pack = facts.oracle_pack_ref.as_ref();
    let named = pack
        .and_then(|pack| pack.engine_run_root.as_deref())
        .map(|root| root.trim_end_matches('/'))
        .filter(|root| locator.path.starts_with(&format!("{root}/")));
    match named {
        Some(root) => Some(root.to_owned()),
        None => pack_root_of(&locator.path, oracle_root),
    }
}

fn exists(stores: &ObjectStores, pack_root: &str, path: &str) -> Result<bool, StoreError> {
    let below = path
        .strip_prefix(pack_root)
        .unwrap_or_default()
        .trim_start_matches('/');
    if below.is_empty() {
        return match stores.open_existing(path) {
            Ok(_) => Ok(true),
            // The path of a locator may also be a file of its own.
            Err(OpenStoreError::NotFound { .. }) => Ok(Path::new(path).exists()),
            Err(error) => Err(error.into_store_error(path)),
        };
    }
    Ok(!matched_files(store(stores, pack_root)?.as_ref(), below)?.is_empty())
}

fn seal_of(stores: &ObjectStores, pack_root: &str) -> Result<SealState, StoreError> {
    read_seal(store(stores, pack_root)?.as_ref())
}

fn store(stores: &ObjectStores, pack_root: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let opened = stores.open(pack_root);
    opened.map_err(|error| error.into_store_error(pack_root))
}

#[cfg(test)]
#[path = "facts_check_tests.rs"]
mod tests;
