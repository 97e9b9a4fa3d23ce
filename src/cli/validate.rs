//! `wellspring validate`: does streaming work here, and does it resume? (contract 6.9)
//!
//! The checks stream a few events of a real world into the configured gate. `resume` reads the
//! checkpoint, streams one more event and looks whether the cursor moved.

use super::output::{Align, TableView, print_result};
use super::stream::{http_gate, stream_target, streamer};
use super::{CliContext, Failure, Outcome};
use crate::clock::SystemClock;
use crate::process;
use crate::settings::Settings;
use crate::settings::backends::CheckpointBackend;
use crate::world_streamer::setup::SESSION_COMPONENT;
use crate::world_streamer::{StreamOptions, StreamTarget, WorldStreamer};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;
use wellspring_actors::telemetry::SessionEvents;
use wellspring_actors::world_stream::result::{StreamResult, StreamStatus};
use wellspring_actors::world_stream::run_streams::EventCaps;
use wellspring_domain::ports::{Clock, Cursor, GateClient};

const EXAMPLES: &str = "\
Examples:
  wellspring validate --mode local               a short stream, then a resume
  wellspring validate --mode local --check-failures
  wellspring validate --mode dev                 also a stream to completion

The world is wiring `oracle_engine_run_root` (ORACLE_ENGINE_RUN_ROOT) or --engine-run-root; the gate is
`ig_ingest_url` (IG_INGEST_URL).";

/// Which platform is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// A bounded smoke of the local platform.
    Local,
    /// Also the checkpoint backend and a stream to completion.
    Dev,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Mode::Local => "local",
            Mode::Dev => "dev",
        }
    }
}

/// Options of `wellspring validate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ValidateArgs {
    /// What to validate.
    #[arg(long, value_enum)]
    mode: Mode,
    /// The world [default: the profile's].
    #[arg(long, value_name = "DIR", env = "WSP_ENGINE_RUN_ROOT")]
    engine_run_root: Option<String>,
    /// Its scenario [default: the profile's, else the only one in the world].
    #[arg(long, value_name = "ID", env = "WSP_SCENARIO_ID")]
    scenario_id: Option<String>,
    /// Events of the smoke stream, for each output.
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_events: u64,
    /// Events streamed after the resume, for each output.
    #[arg(long, value_name = "N", default_value_t = 1)]
    resume_events: u64,
    /// Leave the resume out.
    #[arg(long)]
    skip_resume: bool,
    /// Also check that a producer that is not allowed is refused.
    #[arg(long)]
    check_failures: bool,
    /// Only these outputs (comma-separated).
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    output_ids: Vec<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum CheckStatus {
    Pass,
    Fail,
    Warn,
}

#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    status: CheckStatus,
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    status: CheckStatus,
    checks: Vec<Check>,
}

/// Runs the command: exit 0 when nothing failed.
pub fn run(args: ValidateArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let runtime = process::runtime()?;
    let report = runtime.block_on(async { Validation::new(&args, settings)?.report().await })?;
    print_result(ctx.contract_format(), &report, || table(&report))?;
    Ok(if report.status == CheckStatus::Fail {
        Outcome::Failed
    } else {
        Outcome::Ok
    })
}

struct Validation<'a> {
    args: &'a ValidateArgs,
    settings: &'a Settings,
    streamer: Arc<WorldStreamer>,
    target: StreamTarget,
    gate: Arc<dyn GateClient>,
    stop: watch::Receiver<bool>,
}

impl<'a> Validation<'a> {
    fn new(args: &'a ValidateArgs, settings: &'a Settings) -> anyhow::Result<Self> {
        let active = settings.active_run();
        let found = active.find_or_create(SystemClock::new().now());
        let (run, _) = found.map_err(|error| Failure::of(error.code(), error))?;
        let wired = settings.wiring.oracle_engine_run_root.clone();
        Ok(Validation {
            args,
            settings,
            streamer: streamer(settings)?,
            target: StreamTarget {
                engine_run_root: args.engine_run_root.clone().or(wired),
                scenario_id: args.scenario_id.clone(),
                platform_run_id: Some(run),
                ..StreamTarget::default()
            },
            gate: http_gate(settings)?,
            stop: process::stop_signal()?,
        })
    }

