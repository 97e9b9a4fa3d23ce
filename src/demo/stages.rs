//! The stages of a demo, in order.

use super::proof::{OutputProof, Proof, prove};
use super::{DemoOptions, DemoOutput, DemoReport, DemoStage, text, world_root};
use crate::active_run::ActiveRun;
use crate::cli::Failure;
use crate::clock::SystemClock;
use crate::control_bus::FileControlBus;
use crate::daemon::live_tree;
use crate::gate::assembly::{GateOptions, start};
use crate::process;
use crate::scenario_runner::{ScenarioRunner, SetupFiles};
use crate::settings::Settings;
use crate::world_files::contract_files::ContractFiles;
use crate::world_files::generator::{GenerateOptions, generate};
use crate::world_files::pack_files::{PackRequest, pack_world, read_run_receipt};
use crate::world_files::stream_sort::{SortRequest, sort_output};
use crate::world_streamer::{
    PreparedStream, ReadyConsumer, StreamOptions, StreamTarget, WorldStreamer,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wellspring_actors::world_stream::pace::RunControl;
use wellspring_actors::world_stream::result::{OutputResult, StreamStatus};
use wellspring_actors::world_stream::run_streams::{RunProgress, StreamPorts, stream_world};
use wellspring_domain::ports::Clock;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::scenario::request::{RequestWindow, RunRequest, ScenarioBinding};
use wellspring_domain::scenario::state_machine::RunState;
use wellspring_domain::stream::ready_decision::ReadyStatus;
use wellspring_domain::world::seal::SealStatus;

const SCENARIO: &str = "baseline_v1";

/// Runs all stages.
pub fn run(
    options: &DemoOptions,
    settings: &Settings,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<DemoReport> {
    let mut timer = StageTimer::default();
    let demo = Demo {
        options,
        settings,
        say,
    };
    timer.stage("generate", || demo.generate())?;
    timer.stage("pack and seal", || demo.pack())?;
    let streamer = demo.streamer()?;
    let run = demo.platform_run()?;
    let target = demo.target(&run, None);
    timer.stage("sort", || demo.sort(&streamer, &target))?;
    let scenario_run_id = timer.stage("scenario", || demo.scenario(&run))?;
    let attempt_id = demo.attempt_id();
    let target = StreamTarget {
        scenario_run_id: Some(scenario_run_id.clone()),
        ..target
    };
    let streamed = timer.stage("stream", || {
        demo.stream(&streamer, &run, &target, &attempt_id)
    })?;
    say("replaying the bus and comparing it with receipts and world");
    let prepared = demo.prepare(&streamer, &target, &attempt_id)?;
    let paths = streamer.paths(&run);
    let proof = timer.stage("verify", || {
        prove(
            settings,
            &paths,
            &*prepared.source,
            &prepared.request.outputs,
        )
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
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let result = work();
        let seconds = wall.elapsed().as_secs_f64();
        self.stages.push(DemoStage {
            stage,
            seconds,
            cpu_seconds: cpu_seconds() - cpu,
        });
        result
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What streaming came to.
struct Streamed {
    outputs: Vec<OutputResult>,
    ended_well: bool,
    skipped: bool,
}

struct Demo<'a> {
    options: &'a DemoOptions,
    settings: &'a Settings,
    say: &'a (dyn Fn(&str) + Sync),
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
        (self.say)(&format!(
            "generating a world with {} traffic events",
            self.options.events
        ));
        std::fs::create_dir_all(&self.options.dir)?;
        std::fs::write(&description, wanted.to_string())?;
        let options = GenerateOptions::new(
            world,
            self.options.events,
            self.options.seed,
            self.options.parts,
        );
        generate(&options, &|_| {}).map_err(|error| Failure::of(error.code(), error))?;
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

    fn sort(&self, streamer: &WorldStreamer, target: &StreamTarget) -> anyhow::Result<()> {
        (self.say)("sorting the outputs by event time");
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
        for output_id in selected {
            let entry = contracts.catalogue.output(&output_id)?;
            let request = SortRequest::for_output(&root, &receipt, SCENARIO, entry)?;
            sort_output(&request, &SystemClock::new(), &|_| {})
                .map_err(|error| Failure::of(error.code(), error))?;
        }
        Ok(())
    }

    /// Runs the scenario to READY. Submitting it again finds it READY.
    fn scenario(&self, run: &PlatformRunId) -> anyhow::Result<String> {
        (self.say)("proving the world: gates, digests, READY");
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

    fn stream_options(&self, attempt_id: &str) -> StreamOptions {
        StreamOptions {
            speedup: Some(self.options.speedup),
            attempt_id: (!attempt_id.is_empty()).then(|| attempt_id.to_owned()),
            ..StreamOptions::default()
        }
    }

    fn prepare(
        &self,
        streamer: &WorldStreamer,
        target: &StreamTarget,
        attempt_id: &str,
    ) -> anyhow::Result<PreparedStream> {
        let prepared = streamer.prepare(target, &self.stream_options(attempt_id));
        prepared.map_err(|refusal| Failure::new(refusal.code, refusal.detail).into())
    }

    /// Streams into a gate of this process: by READY the first time, directly for another attempt.
    fn stream(
        &self,
        streamer: &Arc<WorldStreamer>,
        run: &PlatformRunId,
        target: &StreamTarget,
        attempt_id: &str,
    ) -> anyhow::Result<Streamed> {
        (self.say)("streaming traffic and context through the gate onto the bus");
        let runtime = process::runtime()?;
        let streamed = runtime.block_on(async {
            let tree = live_tree();
            let options = GateOptions {
                own_run: Some(run.clone()),
                tree: tree.clone(),
            };
            let gate = start(self.settings, options)
                .await
                .map_err(|error| Failure::of(error.code(), error))?;
            let stop = process::stop_signal()?;
            let client = Arc::new(gate.client());
            let streamed = if attempt_id.is_empty() {
                let paths = RunPaths::new(self.settings.runs_root(), run);
                let bus = Arc::new(FileControlBus::new(self.settings.control_bus_root(&paths)));
                let consumer = ReadyConsumer::new(
                    streamer.clone(),
                    self.stream_options(""),
                    client,
                    bus,
                    tree,
                );
                by_ready(&consumer, stop).await
            } else {
                let prepared = self.prepare(streamer, target, attempt_id)?;
                directly(streamer, prepared, client, tree).await
            };
            let drained = gate.drain(Duration::from_secs(10)).await;
            gate.stop(Duration::from_secs(10)).await;
            let streamed = streamed?;
            Ok::<_, anyhow::Error>(Streamed {
                ended_well: streamed.ended_well && drained,
                ..streamed
            })
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        streamed
    }
}

async fn by_ready(
    consumer: &ReadyConsumer,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Streamed> {
    let outcomes = consumer.consume_once(0, stop).await?;
    let Some(outcome) = outcomes.into_iter().next() else {
        return Err(Failure::new("DEMO_NO_READY", "no READY was found on the control bus").into());
    };
    let ended_well = matches!(
        outcome.status,
        ReadyStatus::Streamed | ReadyStatus::SkippedDuplicate
    );
    if !ended_well {
        let detail = outcome.detail.clone().unwrap_or_default();
        return Err(Failure::new(
            outcome.reason.unwrap_or_else(|| "STREAM_FAILED".to_owned()),
            detail,
        )
        .into());
    }
    Ok(Streamed {
        ended_well,
        skipped: outcome.status == ReadyStatus::SkippedDuplicate,
        outputs: outcome.outputs,
    })
}

async fn directly(
    streamer: &Arc<WorldStreamer>,
    prepared: PreparedStream,
    gate: Arc<dyn wellspring_domain::ports::GateClient>,
    tree: wellspring_actors::runtime::TreeHandle,
) -> anyhow::Result<Streamed> {
    let ports = StreamPorts {
        gate,
        source: prepared.source,
        checkpoints: prepared.checkpoints,
        clock: streamer.clock.clone(),
        on_saved: prepared.on_saved,
        node: tree.node("run", "run"),
    };
    let (_control, orders) = watch::channel(RunControl::Run);
    let progress = RunProgress::new(&prepared.request);
    let result = stream_world(
        prepared.request,
        ports,
        prepared.tuning,
        orders,
        progress,
        None,
    )
    .await;
    Ok(Streamed {
        ended_well: result.status == StreamStatus::Streamed,
        skipped: false,
        outputs: result.outputs,
    })
}
