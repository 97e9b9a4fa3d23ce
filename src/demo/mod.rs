//! `wellspring demo`: the whole main job on the embedded default, in one process and one folder.
//!
//! Every stage is the one the single commands run, and every stage may be repeated: a demo that was
//! killed goes on where it was, a demo that is done admits nothing and verifies again.

mod counting_gate;
mod proof;
mod stages;
mod streaming;
mod world_digest;

use crate::settings::layers::Layers;
use crate::settings::{ProfileSource, Settings};
use serde::Serialize;
use std::path::{Path, PathBuf};
use wellspring_actors::world_stream::result::OutputResult;

pub use proof::Proof;

/// What a demo is asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Traffic events.
    pub events: u64,
    /// Seed of the generated world.
    pub seed: u64,
    /// Parquet parts per output.
    pub parts: u32,
    /// World seconds per second; zero is as fast as possible.
    pub speedup: f64,
    /// Folder of everything.
    pub dir: PathBuf,
    /// Stream the same run again under a new checkpoint attempt.
    pub again: bool,
}

/// One line of the summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DemoOutput {
    /// The output.
    pub output_id: String,
    /// Rows of its stream view.
    pub rows: u64,
    /// Admitted by this call.
    pub admitted: u64,
    /// Found to be admitted before.
    pub duplicate: u64,
    /// Quarantined.
    pub quarantined: u64,
    /// Answered events per second.
    pub events_per_second: f64,
    /// Median time from submit to answer.
    pub admit_p50_ms: f64,
    /// 99th percentile of it.
    pub admit_p99_ms: f64,
}

/// How long one stage took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DemoStage {
    /// The stage.
    pub stage: &'static str,
    /// Wall clock.
    pub seconds: f64,
    /// Processor time of the whole process.
    pub cpu_seconds: f64,
}

/// What a demo found.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// By output, in streaming order.
    pub outputs: Vec<DemoOutput>,
    /// True when every count and digest agrees.
    pub verified: bool,
    /// True when this folder's run had been streamed before and nothing was admitted now.
    pub already_streamed: bool,
    /// The platform run.
    pub platform_run_id: String,
    /// The Scenario Runner's run.
    pub scenario_run_id: String,
    /// The checkpoint attempt, empty for the first.
    pub attempt_id: String,
    /// What was compared.
    pub proof: Proof,
    /// Stages in order.
    pub stages: Vec<DemoStage>,
    /// Where the sealed world lies.
    pub world: String,
    /// Where the run lies.
    pub run_root: String,
}

/// Runs a demo and shows on stderr what is being done.
pub fn run(
    options: &DemoOptions,
    profile: &ProfileSource,
    layers: Layers,
) -> anyhow::Result<DemoReport> {
    let settings = settings_of(options, profile, layers)?;
    stages::run(options, &settings)
}

/// The profile with everything moved into the demo's folder.
fn settings_of(
    options: &DemoOptions,
    profile: &ProfileSource,
    mut layers: Layers,
) -> anyhow::Result<Settings> {
    let set = [
        ("wiring.object_store.root", text(&options.dir.join("runs"))),
        ("wiring.oracle_root", text(&options.dir)),
        ("wiring.oracle_engine_run_root", text(&world_root(options))),
        ("wiring.oracle_scenario_id", "baseline_v1".to_owned()),
        ("policy.stream_speedup", options.speedup.to_string()),
    ];
    for (key, value) in set {
        layers.set_flag(key, value);
    }
    Settings::load(profile, &layers).map_err(crate::cli::context::settings_failure)
}

fn world_root(options: &DemoOptions) -> PathBuf {
    options.dir.join("world")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl DemoOutput {
    fn new(output_id: &str, rows: u64, streamed: Option<&OutputResult>) -> DemoOutput {
        let of = |value: fn(&OutputResult) -> u64| streamed.map_or(0, value);
        let figure = |value: fn(&OutputResult) -> f64| streamed.map_or(0.0, value);
        DemoOutput {
            output_id: output_id.to_owned(),
            rows,
            admitted: of(|output| output.admitted),
            duplicate: of(|output| output.duplicate),
            quarantined: of(|output| output.quarantined),
            events_per_second: figure(|output| output.events_per_second),
            admit_p50_ms: figure(|output| output.admit_p50_ms),
            admit_p99_ms: figure(|output| output.admit_p99_ms),
        }
    }
}
