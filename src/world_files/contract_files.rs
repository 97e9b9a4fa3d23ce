//! The two files that say how a world is read: output catalogue and gate map, with their digests
//! (contract 1.2, 3.2, 3.4).

use serde_json::Value;
use wellspring_domain::ids::Hash32;
use wellspring_domain::world::catalogue::{Catalogue, CatalogueError};
use wellspring_domain::world::gates::{GateMap, GateMapError};
use wellspring_domain::world::pack::ContractDigests;

use crate::settings::Settings;
use crate::settings::problem::SettingsError;

/// Why a contract file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContractFileError {
    /// A file cannot be found or read.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The catalogue cannot be used.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The gate map cannot be used.
    #[error(transparent)]
    GateMap(#[from] GateMapError),
}

impl ContractFileError {
    /// The stable reason code.
    pub fn code(&self) -> &str {
        match self {
            ContractFileError::Settings(error) => error.code(),
            ContractFileError::Catalogue(error) => error.code(),
            ContractFileError::GateMap(error) => error.code(),
        }
    }
}

/// How the worlds of one engine are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractFiles {
    /// The outputs.
    pub catalogue: Catalogue,
    /// The gates.
    pub gate_map: GateMap,
    /// Digests of the raw bytes; they are part of a pack's identity.
    pub digests: ContractDigests,
}

impl ContractFiles {
    /// Reads the files the settings name.
    pub fn load(settings: &Settings) -> Result<ContractFiles, ContractFileError> {
        let catalogue = settings.load_ref_text(&settings.wiring.engine_catalogue_path)?;
        let gate_map = settings.load_ref_text(&settings.wiring.gate_map_path)?;
        ContractFiles::parse(catalogue.text.as_bytes(), gate_map.text.as_bytes())
    }

    /// Reads both files from their raw bytes; every gate an output names must be in the map.
    pub fn parse(catalogue: &[u8], gate_map: &[u8]) -> Result<ContractFiles, ContractFileError> {
        let files = ContractFiles {
            digests: ContractDigests {
                catalogue: Hash32::of(catalogue).to_string(),
                gate_map: Hash32::of(gate_map).to_string(),
            },
            catalogue: Catalogue::parse(
                &yaml(catalogue).map_err(|reason| CatalogueError::Invalid { reason })?,
            )?,
            gate_map: GateMap::parse(
                &yaml(gate_map).map_err(|reason| GateMapError::Invalid { reason })?,
            )?,
        };
        let outputs = files.catalogue.outputs().iter();
        let output_ids = outputs.map(|entry| entry.output_id.as_str());
        files
            .gate_map
            .required_gates(&files.catalogue, output_ids)?;
        Ok(files)
    }
}

fn yaml(bytes: &[u8]) -> Result<Value, String> {
    serde_yaml_ng::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const CATALOGUE: &[u8] =
        include_bytes!("../../config/platform/oracle/outputs_catalogue_v0.yaml");
    const GATE_MAP: &[u8] = include_bytes!("../../config/platform/oracle/gate_map_v0.yaml");

    /// The shipped contract files.
    pub(crate) fn shipped() -> ContractFiles {
        ContractFiles::parse(CATALOGUE, GATE_MAP).unwrap()
    }

    #[test]
    fn the_shipped_files_name_every_streamed_output_and_prove_it_by_known_gates() {
        let files = shipped();
        assert_eq!(files.catalogue.outputs().len(), 12);
        let gates = |output_id: &str| {
            files
                .gate_map
                .required_gates(&files.catalogue, [output_id])
                .unwrap()
                .len()
        };
        assert_eq!(gates("arrival_events_5B"), 8);
        assert_eq!(gates("s3_event_stream_with_fraud_6B"), 10);
        for entry in files.catalogue.outputs() {
            assert!(entry.is_instance_scoped(), "{}", entry.output_id);
            let guard = files.gate_map.gate(&entry.read_requires_gates[0]).unwrap();
            assert!(guard.authorizes_outputs.contains(&entry.output_id));
        }
    }

    #[test]
    fn an_event_streams_key_is_in_the_order_event_ids_need() {
        let files = shipped();
        let entry = files
            .catalogue
            .output("s3_event_stream_with_fraud_6B")
            .unwrap();
        assert_eq!(
            entry.primary_key,
            [
                "seed",
                "manifest_fingerprint",
                "scenario_id",
                "flow_id",
                "event_seq"
            ]
        );
    }

    #[test]
    fn an_output_whose_gate_is_not_in_the_map_is_refused() {
        let catalogue = String::from_utf8(CATALOGUE.to_vec()).unwrap();
        let ghost = catalogue.replacen("gate.layer2.5B.validation", "gate.ghost", 1);
        let error = ContractFiles::parse(ghost.as_bytes(), GATE_MAP).unwrap_err();
        assert_eq!(error.code(), "UNKNOWN_GATE_ID");
    }

    #[test]
    fn text_that_is_not_yaml_is_refused_by_the_files_own_code() {
        let catalogue = ContractFiles::parse(b"{", GATE_MAP).unwrap_err();
        assert_eq!(catalogue.code(), "CATALOGUE_INVALID");
        let map = ContractFiles::parse(CATALOGUE, b"{").unwrap_err();
        assert_eq!(map.code(), "GATE_MAP_INVALID");
    }
}
