//! `wellspring world`: sealed worlds to stream (contract 3.1-3.4).

use std::path::PathBuf;

use super::output::{self, Align, TableView};
use super::progress::Progress;
use super::{CliContext, Failure, Outcome};
use crate::world_files::generator::{self, GenerateError, GenerateOptions, WorldSummary};

/// Arguments of `wellspring world`.
#[derive(Debug, clap::Args)]
pub struct WorldArgs {
    #[command(subcommand)]
    command: WorldCommand,
}

#[derive(Debug, clap::Subcommand)]
enum WorldCommand {
    /// Generate a sealed world: all outputs, truth and gate evidence. Same options, same bytes.
    Generate(GenerateArgs),
}

#[derive(Debug, clap::Args)]
struct GenerateArgs {
    /// Folder of the new engine run root; must be absent or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Traffic events of one event stream; an even number, a flow has two.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    events: u64,
    /// World seed.
    #[arg(long, value_name = "S", default_value_t = 42)]
    seed: u64,
    /// Parquet parts per output.
    #[arg(long, value_name = "K", default_value_t = 4)]
    parts: u32,
    /// Scenario of all rows.
    #[arg(long, value_name = "ID", default_value = "baseline_v1")]
    scenario_id: String,
    /// First day of the world, UTC.
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2026-01-01")]
    start_date: String,
    /// Length of the world in days.
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    days: u32,
}

/// Runs the command.
pub fn run(args: WorldArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        WorldCommand::Generate(args) => generate(args, ctx),
    }
}

fn generate(args: GenerateArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let options = GenerateOptions {
        scenario_id: args.scenario_id,
        start_date: args.start_date,
        days: args.days,
        ..GenerateOptions::new(args.out, args.events, args.seed, args.parts)
    };
    let progress = Progress::start("generate world", Some(options.events));
    let summary = generator::generate(&options, &|events| progress.add(events)).map_err(failure)?;
    progress.finish(format!(
        "{} traffic events",
        output::grouped(options.events)
    ));
    output::print_result(ctx.format, &summary, || table(&summary))?;
    Ok(Outcome::Ok)
}

fn failure(error: GenerateError) -> Failure {
    let failure = Failure::of(error.code(), error);
    match failure.code() {
        "WORLD_DIR_NOT_EMPTY" => {
            failure.hint("a sealed world is never overwritten; pass another --out")
        }
        _ => failure,
    }
}

fn table(summary: &WorldSummary) -> TableView {
    let mut table = TableView::new([("world", Align::Left), ("", Align::Right)]);
    for output in &summary.outputs {
        table.row([output.output_id.to_owned(), output::grouped(output.rows)]);
    }
    table.row(["merchants".to_owned(), output::grouped(summary.merchants)]);
    table.row(["seed".to_owned(), summary.seed.to_string()]);
    table.row(["scenario_id".to_owned(), summary.scenario_id.clone()]);
    table.row(["run_id".to_owned(), summary.run_id.clone()]);
    table.row([
        "manifest_fingerprint".to_owned(),
        summary.manifest_fingerprint.clone(),
    ]);
    table.row(["parameter_hash".to_owned(), summary.parameter_hash.clone()]);
    table.row([
        "engine_run_root".to_owned(),
        summary.engine_run_root.display().to_string(),
    ]);
    table
}
