//! Reads the gate's policy from the files a profile names (contract 7.5, 7.6).

use crate::settings::Settings;
use crate::settings::problem::SettingsError;
use std::collections::BTreeMap;
use wellspring_domain::admission::policy::{AdmissionPolicy, PolicyError, PolicyFiles};
use wellspring_domain::world::catalogue::Catalogue;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyLoadError {
    /// A file cannot be read.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The files do not make a policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The catalogue cannot be read.
    #[error("{path}: {cause}")]
    Catalogue {
        /// Its file.
        path: String,
        /// What is wrong.
        cause: String,
    },
}

impl PolicyLoadError {
    /// The stable reason code.
    pub fn code(&self) -> String {
        match self {
            PolicyLoadError::Settings(error) => error.code().to_string(),
            PolicyLoadError::Policy(error) => error.code().to_string(),
            PolicyLoadError::Catalogue { .. } => "CATALOGUE_INVALID".to_string(),
        }
    }
}

/// Loads and compiles the policy of a profile.
pub fn load_policy(settings: &Settings) -> Result<AdmissionPolicy, PolicyLoadError> {
    let policy = &settings.policy;
    let file = |reference: &str| {
        Ok::<_, SettingsError>((reference.to_owned(), settings.load_ref_value(reference)?))
    };
    let schema_policy = file(&policy.schema_policy_ref)?;
    let mut payload_schemas = BTreeMap::new();
    let entries = schema_policy
        .1
        .get("policies")
        .and_then(|policies| policies.as_array());
    for entry in entries.into_iter().flatten() {
        if let Some(reference) = entry
            .get("payload_schema_ref")
            .and_then(|reference| reference.as_str())
        {
            payload_schemas.insert(reference.to_owned(), settings.load_ref_value(reference)?);
        }
    }
    let files = PolicyFiles {
        revision: policy.policy_rev.clone(),
        class_map: file(&policy.class_map_ref)?,
        partitioning: file(&policy.partitioning_profiles_ref)?,
        schema_policy,
        payload_schemas,
        default_profile_id: policy.partitioning_profile_id.clone(),
        required_gates: required_gates(settings)?,
    };
    Ok(AdmissionPolicy::compile(&files)?)
}

/// Gates by event type: an engine event's type is its output id.
fn required_gates(settings: &Settings) -> Result<BTreeMap<String, Vec<String>>, PolicyLoadError> {
    let path = &settings.wiring.engine_catalogue_path;
    let document = settings.load_ref_value(path)?;
    let catalogue = Catalogue::parse(&document).map_err(|error| PolicyLoadError::Catalogue {
        path: path.clone(),
        cause: error.to_string(),
    })?;
    let gated = catalogue
        .outputs()
        .iter()
        .filter(|entry| !entry.read_requires_gates.is_empty());
    Ok(gated
        .map(|entry| (entry.output_id.clone(), entry.read_requires_gates.clone()))
        .collect())
}
