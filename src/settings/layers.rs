//! Where a value comes from: default < profile < environment < flag.

use super::placeholders::Lookup;
use std::collections::BTreeMap;
use std::fmt;

/// Where the value in force comes from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "from", content = "name")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The profile file; with the variables its placeholders took.
    Profile(Vec<String>),
    /// An environment variable.
    Environment(String),
    /// `--set KEY=VALUE`, or a flag of its own.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::Profile(variables) if variables.is_empty() => write!(f, "profile"),
            Origin::Profile(variables) => write!(f, "profile, ${}", variables.join(", $")),
            Origin::Environment(variable) => write!(f, "environment, ${variable}"),
            Origin::Flag => write!(f, "flag"),
        }
    }
}

/// One value in force, for `config show`. Secrets are masked before they get here.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EffectiveValue {
    /// The key path.
    pub key: String,
    /// The value as shown; `null` when there is none.
    pub value: serde_json::Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// The environment and the flags, as one snapshot: settings are read once and never change.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    environment: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    folder: Option<String>,
}

impl Layers {
    /// The environment of this process, without flags.
    pub fn of_process() -> Self {
        // Values that are not UTF-8 cannot be settings of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Layers {
            environment,
            ..Layers::default()
        }
    }

    /// A given environment, for tests.
    pub fn of<K: Into<String>, V: Into<String>>(
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let environment = environment
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Layers {
            environment,
            ..Layers::default()
        }
    }

    /// Adds a flag for a key path; the last one counts.
    pub fn set_flag(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.flags.insert(key.into(), value.into());
    }

    /// Puts what this machine keeps of runs into a folder (`--root`). It replaces the object store's root
    /// when that is a folder, and never a bucket.
    pub fn set_folder(&mut self, folder: impl Into<String>) {
        self.folder = Some(folder.into());
    }

    /// The folder of `--root`.
    pub fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }

    /// The flag for a key path.
    pub fn flag(&self, key: &str) -> Option<&str> {
        self.flags.get(key).map(String::as_str)
    }

    /// Key paths that flags were given for.
    pub fn flag_keys(&self) -> impl Iterator<Item = &str> {
        self.flags.keys().map(String::as_str)
    }

    /// An environment variable; blank counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// The lookup for placeholders.
    pub fn with_lookup<T>(&self, then: impl FnOnce(Lookup<'_>) -> T) -> T {
        then(&|name: &str| self.environment.get(name).cloned())
    }
}

/// The variable that overrides a key path: `wiring.gate.x_ms` is `WELLSPRING_WIRING_GATE_X_MS`.
pub fn variable_of_key(key: &str) -> String {
    let upper = key.to_ascii_uppercase();
    format!("WELLSPRING_{}", upper.replace('.', "_"))
}
