//! The world and the configuration, as the preflight asks about them (contract 6.4).

use std::sync::Arc;

use serde_json::Value;
use wellspring_domain::ports::ObjectStore;
use wellspring_domain::stream::output_plan::{OutputRole, SelectionInputs};
use wellspring_domain::stream::preflight::PreflightInputs;
use wellspring_domain::world::catalogue::{OutputEntry, WorldTokens};
use wellspring_domain::world::pack::PackManifest;
use wellspring_domain::world::seal::SealState;
use wellspring_domain::world::world_key::{RunReceipt, RunReceiptError};

use super::gate_proofs::GateProofs;
use crate::settings::Settings;
use crate::world_files::contract_files::ContractFiles;
use crate::world_files::pack_files::{read_pack_manifest, read_run_receipt, read_seal};
use crate::world_files::world_root::{ScenarioDiscovery, discover_scenario};

/// One world under one configuration.
pub struct WorldInputs<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// Catalogue and gate map.
    pub contracts: &'a ContractFiles,
    /// Proven gates.
    pub proofs: &'a GateProofs,
    /// The engine run root as text.
    pub engine_run_root: String,
    /// The world, when its root can be opened.
    pub world: Option<Arc<dyn ObjectStore>>,
}

impl SelectionInputs for WorldInputs<'_> {
    fn offered_role(&self, output_id: &str) -> Option<OutputRole> {
        let entry = self.contracts.catalogue.output(output_id).ok()?;
        Some(OutputRole::of_exposure(&entry.exposure))
    }

    fn list_file(&self, reference: &str) -> Result<Value, String> {
        self.settings
            .load_ref_value(reference)
            .map_err(|error| error.to_string())
    }
}

impl PreflightInputs for WorldInputs<'_> {
    fn run_receipt(&self) -> Result<RunReceipt, RunReceiptError> {
        match &self.world {
            Some(world) => read_run_receipt(world.as_ref()),
            None => Err(RunReceiptError::Unreadable {
                reason: format!("there is no world at {}", self.engine_run_root),
            }),
        }
    }

    fn only_scenario(&self) -> Option<String> {
        match discover_scenario(self.world.as_deref()?) {
            Ok(ScenarioDiscovery::One(scenario_id)) => Some(scenario_id),
            Ok(ScenarioDiscovery::Missing | ScenarioDiscovery::Ambiguous(_)) | Err(_) => None,
        }
    }

    fn pack_manifest(&self) -> Result<Option<PackManifest>, String> {
        match &self.world {
            Some(world) => read_pack_manifest(world.as_ref()).map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }

    fn seal(&self) -> Result<SealState, String> {
        match &self.world {
            Some(world) => read_seal(world.as_ref()).map_err(|error| error.to_string()),
            None => Ok(SealState::Absent),
        }
    }

    fn output(&self, output_id: &str) -> Option<OutputEntry> {
        self.contracts.catalogue.output(output_id).ok().cloned()
    }

    fn unproven_gate(&self, gate_ids: &[String], tokens: &WorldTokens) -> Option<String> {
        let Some(world) = &self.world else {
            return Some(format!("there is no world at {}", self.engine_run_root));
        };
        let (root, gate_map) = (&self.engine_run_root, &self.contracts.gate_map);
        self.proofs
            .first_unproven(world.as_ref(), root, gate_map, gate_ids, tokens)
    }

    fn allowlist(&self, reference: &str) -> Result<String, String> {
        let loaded = self.settings.load_ref_text(reference);
        loaded
            .map(|loaded| loaded.text)
            .map_err(|error| error.to_string())
    }
}
