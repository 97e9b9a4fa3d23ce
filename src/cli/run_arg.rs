//! Which platform run a command reads.

use super::CliContext;
use super::run::run_failure;
use crate::active_run::parse;
use wellspring_domain::run_paths::RunPaths;

/// The `--run` option of commands that read a run.
#[derive(Debug, clap::Args)]
pub struct RunArg {
    /// The platform run [default: PLATFORM_RUN_ID, else the active run].
    #[arg(long = "run", value_name = "PLATFORM_RUN_ID")]
    pub platform_run_id: Option<String>,
}

impl RunArg {
    /// The paths of the run that is meant.
    pub fn paths(&self, ctx: &CliContext) -> anyhow::Result<RunPaths> {
        let settings = ctx.settings()?;
        let id = match &self.platform_run_id {
            Some(text) => parse("--run", text),
            None => settings.active_run().require(),
        };
        Ok(settings.run_paths(&id.map_err(run_failure)?))
    }
}
