//! `wellspring run`: platform runs (contract 1.4).

use super::{CliContext, Outcome};

/// Arguments of `wellspring run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(subcommand)]
    command: RunCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RunCommand {
    /// Show the runs folder in force.
    Show,
}

/// Runs the command.
pub fn run(args: RunArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        RunCommand::Show => {
            super::output::print_text(&format!("{}\n", ctx.root()?.display()))?;
            Ok(Outcome::Ok)
        }
    }
}
