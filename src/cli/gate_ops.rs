//! `wellspring gate ops`: an operator's questions to a gate (contract 7.11, operations).

use super::bus_verify::rebuild_run;
use super::failure::Failure;
use super::ops_client::OpsClient;
use super::output::{print_json, print_text};
use super::run_arg::RunArg;
use super::{CliContext, Outcome};
use crate::clock::SystemClock;
use crate::session_ledger::SessionLedger;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_actors::telemetry::SessionEvents;
use wellspring_domain::run_paths::RunPaths;

const EXAMPLES: &str = "\
Examples:
  wellspring gate ops --health                 {\"state\":...,\"reasons\":[...]}
  wellspring gate ops --push-file events.ndjson  prints ADMITTED=1, and what else became of them
  wellspring gate ops --lookup-event-id ID     the receipt's place as JSON, or {}
  wellspring gate ops --rebuild-index          on a run no gate has open; prints REBUILT=1";

/// Options of `wellspring gate ops`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct OpsArgs {
    #[command(flatten)]
    action: OpsAction,
    #[command(flatten)]
    run: RunArg,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct OpsAction {
    /// Push the envelopes of a file: one JSON object, an array, or one per line.
    #[arg(long, value_name = "FILE")]
    push_file: Option<PathBuf>,
    /// Earliest decision about this event.
    #[arg(long, value_name = "ID")]
    lookup_event_id: Option<String>,
    /// Newest decision with this receipt id.
    #[arg(long, value_name = "ID")]
    lookup_receipt_id: Option<String>,
    /// Earliest decision with this dedupe key.
    #[arg(long, value_name = "KEY")]
    lookup_dedupe_key: Option<String>,
    /// Drop what is derived from the run's journals and make it again. Needs no running gate.
    #[arg(long)]
    rebuild_index: bool,
    /// State and reasons of the running gate.
    #[arg(long)]
    health: bool,
}

/// Runs the command.
pub fn run(args: &OpsArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let action = &args.action;
    if action.rebuild_index {
        return rebuild_index(&args.run, ctx);
    }
    let client = OpsClient::new(ctx.settings()?)?;
    if let Some(file) = &action.push_file {
        return push_file(&client, file);
    }
    if action.health {
        return health(&client, &args.run, ctx);
    }
    let lookups = [
        ("event_id", &action.lookup_event_id),
        ("receipt_id", &action.lookup_receipt_id),
        ("dedupe_key", &action.lookup_dedupe_key),
    ];
    for (name, value) in lookups {
        if let Some(value) = value {
            print_json(&client.get_with("/v1/ops/lookup", (name, value))?)?;
        }
    }
    Ok(Outcome::Ok)
}

fn rebuild_index(run: &RunArg, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let paths = run.paths(ctx)?;
    let report = rebuild_run(&paths, ctx)?;
    let details = json!({"identical": report.identical, "parts": report.parts});
    tell(&paths, ctx, "ops_rebuild", details)?;
    print_text("REBUILT=1\n")?;
    Ok(match report.identical {
        true => Outcome::Ok,
        false => Outcome::Differences,
    })
}

fn health(client: &OpsClient, run: &RunArg, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let answer = client.get("/v1/ops/health")?;
    let health = json!({"state": answer["state"], "reasons": answer["reasons"]});
    // A gate may run before there is a run to tell it to.
    if let Ok(paths) = run.paths(ctx) {
        tell(&paths, ctx, "health_check", health.clone())?;
    }
    print_json(&health)?;
    Ok(Outcome::Ok)
}

fn tell(
    paths: &RunPaths,
    ctx: &CliContext,
    event_kind: &str,
    details: Value,
) -> anyhow::Result<()> {
    SessionLedger::new(ctx.runs_store()?, paths, Arc::new(SystemClock::new()))
        .session_event("ig", event_kind, details);
    Ok(())
}

fn push_file(client: &OpsClient, file: &Path) -> anyhow::Result<Outcome> {
    let bytes = std::fs::read(file).map_err(|error| {
        let sentence = format!("{}: {error}", file.display());
        Failure::new("PUSH_FILE_UNREADABLE", sentence)
    })?;
    let counts = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_)) => Pushed::of(&[client.post_body("/v1/ingest/push", bytes)?]),
        _ => {
            let answer = client.post_body("/v1/ingest/push_batch", bytes)?;
            Pushed::of(answer["results"].as_array().map_or(&[], Vec::as_slice))
        }
    };
    print_text(&counts.lines())?;
    Ok(match counts.quarantined + counts.refused {
        0 => Outcome::Ok,
        _ => Outcome::Refused,
    })
}

/// What became of the pushed envelopes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pushed {
    admitted: u64,
    duplicates: u64,
    quarantined: u64,
    refused: u64,
}

impl Pushed {
    fn of(answers: &[Value]) -> Pushed {
        let mut pushed = Pushed::default();
        for answer in answers {
            let count = match answer["decision"].as_str() {
                Some("ADMIT") => &mut pushed.admitted,
                Some("DUPLICATE") => &mut pushed.duplicates,
                Some("QUARANTINE") => &mut pushed.quarantined,
                _ => &mut pushed.refused,
            };
            *count += 1;
        }
        pushed
    }

    fn lines(&self) -> String {
        let mut lines = format!("ADMITTED={}\n", self.admitted);
        for (name, count) in [
            ("DUPLICATE", self.duplicates),
            ("QUARANTINED", self.quarantined),
            ("REFUSED", self.refused),
        ] {
            if count > 0 {
                lines.push_str(&format!("{name}={count}\n"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_counted_once() {
        let answers = [
            json!({"decision": "ADMIT"}),
            json!({"decision": "DUPLICATE"}),
            json!({"error": "PUBLISH_IN_FLIGHT_RETRY", "status": 503}),
        ];
        assert_eq!(
            Pushed::of(&answers).lines(),
            "ADMITTED=1\nDUPLICATE=1\nREFUSED=1\n"
        );
        assert_eq!(Pushed::of(&answers[..1]).lines(), "ADMITTED=1\n");
    }
}
