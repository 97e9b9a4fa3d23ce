//! `wellspring demo`: the whole main job, with nothing to set up.

use super::output::{Align, TableView, grouped, print_result};
use super::{CliContext, Outcome, progress};
use crate::demo::{self, DemoOptions, DemoReport};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  wellspring demo                        200,000 traffic events with their context, as fast as possible
  wellspring demo --events 1000000       a bigger world
  wellspring demo --speedup 86400        a day of the world each second
  wellspring demo --again                stream the same run again: all duplicates, nothing doubled
  wellspring --format json demo          the summary for machines

What happens: generate a world -> pack and seal it -> sort stream views -> run the scenario to READY ->
stream through the gate onto the bus -> replay the bus -> compare it with receipts and world.
Giving the command again goes on where it was killed, or verifies what is there.";

/// Options of `wellspring demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Traffic events (two per flow, so an even number).
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    events: u64,
    /// World seconds per second; 0 is as fast as possible.
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    speedup: f64,
    /// Folder of the world and the runs.
    #[arg(long, value_name = "D", default_value = "runs/demo")]
    dir: PathBuf,
    /// Stream the same platform run under a new checkpoint attempt: nothing is admitted twice.
    #[arg(long)]
    again: bool,
    /// Seed of the world.
    #[arg(long, value_name = "S", default_value_t = 42)]
    seed: u64,
    /// Parquet parts per output.
    #[arg(long, value_name = "K", default_value_t = 4)]
    parts: u32,
}

/// Runs the command.
pub fn run(args: DemoArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let options = DemoOptions {
        events: args.events,
        seed: args.seed,
        parts: args.parts,
        speedup: args.speedup,
        dir: args.dir,
        again: args.again,
    };
    let report = demo::run(&options, &ctx.profile()?, ctx.layers())?;
    print_result(ctx.format, &report, || table(&report))?;
    if !report.proof.differences.is_empty() {
        for difference in &report.proof.differences {
            progress::say(&format!(
                "{} {}: {}",
                difference.code, difference.location, difference.detail
            ));
        }
    }
    for line in closing(&report) {
        progress::say(&line);
    }
    Ok(if report.verified {
        Outcome::Ok
    } else {
        Outcome::Differences
    })
}

fn table(report: &DemoReport) -> TableView {
    let columns = [
        ("output", Align::Left),
        ("rows", Align::Right),
        ("admitted", Align::Right),
        ("duplicate", Align::Right),
        ("quarantined", Align::Right),
        ("events/s", Align::Right),
        ("p50 ms", Align::Right),
        ("p99 ms", Align::Right),
        ("world = bus", Align::Left),
    ];
    let mut table = TableView::new(columns);
    for (output, proof) in report.outputs.iter().zip(&report.proof.outputs) {
        table.row([
            output.output_id.clone(),
            grouped(output.rows),
            grouped(output.admitted),
            grouped(output.duplicate),
            grouped(output.quarantined),
            grouped(output.events_per_second as u64),
            format!("{:.1}", output.admit_p50_ms),
            format!("{:.1}", output.admit_p99_ms),
            (if proof.equal { "equal" } else { "DIFFERENT" }).to_owned(),
        ]);
    }
    table
}

fn closing(report: &DemoReport) -> Vec<String> {
    let stages: Vec<String> = report
        .stages
        .iter()
        .map(|stage| {
            format!(
                "{} {:.1} s ({:.1} CPU-s)",
                stage.stage, stage.seconds, stage.cpu_seconds
            )
        })
        .collect();
    let mut lines = vec![format!("stages: {}", stages.join(", "))];
    if report.already_streamed {
        lines.push(
            "this run was streamed before: nothing was admitted, everything was verified again"
                .to_owned(),
        );
    }
    let verdict = if report.verified {
        "verified: every count and digest agrees"
    } else {
        "NOT verified"
    };
    lines.push(format!(
        "{verdict} ({} records, {} ADMIT receipts)",
        grouped(report.proof.bus_records),
        grouped(report.proof.admit_receipts)
    ));
    lines.push(format!("world {}   run {}", report.world, report.run_root));
    lines
}