    async fn report(&self) -> anyhow::Result<Report> {
        let root = self.target.engine_run_root.clone();
        let mode = self.args.mode.as_str();
        self.tell(
            "validation_start",
            json!({"mode": mode, "engine_run_root": root}),
        );
        let mut checks = vec![self.smoke_stream().await?];
        if !self.args.skip_resume {
            checks.push(self.resume().await?);
        }
        if self.args.check_failures {
            checks.push(self.allowlist_fail().await?);
        }
        if self.args.mode == Mode::Dev {
            checks.push(self.checkpoint_backend());
            checks.push(self.completion_stream().await?);
        }
        let failed = checks.iter().any(|check| check.status == CheckStatus::Fail);
        let status = if failed {
            CheckStatus::Fail
        } else {
            CheckStatus::Pass
        };
        self.tell(
            "validation_complete",
            json!({"mode": mode, "status": status}),
        );
        Ok(Report { status, checks })
    }

    fn tell(&self, kind: &str, details: serde_json::Value) {
        if let Some(run) = &self.target.platform_run_id {
            self.streamer
                .session(run)
                .session_event(SESSION_COMPONENT, kind, details);
        }
    }

    fn options(&self, per_output: Option<u64>) -> StreamOptions {
        StreamOptions {
            only: self.args.output_ids.clone(),
            caps: EventCaps {
                per_output,
                run: None,
            },
            speedup: Some(0.0),
            ..StreamOptions::default()
        }
    }

    async fn stream(&self, options: &StreamOptions) -> anyhow::Result<StreamResult> {
        let (gate, stop) = (self.gate.clone(), self.stop.clone());
        stream_target(&self.streamer, &self.target, options, gate, stop).await
    }

    async fn smoke_stream(&self) -> anyhow::Result<Check> {
        let result = self
            .stream(&self.options(Some(self.args.max_events)))
            .await?;
        Ok(of_result("smoke_stream", &result))
    }

    async fn completion_stream(&self) -> anyhow::Result<Check> {
        let result = self.stream(&self.options(None)).await?;
        Ok(of_result("completion_stream", &result))
    }

    async fn allowlist_fail(&self) -> anyhow::Result<Check> {
        let options = StreamOptions {
            producer_id: Some("svc:invalid".to_owned()),
            ..self.options(Some(1))
        };
        let result = self.stream(&options).await?;
        let refused = result.reason.as_deref() == Some("PRODUCER_NOT_ALLOWED");
        let found = result
            .reason
            .unwrap_or_else(|| result.status.as_str().to_owned());
        let reason = (!refused).then(|| format!("EXPECTED_PRODUCER_NOT_ALLOWED:{found}"));
        Ok(check(
            "allowlist_fail",
            if refused {
                CheckStatus::Pass
            } else {
                CheckStatus::Fail
            },
            reason,
        ))
    }

    fn checkpoint_backend(&self) -> Check {
        match self.settings.wiring.wsp_checkpoint.backend {
            CheckpointBackend::Postgres => check("checkpoint_backend", CheckStatus::Pass, None),
            CheckpointBackend::File => warn("checkpoint_backend", "NOT_POSTGRES"),
        }
    }

    /// Streams on from the checkpoint and looks whether it moved.
    async fn resume(&self) -> anyhow::Result<Check> {
        const NAME: &str = "resume";
        if self.settings.wiring.wsp_checkpoint.backend != CheckpointBackend::File {
            return Ok(warn(NAME, "NON_FILE_CHECKPOINT"));
        }
        let before = match self.cursors().await? {
            Ok(cursors) => cursors,
            Err(code) => return Ok(warn(NAME, code)),
        };
        if before.is_empty() {
            return Ok(warn(NAME, "NO_OUTPUT_IDS"));
        }
        if before.iter().all(|(_, cursor)| cursor.is_none()) {
            return Ok(warn(NAME, "CHECKPOINT_NOT_FOUND"));
        }
        if before.iter().any(|(_, cursor)| cursor.is_none()) {
            return Ok(warn(NAME, "CURSOR_MISSING_BEFORE"));
        }
        let result = self
            .stream(&self.options(Some(self.args.resume_events)))
            .await?;
        if result.status != StreamStatus::Streamed {
            let why = result
                .reason
                .unwrap_or_else(|| result.status.as_str().to_owned());
            return Ok(check(
                NAME,
                CheckStatus::Fail,
                Some(format!("RESUME_FAILED:{why}")),
            ));
        }
        let after = match self.cursors().await? {
            Ok(cursors) => cursors,
            Err(code) => return Ok(warn(NAME, code)),
        };
        Ok(judge_resume(result.emitted, &before, &after))
    }

