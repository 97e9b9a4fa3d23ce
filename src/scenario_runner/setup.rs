//! A Scenario Runner from the settings in force (contract 9.2, 9.3).
//!
//! The profile says where runs lie and which world is meant; the Scenario Runner's own wiring and
//! policy files say the rest. A wiring file that asks for a managed substrate is refused by name.

use std::sync::Arc;

use serde_json::Value;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::scenario::document::{Document, DocumentError};
use wellspring_domain::scenario::settings::{ScenarioPolicy, ScenarioWiring};

use super::config::{AuthorityError, ScenarioRunnerConfig, ScenarioRunnerSetup};
use super::runner::ScenarioRunner;
use crate::control_bus::ControlBusPlace;
use crate::object_store::ObjectStores;
use crate::object_store::s3::S3Options;
use crate::settings::Settings;
use crate::settings::placeholders::{self, PlaceholderError};
use crate::settings::problem::SettingsError;
use crate::settings::run_scope::run_scoped;
use crate::world_files::contract_files::{ContractFileError, ContractFiles};

/// Files named by the caller instead of by the profile.
#[derive(Clone, Debug, Default)]
pub struct SetupFiles {
    /// The wiring file.
    pub wiring: Option<String>,
    /// The policy file.
    pub policy: Option<String>,
}

