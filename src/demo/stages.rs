//! The stages of a demo, in order.

use super::proof::{OutputProof, Proof, prove};
use super::streaming::Streamed;
use super::{DemoOptions, DemoOutput, DemoReport, DemoStage, text, world_root};
use crate::active_run::ActiveRun;
use crate::cli::Failure;
use crate::cli::output::grouped;
use crate::cli::progress::{Progress, say};
use crate::clock::SystemClock;
use crate::machine::process_seconds;
use crate::scenario_runner::{ScenarioRunner, SetupFiles};
use crate::settings::Settings;
use crate::world_files::contract_files::ContractFiles;
use crate::world_files::generator::{GenerateOptions, generate};
use crate::world_files::pack_files::{PackRequest, pack_world, read_run_receipt};
use crate::world_files::stream_sort::{SortRequest, sort_output};
use crate::world_streamer::{PreparedStream, StreamOptions, StreamTarget, WorldStreamer};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use wellspring_domain::ports::Clock;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::scenario::request::{RequestWindow, RunRequest, ScenarioBinding};
use wellspring_domain::scenario::state_machine::RunState;
use wellspring_domain::world::seal::SealStatus;

const SCENARIO: &str = "baseline_v1";

/// Runs all stages.
pub fn run(options: &DemoOptions, settings: &Settings) -> anyhow::Result<DemoReport> {
    let mut timer = StageTimer::default();
    let demo = Demo { options, settings };
    timer.stage("generate", || demo.generate())?;
    timer.stage("pack and seal", || demo.pack())?;
    let streamer = demo.streamer()?;
    let run = demo.platform_run()?;
    let target = demo.target(&run, None);
    let rows = timer.stage("sort", || demo.sort(&streamer, &target))?;
    let scenario_run_id = timer.stage("scenario", || demo.scenario(&run))?;
    let attempt_id = demo.attempt_id();
    let target = StreamTarget {
        scenario_run_id: Some(scenario_run_id.clone()),
        ..target
    };
    let streamed = timer.stage("stream", || {
        demo.stream(&streamer, &run, &target, &attempt_id, rows)
    })?;
    let prepared = demo.prepare(&streamer, &target, &attempt_id)?;
    let paths = streamer.paths(&run);
    let proof = timer.stage("verify", || {
        let progress = Progress::start("compare world, bus and receipts", Some(2 * rows));
        let contexts = &prepared.request.outputs;
        let proof = prove(settings, &paths, &*prepared.source, contexts, &|events| {
            progress.add(events)
        })?;
        progress.finish(format!("{} records replayed", grouped(proof.bus_records)));
        Ok(proof)
    })?;
    let outputs = outputs_of(&proof, &streamed);
    let counts_agree = options.again.then(|| {
        outputs
            .iter()
            .all(|output| output.admitted == 0 && output.duplicate == output.rows)
    });
    Ok(DemoReport {
        verified: proof.holds() && streamed.ended_well && counts_agree.unwrap_or(true),
        outputs,
        already_streamed: streamed.skipped,
        platform_run_id: run.to_string(),
        scenario_run_id,
        attempt_id,
        proof,
        stages: timer.stages,
        world: text(&world_root(options)),
        run_root: paths.run_root(),
    })
}

/// What each output came to: its rows in the world beside what was streamed of it now.
fn outputs_of(proof: &Proof, streamed: &Streamed) -> Vec<DemoOutput> {
    let result_of = |output_id: &str| {
        let mut outputs = streamed.outputs.iter();
        outputs.find(|output| output.output_id == output_id)
    };
    let output_of = |output: &OutputProof| {
        let streamed = result_of(&output.output_id);
        DemoOutput::new(&output.output_id, output.world_rows, streamed)
    };
    proof.outputs.iter().map(output_of).collect()
}

/// Measures stages.
#[derive(Default)]
struct StageTimer {
    stages: Vec<DemoStage>,
}

impl StageTimer {
    fn stage<T>(
        &mut self,
        stage: &'static str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (wall, cpu) = (Instant::now(), process_seconds());
        let result = work();
        let seconds = wall.elapsed().as_secs_f64();
        self.stages.push(DemoStage {
            stage,
            seconds,
            cpu_seconds: process_seconds() - cpu,
        });
        result
    }
}

pub(super) struct Demo<'a> {
    options: &'a DemoOptions,
    pub(super) settings: &'a Settings,
}

