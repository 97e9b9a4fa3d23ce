//! From settings and a target to a stream that may start (contract 6.4, 6.5, 6.7).

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wellspring_actors::runtime::RestartPolicy;
use wellspring_actors::telemetry::SessionEvents;
use wellspring_actors::world_stream::checkpointer::SavedHook;
use wellspring_actors::world_stream::pump::ProgressLogSettings;
use wellspring_actors::world_stream::result::StreamResult;
use wellspring_actors::world_stream::run_streams::{EventCaps, StreamRequest, StreamTuning};
use wellspring_domain::ids::{CheckpointScope, checkpoint_pack_key};
use wellspring_domain::ports::{CheckpointStore, Clock, Cursor, ObjectStore};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::stream::batch_cut::BatchLimits;
use wellspring_domain::stream::cursor::{FlushPolicy, SaveReason};
use wellspring_domain::stream::framing::{EnvelopePins, FrameContext};
use wellspring_domain::stream::output_plan::{ListSource, SelectionSources};
use wellspring_domain::stream::preflight::{
    CheckpointChoice, Cleared, GateProof, PreflightRefusal, PreflightRequest, SealStrictness,
    preflight,
};
use wellspring_domain::stream::retry::RetryPolicy;

use super::gate_proofs::GateProofs;
use super::preflight_inputs::WorldInputs;
use crate::object_store::OpenStoreError;
use crate::session_ledger::SessionLedger;
use crate::settings::Settings;
use crate::settings::backends::CheckpointBackend;
use crate::state_store::embedded::checkpoints::FileCheckpoints;
use crate::state_store::postgres::checkpoints::PostgresCheckpoints;
use crate::state_store::postgres::leases::LeaseProof;
use crate::state_store::postgres::{Database, DatabaseSettings};
use crate::world_files::contract_files::{ContractFileError, ContractFiles};
use crate::world_files::world_root::resolve_engine_root;
use crate::world_source::StreamViews;

/// The component of session events (contract 6.9).
pub const SESSION_COMPONENT: &str = "wsp";

/// Restarts of one output within [`STREAM_RESTART_WINDOW`] after which it is given up: each already
/// stands for a whole series of push attempts.
const STREAM_RESTARTS_MAX: u32 = 3;
const STREAM_RESTART_WINDOW: Duration = Duration::from_secs(600);

/// The World Streamer of one configuration; makes streams, runs none.
pub struct WorldStreamer {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The store that holds all runs.
    pub store: Arc<dyn ObjectStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    contracts: ContractFiles,
    proofs: GateProofs,
}

/// What an operator may change about a stream.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// Stream only these outputs; they must be selected by the policy.
    pub only: Vec<String>,
    /// How many events at most.
    pub caps: EventCaps,
    /// Instead of the policy's speedup.
    pub speedup: Option<f64>,
    /// Streams the same run again under checkpoints of its own.
    pub attempt_id: Option<String>,
    /// Instead of the wiring's producer.
    pub producer_id: Option<String>,
}

/// The run a stream belongs to.
#[derive(Clone, Debug, Default)]
pub struct StreamTarget {
    /// The world as given; resolved under the oracle root.
    pub engine_run_root: Option<String>,
    /// The scenario.
    pub scenario_id: Option<String>,
    /// The Scenario Runner's run; the engine's when the stream is not READY-driven (contract 2.2).
    pub scenario_run_id: Option<String>,
    /// The platform run.
    pub platform_run_id: Option<PlatformRunId>,
    /// Base of the stream views when the wiring names none.
    pub stream_view_root: Option<String>,
    /// The lease the run is streamed under; checkpoints in a database are refused once it is lost.
    pub lease: Option<LeaseProof>,
}

/// A stream that may start.
pub struct PreparedStream {
    /// What the checks found.
    pub cleared: Cleared,
    /// What to stream.
    pub request: StreamRequest,
    /// Limits.
    pub tuning: StreamTuning,
    /// The world.
    pub source: Arc<StreamViews>,
    /// Checkpoints of the run.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Tells the session ledger of every save.
    pub on_saved: SavedHook,
    /// The run's session ledger.
    pub session: SessionLedger,
}

