//! References to other configuration files.
//!
//! A reference is looked up as given (relative to the working directory), then relative to the
//! profile's directory, then relative to the installation the profile belongs to, and last among
//! the files this program carries itself.

use super::problem::{Problem, SettingsError};
use super::{Settings, shipped};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where a reference leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedRef {
    /// A file.
    File(PathBuf),
    /// A file this program carries.
    Shipped(&'static str),
}

/// The text behind a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefText {
    /// Where it was found.
    pub found: ResolvedRef,
    /// The text.
    pub text: String,
}

impl ResolvedRef {
    /// The place, for people.
    pub fn shown(&self) -> String {
        match self {
            ResolvedRef::File(path) => path.display().to_string(),
            ResolvedRef::Shipped(name) => format!("{name} (embedded)"),
        }
    }
}

impl Settings {
    /// Finds a referenced file. An `s3://` reference is refused by name.
    pub fn resolve_ref(&self, reference: &str) -> Result<ResolvedRef, SettingsError> {
        let problem =
            |code: &str, sentence: String| SettingsError::one(Problem::new(code, "", sentence));
        if reference.contains("://") {
            let sentence = format!("{reference} is not a file; references must be files");
            return Err(problem("CONFIG_REF_UNSUPPORTED", sentence));
        }
        let candidates = self.candidates(reference);
        if let Some(path) = candidates.iter().find(|path| path.is_file()) {
            return Ok(ResolvedRef::File(path.clone()));
        }
        match shipped::name_of(reference) {
            Some(name) => Ok(ResolvedRef::Shipped(name)),
            None => {
                let sentence = format!("no file {reference}, also not beside the profile");
                Err(problem("CONFIG_REF_MISSING", sentence))
            }
        }
    }

    /// The text of a referenced file.
    pub fn load_ref_text(&self, reference: &str) -> Result<RefText, SettingsError> {
        let found = self.resolve_ref(reference)?;
        let text = match &found {
            ResolvedRef::Shipped(name) => shipped::text_of(name).unwrap_or_default().to_string(),
            ResolvedRef::File(path) => std::fs::read_to_string(path).map_err(|error| {
                let sentence = format!("cannot read {}: {error}", path.display());
                SettingsError::one(Problem::new("CONFIG_REF_UNREADABLE", "", sentence))
            })?,
        };
        Ok(RefText { found, text })
    }

    /// A referenced YAML or JSON file as a value.
    pub fn load_ref_value(&self, reference: &str) -> Result<Value, SettingsError> {
        let loaded = self.load_ref_text(reference)?;
        yaml_value(&loaded.text, &loaded.found.shown()).map_err(|sentence| {
            SettingsError::one(Problem::new("CONFIG_REF_INVALID", "", sentence))
        })
    }

    fn candidates(&self, reference: &str) -> Vec<PathBuf> {
        let mut candidates = vec![PathBuf::from(reference)];
        let profile_dir = self.profile_path.parent().unwrap_or(Path::new(""));
        candidates.push(profile_dir.join(reference));
        if let Some(root) = installation_root(profile_dir) {
            candidates.push(root.join(reference));
        }
        candidates
    }
}

/// The folder that holds `config/platform/profiles`, when the profile lies there.
fn installation_root(profile_dir: &Path) -> Option<&Path> {
    profile_dir
        .ancestors()
        .find(|folder| folder.join("config/platform").is_dir())
}

/// YAML (or JSON) as a JSON value. Keys must be texts and may not be repeated.
pub fn yaml_value(text: &str, name: &str) -> Result<Value, String> {
    // Through YAML's own value: it refuses repeated keys, which JSON maps would merge in silence.
    let yaml: serde_yaml_ng::Value =
        serde_yaml_ng::from_str(text).map_err(|error| format!("{name}: {error}"))?;
    serde_json::to_value(yaml).map_err(|error| format!("{name}: {error}"))
}
