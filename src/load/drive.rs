//! The load itself: a gate, producers, and what is read off while they work.

use super::lanes::{Events, Start};
use super::recorder::{Counts, Recorded, Recording};
use super::sampler::{Point, sample};
use super::schedule::Schedule;
use super::source::EventSource;
use super::{LoadPlan, Target};
use crate::cli::Failure;
use crate::cli::output::grouped;
use crate::cli::progress::Progress;
use crate::daemon::live_tree;
use crate::gate::assembly::{GateOptions, RunningGate, start};
use crate::machine::{Reading, Use};
use crate::process;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use wellspring_domain::run_paths::PlatformRunId;

/// How long a gate may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// What was measured.
pub struct Driven {
    /// Counts and latencies.
    pub recorded: Recorded,
    /// Over time.
    pub points: Vec<Point>,
    /// Processors while measuring; none when the load ended while warming up.
    pub used: Option<Use>,
    /// Events decided while measuring.
    pub measured_events: u64,
    /// From the end of the warm-up to the last answer.
    pub measured_seconds: f64,
}

/// Runs the load to its end.
pub fn drive(plan: &LoadPlan, run: &PlatformRunId, events: &Events) -> anyhow::Result<Driven> {
    let runtime = process::runtime()?;
    let driven = runtime.block_on(async {
        match &plan.target {
            Target::InProcess => {
                let options = GateOptions {
                    own_run: Some(run.clone()),
                    tree: live_tree(),
                };
                let gate = start(&plan.settings, options)
                    .await
                    .map_err(|error| Failure::of(error.code(), error))?;
                let driven = tokio::select! {
                    driven = measure(plan, events, Some(&gate)) => driven,
                    cause = gate.ended() => Err(Failure::new("GATE_FAILED", cause).into()),
                };
                gate.drain(STOP_DEADLINE).await;
                gate.stop(STOP_DEADLINE).await;
                driven
            }
            Target::Http { .. } => {
                process::raise_open_files();
                measure(plan, events, None).await
            }
        }
    });
    // Blocking work that hangs must not hold the process: what matters is durable already.
    runtime.shutdown_timeout(Duration::from_secs(1));
    driven
}

async fn measure(
    plan: &LoadPlan,
    events: &Events,
    gate: Option<&RunningGate>,
) -> anyhow::Result<Driven> {
    let gate_process = match &plan.target {
        Target::Http { gate_process, .. } => *gate_process,
        Target::InProcess => None,
    };
    let recording = Arc::new(Recording::new(events.producers(plan)));
    let progress = Arc::new(Progress::start("load", events.total(plan)));
    let sources = events.sources(plan, &recording);
    let started = Start {
        origin: Instant::now(),
        recording: recording.clone(),
        stop: process::stop_signal()?,
    };
    let (done, sampling) = watch::channel(false);
    let sampler = tokio::spawn(sample(
        recording.clone(),
        started.origin,
        gate_process,
        progress.clone(),
        sampling,
    ));
    let warm = {
        let (recording, warm_at) = (recording.clone(), started.origin + plan.warmup);
        let cold = Reading::now(gate_process);
        let warmup = plan.warmup;
        tokio::spawn(async move {
            if warmup.is_zero() {
                return (cold, Counts::default());
            }
            tokio::time::sleep_until(warm_at.into()).await;
            (Reading::now(gate_process), recording.counts())
        })
    };
    let mut producers = spawn(plan, sources, &started, gate);
    while let Some(ended) = producers.join_next().await {
        ended?;
    }
    let end = Reading::now(gate_process);
    done.send_replace(true);
    let points = sampler.await?;
    let warmed = match warm.is_finished() {
        true => Some(warm.await?),
        false => None,
    };
    let driven = driven(plan, recording.recorded(), points, warmed, end);
    let counts = driven.recorded.counts;
    progress.finish(format!(
        "{} decided, {} refused",
        grouped(counts.decided()),
        grouped(counts.refused)
    ));
    Ok(driven)
}

fn spawn(
    plan: &LoadPlan,
    sources: Vec<(Schedule, EventSource)>,
    started: &Start,
    gate: Option<&RunningGate>,
) -> JoinSet<()> {
    let mut working = JoinSet::new();
    for producer in started.producers(plan, sources) {
        match (&plan.target, gate) {
            (Target::Http { address, kind, .. }, _) => {
                let address = Arc::new(address.clone());
                working.spawn(producer.push_http(address, *kind));
            }
            (Target::InProcess, Some(gate)) => {
                // A client of its own for each: order is kept among the batches of one client.
                let client = Arc::new(gate.client());
                working.spawn(producer.push_in_process(client, plan.window as usize));
            }
            (Target::InProcess, None) => {}
        }
    }
    working
}

fn driven(
    plan: &LoadPlan,
    recorded: Recorded,
    points: Vec<Point>,
    warmed: Option<(Reading, Counts)>,
    end: Reading,
) -> Driven {
    let measured_nanos = recorded
        .last_answer
        .saturating_sub(plan.warmup.as_nanos() as u64);
    let decided = recorded.counts.decided();
    Driven {
        points,
        used: warmed.map(|(reading, _)| end.since(&reading)),
        measured_events: warmed.map_or(0, |(_, counts)| decided - counts.decided()),
        measured_seconds: measured_nanos as f64 / 1e9,
        recorded,
    }
}