impl WorldStreamer {
    /// Reads the contract files the settings name.
    pub fn new(
        settings: Arc<Settings>,
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ContractFileError> {
        let contracts = ContractFiles::load(&settings)?;
        Ok(WorldStreamer {
            settings,
            store,
            clock,
            contracts,
            proofs: GateProofs::default(),
        })
    }

    /// The session ledger of a run.
    pub fn session(&self, run_id: &PlatformRunId) -> SessionLedger {
        SessionLedger::new(self.store.clone(), &self.paths(run_id), self.clock.clone())
    }

    /// Where a run keeps its artefacts.
    pub fn paths(&self, run_id: &PlatformRunId) -> RunPaths {
        RunPaths::new(self.settings.runs_root(), run_id)
    }

    /// Makes all checks and everything a stream needs; nothing is written but session events.
    pub fn prepare(
        &self,
        target: &StreamTarget,
        options: &StreamOptions,
    ) -> Result<PreparedStream, PreflightRefusal> {
        self.refuse_lanes()?;
        let wiring = &self.settings.wiring;
        let root = target.engine_run_root.as_deref();
        let root = root.map(|root| resolve_engine_root(root, Some(wiring.oracle_root.as_str())));
        let inputs = WorldInputs {
            settings: &self.settings,
            contracts: &self.contracts,
            proofs: &self.proofs,
            engine_run_root: root.clone().unwrap_or_default(),
            world: self.world(root.as_deref())?,
        };
        let cleared = preflight(&self.preflight_request(root, target, options), &inputs)?;
        for warning in &cleared.plan.warnings {
            tracing::warn!(warning, "output selection");
        }
        let checkpoints = self.checkpoints(&cleared, target)?;
        Ok(self.prepared(cleared, checkpoints, target, options))
    }

    /// Where cursors are kept (contract 6.7). A database is connected when a stream first asks it: one
    /// that does not answer is then waited for like any other failure of a stream.
    fn checkpoints(
        &self,
        cleared: &Cleared,
        target: &StreamTarget,
    ) -> Result<Arc<dyn CheckpointStore>, PreflightRefusal> {
        let wiring = &self.settings.wiring.wsp_checkpoint;
        match (wiring.backend, &wiring.dsn) {
            (CheckpointBackend::Postgres, Some(dsn)) => {
                let database = Database::deferred(dsn, DatabaseSettings::default());
                let database = database.map_err(|error| PreflightRefusal {
                    code: error.code(),
                    detail: error.to_string(),
                })?;
                let lease = target.lease.clone();
                Ok(Arc::new(PostgresCheckpoints::new(database, lease)))
            }
            _ => {
                let paths = self.paths(&run_id_of(cleared));
                Ok(Arc::new(FileCheckpoints::new(
                    self.settings.checkpoint_root(&paths),
                )))
            }
        }
    }

    /// The world's store; `None` when there is no such root.
    fn world(&self, root: Option<&str>) -> Result<Option<Arc<dyn ObjectStore>>, PreflightRefusal> {
        let Some(root) = root else { return Ok(None) };
        match self.settings.object_stores().open_existing(root) {
            Ok(world) => Ok(Some(world)),
            Err(OpenStoreError::Store(error)) => Err(PreflightRefusal {
                code: error.code(),
                detail: error.to_string(),
            }),
            Err(OpenStoreError::NotFound { .. } | OpenStoreError::Unsupported { .. }) => Ok(None),
        }
    }

    /// One lane is all this program streams in.
    fn refuse_lanes(&self) -> Result<(), PreflightRefusal> {
        let lane = |name: &str, only: &str| match self.settings.variable(name) {
            Some(text) if text.trim() != only => Err(PreflightRefusal {
                code: "WSP_LANE_CONFIG_INVALID",
                detail: format!("{name} is {text}; runs are streamed in one lane, with index 0"),
            }),
            _ => Ok(()),
        };
        lane("WSP_LANE_COUNT", "1")?;
        lane("WSP_LANE_INDEX", "0")
    }

    fn preflight_request(
        &self,
        engine_run_root: Option<String>,
        target: &StreamTarget,
        options: &StreamOptions,
    ) -> PreflightRequest {
        let (policy, wiring) = (&self.settings.policy, &self.settings.wiring);
        PreflightRequest {
            engine_run_root,
            platform_run_id: target
                .platform_run_id
                .as_ref()
                .map(PlatformRunId::to_string),
            scenario_id: target
                .scenario_id
                .clone()
                .or_else(|| wiring.oracle_scenario_id.clone()),
            seal: match self.settings.strict_seal() {
                true => SealStrictness::Strict,
                false => SealStrictness::Lenient,
            },
            gates: match policy.require_gate_pass {
                true => GateProof::Required,
                false => GateProof::NotRequired,
            },
            selection: self.selection(options),
            producer_id: options
                .producer_id
                .clone()
                .or_else(|| wiring.wsp_producer.producer_id.clone()),
            allowlist_ref: wiring.wsp_producer.allowlist_ref.clone(),
            checkpoint: match (wiring.wsp_checkpoint.backend, &wiring.wsp_checkpoint.dsn) {
                (CheckpointBackend::File, _) => CheckpointChoice::File,
                (CheckpointBackend::Postgres, Some(_)) => CheckpointChoice::Postgres,
                (CheckpointBackend::Postgres, None) => CheckpointChoice::PostgresWithoutDsn,
            },
        }
    }

    /// The lists of contract 6.5. The environment is named apart from the policy because only a policy
    /// list gives way to the baseline context.
    fn selection(&self, options: &StreamOptions) -> SelectionSources {
        let policy = &self.settings.policy;
        let env = |ids: &str, reference: &str| {
            ListSource::from_env(
                self.settings.variable(ids),
                self.settings.variable(reference),
            )
        };
        let list = |output_ids: &[String], output_ids_ref: &Option<String>| ListSource {
            output_ids: output_ids.to_vec(),
            output_ids_ref: output_ids_ref.clone(),
        };
        SelectionSources {
            traffic_env: env("WSP_TRAFFIC_OUTPUT_IDS", "WSP_TRAFFIC_OUTPUT_IDS_REF"),
            traffic_policy: list(&policy.traffic_output_ids, &policy.traffic_output_ids_ref),
            context_env: env("WSP_CONTEXT_OUTPUT_IDS", "WSP_CONTEXT_OUTPUT_IDS_REF"),
            context_policy: list(&policy.context_output_ids, &policy.context_output_ids_ref),
            context_baseline_ref: policy.context_output_ids_baseline_ref.clone(),
            only: options.only.clone(),
        }
    }

    fn prepared(
        &self,
        cleared: Cleared,
        checkpoints: Arc<dyn CheckpointStore>,
        target: &StreamTarget,
        options: &StreamOptions,
    ) -> PreparedStream {
        let run_id = run_id_of(&cleared);
        let scenario_run_id = target
            .scenario_run_id
            .clone()
            .unwrap_or_else(|| cleared.receipt.run_id.clone());
        let attempt_id = options.attempt_id.clone();
        let attempt_id = attempt_id
            .or_else(|| self.settings.wiring.stream.checkpoint_attempt_id.clone())
            .unwrap_or_default();
        let checkpoint_pack_key = checkpoint_pack_key(&CheckpointScope {
            pack_key: &cleared.pack_key,
            platform_run_id: &cleared.platform_run_id,
            scenario_run_id: &scenario_run_id,
            lane_count: 1,
            lane_index: 0,
            attempt_id: &attempt_id,
        });
        let session = self.session(&run_id);
        let saved = SavedCheckpoint {
            pack_key_base: cleared.pack_key.clone(),
            platform_run_id: cleared.platform_run_id.clone(),
            scenario_run_id: scenario_run_id.clone(),
            attempt_id,
        };
        let ledger = session.clone();
        PreparedStream {
            request: StreamRequest {
                engine_run_root: cleared.engine_run_root.clone(),
                engine_run_id: cleared.receipt.run_id.clone(),
                scenario_id: cleared.scenario_id.clone(),
                outputs: frame_contexts(&cleared, &scenario_run_id),
                checkpoint_pack_key,
                speedup: options
                    .speedup
                    .unwrap_or(self.settings.policy.stream_speedup),
                caps: self.caps(options),
                output_concurrency: self
                    .settings
                    .wiring
                    .stream
                    .output_concurrency
                    .map(|outputs| outputs as usize),
            },
            tuning: self.tuning(),
            source: Arc::new(self.views(&cleared, target)),
            checkpoints,
            on_saved: Arc::new(move |cursor, reason| saved.tell(&ledger, cursor, reason)),
            session,
            cleared,
        }
    }

    /// The operator's caps, else the environment's per output (contract 6.1).
    fn caps(&self, options: &StreamOptions) -> EventCaps {
        let configured = self.settings.wiring.stream.max_events_per_output;
        let configured = (configured > 0).then_some(configured);
        EventCaps {
            per_output: options.caps.per_output.or(configured),
            run: options.caps.run,
        }
    }

    fn views(&self, cleared: &Cleared, target: &StreamTarget) -> StreamViews {
        let wiring = &self.settings.wiring;
        let base = wiring
            .oracle_stream_view_root
            .as_ref()
            .or(target.stream_view_root.as_ref());
        StreamViews::new(
            &cleared.engine_run_root,
            &cleared.scenario_id,
            base.map(String::as_str),
            wiring.stream.read_batch_rows as usize,
            self.settings.object_stores(),
        )
    }

    fn tuning(&self) -> StreamTuning {
        let wiring = &self.settings.wiring;
        let (stream, retry) = (&wiring.stream, &wiring.wsp_retry);
        let restart = wiring.supervision.restart_policy();
        StreamTuning {
            limits: BatchLimits {
                events_max: stream.batch_events_max,
                bytes_max: stream.batch_bytes_max,
                schedule_span_micros_max: Some(stream.schedule_slice_ms * 1_000),
            },
            retry: RetryPolicy {
                attempts_max: retry.max_attempts,
                delay_base_ms: retry.base_delay_ms,
                delay_max_ms: retry.max_delay_ms,
                backpressure_deadline_ms: stream.backpressure_deadline_ms,
            },
            restart: RestartPolicy {
                failures_max: restart.failures_max.min(STREAM_RESTARTS_MAX),
                window: restart.window.max(STREAM_RESTART_WINDOW),
                ..restart
            },
            flush: FlushPolicy {
                interval_max_micros: stream.checkpoint_interval_ms_max * 1_000,
                ..FlushPolicy::of_flush_every(wiring.wsp_checkpoint.flush_every)
            },
            log: ProgressLogSettings {
                events: stream.progress_every,
                seconds: stream.progress_seconds,
            },
        }
    }
}

fn run_id_of(cleared: &Cleared) -> PlatformRunId {
    PlatformRunId::parse(&cleared.platform_run_id).expect("the target's run id was a run id")
}

/// What a checkpoint event says besides the cursor (contract 6.9).
struct SavedCheckpoint {
    pack_key_base: String,
    platform_run_id: String,
    scenario_run_id: String,
    attempt_id: String,
}

impl SavedCheckpoint {
    fn tell(&self, ledger: &SessionLedger, cursor: &Cursor, reason: SaveReason) {
        let details = json!({
            "pack_key": cursor.pack_key,
            "pack_key_base": self.pack_key_base,
            "platform_run_id": self.platform_run_id,
            "scenario_run_id": self.scenario_run_id,
            "checkpoint_attempt_id": self.attempt_id,
            "output_id": cursor.output_id,
            "last_file": cursor.last_file,
            "last_row_index": cursor.last_row_index,
            "last_ts_utc": cursor.last_ts_utc,
            "reason": reason.as_str(),
        });
        ledger.session_event(SESSION_COMPONENT, "checkpoint_saved", details);
    }
}

fn frame_contexts(cleared: &Cleared, scenario_run_id: &str) -> Vec<Arc<FrameContext>> {
    let pins = EnvelopePins {
        manifest_fingerprint: cleared.receipt.manifest_fingerprint.clone(),
        parameter_hash: cleared.receipt.parameter_hash.clone(),
        seed: cleared.receipt.seed,
        scenario_id: cleared.scenario_id.clone(),
        run_id: cleared.receipt.run_id.clone(),
        platform_run_id: cleared.platform_run_id.clone(),
        scenario_run_id: scenario_run_id.to_owned(),
    };
    let context = |entry: &wellspring_domain::world::catalogue::OutputEntry| {
        Arc::new(FrameContext {
            output_id: entry.output_id.clone(),
            primary_key: entry.primary_key.clone(),
            pins: pins.clone(),
            producer: cleared.producer_id.clone(),
            trace_id: cleared.pack_key.clone(),
            span_id: cleared.engine_release.clone(),
        })
    };
    cleared.outputs.iter().map(context).collect()
}

impl PreparedStream {
    /// Tells the session ledger what begins (contract 6.9).
    pub fn announce(&self) {
        let root = &self.cleared.engine_run_root;
        let event =
            |kind: &str, details| self.session.session_event(SESSION_COMPONENT, kind, details);
        event("engine_world_selected", json!({"engine_run_root": root}));
        let details = json!({
            "engine_run_root": root,
            "scenario_id": self.cleared.scenario_id,
            "output_ids": self.cleared.plan.output_ids(),
            "traffic_output_ids": self.cleared.plan.traffic,
            "context_output_ids": self.cleared.plan.context,
            "pack_key": self.cleared.pack_key,
            "producer_id": self.cleared.producer_id,
            "stream_mode": "stream_view",
        });
        event("stream_start", details);
    }

    /// What the session ledger is told at the end, once the result is known.
    pub fn closing(&self) -> impl FnOnce(&StreamResult) + Send + 'static {
        let session = self.session.clone();
        let (traffic, context) = (
            self.cleared.plan.traffic.clone(),
            self.cleared.plan.context.clone(),
        );
        move |result| {
            let streamed = json!({
                "engine_run_root": result.engine_run_root,
                "scenario_id": result.scenario_id,
                "emitted": result.emitted,
                "output_ids": result.output_ids,
                "traffic_output_ids": traffic,
                "context_output_ids": context,
            });
            session.session_event(SESSION_COMPONENT, "engine_world_streamed", streamed);
            tell_complete(&session, result);
        }
    }
}

/// `stream_complete`: the last word of every stream, also of one that was refused.
pub fn tell_complete(session: &SessionLedger, result: &StreamResult) {
    let details = json!({
        "engine_run_root": result.engine_run_root,
        "emitted": result.emitted,
        "status": result.status.as_str(),
    });
    session.session_event(SESSION_COMPONENT, "stream_complete", details);
}
