//! `wellspring run prune`: gives the disk space of a finished run back (see the prune module).

use super::failure::Failure;
use super::output::{TableView, bytes, grouped, print_result};
use super::{CliContext, Outcome};
use crate::session_ledger::SessionLedger;
use crate::settings::GateBackend;
use crate::state_store::embedded::prune::{PruneError, PruneReport, prune_bus, prune_index};
use serde_json::{json, to_value};
use wellspring_domain::run_paths::RunPaths;

/// What to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PrunePart {
    /// The records of the bus; offsets, counts and digests are kept.
    Bus,
    /// The admission index; only after the bus.
    Index,
    /// The bus, then the index.
    All,
}

/// Prunes and reports. Nothing is removed when the bus does not verify.
pub fn prune(
    ctx: &CliContext,
    paths: &RunPaths,
    part: PrunePart,
    ledger: &SessionLedger,
) -> anyhow::Result<Outcome> {
    let backend = ctx.settings()?.gate_backend();
    let backend = backend.map_err(super::context::settings_failure)?;
    if !matches!(backend, GateBackend::Embedded) {
        let sentence =
            "streams on shared backends end by their retention; there is nothing to prune here";
        let failure = Failure::new("BACKEND_NOT_AVAILABLE", sentence);
        return Err(failure
            .hint("keep the rows of admission at least as long as the streams")
            .into());
    }
    let mut report = PruneReport::default();
    if part != PrunePart::Index {
        match prune_bus(paths) {
            Ok(done) => report = done,
            Err(PruneError::NotVerified(found)) => {
                let error = PruneError::NotVerified(found);
                super::progress::say(&format!("error: {}: {error}", error.code()));
                super::progress::say("hint: `wellspring bus verify` lists the differences");
                return Ok(Outcome::Differences);
            }
            Err(error) => return Err(failure(error)),
        }
    }
    if part != PrunePart::Bus {
        report.freed_bytes += prune_index(paths).map_err(failure)?;
        report.index_pruned = true;
    }
    ledger.append("platform", "run_pruned", to_value(&report)?)?;
    let mut view = to_value(&report)?;
    view["platform_run_id"] = json!(paths.run_id().as_str());
    print_result(ctx.contract_format(), &view, || table_of(paths, &report))?;
    Ok(Outcome::Ok)
}

fn table_of(paths: &RunPaths, report: &PruneReport) -> TableView {
    let mut table = TableView::pairs();
    table.row(["platform run", paths.run_id().as_str()]);
    table.row(["topics pruned", &report.topics.join(", ")]);
    table.row(["records gone", &grouped(report.records)]);
    table.row(["space given back", &bytes(report.freed_bytes)]);
    table.row([
        "index",
        if report.index_pruned {
            "pruned"
        } else {
            "kept"
        },
    ]);
    table
}

fn failure(error: PruneError) -> anyhow::Error {
    let is_refusal = matches!(error, PruneError::IndexBeforeBus { .. });
    let failure = Failure::of(error.code(), error);
    match is_refusal {
        true => failure
            .refused()
            .hint("prune the bus first, or all of it")
            .into(),
        false => failure.hint("is a gate still running on this run?").into(),
    }
}
