//! Typed profiles: policy and wiring, placeholders, validation, origin of each value (contract 9).
//!
//! A profile is YAML. Values come from default < profile < environment < flag, each value in force
//! keeps its origin, and everything that is wrong is reported at once. Settings are read once; a
//! running program never looks at the environment again.

pub mod backends;
pub mod findings;
pub mod layers;
pub mod limits;
pub mod managed;
pub mod object_storage;
pub mod placeholders;
pub mod policy;
pub mod problem;
pub mod refs;
pub mod run_scope;
pub mod secret;
pub mod section;
pub mod security;
pub mod shipped;
pub mod wiring;

#[cfg(test)]
mod settings_tests;

use crate::active_run::ActiveRun;
use crate::control_bus::ControlBusPlace;
use crate::object_store::ObjectStores;
use findings::Findings;
use layers::{EffectiveValue, Layers};
use problem::{Problem, SettingsError};
use secret::Secret;
use section::Section;
use serde_json::Value;
use std::path::PathBuf;
use wellspring_domain::provenance::{Provenance, ProvenanceRequest, resolve_provenance};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

pub use policy::PolicySettings;
pub use wiring::WiringSettings;

/// The profiles whose worlds must be sealed (contract 9.2, D10).
const STRICT_SEAL_PROFILES: [&str; 2] = ["dev", "prod"];
/// The profiles on managed backends: what does not resolve is an error, never a folder (W20).
const MANAGED_PROFILES: [&str; 3] = ["local_parity", "dev", "prod"];
/// Sections of planes that read them elsewhere.
const OTHER_PLANES: [&str; 10] = [
    "ieg",
    "ofp",
    "csfb",
    "dl",
    "df",
    "al",
    "dla",
    "ofs",
    "mf",
    "archive_writer",
];

/// A profile, resolved.
#[derive(Clone)]
pub struct Settings {
    /// Stamped as environment; `dev` and `prod` need sealed worlds.
    pub profile_id: String,
    /// What affects outcomes.
    pub policy: PolicySettings,
    /// Endpoints, resources and limits.
    pub wiring: WiringSettings,
    /// The profile's file; the place it would have when it is the embedded copy.
    pub profile_path: PathBuf,
    /// Whether the profile is the copy this program carries.
    pub profile_embedded: bool,
    /// Every value in force, with its origin; secrets masked.
    pub effective: Vec<EffectiveValue>,
    layers: Layers,
    stores: ObjectStores,
    gate_stores: ObjectStores,
}

/// A profile's text and the file it came from.
#[derive(Clone, Debug)]
pub struct ProfileSource {
    /// The file; the place it would have when it is the embedded copy.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Whether the text is the copy this program carries.
    pub embedded: bool,
}

impl ProfileSource {
    /// Finds a profile: a file, or the name of a shipped one (file of this installation first, then
    /// the embedded copy).
    pub fn find(profile: &str) -> Result<Self, SettingsError> {
        let is_name = !profile.contains(['/', '\\', '.']);
        let path = match is_name {
            true => PathBuf::from(format!("config/platform/profiles/{profile}.yaml")),
            false => PathBuf::from(profile),
        };
        let problem =
            |sentence: String| SettingsError::one(Problem::new("PROFILE_UNREADABLE", "", sentence));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(ProfileSource {
                path,
                text,
                embedded: false,
            }),
            Err(error) if is_name && error.kind() == std::io::ErrorKind::NotFound => {
                let name = path.to_string_lossy().into_owned();
                let text = shipped::text_of(&name).ok_or_else(|| {
                    problem(format!("no profile is named {profile:?} (no file {name})"))
                })?;
                Ok(ProfileSource {
                    path,
                    text: text.to_string(),
                    embedded: true,
                })
            }
            Err(error) => Err(problem(format!("cannot read {}: {error}", path.display()))),
        }
    }
}

impl Settings {
    /// Reads and checks a profile. All problems are reported at once.
    pub fn load(source: &ProfileSource, layers: &Layers) -> Result<Settings, SettingsError> {
        let (settings, problems) = Settings::read(source, layers)?;
        SettingsError::check(problems)?;
        Ok(settings)
    }

