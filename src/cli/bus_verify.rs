//! `wellspring bus verify`: the bus against its receipts, fingerprints, and the projections against
//! what they are made from.

use super::failure::Failure;
use super::managed::{self, ManagedRun};
use super::output::{TableView, grouped, print_result};
use super::receipts::layout;
use super::run_arg::RunArg;
use super::verify_output::{differences_table, outcome_of};
use super::{CliContext, Outcome};
use crate::state_store::embedded::index::IndexMemoryCap;
use crate::state_store::embedded::rebuild::{RebuildPlan, RebuildReport, rebuild};
use crate::state_store::embedded::verify::{
    BusReport, KEYS_MAX, TopicFingerprint, fingerprint_bus, verify_bus,
};
use serde::Serialize;
use wellspring_domain::ports::{RunLayout, StoreError};
use wellspring_domain::run_paths::RunPaths;

/// Arguments of `wellspring bus verify`.
#[derive(Debug, clap::Args)]
pub struct BusVerifyArgs {
    /// Print a fingerprint per topic: equal when two buses hold the same records, in the same order
    /// per partition key.
    #[arg(long)]
    digest: bool,
    /// Drop index, sidecars, quarantine records and receipt objects, make them again from the
    /// journals and compare. The gate must not have the run open.
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    run: RunArg,
}

#[derive(Serialize)]
struct BusVerification {
    verified: bool,
    #[serde(flatten)]
    bus: BusCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprints: Option<Vec<TopicFingerprint>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuild: Option<RebuildReport>,
}

/// The report without its own verdict: the command's covers the rebuild too.
#[derive(Serialize)]
struct BusCounts {
    records: u64,
    admitted: u64,
    partitions: Vec<crate::state_store::embedded::verify::PartitionReport>,
    differences: crate::state_store::embedded::verify::Differences,
}

/// Runs the command.
pub fn run(args: &BusVerifyArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let paths = args.run.paths(ctx)?;
    if let Some(managed) = managed::open(ctx)? {
        return run_managed(args, ctx, &managed, &paths);
    }
    let rebuilt = match args.rebuild {
        true => Some(rebuild_run(&paths, ctx)?),
        false => None,
    };
    let bus = verify_bus(&paths).map_err(store_failure)?;
    let fingerprints = match args.digest {
        true => Some(fingerprint_bus(&paths, KEYS_MAX).map_err(store_failure)?),
        false => None,
    };
    let identical = rebuilt.as_ref().is_none_or(|report| report.identical);
    let view = verification(bus, fingerprints, rebuilt, identical);
    print_result(ctx.format, &view, || table_of(&view))?;
    Ok(outcome_of(view.verified))
}

/// Shared backends have no projections to rebuild: their tables are views, and missing segments are
/// written by reconciliation.
fn run_managed(
    args: &BusVerifyArgs,
    ctx: &CliContext,
    managed: &ManagedRun,
    paths: &RunPaths,
) -> anyhow::Result<Outcome> {
    if args.rebuild {
        let sentence = "there are no projections to rebuild on shared backends";
        return Err(Failure::new("REBUILD_NOT_APPLICABLE", sentence).into());
    }
    let (bus, fingerprints) = managed.verify_bus(paths.run_id())?;
    let view = verification(bus, args.digest.then_some(fingerprints), None, true);
    print_result(ctx.format, &view, || table_of(&view))?;
    Ok(outcome_of(view.verified))
}

fn verification(
    bus: BusReport,
    fingerprints: Option<Vec<TopicFingerprint>>,
    rebuild: Option<RebuildReport>,
    identical: bool,
) -> BusVerification {
    BusVerification {
        verified: bus.verified && identical,
        bus: BusCounts {
            records: bus.records,
            admitted: bus.admitted,
            partitions: bus.partitions,
            differences: bus.differences,
        },
        fingerprints,
        rebuild,
    }
}

/// Drops and rebuilds what is derived from a run's journals.
pub fn rebuild_run(paths: &RunPaths, ctx: &CliContext) -> anyhow::Result<RebuildReport> {
    let settings = ctx.settings()?;
    let gate = &settings.wiring.gate;
    let plan = RebuildPlan {
        paths,
        layout: RunLayout {
            admission_shards: gate.admission_shards,
            index_shards: gate.index_shards,
        },
        index_memory: IndexMemoryCap {
            bytes: gate.index_memory_bytes_max as usize,
            shards_max: usize::from(gate.index_shards),
        },
        receipts: layout(settings),
        store: ctx.runs_store()?,
    };
    rebuild(&plan).map_err(store_failure)
}

fn table_of(view: &BusVerification) -> TableView {
    let mut table = TableView::left(["WHAT", "FOUND"]);
    for part in &view.bus.partitions {
        let name = format!("{}/{}", part.topic, part.partition);
        let pruned = if part.pruned { ", pruned" } else { "" };
        let text = format!(
            "{} records, {} receipts, {} strays, {} uncommitted{pruned}",
            grouped(part.records),
            grouped(part.admitted),
            grouped(part.stray),
            grouped(part.uncommitted)
        );
        table.row([name, text]);
    }
    for print in view.fingerprints.iter().flatten() {
        let text = format!(
            "records {} order {}",
            print.records_digest, print.order_digest
        );
        table.row([print.topic.clone(), text]);
    }
    for part in view.rebuild.iter().flat_map(|report| &report.parts) {
        let same = match part.before == part.after {
            true => "identical",
            false => "DIFFERENT",
        };
        let text = format!("{} items rebuilt, {same}", grouped(part.items));
        table.row([part.name.to_owned(), text]);
    }
    differences_table(table, &view.bus.differences)
}

fn store_failure(error: StoreError) -> anyhow::Error {
    Failure::of(error.code(), error).into()
}