/// Why no Scenario Runner could be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file is not there or not YAML.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A placeholder has no value.
    #[error("{file}: {cause}")]
    Placeholder {
        /// The file.
        file: String,
        /// What is missing.
        cause: PlaceholderError,
    },
    /// A file has another shape than it must.
    #[error("{file}: {cause}")]
    Shape {
        /// The file.
        file: String,
        /// What is wrong.
        cause: String,
    },
    /// The policy breaks a rule.
    #[error(transparent)]
    Policy(#[from] DocumentError),
    /// The wiring asks for something this substrate does not have.
    #[error("scenario wiring asks for {key} {value}, which the embedded substrate does not have")]
    Unsupported {
        /// The wiring key.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// Catalogue or gate map.
    #[error(transparent)]
    ContractFiles(#[from] ContractFileError),
    /// Equivalence and leases.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl SetupError {
    /// The stable reason code.
    pub fn code(&self) -> &str {
        match self {
            SetupError::Settings(error) => error.code(),
            SetupError::Placeholder { .. } => "CONFIG_PLACEHOLDER_UNSET",
            SetupError::Shape { .. } | SetupError::Policy(_) => "SCENARIO_CONFIG_INVALID",
            SetupError::Unsupported { .. } => "SCENARIO_WIRING_UNSUPPORTED",
            SetupError::ContractFiles(error) => error.code(),
            SetupError::Authority(error) => error.code(),
        }
    }
}

impl ScenarioRunner {
    /// The Scenario Runner of one platform run, on folders, as the settings say.
    pub fn from_settings(
        settings: &Settings,
        run_id: &PlatformRunId,
        files: &SetupFiles,
    ) -> Result<ScenarioRunner, SetupError> {
        settings.require_backends()?;
        let policy = load_policy(settings, files)?;
        let mut wiring = load_wiring(settings, files)?;
        let paths = settings.local_paths(run_id);
        let control_bus_root = match &files.wiring {
            Some(_) => run_scoped(wiring.control_bus_root.as_deref(), "control_bus", &paths),
            None => settings.control_bus_root(&paths),
        };
        wiring.control_bus_root = Some(control_bus_root);
        let control_bus = control_bus_place(settings, &wiring)?;
        let mut provenance =
            settings.provenance("SCENARIO_RUNNER", Some(policy.content_digest.clone()));
        provenance.environment = wiring.profile_id.clone();
        Ok(ScenarioRunner::new(ScenarioRunnerConfig::open(
            ScenarioRunnerSetup {
                runs_root: runs_root(settings, &wiring, files),
                local_root: settings.local_root().to_owned(),
                stores: stores(settings, &wiring),
                control_bus,
                platform_run_id: run_id.clone(),
                contract_files: Arc::new(load_contract_files(settings, &wiring)?),
                policy,
                wiring,
                provenance,
            },
        )?))
    }
}

fn load_policy(settings: &Settings, files: &SetupFiles) -> Result<ScenarioPolicy, SetupError> {
    let file = files
        .policy
        .as_deref()
        .unwrap_or(&settings.policy.scenario_policy_ref);
    let value = load_resolved(settings, file)?;
    Ok(ScenarioPolicy::from_value(value)?)
}

fn load_wiring(settings: &Settings, files: &SetupFiles) -> Result<ScenarioWiring, SetupError> {
    let file = files
        .wiring
        .as_deref()
        .unwrap_or(&settings.wiring.scenario_wiring_ref);
    let value = load_resolved(settings, file)?;
    let wiring: ScenarioWiring =
        serde_json::from_value(value).map_err(|error| SetupError::Shape {
            file: file.to_owned(),
            cause: error.to_string(),
        })?;
    Ok(with_profile(wiring, settings, files.wiring.is_some()))
}

/// The profile fills what the wiring leaves open. Strictness is never lost by a wiring file.
fn with_profile(wiring: ScenarioWiring, settings: &Settings, explicit: bool) -> ScenarioWiring {
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let profile = &settings.wiring;
    let profile_id = match explicit && !settings.strict_seal() {
        true => wiring.profile_id,
        false => settings.profile_id.clone(),
    };
    let control_bus_topic = match explicit {
        true => wiring.control_bus_topic,
        false => profile.control_bus.topic.clone(),
    };
    ScenarioWiring {
        profile_id,
        control_bus_topic,
        oracle_root: given(wiring.oracle_root).or_else(|| Some(profile.oracle_root.clone())),
        oracle_engine_run_root: given(wiring.oracle_engine_run_root)
            .or_else(|| profile.oracle_engine_run_root.clone()),
        oracle_scenario_id: given(wiring.oracle_scenario_id)
            .or_else(|| profile.oracle_scenario_id.clone()),
        oracle_stream_view_root: given(wiring.oracle_stream_view_root)
            .or_else(|| profile.oracle_stream_view_root.clone()),
        ..wiring
    }
}

/// Where READY is published (contract 9.3). The folder is resolved by now.
fn control_bus_place(
    settings: &Settings,
    wiring: &ScenarioWiring,
) -> Result<ControlBusPlace, SetupError> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let unsupported = |key, value: &str| SetupError::Unsupported {
        key,
        value: value.to_owned(),
    };
    match wiring.control_bus_kind.as_str() {
        "file" => {
            let root = wiring.control_bus_root.clone();
            Ok(ControlBusPlace::Folder(root.unwrap_or_default()))
        }
        "kinesis" => {
            let stream = said(&wiring.control_bus_stream)
                .ok_or_else(|| unsupported("control_bus_stream", "nothing"))?;
            let (region, endpoint) = (
                said(&wiring.control_bus_region),
                said(&wiring.control_bus_endpoint_url),
            );
            let kinesis = &settings.wiring.kinesis;
            Ok(ControlBusPlace::Stream {
                stream,
                wiring: kinesis.wiring(region.as_deref(), endpoint.as_deref()),
            })
        }
        other => Err(unsupported("control_bus_kind", other)),
    }
}

/// The bucket of a wiring file that was given by name; else the profile's root, whatever its wiring file
/// says: the platform's runs lie in one place.
fn runs_root(settings: &Settings, wiring: &ScenarioWiring, files: &SetupFiles) -> String {
    let given = wiring.object_store_root.as_ref();
    let bucket = given.filter(|root| files.wiring.is_some() && root.starts_with("s3://"));
    bucket
        .map_or(settings.runs_root(), String::as_str)
        .to_owned()
}

/// Stores as the profile reaches them, with what the wiring file says of S3 (contract 9.3).
fn stores(settings: &Settings, wiring: &ScenarioWiring) -> ObjectStores {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let (endpoint, region) = (said(&wiring.s3_endpoint_url), said(&wiring.s3_region));
    if endpoint.is_none() && region.is_none() && wiring.s3_path_style.is_none() {
        return settings.object_stores();
    }
    let profile = settings.wiring.objects.s3.clone();
    ObjectStores::with_s3(S3Options {
        endpoint: endpoint.or(profile.endpoint),
        region: region.or(profile.region),
        path_style: wiring.s3_path_style.or(profile.path_style),
        ..profile
    })
}

fn load_contract_files(
    settings: &Settings,
    wiring: &ScenarioWiring,
) -> Result<ContractFiles, SetupError> {
    let text = |own: &Option<String>, profile: &str| {
        let file = own
            .as_deref()
            .filter(|file| !file.is_empty())
            .unwrap_or(profile);
        settings.load_ref_text(file).map(|loaded| loaded.text)
    };
    let catalogue = text(
        &wiring.engine_catalogue_path,
        &settings.wiring.engine_catalogue_path,
    )?;
    let gate_map = text(&wiring.gate_map_path, &settings.wiring.gate_map_path)?;
    Ok(ContractFiles::parse(
        catalogue.as_bytes(),
        gate_map.as_bytes(),
    )?)
}

/// A YAML file with the placeholders in its strings replaced.
fn load_resolved(settings: &Settings, file: &str) -> Result<Value, SetupError> {
    let mut value = settings.load_ref_value(file)?;
    resolve_strings(&mut value, settings).map_err(|cause| SetupError::Placeholder {
        file: file.to_owned(),
        cause,
    })?;
    Ok(value)
}

fn resolve_strings(value: &mut Value, settings: &Settings) -> Result<(), PlaceholderError> {
    match value {
        Value::String(text) => {
            let lookup = |name: &str| settings.variable(name).map(str::to_owned);
            *text = placeholders::resolve(text, &lookup)?.text;
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| resolve_strings(item, settings)),
        Value::Object(members) => members
            .values_mut()
            .try_for_each(|member| resolve_strings(member, settings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ProfileSource;
    use crate::settings::layers::Layers;

    fn settings(profile: &str, variables: &[(&str, &str)]) -> Settings {
        let layers = Layers::of(variables.iter().copied());
        Settings::load(&ProfileSource::find(profile).unwrap(), &layers).unwrap()
    }

    #[test]
    fn the_shipped_files_make_a_wiring_and_a_policy_with_nothing_set() {
        let settings = settings("local", &[]);
        let files = SetupFiles::default();
        let policy = load_policy(&settings, &files).unwrap();
        assert_eq!(policy.policy_id, "sr_policy");
        assert_eq!(policy.default_outputs().len(), 6);
        let wiring = load_wiring(&settings, &files).unwrap();
        assert_eq!(
            (wiring.profile_id.as_str(), wiring.strict_seal()),
            ("local", false)
        );
        assert_eq!(wiring.oracle_engine_run_root, None);
        assert!(load_contract_files(&settings, &wiring).is_ok());
    }

    #[test]
    fn a_variable_pins_the_world() {
        let settings = settings("local", &[("ORACLE_ENGINE_RUN_ROOT", "/worlds/w1")]);
        let wiring = load_wiring(&settings, &SetupFiles::default()).unwrap();
        assert_eq!(wiring.oracle_engine_run_root.as_deref(), Some("/worlds/w1"));
    }

    #[test]
    fn a_managed_wiring_is_read_and_an_unset_variable_is_told_by_its_name() {
        let parity = |variables: &[(&str, &str)]| {
            let files = SetupFiles {
                wiring: Some("config/platform/sr/wiring_local_parity.yaml".to_owned()),
                policy: None,
            };
            load_wiring(&settings("local", variables), &files)
        };
        let unset = parity(&[]).unwrap_err();
        assert_eq!(unset.code(), "CONFIG_PLACEHOLDER_UNSET");
        assert!(
            unset.to_string().contains("ORACLE_ENGINE_RUN_ROOT"),
            "{unset}"
        );
        let mut managed = parity(&[
            ("ORACLE_ENGINE_RUN_ROOT", "/w"),
            ("ORACLE_SCENARIO_ID", "s"),
            ("ORACLE_STREAM_VIEW_ROOT", "/v"),
        ])
        .unwrap();
        let settings = settings("local", &[]);
        let ControlBusPlace::Stream { stream, .. } =
            control_bus_place(&settings, &managed).unwrap()
        else {
            panic!("READY is published on a stream")
        };
        assert_eq!(stream, "sr-control-bus");
        managed.control_bus_kind = "kafka".to_owned();
        let refused = control_bus_place(&settings, &managed).unwrap_err();
        assert_eq!(refused.code(), "SCENARIO_WIRING_UNSUPPORTED");
        assert!(refused.to_string().contains("kafka"), "{refused}");
    }
}
