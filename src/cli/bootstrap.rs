//! `wellspring bootstrap`: buckets, streams and the database's schema of a profile.

use super::output::{Align, TableView, print_result};
use super::{CliContext, Failure, Outcome};
use crate::bootstrap::{self, Made, Plan, Resource};
use crate::gate::policy_files::load_policy;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  wellspring --profile local_parity bootstrap            make what is missing; repeating it changes nothing
  wellspring --profile dev bootstrap --dry-run           only say what the profile names
  wellspring --set wiring.event_bus.shards=16 bootstrap  shards of streams that are new

A stream that exists keeps its shards. Profiles in folders need no bootstrap.";

/// Arguments of `wellspring bootstrap`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BootstrapArgs {
    /// Only say what the profile names.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    resources: Vec<Resource>,
}

/// Runs the command.
pub fn run(args: BootstrapArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let policy = load_policy(settings).map_err(|error| Failure::of(error.code(), error))?;
    let plan = Plan::of(settings, policy.topics().iter().map(|topic| &**topic));
    let resources = match args.dry_run {
        true => plan.resources(),
        false => bootstrap::make(settings, &plan),
    };
    let report = Report {
        ok: resources.iter().all(|made| made.error.is_none()),
        resources,
    };
    print_result(ctx.format, &report, || table_of(&report.resources))?;
    if report.resources.is_empty() {
        eprintln!(
            "nothing to make: the profile {} uses folders",
            settings.profile_id
        );
    }
    let mut errors = report.resources.into_iter().filter_map(|made| made.error);
    match errors.next() {
        None => Ok(Outcome::Ok),
        Some(first) => {
            for error in errors {
                eprintln!("error: {}: {error}", error.code());
            }
            Err(Failure::of(first.code(), first).into())
        }
    }
}

fn table_of(resources: &[Resource]) -> TableView {
    let columns = [
        ("RESOURCE", Align::Left),
        ("NAME", Align::Left),
        ("SHARDS", Align::Right),
        ("STATE", Align::Left),
    ];
    let mut table = TableView::new(columns);
    for resource in resources {
        let shards = resource.shards.map(|shards| shards.to_string());
        let made: Made = resource.made;
        table.row([
            resource.kind.name(),
            &resource.name,
            shards.as_deref().unwrap_or_default(),
            made.name(),
        ]);
    }
    table
}
