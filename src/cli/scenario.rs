//! `wellspring scenario`: run, reemit, quarantine (contract 5.1).
//!
//! Exit codes: 0 READY (or published), 1 not yet or failed, 3 refused by evidence, state or caller.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use wellspring_domain::ports::{Clock, ObjectStore};
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::scenario::control::{
    ReemitResponse, ReemitVerdict, RunResponse, RunVerdict,
};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::reemit::{CrossRunOverride, ReemitKind, ReemitRequest};
use wellspring_domain::scenario::request::RunRequest;

use super::output::{self, TableView};
use super::scenario_request::{RequestArgs, request_from};
use super::{CliContext, Failure, Outcome, progress};
use crate::clock::SystemClock;
use crate::scenario_runner::{
    LedgerKeys, RunError, ScenarioRunner, SetupFiles, list_quarantined, read_quarantine,
};

/// How often `--wait-seconds` looks at the evidence again.
const RECHECK: Duration = Duration::from_secs(2);

/// Arguments of `wellspring scenario`.
#[derive(Debug, clap::Args)]
pub struct ScenarioArgs {
    #[command(subcommand)]
    command: ScenarioCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ScenarioCommand {
    /// Prove a world and publish READY; submitting the same key again goes on where the run stands.
    Run(Box<RunArgs>),
    /// Publish READY, or the end of a run, once more.
    Reemit(ReemitArgs),
    /// Runs whose evidence contradicts itself.
    Quarantine(QuarantineArgs),
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// Scenario Runner wiring [default: the profile's].
    #[arg(long, value_name = "FILE")]
    wiring: Option<String>,
    /// Scenario Runner policy [default: the profile's].
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    request: RequestArgs,
    /// Look again at missing evidence for so long before giving up.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait_seconds: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    #[value(name = "READY_ONLY")]
    ReadyOnly,
    #[value(name = "TERMINAL_ONLY")]
    TerminalOnly,
    #[value(name = "BOTH")]
    Both,
}

impl From<KindArg> for ReemitKind {
    fn from(kind: KindArg) -> ReemitKind {
        match kind {
            KindArg::ReadyOnly => ReemitKind::ReadyOnly,
            KindArg::TerminalOnly => ReemitKind::TerminalOnly,
            KindArg::Both => ReemitKind::Both,
        }
    }
}

#[derive(Debug, clap::Args)]
struct ReemitArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The scenario run (32 hex digits).
    #[arg(long, value_name = "ID", env = "SR_REEMIT_RUN_ID")]
    run_id: String,
    /// What to publish.
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        env = "SR_REEMIT_KIND",
        default_value = "BOTH"
    )]
    kind: KindArg,
    /// Why; kept in the record.
    #[arg(long)]
    reason: Option<String>,
    /// Who asks; kept in the record.
    #[arg(long)]
    requested_by: Option<String>,
    /// Only say what would be published.
    #[arg(long)]
    dry_run: bool,
    /// Speak in another platform run than the one the facts are of.
    #[arg(long, value_name = "ID")]
    emit_platform_run_id: Option<String>,
    /// Approval for another platform run, a JSON file.
    #[arg(long, value_name = "FILE")]
    cross_run_override_json: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QuarantineCommand {
    /// Every quarantined run of the active platform run.
    List,
    /// One quarantined run.
    Show {
        /// The scenario run (32 hex digits).
        #[arg(long, value_name = "ID")]
        run_id: String,
    },
}

/// Runs the command.
pub fn run(args: ScenarioArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        ScenarioCommand::Run(args) => submit(*args, ctx),
        ScenarioCommand::Reemit(args) => reemit(args, ctx),
        ScenarioCommand::Quarantine(args) => quarantine(args, ctx),
    }
}

fn submit(args: RunArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let active = settings.active_run();
    let (run_id, _origin) = active
        .find_or_create(SystemClock::new().now())
        .map_err(|error| Failure::of(error.code(), error))?;
    let request = request_from(&args.request, settings, &run_id)?;
    let runner = runner(&args.files, ctx, &run_id)?;
    let response = submit_until(&runner, &request, Duration::from_secs(args.wait_seconds))?;
    progress::say(&response.message);
    output::print_result(ctx.contract_format(), &response, || run_table(&response))?;
    Ok(run_outcome(&response))
}

