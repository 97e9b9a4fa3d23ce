//! Configuration files this program carries, so that it runs without an installation folder.

macro_rules! shipped_files {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))),+]
    };
}

/// Every file under `config/`, by its path. A test compares the list with the folder.
const SHIPPED: &[(&str, &str)] = shipped_files![
    "config/platform/ig/class_map_v0.yaml",
    "config/platform/ig/ingest_api_keys_local_parity_v0.txt",
    "config/platform/ig/partitioning_profiles_v0.yaml",
    "config/platform/ig/payload_schemas/action_intent.schema.json",
    "config/platform/ig/payload_schemas/action_outcome.schema.json",
    "config/platform/ig/payload_schemas/arrival_events_5B.schema.json",
    "config/platform/ig/payload_schemas/case_trigger.schema.json",
    "config/platform/ig/payload_schemas/decision_response.schema.json",
    "config/platform/ig/payload_schemas/ig.audit.verify.schema.json",
    "config/platform/ig/payload_schemas/ig.policy.activation.schema.json",
    "config/platform/ig/payload_schemas/ig.pull.run.schema.json",
    "config/platform/ig/payload_schemas/ig.quarantine.spike.schema.json",
    "config/platform/ig/payload_schemas/s1_arrival_entities_6B.schema.json",
    "config/platform/ig/payload_schemas/s1_session_index_6B.schema.json",
    "config/platform/ig/payload_schemas/s2_event_stream_baseline_6B.schema.json",
    "config/platform/ig/payload_schemas/s2_flow_anchor_baseline_6B.schema.json",
    "config/platform/ig/payload_schemas/s3_event_stream_with_fraud_6B.schema.json",
    "config/platform/ig/payload_schemas/s3_flow_anchor_with_fraud_6B.schema.json",
    "config/platform/ig/payload_schemas/s4_case_timeline_6B.schema.json",
    "config/platform/ig/payload_schemas/s4_event_labels_6B.schema.json",
    "config/platform/ig/payload_schemas/s4_flow_bank_view_6B.schema.json",
    "config/platform/ig/payload_schemas/s4_flow_truth_labels_6B.schema.json",
    "config/platform/ig/schema_policy_v0.yaml",
    "config/platform/oracle/gate_map_v0.yaml",
    "config/platform/oracle/outputs_catalogue_v0.yaml",
    "config/platform/profiles/dev.yaml",
    "config/platform/profiles/local.yaml",
    "config/platform/profiles/local_parity.yaml",
    "config/platform/profiles/prod.yaml",
    "config/platform/sr/policy_v0.yaml",
    "config/platform/sr/wiring_aws.yaml",
    "config/platform/sr/wiring_local.yaml",
    "config/platform/sr/wiring_local_kinesis.yaml",
    "config/platform/sr/wiring_local_parity.yaml",
    "config/platform/wsp/context_baseline_outputs_v0.yaml",
    "config/platform/wsp/context_fraud_outputs_v0.yaml",
    "config/platform/wsp/context_truth_outputs_v0.yaml",
    "config/platform/wsp/producer_allowlist_v0.txt",
    "config/platform/wsp/traffic_outputs_baseline_v0.yaml",
    "config/platform/wsp/traffic_outputs_dual_v0.yaml",
    "config/platform/wsp/traffic_outputs_v0.yaml",
];

/// The text of a shipped file.
pub fn text_of(path: &str) -> Option<&'static str> {
    SHIPPED
        .iter()
        .find(|(name, _)| *name == path)
        .map(|(_, text)| *text)
}

/// The shipped file a reference means: its path, with or without folders before `config/`.
pub fn name_of(reference: &str) -> Option<&'static str> {
    let path = match reference.rfind("config/platform/") {
        Some(start) => &reference[start..],
        None => reference,
    };
    SHIPPED
        .iter()
        .map(|(name, _)| *name)
        .find(|name| *name == path)
}

/// The paths of all shipped files.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files_below(&path, into),
                false => into.push(path),
            }
        }
    }

    #[test]
    fn every_file_under_config_is_shipped() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        files_below(&root.join("config"), &mut files);
        for file in files {
            let name = file.strip_prefix(root).unwrap().to_str().unwrap();
            assert!(text_of(name).is_some(), "{name} is missing in SHIPPED");
        }
    }

    #[test]
    fn a_reference_from_another_folder_finds_the_shipped_file() {
        let name = "config/platform/ig/class_map_v0.yaml";
        assert_eq!(name_of(name), Some(name));
        assert_eq!(name_of(&format!("/somewhere/else/{name}")), Some(name));
        assert_eq!(name_of("class_map_v0.yaml"), None);
    }
}
