//! The command line: one file per command.
//!
//! The result goes to stdout, everything said to a person goes to stderr. Exit codes: 0 ok, 1 failed,
//! 2 usage (by clap), 3 refused by a gate, 4 verification found differences.

pub mod bootstrap;
pub mod bus;
mod bus_verify;
pub mod config;
pub mod context;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod failure;
pub mod gate;
mod gate_ops;
pub mod load;
mod managed;
pub mod ops_client;
pub mod oracle;
pub mod oracle_sort;
pub mod oracle_sync;
pub mod output;
pub mod progress;
pub mod ps;
mod ps_cluster;
pub mod receipts;
pub mod run;
mod run_arg;
pub mod run_prune;
pub mod scenario;
pub mod scenario_request;
pub mod stream;
pub mod up;
pub mod validate;
mod verify_output;
pub mod world;

use crate::telemetry::Verbosity;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

pub use context::{CliContext, GlobalArgs};
pub use failure::{Failure, Outcome};
pub use output::OutputFormat;

const EXAMPLES: &str = "\
Examples:
  wellspring demo                        the whole main job in one go, nothing to set up
  wellspring run new                     create and activate a platform run
  wellspring up --once                   stream every READY world once, then stop
  wellspring --format json ps            the live supervision tree as JSON
  wellspring config show                 what is in force, and where each value came from

Exit codes: 0 ok, 1 failed, 2 usage, 3 refused by a gate, 4 verification found differences.";

/// Wellspring replays sealed worlds as exactly-once live traffic.
#[derive(Debug, Parser)]
#[command(name = "wellspring", version, after_help = EXAMPLES, propagate_version = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// Options every command understands.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command of the program. Each variant has its own file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prove a world and say READY: run, reemit, quarantine.
    Scenario(scenario::ScenarioArgs),
    /// Sealed worlds: pack, seal and check them before they are streamed.
    Oracle(oracle::OracleArgs),
    /// The event bus: records by offset, where partitions end, and whether it is all true.
    Bus(bus::BusArgs),
    /// What the gate decided, with its proof: lookup, verify, export.
    Receipts(receipts::ReceiptsArgs),
    /// Platform runs: create, show, cancel, pause, resume, prune.
    Run(run::RunArgs),
    /// Sealed worlds: generate one to stream.
    World(world::WorldArgs),
    /// The whole main job in one go, with nothing to set up.
    Demo(demo::DemoArgs),
    /// What a gate takes, how fast, and at what cost: open or closed loop, in process or over HTTP.
    Load(load::LoadArgs),
    /// The daemon: gate, READY consumer, Scenario Runner and HTTP in one supervision tree.
    Up(up::UpArgs),
    /// The Ingestion Gate on its own, behind HTTP.
    Gate(gate::GateCommandArgs),
    /// The World Streamer on its own, pushing to a gate over HTTP: ready, run.
    Stream(stream::StreamArgs),
    /// Does streaming work here, and does it resume: a short stream into the gate.
    Validate(validate::ValidateArgs),
    /// The live supervision tree of a running Wellspring.
    Ps(ps::PsArgs),
    /// Make what a managed profile names: buckets, streams, the database's schema.
    Bootstrap(bootstrap::BootstrapArgs),
    /// What is wrong with this installation, all of it.
    Doctor(doctor::DoctorArgs),
    /// What a reason code means, and what to do about it.
    Explain(explain::ExplainArgs),
    /// Effective settings, their origin, and their problems.
    Config(config::ConfigArgs),
}

/// Parses the arguments, runs the command, reports its error and gives the exit code.
pub fn main_entry() -> ExitCode {
    let cli = Cli::parse();
    crate::process::without_huge_pages();
    if let Err(error) = crate::failpoints::arm_from_environment() {
        return failure::exit_code(Err(Failure::of(error.code(), error).into()));
    }
    // Kept to the end: dropping it sends the last spans.
    let telemetry = crate::telemetry::start(cli.command.verbosity());
    let mut ctx = CliContext::new(cli.global);
    ctx.run_logs = telemetry.run_logs.clone();
    failure::exit_code(dispatch(cli.command, &ctx))
}

impl Command {
    /// Services say what happens; commands only speak up when something is wrong.
    fn verbosity(&self) -> Verbosity {
        match self {
            Command::Gate(_) | Command::Up(_) | Command::Stream(_) => Verbosity::Service,
            _ => Verbosity::Quiet,
        }
    }
}

fn dispatch(command: Command, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match command {
        Command::Oracle(args) => oracle::run(args, ctx),
        Command::Bus(args) => bus::run(args, ctx),
        Command::Receipts(args) => receipts::run(args, ctx),
        Command::Run(args) => run::run(args, ctx),
        Command::Scenario(args) => scenario::run(args, ctx),
        Command::World(args) => world::run(args, ctx),
        Command::Demo(args) => demo::run(args, ctx),
        Command::Load(args) => load::run(args, ctx),
        Command::Up(args) => up::run(args, ctx),
        Command::Gate(args) => gate::run(args, ctx),
        Command::Stream(args) => stream::run(args, ctx),
        Command::Validate(args) => validate::run(args, ctx),
        Command::Ps(args) => ps::run(args, ctx),
        Command::Bootstrap(args) => bootstrap::run(args, ctx),
        Command::Doctor(args) => doctor::run(args, ctx),
        Command::Explain(args) => explain::run(args, ctx),
        Command::Config(args) => config::run(args, ctx),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_global_options_are_understood_before_and_after_the_command() {
        let before = Cli::try_parse_from(["wellspring", "--root", "x", "run", "show"]).unwrap();
        let after = Cli::try_parse_from(["wellspring", "run", "show", "--root", "x"]).unwrap();
        assert_eq!(before.global.root, after.global.root);
        assert!(before.global.root.is_some());
    }
}
