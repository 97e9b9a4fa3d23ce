//! A load from its plan to its report.

use super::checks::{Check, conservation, decisions};
use super::drive::{Driven, drive};
use super::http_connection::{HttpConnection, HttpGateAddress};
use super::lanes::Events;
use super::producer::PushKind;
use super::report::{Cpu, Figures, Knobs, Latency, Lateness, LoadReport, SCHEMA};
use super::require::Verdict;
use super::verify::verify;
use super::{LoadPlan, Source, Target};
use crate::BUILD;
use crate::active_run::{ActiveRun, ActiveRunError};
use crate::cli::Failure;
use crate::cli::progress::Progress;
use crate::clock::SystemClock;
use crate::http::answer_form::AnswerForm;
use crate::machine::{Use, peak_resident_bytes};
use crate::process;
use crate::settings::GateBackend;
use wellspring_domain::ports::Clock;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::time_text::Micros;

/// Runs a load and judges it.
pub fn run(plan: &LoadPlan) -> anyhow::Result<LoadReport> {
    let now = SystemClock::new().now();
    let run = platform_run(plan, now)?;
    let events = Events::prepare(plan, &run)?;
    let knobs = knobs(plan, &events);
    let driven = drive(plan, &run, &events)?;
    // What was held at the time of the load, not what a verification needs.
    let peak = peak_resident_bytes();
    let mut checks = vec![conservation(&driven.recorded)];
    if let Some(fault) = events.fault() {
        checks.push(Check::new("world", false, fault));
    }
    if plan.source == Source::Synthetic {
        checks.push(decisions(&driven.recorded));
    }
    let paths = paths(plan, &run);
    if let Some(paths) = paths.as_ref().filter(|_| plan.verify) {
        let progress = Progress::start("verify the bus", None);
        let stores = plan.settings.object_stores();
        checks.extend(verify(paths, &stores, &events, &driven.recorded)?);
        progress.finish("done");
    }
    Ok(report(plan, now, &run, knobs, driven, checks, peak))
}

/// A run of its own for every load.
fn platform_run(plan: &LoadPlan, now: Micros) -> anyhow::Result<PlatformRunId> {
    match &plan.target {
        Target::InProcess => {
            let backend = plan.settings.gate_backend();
            let backend = backend.map_err(crate::cli::context::settings_failure)?;
            if !matches!(backend, GateBackend::Embedded) {
                let sentence = "a gate in the load's own process keeps everything in folders";
                return Err(Failure::new("BACKEND_NOT_AVAILABLE", sentence)
                    .hint("start `wellspring gate serve` on this profile and give its --url")
                    .into());
            }
            let active = ActiveRun::new(plan.settings.local_root(), None);
            active.create(now).map_err(not_claimed)
        }
        Target::Http {
            address, runs_root, ..
        } => {
            reach(address)?;
            match runs_root.as_deref().filter(|_| plan.verify) {
                // What is verified must be of this load alone.
                Some(root) => ActiveRun::new(root, None).claim(now).map_err(not_claimed),
                None => Ok(PlatformRunId::generate(now)),
            }
        }
    }
}

fn not_claimed(error: ActiveRunError) -> anyhow::Error {
    Failure::of(error.code(), error).into()
}

/// A gate that is not there is said at once, not after a million refusals.
fn reach(address: &HttpGateAddress) -> anyhow::Result<()> {
    let runtime = process::runtime()?;
    let opened = runtime.block_on(HttpConnection::open(address));
    let unreachable = |error| {
        let sentence = format!("no gate answers at {}: {error}", address.authority);
        Failure::new("GATE_UNREACHABLE", sentence)
    };
    opened.map(drop).map_err(|error| unreachable(error).into())
}

/// Where the run lies on this machine.
fn paths(plan: &LoadPlan, run: &PlatformRunId) -> Option<RunPaths> {
    match &plan.target {
        Target::InProcess => Some(plan.settings.local_paths(run)),
        Target::Http { runs_root, .. } => runs_root.as_ref().map(|root| RunPaths::new(root, run)),
    }
}