    /// Reads a profile and gives the settings with whatever is wrong, for `config check`. Only a
    /// file that is no YAML has no settings at all.
    pub fn read(
        source: &ProfileSource,
        layers: &Layers,
    ) -> Result<(Settings, Vec<Problem>), SettingsError> {
        let mut root = refs::yaml_value(&source.text, &source.path.to_string_lossy())
            .and_then(|value| match value {
                Value::Object(map) => Ok(map),
                _ => Err("a profile must be a set of keys".to_string()),
            })
            .map_err(|sentence| {
                SettingsError::one(Problem::new("PROFILE_INVALID", "", sentence))
            })?;
        let findings = Findings::new(layers);
        let profile_id = match root.shift_remove("profile_id") {
            Some(Value::String(id)) if !id.trim().is_empty() => id,
            _ => {
                findings.problem("PROFILE_INVALID", "profile_id", "must name the profile");
                "unknown".to_string()
            }
        };
        let managed = MANAGED_PROFILES.contains(&profile_id.as_str());
        let policy = PolicySettings::read(
            findings.root_section("policy", root.shift_remove("policy")),
            &profile_id,
        );
        let wiring = WiringSettings::read(
            findings.root_section("wiring", root.shift_remove("wiring")),
            layers,
            managed,
        );
        for (name, value) in root {
            // A section of another plane passes; a lone value is a typing mistake.
            if !matches!(value, Value::Object(_) | Value::Array(_)) {
                findings.problem("CONFIG_KEY_UNKNOWN", &name, "this key does not exist here");
            }
        }
        let collected = findings.finish();
        let settings = Settings {
            stores: ObjectStores::with_s3(wiring.objects.s3.clone()),
            gate_stores: ObjectStores::with_s3(wiring.objects.gate_s3.clone()),
            profile_id,
            policy,
            wiring,
            profile_path: source.path.clone(),
            profile_embedded: source.embedded,
            effective: collected.effective,
            layers: layers.clone(),
        };
        Ok((settings, collected.problems))
    }

    /// Where the profile was found, for people.
    pub fn profile_shown(&self) -> String {
        let path = self.profile_path.display();
        if self.profile_embedded {
            format!("{path} (embedded)")
        } else {
            path.to_string()
        }
    }

    /// Whether worlds must be packed and sealed (D10).
    pub fn strict_seal(&self) -> bool {
        STRICT_SEAL_PROFILES.contains(&self.profile_id.as_str())
    }

    /// The runs root: everything of every run lies below it (W32).
    pub fn runs_root(&self) -> &str {
        self.wiring.objects.store.root()
    }

    /// The folder of what never leaves this machine: the active run, logs, spill files. It is the runs
    /// root when that is a folder.
    pub fn local_root(&self) -> &str {
        &self.wiring.local_root
    }

    /// Where a run keeps what never leaves this machine.
    pub fn local_paths(&self, run: &PlatformRunId) -> RunPaths {
        RunPaths::new(self.local_root(), run)
    }

    /// Where a run keeps its objects.
    pub fn run_paths(&self, run: &PlatformRunId) -> RunPaths {
        RunPaths::new(self.runs_root(), run)
    }

