//! From settings to a running gate with its HTTP listener.

use super::backends::GateBackends;
use super::facts_proofs::FactsProofs;
use super::health_probe::HealthProbe;
use super::lookups::OpenRunLookups;
use super::managed::substrate::Substrate;
use super::policy_activation::PolicyActivation;
use super::policy_files::{PolicyLoadError, load_policy};
use crate::clock::SystemClock;
use crate::http::gate_router;
use crate::http::gate_service::GateService;
use crate::http::server::{ServerLimits, serve};
use crate::http::single_pushes::SinglePushes;
use crate::http::state::{HttpLimits, HttpParts, Lookups, RunControl};
use crate::object_store::OpenStoreError;
use crate::settings::Settings;
use crate::settings::problem::SettingsError;
use crate::telemetry::metrics::Metrics;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use wellspring_actors::ingestion_gate::gate_supervisor::GateArgs;
use wellspring_actors::ingestion_gate::handle::{GateHandle, GateParts};
use wellspring_actors::ingestion_gate::in_process_gate::InProcessGate;
use wellspring_actors::ingestion_gate::projector::NamedProjections;
use wellspring_actors::ingestion_gate::running_gate::{Gate, start_gate};
use wellspring_actors::ingestion_gate::summary::Reporting;
use wellspring_actors::runtime::{CreditLimits, Credits, StageFailure, TreeHandle};
use wellspring_domain::admission::auth::{AuthMode, AuthPolicy, RateWindow};
use wellspring_domain::admission::bus_failures::BusFailures;
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::admission::health::{Health, HealthReason};
use wellspring_domain::admission::intake::VerifyGates;
use wellspring_domain::admission::policy::AdmissionPolicy;
use wellspring_domain::admission::quarantine_spike::SpikeRule;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::ports::{Clock, GateStore, ObjectStore, RunLayout, StoreError};
use wellspring_domain::provenance::Provenance;
use wellspring_domain::run_paths::PlatformRunId;