fn knobs(plan: &LoadPlan, events: &Events) -> Knobs {
    let synthetic = plan.source == Source::Synthetic;
    let (target, url) = match &plan.target {
        Target::InProcess => ("in process", None),
        Target::Http { address, kind, .. } => match kind {
            PushKind::Single(AnswerForm::Receipt) => ("http single", Some(&address.authority)),
            PushKind::Single(AnswerForm::Reference) => {
                ("http single, minimal answers", Some(&address.authority))
            }
            PushKind::Batch => ("http batch", Some(&address.authority)),
        },
    };
    let own_gate = url.is_none().then_some(&plan.settings.wiring);
    Knobs {
        target,
        url: url.map(|authority| format!("http://{authority}")),
        r#loop: if plan.rate.is_some() {
            "open"
        } else {
            "closed"
        },
        rate: plan.rate,
        source: match &plan.source {
            Source::Synthetic => "synthetic".to_owned(),
            Source::World { root, .. } => root.clone(),
        },
        events: plan.events,
        duration_seconds: plan.duration.map(|duration| duration.as_secs_f64()),
        warmup_seconds: plan.warmup.as_secs_f64(),
        producers: events.producers(plan),
        batch: plan.batch,
        window: plan.window,
        keys: synthetic.then_some(plan.keys),
        skew: plan.skew,
        duplicates: plan.duplicates,
        invalid: plan.invalid,
        payload_bytes: events.sizes().map(|(payload, _)| payload),
        envelope_bytes: events.sizes().map(|(_, envelope)| envelope),
        seed: plan.seed,
        shards: own_gate.map(|wiring| u64::from(wiring.gate.admission_shards)),
        partitions: own_gate.map(|wiring| {
            let topic = events.topic().unwrap_or_default();
            u64::from(wiring.event_bus.partitions_of(topic))
        }),
    }
}

fn report(
    plan: &LoadPlan,
    now: Micros,
    run: &PlatformRunId,
    knobs: Knobs,
    driven: Driven,
    checks: Vec<Check>,
    peak_resident_bytes: Option<u64>,
) -> LoadReport {
    let recorded = &driven.recorded;
    let measured = driven.measured_events > 0 && driven.measured_seconds > 0.0;
    let rate = measured.then(|| driven.measured_events as f64 / driven.measured_seconds);
    let cpu = cpu(plan, &driven);
    let figures = Figures {
        recorded,
        events_per_second: rate,
        cpu_per_million: cpu.seconds_per_million,
        peak_resident_bytes,
    };
    let requirements: Vec<Verdict> = plan
        .requirements
        .iter()
        .map(|requirement| requirement.judge(&figures))
        .collect();
    let from = match plan.rate {
        Some(_) => "planned send time",
        None => "handing over",
    };
    LoadReport {
        schema: SCHEMA,
        build: BUILD,
        started_at: now.format_env(),
        platform_run_id: run.to_string(),
        run_root: paths(plan, run).map(|paths| paths.run_root()),
        knobs,
        counts: recorded.counts,
        composition: recorded.composition,
        refusals: recorded.codes.clone(),
        measured_seconds: driven.measured_seconds,
        measured_events: driven.measured_events,
        events_per_second: rate.unwrap_or(0.0),
        latency: Latency::of(&recorded.latency, from),
        lateness: Lateness::of(&recorded.lateness),
        cpu,
        peak_resident_bytes,
        passed: checks.iter().all(|check| check.holds != Some(false))
            && requirements.iter().all(|verdict| verdict.met),
        points: driven.points,
        checks,
        requirements,
    }
}

fn cpu(plan: &LoadPlan, driven: &Driven) -> Cpu {
    let of = match &plan.target {
        Target::InProcess => "gate and load in one process",
        Target::Http {
            gate_process: Some(_),
            ..
        } => "load, and the gate's process beside it",
        Target::Http { .. } => "load only; the gate's process is not known",
    };
    let used = driven.used.unwrap_or(Use {
        wall_seconds: 0.0,
        process_seconds: 0.0,
        user_seconds: 0.0,
        system_seconds: 0.0,
        gate_seconds: None,
        others_share: None,
        stolen_share: 0.0,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
    });
    let per_million =
        |seconds: f64, events: u64| (events > 0).then(|| seconds * 1e6 / events as f64);
    let harness_seconds = driven.recorded.harness_seconds;
    Cpu {
        of,
        seconds_per_million: per_million(
            used.process_seconds + used.gate_seconds.unwrap_or(0.0),
            driven.measured_events,
        ),
        used,
        harness_seconds,
        harness_seconds_per_million: per_million(harness_seconds, driven.recorded.counts.sent),
    }
}