/// Submits, and again while evidence is missing and time is left.
fn submit_until(
    runner: &ScenarioRunner,
    request: &RunRequest,
    patience: Duration,
) -> Result<RunResponse, Failure> {
    let started = Instant::now();
    loop {
        let response = runner.submit(request).map_err(run_failure)?;
        let open = matches!(
            response.verdict,
            RunVerdict::Waiting | RunVerdict::LeaseBusy
        );
        if !open || started.elapsed() + RECHECK > patience {
            return Ok(response);
        }
        std::thread::sleep(RECHECK);
    }
}

fn runner(
    files: &FileArgs,
    ctx: &CliContext,
    run_id: &PlatformRunId,
) -> anyhow::Result<ScenarioRunner> {
    let files = SetupFiles {
        wiring: files.wiring.clone(),
        policy: files.policy.clone(),
    };
    let runner = ScenarioRunner::from_settings(ctx.settings()?, run_id, &files);
    Ok(runner.map_err(|error| Failure::of(error.code().to_owned(), error))?)
}

fn run_failure(error: RunError) -> Failure {
    let refused = matches!(
        error,
        RunError::EquivalenceCollision { .. } | RunError::Drift { .. }
    );
    let hint = match &error {
        RunError::EquivalenceCollision { .. } => "use another --run-equivalence-key",
        RunError::Drift { .. } => {
            "stored documents are never replaced; use a new key for a new run"
        }
        _ => "nothing was lost; the same command may be given again",
    };
    let failure = Failure::of(error.code(), error).hint(hint);
    if refused { failure.refused() } else { failure }
}

/// Reasons that say the request or the engine failed, not that evidence was refused.
fn is_failure(reason_code: &str) -> bool {
    reason_code.starts_with("ENGINE_")
        || [
            "ATTEMPT_LIMIT_EXCEEDED",
            "PLAN_INVALID",
            "UNKNOWN_OUTPUT_ID",
        ]
        .contains(&reason_code)
}

fn run_outcome(response: &RunResponse) -> Outcome {
    match response.verdict {
        RunVerdict::Ready => Outcome::Ok,
        RunVerdict::ReadyUnpublished | RunVerdict::Waiting | RunVerdict::LeaseBusy => {
            Outcome::Failed
        }
        RunVerdict::Failed if response.reason_code.as_deref().is_some_and(is_failure) => {
            Outcome::Failed
        }
        RunVerdict::Failed | RunVerdict::Quarantined | RunVerdict::Unauthorized => Outcome::Refused,
    }
}

fn run_table(response: &RunResponse) -> TableView {
    let mut table = TableView::pairs();
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    table.row(["run".to_owned(), response.run_id.clone()]);
    table.row(["state".to_owned(), response.state.as_str().to_owned()]);
    if let Some(code) = &response.reason_code {
        table.row(["reason".to_owned(), code.clone()]);
    }
    table.row(["status".to_owned(), text(&response.status_ref)]);
    table.row(["record".to_owned(), text(&response.record_ref)]);
    table.row(["facts view".to_owned(), text(&response.facts_view_ref)]);
    table
}

fn reemit(args: ReemitArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let request = ReemitRequest {
        run_id: args.run_id,
        reemit_kind: args.kind.into(),
        reason: args.reason,
        requested_by: args.requested_by,
        dry_run: args.dry_run,
        emit_platform_run_id: args.emit_platform_run_id,
        cross_run_override: args
            .cross_run_override_json
            .as_ref()
            .map(read_override)
            .transpose()?,
        requested_at_utc: None,
    };
    request
        .validate()
        .map_err(|error| Failure::of("REEMIT_REQUEST_INVALID", error))?;
    let run_id = active_run(ctx)?;
    let response = runner(&args.files, ctx, &run_id)?
        .reemit(&request)
        .map_err(run_failure)?;
    progress::say(&response.message);
    output::print_result(ctx.contract_format(), &response, || reemit_table(&response))?;
    Ok(match response.verdict {
        ReemitVerdict::Published | ReemitVerdict::DryRun => Outcome::Ok,
        ReemitVerdict::Refused | ReemitVerdict::Unauthorized => Outcome::Refused,
        ReemitVerdict::Busy | ReemitVerdict::NotFound | ReemitVerdict::PublishFailed => {
            Outcome::Failed
        }
    })
}