    /// The cursor of every selected output, or the code that keeps it from being read.
    async fn cursors(&self) -> anyhow::Result<Result<OutputCursors, &'static str>> {
        let (streamer, target) = (self.streamer.clone(), self.target.clone());
        let options = self.options(None);
        let reading = tokio::task::spawn_blocking(move || {
            let prepared = streamer
                .prepare(&target, &options)
                .map_err(|refusal| refusal.code)?;
            let pack_key = &prepared.request.checkpoint_pack_key;
            let cursor = |output_id: String| {
                let cursor = prepared.checkpoints.load(pack_key, &output_id);
                Ok((output_id, cursor.map_err(|error| error.code())?))
            };
            prepared
                .cleared
                .plan
                .output_ids()
                .into_iter()
                .map(cursor)
                .collect()
        });
        Ok(reading.await?)
    }
}

/// Outputs and where they stand.
type OutputCursors = Vec<(String, Option<Cursor>)>;

fn judge_resume(emitted: u64, before: &OutputCursors, after: &OutputCursors) -> Check {
    const NAME: &str = "resume";
    if emitted == 0 {
        return warn(NAME, "NO_REMAINING_EVENTS");
    }
    if after.iter().any(|(_, cursor)| cursor.is_none()) {
        return warn(NAME, "CURSOR_MISSING_AFTER");
    }
    match before == after {
        true => check(
            NAME,
            CheckStatus::Fail,
            Some("CURSOR_NOT_ADVANCED".to_owned()),
        ),
        false => check(NAME, CheckStatus::Pass, None),
    }
}

fn of_result(name: &'static str, result: &StreamResult) -> Check {
    let passed = result.status == StreamStatus::Streamed;
    let status = if passed {
        CheckStatus::Pass
    } else {
        CheckStatus::Fail
    };
    let reason = result
        .reason
        .clone()
        .or_else(|| (!passed).then(|| result.status.as_str().to_owned()));
    Check {
        detail: result.detail.clone(),
        ..check(name, status, reason)
    }
}

fn check(name: &'static str, status: CheckStatus, reason: Option<String>) -> Check {
    Check {
        name,
        status,
        reason,
        detail: None,
    }
}

fn warn(name: &'static str, reason: &str) -> Check {
    check(name, CheckStatus::Warn, Some(reason.to_owned()))
}

fn table(report: &Report) -> TableView {
    let columns = ["check", "status", "reason", "detail"];
    let mut table = TableView::new(columns.map(|column| (column, Align::Left)));
    for check in &report.checks {
        let status = format!("{:?}", check.status).to_uppercase();
        let (reason, detail) = (check.reason.as_deref(), check.detail.as_deref());
        table.row([
            check.name,
            &status,
            reason.unwrap_or(""),
            detail.unwrap_or(""),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(rows: &[Option<u64>]) -> OutputCursors {
        let cursor = |row: u64| Cursor {
            pack_key: "k".to_owned(),
            output_id: "o".to_owned(),
            last_file: "f".to_owned(),
            last_row_index: row,
            last_ts_utc: None,
            stream_view_id: None,
            part_name: None,
        };
        rows.iter()
            .map(|row| ("o".to_owned(), row.map(cursor)))
            .collect()
    }

    #[test]
    fn a_resume_passes_only_when_the_cursor_moved() {
        let judge = |emitted, before: &[Option<u64>], after: &[Option<u64>]| {
            let check = judge_resume(emitted, &cursors(before), &cursors(after));
            (check.status, check.reason.unwrap_or_default())
        };
        assert_eq!(
            judge(1, &[Some(9)], &[Some(10)]),
            (CheckStatus::Pass, String::new())
        );
        assert_eq!(
            judge(1, &[Some(9)], &[Some(9)]),
            (CheckStatus::Fail, "CURSOR_NOT_ADVANCED".into())
        );
        assert_eq!(
            judge(1, &[Some(9)], &[None]),
            (CheckStatus::Warn, "CURSOR_MISSING_AFTER".into())
        );
        assert_eq!(
            judge(0, &[Some(9)], &[Some(9)]),
            (CheckStatus::Warn, "NO_REMAINING_EVENTS".into())
        );
    }
}