/// Why a gate did not start. Each has the code start-up stops with.
#[derive(Debug, thiserror::Error)]
pub enum GateStartError {
    /// The profile.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The policy files.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
    /// The stores.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runs root.
    #[error(transparent)]
    Objects(#[from] OpenStoreError),
    /// An actor.
    #[error(transparent)]
    Actor(#[from] StageFailure),
    /// The address to listen on.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// Host and port.
        address: String,
        /// Why.
        cause: std::io::Error,
    },
}

impl GateStartError {
    /// The stable reason code.
    pub fn code(&self) -> String {
        match self {
            GateStartError::Settings(error) => error.code().to_string(),
            GateStartError::Policy(error) => error.code(),
            GateStartError::Store(error) => error.code().to_string(),
            GateStartError::Objects(error) => error.code().to_string(),
            GateStartError::Actor(failure) => failure.code.clone(),
            GateStartError::Bind { .. } => "LISTEN_ADDRESS_UNAVAILABLE".to_string(),
        }
    }
}

/// A gate of this process.
pub struct RunningGate {
    /// The gate and its supervisor.
    pub gate: Gate,
    /// Where its health is told; `Draining` stops intake.
    pub health: watch::Sender<Health>,
    /// Where receipts are kept.
    pub layout: ReceiptsLayout,
    lookups: Arc<dyn Lookups>,
    settings: Settings,
    tree: TreeHandle,
    clock: Arc<dyn Clock>,
}

/// What a gate is started with besides its settings.
pub struct GateOptions {
    /// The run the gate is started for; others open on demand.
    pub own_run: Option<PlatformRunId>,
    /// The live tree.
    pub tree: TreeHandle,
}

/// Starts a gate on the backends of the settings.
pub async fn start(
    settings: &Settings,
    options: GateOptions,
) -> Result<RunningGate, GateStartError> {
    let policy = load_policy(settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let objects: Arc<dyn ObjectStore> = settings.gate_object_stores().open(settings.runs_root())?;
    let provenance = settings.provenance(
        "ingestion_gate",
        Some(policy.policy_rev.content_digest.clone()),
    );
    let backends = GateBackends::open(settings, &policy, &objects, &clock)?;
    let store = activating(
        backends.store,
        settings,
        &policy,
        &objects,
        (&provenance, &clock),
    );
    let bus_failures = BusFailures::default();
    let probe = HealthProbe::of(
        settings,
        options.own_run.as_ref(),
        objects.clone(),
        store.clone(),
        clock.clone(),
        bus_failures.clone(),
    )
    .with_managed(backends.probe);
    let first = probe.look();
    let interval = Duration::from_secs(settings.wiring.health.probe_interval_seconds.max(1));
    let (health, health_reader) = probe.spawn(interval, first);
    let parts = gate_parts(
        settings,
        policy,
        &provenance,
        objects.clone(),
        health_reader,
        reporting(settings, bus_failures),
        &clock,
    );
    let gate = start_gate(
        |started| {
            let clock = clock.clone();
            gate_args(
                settings,
                &options,
                parts,
                store,
                backends.projections,
                clock,
                started,
            )
        },
        None,
    )
    .await?;
    open_own_run(&gate, &options).await?;
    let lookups = lookups(settings, &gate.handle, backends.substrate, &options.own_run);
    Ok(RunningGate {
        gate,
        health,
        layout: receipts_layout(settings),
        lookups,
        settings: settings.clone(),
        tree: options.tree,
        clock,
    })
}

/// The store, told to note the policy in every run it opens.
fn activating(
    inner: Arc<dyn GateStore>,
    settings: &Settings,
    policy: &AdmissionPolicy,
    objects: &Arc<dyn ObjectStore>,
    (provenance, clock): (&Provenance, &Arc<dyn Clock>),
) -> Arc<dyn GateStore> {
    Arc::new(PolicyActivation {
        inner,
        objects: objects.clone(),
        runs_root: settings.runs_root().to_owned(),
        policy_rev: policy.policy_rev.clone(),
        provenance: provenance.clone(),
        clock: clock.clone(),
    })
}

async fn open_own_run(gate: &Gate, options: &GateOptions) -> Result<(), StageFailure> {
    let Some(run) = &options.own_run else {
        return Ok(());
    };
    let opened = gate.handle.open_run(run).await;
    opened.map_err(|cause| StageFailure::terminal("RUN_OPEN_FAILED", cause))
}

/// Receipts are looked up where decisions are kept.
fn lookups(
    settings: &Settings,
    gate: &GateHandle,
    substrate: Option<Substrate>,
    own_run: &Option<PlatformRunId>,
) -> Arc<dyn Lookups> {
    match substrate {
        Some(substrate) => Arc::new(substrate.receipts(own_run.clone())),
        None => Arc::new(OpenRunLookups {
            gate: gate.clone(),
            own_run: own_run.clone(),
            runs_root: settings.runs_root().to_owned(),
            layout: receipts_layout(settings),
        }),
    }
}

fn gate_parts(
    settings: &Settings,
    policy: AdmissionPolicy,
    provenance: &Provenance,
    objects: Arc<dyn ObjectStore>,
    health_reader: watch::Receiver<Health>,
    reporting: Reporting,
    clock: &Arc<dyn Clock>,
) -> GateParts {
    GateParts {
        partitions: policy
            .topics()
            .iter()
            .map(|topic| settings.wiring.event_bus.partitions_of(topic))
            .collect(),
        policy,
        provenance: serde_json::to_value(provenance).unwrap_or_default(),
        verify_gates: verify_gates(settings),
        proofs: Arc::new(FactsProofs::new(
            objects,
            settings.runs_root(),
            clock.clone(),
            settings.wiring.gate.facts_absence_cache_ms,
        )),
        credits: Credits::new(credit_limits(settings)),
        health: health_reader,
        deny_on_amber: settings.wiring.health.deny_on_amber,
        amber_sleep: Duration::from_secs_f64(settings.wiring.health.amber_sleep_seconds),
        reporting,
    }
}

fn gate_args(
    settings: &Settings,
    options: &GateOptions,
    parts: GateParts,
    store: Arc<dyn GateStore>,
    projections: NamedProjections,
    clock: Arc<dyn Clock>,
    started: tokio::sync::oneshot::Sender<GateHandle>,
) -> GateArgs {
    let gate = &settings.wiring.gate;
    GateArgs {
        parts,
        store,
        layout: RunLayout {
            admission_shards: gate.admission_shards,
            index_shards: gate.index_shards,
        },
        flush_bytes_max: gate.flush_bytes_max as usize,
        open_runs_max: gate.open_runs_max as usize,
        own_run: options.own_run.clone(),
        projections,
        projection_interval: Duration::from_millis(250),
        policy: settings.wiring.supervision.restart_policy(),
        jitter_seed: clock.monotonic_micros(),
        clock,
        node: options.tree.node("gate", "gate_supervisor"),
        started,
    }
}

fn reporting(settings: &Settings, bus_failures: BusFailures) -> Reporting {
    let health = &settings.wiring.health;
    Reporting {
        flush_every: Duration::from_secs(health.metrics_flush_seconds),
        spike: SpikeRule {
            threshold: health.quarantine_spike_threshold,
            window_seconds: health.quarantine_spike_window_seconds,
        },
        bus_failures,
    }
}

/// The gate has one room for all shards: what a sender takes covers its whole batch, whichever shards it
/// goes to.
fn credit_limits(settings: &Settings) -> CreditLimits {
    let gate = &settings.wiring.gate;
    CreditLimits {
        events_max: gate
            .credit_events_max
            .saturating_mul(u32::from(gate.admission_shards))
            .min(1 << 28),
        bytes_max: u32::try_from(gate.in_flight_bytes_max())
            .unwrap_or(u32::MAX)
            .min(1 << 30),
    }
}

fn verify_gates(settings: &Settings) -> VerifyGates {
    match settings.policy.verify_gates {
        crate::settings::policy::VerifyGates::Off => VerifyGates::Off,
        crate::settings::policy::VerifyGates::Warn => VerifyGates::Warn,
        crate::settings::policy::VerifyGates::Enforce => VerifyGates::Enforce,
    }
}

pub(super) fn receipts_layout(settings: &Settings) -> ReceiptsLayout {
    match settings.policy.receipts_layout {
        crate::settings::policy::ReceiptsLayout::Segments => ReceiptsLayout::Segments,
        crate::settings::policy::ReceiptsLayout::Objects => ReceiptsLayout::Objects,
    }
}

/// Batches one output may have unanswered at once.
const IN_PROCESS_WINDOW: usize = 48;

impl RunningGate {
    /// The gate as the streamer of this process uses it.
    pub fn client(&self) -> InProcessGate {
        let producer = self
            .settings
            .wiring
            .wsp_producer
            .producer_id
            .clone()
            .unwrap_or_default();
        let principal = producer
            .strip_prefix("svc:")
            .unwrap_or(&producer)
            .to_owned();
        let actor = Actor {
            actor_id: format!("SYSTEM::{principal}"),
            source_type: "SYSTEM".to_owned(),
            auth_mode: "in_process".to_owned(),
            principal,
        };
        InProcessGate::new(self.gate.handle.clone(), actor, IN_PROCESS_WINDOW)
    }

    /// Listens for HTTP; the listener is a child of the gate and ends with it. Returns the address bound.
    pub async fn listen(
        &self,
        host: &str,
        port: u16,
        tree: &TreeHandle,
        extra: axum::Router,
        runs: Option<Arc<dyn RunControl>>,
        metrics: Option<Metrics>,
    ) -> Result<std::net::SocketAddr, GateStartError> {
        let address = format!("{host}:{port}");
        let bind = |cause| GateStartError::Bind {
            address: address.clone(),
            cause,
        };
        let listener = TcpListener::bind(&address).await.map_err(bind)?;
        let bound = listener.local_addr().map_err(bind)?;
        let (single_pushes, gatherer) = SinglePushes::new();
        let parts = Arc::new(self.http_parts(single_pushes, tree, runs, metrics)?);
        let extra = crate::http::behind_auth(extra, parts.clone());
        let router = gate_router(parts.clone()).merge(extra);
        let service = GateService::new(parts.clone(), router);
        let gate = &self.settings.wiring.gate;
        let limits = ServerLimits {
            connections_max: gate.connections_max as usize,
            header_timeout: Duration::from_millis(gate.header_timeout_ms),
            drain_deadline: Duration::from_millis(gate.shutdown_deadline_ms / 2),
        };
        let args = wellspring_actors::ingestion_gate::http_listener::HttpListenerArgs {
            serve: Box::new(move |stop| {
                Box::pin(async move {
                    // The listener has failed when either ends although nobody asked it to.
                    tokio::select! {
                        () = serve(listener, service, limits, stop) => {}
                        () = gatherer.run(parts) => {}
                    }
                })
            }),
            node: tree.node("http listener", "http_listener"),
        };
        self.gate.spawn_listener(args).await?;
        Ok(bound)
    }

    fn http_parts(
        &self,
        single_pushes: SinglePushes,
        tree: &TreeHandle,
        runs: Option<Arc<dyn RunControl>>,
        metrics: Option<Metrics>,
    ) -> Result<HttpParts, GateStartError> {
        let gate = &self.settings.wiring.gate;
        let security = &self.settings.wiring.security;
        Ok(HttpParts {
            gate: self.gate.handle.clone(),
            single_pushes,
            auth: auth_policy(&self.settings)?,
            auth_header: security.api_key_header.clone(),
            rate: RateWindow::new(security.push_rate_limit_per_minute).map(Mutex::new),
            limits: HttpLimits {
                body_bytes_max: gate.body_bytes_max as usize,
                batch_body_bytes_max: gate.batch_body_bytes_max as usize,
                batch_events_max: gate.batch_events_max as usize,
                request_timeout: Duration::from_millis(gate.request_timeout_ms),
            },
            runs_root: self.settings.runs_root().to_owned(),
            layout: self.layout,
            lookups: self.lookups.clone(),
            tree: tree.clone(),
            metrics,
            runs,
            clock: self.clock.clone(),
        })
    }

    /// Stops taking work and waits until everything taken is durable and answered, or the deadline.
    /// Returns whether all of it was.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.health
            .send_replace(Health::from_reasons(vec![HealthReason::Draining]));
        let credits = self.gate.handle.credits();
        let idle = async {
            while credits.gauges().events_in_use > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(deadline, idle).await.is_ok()
    }

    /// Resolves when the gate has ended by itself, with the cause.
    pub async fn ended(&self) -> String {
        let supervisor = self.gate.supervisor.clone();
        let _ = supervisor.wait(None).await;
        let nodes = self.tree.snapshot();
        let cause = nodes
            .into_iter()
            .filter(|node| node.path.starts_with("gate"))
            .find_map(|node| node.last_error);
        cause.unwrap_or_else(|| "the gate ended".to_owned())
    }

    /// Stops the gate in order: listener, shards, writers.
    pub async fn stop(self, deadline: Duration) {
        let _ = self
            .gate
            .supervisor
            .stop_and_wait(None, Some(deadline))
            .await;
    }
}

fn auth_policy(settings: &Settings) -> Result<AuthPolicy, GateStartError> {
    let security = &settings.wiring.security;
    let mut allowlist: Vec<String> = security
        .auth_allowlist
        .iter()
        .map(|entry| entry.expose().to_owned())
        .collect();
    if let Some(reference) = &security.auth_allowlist_ref {
        let text = settings.load_ref_text(reference)?.text;
        let listed = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        allowlist.extend(listed.map(str::to_owned));
    }
    let secrets = security.service_token_secrets.iter();
    Ok(AuthPolicy::new(
        AuthMode::parse(&security.auth_mode),
        allowlist,
        secrets.map(|secret| secret.expose().to_owned()).collect(),
    ))
}
