//! `wellspring run`: platform runs (contract 1.4).

use super::failure::Failure;
use super::ops_client::OpsClient;
use super::output::{TableView, print_result};
use super::run_prune::{PrunePart, prune};
use super::{CliContext, Outcome};
use crate::active_run::{ActiveRun, ActiveRunError, RunIdOrigin, parse};
use crate::clock::SystemClock;
use crate::object_store::OpenStoreError;
use crate::session_ledger::SessionLedger;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use wellspring_domain::ports::Clock;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

const EXAMPLES: &str = "\
Examples:
  wellspring run new                                   a fresh run, made active
  wellspring run new --id platform_20260101T000000Z    a run of a given id, made active
  wellspring run show                                  the active run and what happened to it
  wellspring run pause                                 hold the streams of the active run";

/// Arguments of `wellspring run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    #[command(subcommand)]
    command: RunCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RunCommand {
    /// Create a platform run and make it the active one.
    New {
        /// Use this id instead of one made from the clock.
        #[arg(long, value_name = "PLATFORM_RUN_ID")]
        id: Option<String>,
    },
    /// Show the active run, or a given one.
    Show {
        #[command(flatten)]
        run: WhichRun,
        /// Newest session events to show.
        #[arg(long, default_value_t = 10, value_name = "N")]
        events: usize,
    },
    /// End the streams of a running run; what was admitted stays.
    Cancel(WhichRun),
    /// Hold the streams of a running run.
    Pause(WhichRun),
    /// Let a held run go on.
    Resume(WhichRun),
    /// Give the disk space of a finished run back; receipts and their proof stay.
    Prune {
        /// The platform run. Never the active one by default: it must be named.
        #[arg(value_name = "PLATFORM_RUN_ID")]
        platform_run_id: String,
        /// What to give back; the index never goes before the bus.
        #[arg(long, value_enum, default_value = "bus")]
        part: PrunePart,
    },
}

#[derive(Debug, clap::Args)]
struct WhichRun {
    /// The platform run [default: the active one].
    #[arg(value_name = "PLATFORM_RUN_ID")]
    platform_run_id: Option<String>,
}

/// Runs the command.
pub fn run(args: RunArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        RunCommand::New { id } => new(ctx, id.as_deref()),
        RunCommand::Show { run, events } => show(ctx, &run, events),
        RunCommand::Cancel(run) => control(ctx, &run, "cancel"),
        RunCommand::Pause(run) => control(ctx, &run, "pause"),
        RunCommand::Resume(run) => control(ctx, &run, "resume"),
        RunCommand::Prune {
            platform_run_id,
            part,
        } => prune_run(ctx, &platform_run_id, part),
    }
}

fn new(ctx: &CliContext, id: Option<&str>) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    settings
        .require_backends()
        .map_err(super::context::settings_failure)?;
    // A new run is asked for, so neither the file nor the environment decides.
    let active = ActiveRun::new(settings.local_root(), None);
    let id = match id {
        Some(text) => {
            let id = parse("--id", text).map_err(run_failure)?;
            active.activate(&id).map_err(run_failure)?;
            id
        }
        None => active
            .create(SystemClock::new().now())
            .map_err(run_failure)?,
    };
    let paths = settings.run_paths(&id);
    ledger(ctx, &paths)?.append("platform", "run_created", json!({"root": paths.run_root()}))?;
    if settings
        .variable("PLATFORM_RUN_ID")
        .is_some_and(|other| other != id.as_str())
    {
        super::progress::say("note: PLATFORM_RUN_ID is set and beats the new active run");
    }
    let view = json!({"platform_run_id": id.as_str(), "run_root": paths.run_root()});
    print_result(ctx.contract_format(), &view, || {
        let mut table = TableView::pairs();
        table
            .row(["platform run", id.as_str()])
            .row(["folder", &paths.run_root()]);
        table
    })?;
    Ok(Outcome::Ok)
}

#[derive(Serialize)]
struct RunView {
    platform_run_id: String,
    origin: &'static str,
    run_root: String,
    exists: bool,
    events: Vec<Value>,
}

