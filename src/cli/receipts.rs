//! `wellspring receipts`: what the gate decided, with its proof (contract 7.1, 7.7, 7.9).

use super::failure::Failure;
use super::managed;
use super::output::{OutputFormat, TableView, grouped, print_json, print_result, print_text};
use super::run_arg::RunArg;
use super::verify_output::{differences_table, outcome_of};
use super::{CliContext, Outcome};
use crate::event_bus::embedded_log::JournalReader;
use crate::http::state::LookupKey as Asked;
use crate::settings::Settings;
use crate::state_store::embedded::export_sqlite::export_sqlite;
use crate::state_store::embedded::journal_source::JournalSource;
use crate::state_store::embedded::receipts::{LookupError, ReceiptAnswer, ReceiptLookup};
use crate::state_store::embedded::verify::{ReceiptsReport, verify_receipts};
use serde_json::{Value, json};
use std::path::PathBuf;
use wellspring_domain::admission::receipt::{ReceiptsLayout, receipt_bytes};
use wellspring_domain::ports::StoreError;

const EXAMPLES: &str = "\
Examples:
  wellspring receipts lookup --event-id ID           what was decided about an event, and where it is kept
  wellspring receipts lookup --receipt-id ID --full  the whole receipt
  wellspring receipts verify                         every receipt, its original and its evidence
  wellspring receipts export --sqlite tables.db      admissions, receipts and quarantines as tables";

/// Arguments of `wellspring receipts`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReceiptsArgs {
    #[command(subcommand)]
    command: ReceiptsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ReceiptsCommand {
    /// The receipt of an event, an id or a key; `{}` when there is none.
    Lookup(LookupArgs),
    /// Check every receipt of a run; exit code 4 when something differs.
    Verify(RunArg),
    /// Write the contract's tables.
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
struct LookupArgs {
    #[command(flatten)]
    key: LookupKey,
    /// The whole receipt as the contract defines it, instead of where it is.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    run: RunArg,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct LookupKey {
    /// Earliest decision about this event.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// Newest decision with this receipt id.
    #[arg(long, value_name = "ID")]
    receipt_id: Option<String>,
    /// Earliest decision with this dedupe key.
    #[arg(long, value_name = "KEY")]
    dedupe_key: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// SQLite file; rows are added to what it holds.
    #[arg(long, value_name = "FILE")]
    sqlite: PathBuf,
    #[command(flatten)]
    run: RunArg,
}

impl LookupKey {
    fn as_lookup(&self) -> Asked {
        let named = |text: &Option<String>, key: fn(String) -> Asked| text.clone().map(key);
        named(&self.event_id, Asked::EventId)
            .or_else(|| named(&self.receipt_id, Asked::ReceiptId))
            .or_else(|| named(&self.dedupe_key, Asked::DedupeKey))
            .expect("the group of the three options is required")
    }
}

/// Runs the command.
pub fn run(args: ReceiptsArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        ReceiptsCommand::Lookup(args) => lookup(&args, ctx),
        ReceiptsCommand::Verify(run) => verify(&run, ctx),
        ReceiptsCommand::Export(args) => export(&args, ctx),
    }
}

fn lookup(args: &LookupArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let paths = args.run.paths(ctx)?;
    if let Some(managed) = managed::open(ctx)? {
        let receipts = managed.substrate.receipts(None);
        let key = args.key.as_lookup();
        let row = receipts.find(Some(paths.run_id()), &key);
        return match row.map_err(store_failure)? {
            None => nothing_found(),
            Some(row) => show(args, ctx, receipts.answer(&row), || receipts.render(&row)),
        };
    }
    let journal = JournalReader::new(&paths);
    let lookup = ReceiptLookup::new(&paths, layout(ctx.settings()?), &journal);
    let key = &args.key;
    let row = match (&key.event_id, &key.receipt_id, &key.dedupe_key) {
        (Some(id), _, _) => lookup.by_event_id(id),
        (_, Some(id), _) => lookup.by_receipt_id(id),
        (_, _, Some(key)) => lookup.by_dedupe_key(key),
        _ => Ok(None), // the group of the three options is required
    };
    match row.map_err(store_failure)? {
        None => nothing_found(),
        Some(row) => show(args, ctx, lookup.answer(&row), || lookup.render(&row)),
    }
}