fn read_override(path: &PathBuf) -> Result<CrossRunOverride, Failure> {
    let invalid = |cause: String| {
        Failure::new(
            "REEMIT_REQUEST_INVALID",
            format!("{}: {cause}", path.display()),
        )
    };
    let text = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))
}

fn reemit_table(response: &ReemitResponse) -> TableView {
    let mut table = TableView::pairs();
    let state = response.status_state.map_or("-", |state| state.as_str());
    let published = match response.published.is_empty() {
        true => "nothing".to_owned(),
        false => response.published.join(", "),
    };
    table.row(["run", response.run_id.as_str()]);
    table.row(["state", state]);
    table.row(["published", published.as_str()]);
    if let Some(code) = &response.reason_code {
        table.row(["reason", code.as_str()]);
    }
    table
}

fn active_run(ctx: &CliContext) -> anyhow::Result<PlatformRunId> {
    let settings = ctx.settings()?;
    let active = settings.active_run();
    Ok(active
        .require()
        .map_err(|error| Failure::of(error.code(), error))?)
}

fn quarantine(args: QuarantineArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let prefix = ctx.settings()?.run_paths(&active_run(ctx)?).store_prefix();
    let store = ctx.runs_store()?;
    match args.command {
        QuarantineCommand::List => list(store.as_ref(), &prefix, ctx),
        QuarantineCommand::Show { run_id } => show(store.as_ref(), &prefix, &run_id, ctx),
    }
}

fn list(store: &dyn ObjectStore, prefix: &str, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let files =
        list_quarantined(store, prefix).map_err(|error| Failure::of(error.code(), error))?;
    output::print_result(ctx.contract_format(), &files, || {
        let mut table = TableView::left(["run", "reason", "what", "since"]);
        for file in &files {
            let what = file.missing.join(", ");
            table.row([file.run_id.as_str(), &file.reason, &what, &file.ts_utc]);
        }
        table
    })?;
    Ok(Outcome::Ok)
}

fn show(
    store: &dyn ObjectStore,
    prefix: &str,
    run_id: &str,
    ctx: &CliContext,
) -> anyhow::Result<Outcome> {
    let file = read_quarantine(store, &LedgerKeys::new(prefix, run_id))
        .map_err(|error| Failure::of(error.code(), error))?
        .ok_or_else(|| {
            let sentence = format!("run {run_id} is not quarantined");
            Failure::new("RUN_NOT_QUARANTINED", sentence).hint("`quarantine list` names them")
        })?;
    output::print_result(ctx.contract_format(), &file, || {
        let mut table = TableView::pairs();
        table.row(["run", file.run_id.as_str()]);
        table.row(["reason", file.reason.as_str()]);
        table.row(["what", file.missing.join(", ").as_str()]);
        table.row(["record", file.record_ref.as_str()]);
        table.row(["status", file.status_ref.as_str()]);
        table.row(["since", file.ts_utc.as_str()]);
        table
    })?;
    Ok(Outcome::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_domain::scenario::state_machine::RunState;

    #[test]
    fn exit_codes_tell_refusal_by_evidence_from_failure() {
        let outcome = |verdict: RunVerdict, code: &str| {
            run_outcome(&RunResponse {
                run_id: String::new(),
                state: RunState::Failed,
                status_ref: None,
                record_ref: None,
                facts_view_ref: None,
                message: String::new(),
                verdict,
                reason_code: Some(code.to_owned()),
            })
        };
        assert_eq!(outcome(RunVerdict::Ready, ""), Outcome::Ok);
        assert_eq!(
            outcome(RunVerdict::Waiting, "EVIDENCE_WAITING"),
            Outcome::Failed
        );
        assert_eq!(
            outcome(RunVerdict::Failed, "ENGINE_TIMEOUT"),
            Outcome::Failed
        );
        assert_eq!(
            outcome(RunVerdict::Failed, "INSTANCE_RECEIPT_DRIFT"),
            Outcome::Refused
        );
        assert_eq!(
            outcome(RunVerdict::Quarantined, "EVIDENCE_CONFLICT"),
            Outcome::Refused
        );
        assert_eq!(
            outcome(RunVerdict::Unauthorized, "AUTH_DENIED"),
            Outcome::Refused
        );
    }
}
