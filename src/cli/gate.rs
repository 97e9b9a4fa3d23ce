//! `wellspring gate`: the Ingestion Gate on its own behind HTTP, and an operator's questions to it.

use super::gate_ops::{self, OpsArgs};
use super::{CliContext, Failure, Outcome};
use crate::daemon::{self, DaemonPlan};
use crate::settings::Settings;
use clap::{Args, Subcommand};
use wellspring_domain::run_paths::PlatformRunId;

const EXAMPLES: &str = "\
Examples:
  wellspring gate serve                          listen where the profile says (127.0.0.1:8081)
  wellspring gate serve --host 0.0.0.0 --port 0  any free port; the address is printed
  curl -s localhost:8081/v1/ops/health           how the gate is

Envelopes go to POST /v1/ingest/push (one) and /v1/ingest/push_batch (many). SIGTERM drains: what was
accepted is answered first.";

/// Options of `wellspring gate`.
#[derive(Debug, Args)]
pub struct GateCommandArgs {
    #[command(subcommand)]
    command: GateCommand,
}

/// What to do with a gate.
#[derive(Debug, Subcommand)]
enum GateCommand {
    /// Serve until SIGTERM.
    #[command(after_help = EXAMPLES)]
    Serve(ServeArgs),
    /// Ask a running gate, push a file to it, or rebuild a run's index.
    Ops(OpsArgs),
}

/// Options of `wellspring gate serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to bind; the profile's `wiring.gate.bind_host` otherwise.
    #[arg(long)]
    host: Option<String>,
    /// Port to bind; the profile's `wiring.gate.bind_port` otherwise. 0 takes any free port.
    #[arg(long)]
    port: Option<u16>,
}

/// Runs the command.
pub fn run(args: GateCommandArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let args = match args.command {
        GateCommand::Serve(args) => args,
        GateCommand::Ops(args) => return gate_ops::run(&args, ctx),
    };
    let settings = ctx.settings()?;
    let own_run = active_run(settings)?;
    let plan = DaemonPlan {
        own_run,
        host: args
            .host
            .unwrap_or_else(|| settings.wiring.gate.bind_host.clone()),
        port: args.port.unwrap_or(settings.wiring.gate.bind_port),
        streams: None,
        run_logs: ctx.run_logs.clone(),
    };
    daemon::run(settings, plan).map(|_| Outcome::Ok)
}

/// The run the process belongs to: `PLATFORM_RUN_ID`, else `ACTIVE_RUN_ID`, else none. Never creates one.
pub fn active_run(settings: &Settings) -> anyhow::Result<Option<PlatformRunId>> {
    let active = settings.active_run();
    let found = active
        .find()
        .map_err(|error| Failure::of(error.code(), error))?;
    Ok(found.map(|(id, _)| id))
}
