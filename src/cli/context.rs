//! What every command gets: the global options, and the settings they lead to.

use super::failure::Failure;
use super::output::OutputFormat;
use crate::failpoints;
use crate::settings::layers::Layers;
use crate::settings::problem::SettingsError;
use crate::settings::{ProfileSource, Settings};
use crate::telemetry::run_logs::RunLogs;
use std::cell::OnceCell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_domain::ports::ObjectStore;

const ROOT_KEY: &str = "wiring.object_store.root";
const DEFAULT_PROFILE: &str = "local";

/// Options every command understands, before or after the command's name.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalArgs {
    /// Profile: a YAML file, or the name of a shipped one [default: local].
    ///
    /// Shipped: local, local_parity, dev, prod.
    #[arg(
        long,
        global = true,
        value_name = "FILE|NAME",
        env = "WELLSPRING_PROFILE"
    )]
    pub profile: Option<String>,
    /// Folder that holds all runs [default: the profile's object store root, `runs`]. A profile whose
    /// objects are in a bucket keeps only the active run and logs of this machine in it.
    #[arg(long, global = true, value_name = "RUNS_ROOT")]
    pub root: Option<PathBuf>,
    /// How results are written [default: table; contract commands in a pipe: json].
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub format: Option<OutputFormat>,
    /// Overrides one profile key, e.g. `--set wiring.gate.batch_events_max=500` (repeatable).
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
}

/// The global options and what they lead to. Settings are read when first asked for.
pub struct CliContext {
    /// How results are written.
    pub format: OutputFormat,
    /// Log files of the active run; services attach them once they know their run.
    pub run_logs: RunLogs,
    args: GlobalArgs,
    settings: OnceCell<Settings>,
}

impl CliContext {
    /// Takes the parsed options; nothing is read yet.
    pub fn new(args: GlobalArgs) -> Self {
        CliContext {
            format: args.format.unwrap_or(OutputFormat::Table),
            run_logs: RunLogs::default(),
            args,
            settings: OnceCell::new(),
        }
    }

    /// The format of a command whose JSON other programs read: JSON unless a person is looking.
    pub fn contract_format(&self) -> OutputFormat {
        match self.args.format {
            Some(format) => format,
            None if std::io::stdout().is_terminal() => OutputFormat::Table,
            None => OutputFormat::Json,
        }
    }

    /// The settings in force. A profile with problems is an error that names all of them.
    pub fn settings(&self) -> anyhow::Result<&Settings> {
        if let Some(settings) = self.settings.get() {
            return Ok(settings);
        }
        let source = self.profile().map_err(settings_failure)?;
        let settings = Settings::load(&source, &self.layers()).map_err(settings_failure)?;
        refuse_failpoints(&settings)?;
        Ok(self.settings.get_or_init(|| settings))
    }

    /// The store that holds all runs.
    pub fn runs_store(&self) -> anyhow::Result<Arc<dyn ObjectStore>> {
        let settings = self.settings()?;
        let opened = settings.object_stores().open(settings.runs_root());
        Ok(opened.map_err(|error| Failure::of(error.code(), error))?)
    }

    /// The profile's file or embedded copy.
    pub fn profile(&self) -> Result<ProfileSource, SettingsError> {
        ProfileSource::find(self.args.profile.as_deref().unwrap_or(DEFAULT_PROFILE))
    }

    /// The environment of the process with the flags on top.
    pub fn layers(&self) -> Layers {
        let mut layers = Layers::of_process();
        for (key, value) in &self.args.set {
            layers.set_flag(key, value);
        }
        if let Some(root) = &self.args.root {
            match text_of(root) {
                bucket if bucket.starts_with("s3://") => layers.set_flag(ROOT_KEY, bucket),
                folder => layers.set_folder(folder),
            }
        }
        layers
    }
}

/// Where others' data are at stake, nothing is made to fail on purpose.
fn refuse_failpoints(settings: &Settings) -> anyhow::Result<()> {
    if !failpoints::is_armed() || !settings.strict_seal() {
        return Ok(());
    }
    let sentence = format!(
        "the profile {} never runs with failpoints",
        settings.profile_id
    );
    let hint = "unset WELLSPRING_FAILPOINTS";
    Err(Failure::new("FAILPOINTS_REFUSED", sentence)
        .hint(hint)
        .into())
}

/// Settings errors as the command line shows them.
pub fn settings_failure(error: SettingsError) -> anyhow::Error {
    let code = error.code().to_string();
    let hint = "`wellspring config check` lists every problem of a profile";
    Failure::of(code, error).hint(hint).into()
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("expected KEY=VALUE".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(args: GlobalArgs) -> CliContext {
        CliContext::new(args)
    }

    #[test]
    fn the_root_flag_is_the_runs_root_of_the_settings() {
        let root = Some(PathBuf::from("/data/runs"));
        let ctx = context(GlobalArgs {
            root,
            ..GlobalArgs::default()
        });
        let settings = ctx.settings().unwrap();
        assert_eq!(settings.runs_root(), "/data/runs");
        assert_eq!(settings.local_root(), "/data/runs");
    }

    #[test]
    fn the_root_flag_never_replaces_a_bucket() {
        let ctx = context(GlobalArgs {
            root: Some(PathBuf::from("/data/runs")),
            set: vec![key_and_value("wiring.object_store.root=s3://bucket").unwrap()],
            ..GlobalArgs::default()
        });
        let settings = ctx.settings().unwrap();
        assert_eq!(settings.runs_root(), "s3://bucket");
        assert_eq!(settings.local_root(), "/data/runs");
        let named = context(GlobalArgs {
            root: Some(PathBuf::from("s3://other")),
            ..GlobalArgs::default()
        });
        assert_eq!(named.settings().unwrap().runs_root(), "s3://other");
        assert_eq!(named.settings().unwrap().local_root(), "runs");
    }

    #[test]
    fn set_overrides_one_key_and_a_wrong_key_is_refused_with_its_code() {
        let set = |text: &str| GlobalArgs {
            set: vec![key_and_value(text).unwrap()],
            ..GlobalArgs::default()
        };
        let ctx = context(set("wiring.gate.batch_events_max=7"));
        assert_eq!(ctx.settings().unwrap().wiring.gate.batch_events_max, 7);
        let error = context(set("wiring.gate.nothing=7"))
            .settings()
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .starts_with("CONFIG_KEY_UNKNOWN: wiring.gate.nothing")
        );
        assert!(key_and_value("=x").is_err() && key_and_value("x").is_err());
    }

    #[test]
    fn an_unknown_profile_is_refused_with_its_code() {
        let profile = Some("nowhere".to_string());
        let ctx = context(GlobalArgs {
            profile,
            ..GlobalArgs::default()
        });
        assert!(
            ctx.settings()
                .err()
                .unwrap()
                .to_string()
                .starts_with("PROFILE_UNREADABLE")
        );
    }
}