fn nothing_found() -> anyhow::Result<Outcome> {
    print_json(&json!({}))?;
    Ok(Outcome::Ok)
}

fn show(
    args: &LookupArgs,
    ctx: &CliContext,
    answer: ReceiptAnswer,
    render: impl FnOnce() -> Result<Value, LookupError>,
) -> anyhow::Result<Outcome> {
    if args.full {
        let receipt = render().map_err(|error| Failure::of(error.code(), error))?;
        match ctx.contract_format() {
            // A program gets the very bytes of the contract, a person gets lines.
            OutputFormat::Json => print_text(&String::from_utf8_lossy(&receipt_bytes(&receipt)))?,
            OutputFormat::Table => print_json(&receipt)?,
        }
    } else {
        print_result(ctx.contract_format(), &answer, || {
            let mut table = TableView::pairs();
            table
                .row(["decision", answer.decision.as_str()])
                .row(["event", &answer.event_id])
                .row(["type", &answer.event_type])
                .row(["receipt", &answer.receipt_id])
                .row(["kept at", &answer.receipt_ref]);
            table
        })?;
    }
    Ok(Outcome::Ok)
}

fn verify(run: &RunArg, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let paths = run.paths(ctx)?;
    if let Some(managed) = managed::open(ctx)? {
        let report = managed.verify_receipts(paths.run_id())?;
        print_result(ctx.format, &report, || table_of(&report))?;
        return Ok(outcome_of(report.verified));
    }
    let store = ctx.runs_store()?;
    let report =
        verify_receipts(&paths, layout(ctx.settings()?), store.as_ref()).map_err(store_failure)?;
    print_result(ctx.format, &report, || table_of(&report))?;
    Ok(outcome_of(report.verified))
}

fn table_of(report: &ReceiptsReport) -> TableView {
    let mut table = TableView::pairs();
    table
        .row(["receipts", &grouped(report.receipts)])
        .row(["admitted", &grouped(report.admitted)])
        .row(["duplicate", &grouped(report.duplicates)])
        .row(["quarantined", &grouped(report.quarantined)])
        .row(["objects not written yet", &grouped(report.pending_objects)]);
    differences_table(table, &report.differences)
}

fn export(args: &ExportArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let paths = args.run.paths(ctx)?;
    let journal: Box<dyn JournalSource> = match managed::open(ctx)? {
        Some(managed) => Box::new(managed.substrate.receipts(None).journal(paths.run_id())),
        None => Box::new(JournalReader::new(&paths)),
    };
    let report = export_sqlite(
        &paths,
        layout(ctx.settings()?),
        journal.as_ref(),
        &args.sqlite,
    )
    .map_err(|error| Failure::of(error.code(), error))?;
    print_result(ctx.format, &report, || {
        let mut table = TableView::pairs();
        table
            .row(["admissions added", &grouped(report.admissions)])
            .row(["receipts added", &grouped(report.receipts)])
            .row(["quarantines added", &grouped(report.quarantines)]);
        table
    })?;
    Ok(Outcome::Ok)
}

/// The receipts layout of the profile.
pub fn layout(settings: &Settings) -> ReceiptsLayout {
    use crate::settings::policy::ReceiptsLayout as Configured;
    match settings.policy.receipts_layout {
        Configured::Segments => ReceiptsLayout::Segments,
        Configured::Objects => ReceiptsLayout::Objects,
    }
}

fn store_failure(error: StoreError) -> anyhow::Error {
    Failure::of(error.code(), error).into()
}