fn show(ctx: &CliContext, run: &WhichRun, events: usize) -> anyhow::Result<Outcome> {
    let (id, origin) = which(ctx, run)?;
    let paths = ctx.settings()?.run_paths(&id);
    let view = RunView {
        platform_run_id: id.to_string(),
        origin,
        run_root: paths.run_root(),
        exists: exists(ctx, &paths)?,
        events: ledger(ctx, &paths)?.newest(events)?,
    };
    print_result(ctx.format, &view, || table_of(&view))?;
    Ok(Outcome::Ok)
}

fn table_of(view: &RunView) -> TableView {
    let mut table = TableView::pairs();
    table.row(["platform run", &view.platform_run_id]);
    table.row(["named by", view.origin]);
    table.row(["folder", &view.run_root]);
    table.row(["exists", if view.exists { "yes" } else { "no" }]);
    for event in &view.events {
        let word = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("?");
        let what = format!(
            "{} {} {}",
            word("component"),
            word("event_kind"),
            details(event)
        );
        table.row([word("ts_utc"), what.trim_end()]);
    }
    table
}

fn details(event: &Value) -> String {
    match event.get("details") {
        Some(Value::Object(map)) if !map.is_empty() => Value::Object(map.clone()).to_string(),
        _ => String::new(),
    }
}

fn control(ctx: &CliContext, run: &WhichRun, verb: &str) -> anyhow::Result<Outcome> {
    let (id, _) = which(ctx, run)?;
    let client = OpsClient::new(ctx.settings()?)?;
    let answer = client.post(&format!("/v1/ops/runs/{id}/{verb}"))?;
    print_result(ctx.contract_format(), &answer, || {
        let mut table = TableView::pairs();
        table
            .row(["platform run", id.as_str()])
            .row(["asked for", verb]);
        for (name, value) in answer.as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_string);
            table.row([name.as_str(), &text]);
        }
        table
    })?;
    Ok(Outcome::Ok)
}

fn prune_run(ctx: &CliContext, id: &str, part: PrunePart) -> anyhow::Result<Outcome> {
    let id = parse("the argument", id).map_err(run_failure)?;
    let paths = ctx.settings()?.run_paths(&id);
    if !exists(ctx, &paths)? {
        let sentence = format!("{} does not exist", paths.run_root());
        return Err(Failure::new("PLATFORM_RUN_NOT_FOUND", sentence).into());
    }
    prune(ctx, &paths, part, &ledger(ctx, &paths)?)
}

/// Whether anything of a run is there: its folder, or an object below its prefix.
fn exists(ctx: &CliContext, paths: &RunPaths) -> anyhow::Result<bool> {
    let stores = ctx.settings()?.object_stores();
    match stores.open_existing(&paths.run_root()) {
        Ok(_) => Ok(true),
        Err(OpenStoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(Failure::of(error.code(), error).into()),
    }
}

/// The run that is meant, and who says so.
fn which(ctx: &CliContext, run: &WhichRun) -> anyhow::Result<(PlatformRunId, &'static str)> {
    if let Some(text) = &run.platform_run_id {
        return Ok((
            parse("the argument", text).map_err(run_failure)?,
            "the command line",
        ));
    }
    let settings = ctx.settings()?;
    let active = settings.active_run();
    let found = active.find().map_err(run_failure)?;
    match found.ok_or(ActiveRunError::Missing).map_err(run_failure)? {
        (id, RunIdOrigin::Environment) => Ok((id, "PLATFORM_RUN_ID")),
        (id, _) => Ok((id, "ACTIVE_RUN_ID")),
    }
}

fn ledger(ctx: &CliContext, paths: &RunPaths) -> anyhow::Result<SessionLedger> {
    let store = ctx.runs_store()?;
    Ok(SessionLedger::new(
        store,
        paths,
        Arc::new(SystemClock::new()),
    ))
}

/// Run errors as the command line shows them.
pub fn run_failure(error: ActiveRunError) -> anyhow::Error {
    let failure = Failure::of(error.code(), error);
    failure
        .hint("`wellspring run new` creates a run and makes it active")
        .into()
}