impl Demo<'_> {
    /// The world, unless this folder has one of the same description.
    fn generate(&self) -> anyhow::Result<()> {
        let wanted = json!({"events": self.options.events, "seed": self.options.seed, "parts": self.options.parts});
        let description = self.options.dir.join("demo.json");
        let world = world_root(self.options);
        if world.join("run_receipt.json").is_file() {
            let found = std::fs::read(&description)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if found.as_ref() == Some(&wanted) {
                return Ok(());
            }
            let sentence = format!(
                "{} holds a demo of another world",
                self.options.dir.display()
            );
            return Err(Failure::new("DEMO_DIR_MISMATCH", sentence)
                .hint("give the same --events and --seed, or another --dir")
                .into());
        }
        std::fs::create_dir_all(&self.options.dir)?;
        std::fs::write(&description, wanted.to_string())?;
        let options = GenerateOptions::new(
            world,
            self.options.events,
            self.options.seed,
            self.options.parts,
        );
        let progress = Progress::start("generate a world", Some(self.options.events));
        generate(&options, &|events| progress.add(events))
            .map_err(|error| Failure::of(error.code(), error))?;
        progress.finish(format!("{} traffic events", grouped(self.options.events)));
        Ok(())
    }

    fn pack(&self) -> anyhow::Result<()> {
        let contracts = ContractFiles::load(self.settings)?;
        let world = self
            .settings
            .object_stores()
            .open(&text(&world_root(self.options)))?;
        let request = PackRequest {
            scenario_id: SCENARIO,
            engine_release: "local",
            seal_status: SealStatus::Ok,
            digests: &contracts.digests,
        };
        pack_world(&*world, &*world, &request, SystemClock::new().now())
            .map_err(|error| Failure::of(error.code(), error))?;
        Ok(())
    }

    fn streamer(&self) -> anyhow::Result<Arc<WorldStreamer>> {
        let store = self
            .settings
            .object_stores()
            .open(self.settings.runs_root())?;
        let streamer = WorldStreamer::new(
            Arc::new(self.settings.clone()),
            store,
            Arc::new(SystemClock::new()),
        )?;
        Ok(Arc::new(streamer))
    }

    fn platform_run(&self) -> anyhow::Result<PlatformRunId> {
        let (run, _) = ActiveRun::new(self.settings.local_root(), None)
            .find_or_create(SystemClock::new().now())
            .map_err(|error| Failure::of(error.code(), error))?;
        Ok(run)
    }

    fn target(&self, run: &PlatformRunId, scenario_run_id: Option<String>) -> StreamTarget {
        StreamTarget {
            engine_run_root: Some(text(&world_root(self.options))),
            scenario_id: Some(SCENARIO.to_owned()),
            scenario_run_id,
            platform_run_id: Some(run.clone()),
            stream_view_root: None,
            lease: None,
        }
    }

    /// Sorts what streams, and tells how many rows that is.
    fn sort(&self, streamer: &WorldStreamer, target: &StreamTarget) -> anyhow::Result<u64> {
        let contracts = ContractFiles::load(self.settings)?;
        let root = text(&world_root(self.options));
        let world = self.settings.object_stores().open(&root)?;
        let receipt =
            read_run_receipt(&*world).map_err(|error| Failure::of(error.code(), error))?;
        let selected = self
            .prepare(streamer, target, "")?
            .cleared
            .plan
            .output_ids();
        let progress = Progress::start("sort the outputs by event time", None);
        let mut rows = 0;
        for output_id in selected {
            let entry = contracts.catalogue.output(&output_id)?;
            let request = SortRequest::for_output(&root, &receipt, SCENARIO, entry)?;
            let sorted = sort_output(&request, &SystemClock::new(), &|rows| progress.add(rows))
                .map_err(|error| Failure::of(error.code(), error))?;
            rows += sorted.receipt["sorted_stats"]["row_count"]
                .as_u64()
                .unwrap_or(0);
        }
        progress.finish(format!("{} rows", grouped(rows)));
        Ok(rows)
    }

    /// Runs the scenario to READY. Submitting it again finds it READY.
    fn scenario(&self, run: &PlatformRunId) -> anyhow::Result<String> {
        say("proving the world: gates, digests, READY");
        let world = self
            .settings
            .object_stores()
            .open(&text(&world_root(self.options)))?;
        let receipt =
            read_run_receipt(&*world).map_err(|error| Failure::of(error.code(), error))?;
        let runner = ScenarioRunner::from_settings(self.settings, run, &SetupFiles::default())
            .map_err(|error| Failure::of(error.code().to_owned(), error))?;
        let request = RunRequest {
            run_equivalence_key: format!("demo:{run}"),
            manifest_fingerprint: receipt.manifest_fingerprint.clone(),
            parameter_hash: receipt.parameter_hash.clone(),
            seed: receipt.seed,
            scenario: ScenarioBinding {
                scenario_id: Some(SCENARIO.to_owned()),
                scenario_set: None,
            },
            window: RequestWindow {
                window_start_utc: "2026-01-01T00:00:00Z".to_owned(),
                window_end_utc: "2026-01-08T00:00:00Z".to_owned(),
                window_tz: "UTC".to_owned(),
            },
            requested_strategy: None,
            output_ids: None,
            engine_run_root: Some(text(&world_root(self.options))),
            notes: None,
            invoker: None,
            request_id: None,
        };
        let answer = runner
            .submit(&request)
            .map_err(|error| Failure::of(error.code().to_owned(), error))?;
        match answer.state {
            RunState::Ready => Ok(answer.run_id),
            state => Err(Failure::new(
                "DEMO_NOT_READY",
                format!("the scenario run is {state:?}: {}", answer.message),
            )
            .into()),
        }
    }

    fn attempt_id(&self) -> String {
        let now = SystemClock::new().now();
        if self.options.again {
            format!("again-{}", now.format_compact())
        } else {
            String::new()
        }
    }

    pub(super) fn stream_options(&self, attempt_id: &str) -> StreamOptions {
        StreamOptions {
            speedup: Some(self.options.speedup),
            attempt_id: (!attempt_id.is_empty()).then(|| attempt_id.to_owned()),
            ..StreamOptions::default()
        }
    }

    pub(super) fn prepare(
        &self,
        streamer: &WorldStreamer,
        target: &StreamTarget,
        attempt_id: &str,
    ) -> anyhow::Result<PreparedStream> {
        let prepared = streamer.prepare(target, &self.stream_options(attempt_id));
        prepared.map_err(|refusal| Failure::new(refusal.code, refusal.detail).into())
    }
}