    /// Which run is active on this machine.
    pub fn active_run(&self) -> ActiveRun<'_> {
        ActiveRun::new(self.local_root(), self.variable("PLATFORM_RUN_ID"))
    }

    /// Opens folders and buckets, as the profile and the environment say.
    pub fn object_stores(&self) -> ObjectStores {
        self.stores.clone()
    }

    /// The same with the gate's own patience: a sender waits behind it.
    pub fn gate_object_stores(&self) -> ObjectStores {
        self.gate_stores.clone()
    }

    /// An environment variable as it was when the settings were read; blank counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.layers.variable(name)
    }

    /// The provenance block of a component (contract 1.5).
    pub fn provenance(&self, component: &str, run_config_digest: Option<String>) -> Provenance {
        let request = ProvenanceRequest {
            component: component.to_string(),
            environment: Some(self.profile_id.clone()),
            run_config_digest,
            ..ProvenanceRequest::default()
        };
        resolve_provenance(&request, |name| {
            self.layers.variable(name).map(str::to_string)
        })
    }

    /// What the gate's durable state lies on. Bus and admission belong together: either both are
    /// embedded, or both are managed.
    pub fn gate_backend(&self) -> Result<GateBackend<'_>, SettingsError> {
        use backends::{AdmissionSettings, BusKind};
        let refused = |key: &str, sentence: &str| {
            let problem = Problem::new("BACKEND_NOT_AVAILABLE", key, sentence.to_owned());
            Err(SettingsError::check(vec![problem]).expect_err("one problem is a problem"))
        };
        match (self.wiring.event_bus.kind, &self.wiring.admission) {
            (BusKind::File, AdmissionSettings::Embedded { .. })
                if self.wiring.objects.store.is_s3() =>
            {
                refused(
                    "wiring.object_store.root",
                    "an embedded bus keeps its decisions beside its objects: use a folder, or kinesis",
                )
            }
            (BusKind::File, AdmissionSettings::Embedded { .. }) => Ok(GateBackend::Embedded),
            (BusKind::Kinesis, AdmissionSettings::Postgres { dsn }) => {
                Ok(GateBackend::Managed { dsn })
            }
            (BusKind::Kafka, _) => refused(
                "wiring.event_bus_kind",
                "there is no adapter for kafka; use file or kinesis",
            ),
            (BusKind::Kinesis, AdmissionSettings::Embedded { .. }) => refused(
                "wiring.admission_db_path",
                "a bus on kinesis needs its claims in PostgreSQL: give a postgresql:// DSN",
            ),
            (BusKind::File, AdmissionSettings::Postgres { .. }) => refused(
                "wiring.event_bus_kind",
                "claims in PostgreSQL need the bus on kinesis; an embedded bus keeps its own",
            ),
        }
    }

    /// The database in which nodes agree on who does what: that of the checkpoints, else of admission.
    /// `None` when every backend is this machine's own.
    pub fn coordination_dsn(&self) -> Option<&Secret> {
        use backends::{AdmissionSettings, CheckpointBackend};
        let checkpoint = &self.wiring.wsp_checkpoint;
        let checkpoints = checkpoint.dsn.as_ref();
        checkpoints
            .filter(|_| checkpoint.backend == CheckpointBackend::Postgres)
            .or(match &self.wiring.admission {
                AdmissionSettings::Postgres { dsn } => Some(dsn),
                AdmissionSettings::Embedded { .. } => None,
            })
    }

    /// Where the control bus is, for a run whose folders are at `paths`.
    pub fn control_bus_place(&self, paths: &RunPaths) -> ControlBusPlace {
        let bus = &self.wiring.control_bus;
        match (bus.kind, &bus.stream) {
            (backends::BusKind::Kinesis, Some(stream)) => ControlBusPlace::Stream {
                stream: stream.clone(),
                wiring: self
                    .wiring
                    .kinesis
                    .wiring(bus.region.as_deref(), bus.endpoint_url.as_deref()),
            },
            _ => ControlBusPlace::Folder(self.control_bus_root(paths)),
        }
    }

    /// Refuses backends this program has no adapter for, each by its key.
    pub fn require_backends(&self) -> Result<(), SettingsError> {
        self.gate_backend()?;
        match self.wiring.control_bus.kind {
            backends::BusKind::Kafka => SettingsError::check(vec![Problem::new(
                "BACKEND_NOT_AVAILABLE",
                "wiring.control_bus.kind",
                "there is no adapter for kafka; use file or kinesis",
            )]),
            _ => Ok(()),
        }
    }
}

/// What the gate's durable state lies on.
#[derive(Clone, Copy, Debug)]
pub enum GateBackend<'a> {
    /// Folders of this machine.
    Embedded,
    /// Kinesis, PostgreSQL and the object store.
    Managed {
        /// The database.
        dsn: &'a Secret,
    },
}

/// Keys of the pull model are refused by their own code (contract 9.2).
fn reject_pull_keys(section: &mut Section<'_, '_>, rejected: impl Fn(&str) -> bool) {
    for name in section.names().iter().filter(|name| rejected(name)) {
        let sentence = "the gate is push only; remove this key";
        section.problem("PULL_WIRING_DEPRECATED", name, sentence);
    }
    section.skip(rejected);
}

/// Lets the sections of other planes pass.
fn skip_other_planes(section: &mut Section<'_, '_>) {
    section.skip(|name| OTHER_PLANES.contains(&name) || name.starts_with("case_"));
}
