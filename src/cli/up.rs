//! `wellspring up`: the daemon. Gate, READY consumer, Scenario Runner and HTTP in one supervision tree.

use super::gate::active_run;
use super::stream::{CapArgs, outcome_table, streamer};
use super::{CliContext, Failure, Outcome, output};
use crate::daemon::ready_streams::{Consume, LateOrders, ReadyStreams};
use crate::daemon::{self, DaemonPlan};
use clap::Args;
use std::sync::{Arc, Mutex, PoisonError};
use wellspring_actors::world_stream::ready_desk::ReadyOutcome;

const EXAMPLES: &str = "\
Examples:
  wellspring up                          serve, and stream every READY of the active run, until SIGTERM
  wellspring up --once                   stream what is READY now, then stop; prints a JSON array
  wellspring up --once --max-events-per-output 200
  wellspring run pause                   hold its streams (also cancel, resume), from another terminal

SIGTERM drains: streams stop, what the gate has accepted is answered, checkpoints are saved, exit 0.";

/// Options of `wellspring up`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    /// Handle what is on the control bus now, then stop.
    #[arg(long)]
    once: bool,
    /// Stop after so many messages; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_messages: u64,
    /// Address to bind; the profile's otherwise.
    #[arg(long)]
    host: Option<String>,
    /// Port to bind; the profile's otherwise. 0 takes any free port.
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    caps: CapArgs,
}

/// Runs the command.
pub fn run(args: UpArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let missing = || {
        Failure::new("PLATFORM_RUN_ID_MISSING", "no platform run is active")
            .hint("`wellspring run new` creates one")
    };
    let run = active_run(settings)?.ok_or_else(missing)?;
    // Written by the consumer's task, read when it has ended.
    let outcomes: Arc<Mutex<Vec<ReadyOutcome>>> = Arc::default();
    let heard = outcomes.clone();
    let format = ctx.contract_format();
    let once = args.once;
    let told = move |outcome: ReadyOutcome| {
        if !once {
            // A closed stdout ends nothing: the ready records have it too.
            let _ = output::print_result(format, &outcome, || {
                outcome_table(std::slice::from_ref(&outcome))
            });
        }
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(outcome);
    };
    let streams = ReadyStreams {
        settings: settings.clone(),
        run: run.clone(),
        streamer: streamer(settings)?,
        options: args.caps.options(),
        consume: if once {
            Consume::Once(args.max_messages)
        } else {
            Consume::On(args.max_messages)
        },
        told: Box::new(told),
        orders: Arc::new(LateOrders::default()),
    };
    let plan = DaemonPlan {
        own_run: Some(run),
        host: args
            .host
            .unwrap_or_else(|| settings.wiring.gate.bind_host.clone()),
        port: args.port.unwrap_or(settings.wiring.gate.bind_port),
        streams: Some(Box::new(streams)),
        run_logs: ctx.run_logs.clone(),
    };
    let went_well = daemon::run(settings, plan)?;
    if once {
        let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        output::print_result(format, &*outcomes, || outcome_table(&outcomes))?;
    }
    Ok(if went_well {
        Outcome::Ok
    } else {
        Outcome::Failed
    })
}
