//! Wiring: endpoints, resources and limits; nothing in it changes an outcome (contract 9.1, 9.2).

use super::backends::{
    AdmissionSettings, CheckpointSettings, ControlBusSettings, EventBusSettings,
};
use super::layers::Layers;
use super::limits::{GateSettings, StreamSettings, SupervisionSettings};
use super::managed::{ClusterSettings, KinesisSettings};
use super::object_storage::ObjectStorage;
use super::section::{Section, key};
use super::security::SecuritySettings;

/// How long a push is retried (contract 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts in all.
    pub max_attempts: u32,
    /// First delay.
    pub base_delay_ms: u64,
    /// Longest delay.
    pub max_delay_ms: u64,
}

/// Who the World Streamer says it is (contract 6.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// Its producer id.
    pub producer_id: Option<String>,
    /// File of producers that may stream.
    pub allowlist_ref: Option<String>,
}

/// Whether the bus is looked at by health probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BusProbeMode {
    /// Only failures of publishing count.
    None,
    /// The bus is asked whether it is there.
    Describe,
}

/// Health and metrics of the gate (contract 7.10, 7.11).
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSettings {
    /// Seconds a health answer is kept.
    pub probe_interval_seconds: u64,
    /// How the bus is looked at.
    pub bus_probe_mode: BusProbeMode,
    /// Whether AMBER refuses.
    pub deny_on_amber: bool,
    /// How long AMBER waits otherwise.
    pub amber_sleep_seconds: f64,
    /// Failed publishes in a row before RED.
    pub bus_publish_failure_threshold: u64,
    /// Seconds between metric lines.
    pub metrics_flush_seconds: u64,
    /// Quarantines in the window that are a spike.
    pub quarantine_spike_threshold: u64,
    /// The window.
    pub quarantine_spike_window_seconds: u64,
    /// Attempts to write what follows a commit.
    pub internal_retry_max_attempts: u32,
    /// First delay between them.
    pub internal_retry_backoff_ms: u64,
}

/// The `wiring` section.
#[derive(Clone, Debug, PartialEq)]
pub struct WiringSettings {
    /// Where objects live, and how S3 is reached.
    pub objects: ObjectStorage,
    /// Where this machine keeps what never goes into a bucket: the active run, logs, spill files.
    pub local_root: String,
    /// Folder or bucket of sealed worlds.
    pub oracle_root: String,
    /// The one world to use, when pinned.
    pub oracle_engine_run_root: Option<String>,
    /// The scenario of that world.
    pub oracle_scenario_id: Option<String>,
    /// Base of the stream views; beside the world when absent.
    pub oracle_stream_view_root: Option<String>,
    /// Where the gate listens, for producers in other processes and for `ps`.
    pub ig_ingest_url: String,
    /// Where the admission index lives.
    pub admission: AdmissionSettings,
    /// The event bus.
    pub event_bus: EventBusSettings,
    /// The control bus.
    pub control_bus: ControlBusSettings,
    /// Stream checkpoints.
    pub wsp_checkpoint: CheckpointSettings,
    /// Push retries.
    pub wsp_retry: RetrySettings,
    /// The World Streamer's identity.
    pub wsp_producer: ProducerSettings,
    /// Authentication and rates.
    pub security: SecuritySettings,
    /// Health and metrics of the gate.
    pub health: HealthSettings,
    /// Folder of our contract schemas.
    pub schema_root: Option<String>,
    /// Folder of the engine's contracts.
    pub engine_contracts_root: Option<String>,
    /// Outputs catalogue.
    pub engine_catalogue_path: String,
    /// Gate map.
    pub gate_map_path: String,
    /// Scenario Runner wiring file (contract 9.3).
    pub scenario_wiring_ref: String,
    /// Limits of the gate.
    pub gate: GateSettings,
    /// Limits of the streams.
    pub stream: StreamSettings,
    /// Restarts and heartbeats.
    pub supervision: SupervisionSettings,
    /// This node among others on the same backends.
    pub cluster: ClusterSettings,
    /// Limits of Kinesis.
    pub kinesis: KinesisSettings,
}

impl WiringSettings {
    pub(super) fn read(mut section: Section<'_, '_>, layers: &Layers, strict: bool) -> Self {
        let s = &mut section;
        super::reject_pull_keys(s, |name| REJECTED_KEYS.contains(&name));
        let objects = ObjectStorage::read(s.section("object_store"), layers, strict);
        let wiring = WiringSettings {
            local_root: objects.read_local_root(s, layers),
            objects,
            oracle_root: s.text(
                key("oracle_root").env("ORACLE_ROOT"),
                "runs/local_full_run-5",
            ),
            oracle_engine_run_root: s
                .optional_text(key("oracle_engine_run_root").env("ORACLE_ENGINE_RUN_ROOT")),
            oracle_scenario_id: s
                .optional_text(key("oracle_scenario_id").env("ORACLE_SCENARIO_ID")),
            oracle_stream_view_root: s
                .optional_text(key("oracle_stream_view_root").env("ORACLE_STREAM_VIEW_ROOT")),
            ig_ingest_url: read_ingest_url(s),
            admission: AdmissionSettings::read(s, strict),
            event_bus: EventBusSettings::read(s, strict),
            control_bus: ControlBusSettings::read(s.section("control_bus"), strict),
            wsp_checkpoint: CheckpointSettings::read(s.section("wsp_checkpoint"), strict),
            wsp_retry: read_retry(s.section("wsp_retry")),
            wsp_producer: read_producer(s.section("wsp_producer")),
            security: SecuritySettings::read(s.section("security"), layers),
            health: read_health(s),
            schema_root: s.optional_text(key("schema_root")),
            engine_contracts_root: s.optional_text(key("engine_contracts_root")),
            engine_catalogue_path: s.text(
                key("engine_catalogue_path"),
                "config/platform/oracle/outputs_catalogue_v0.yaml",
            ),
            gate_map_path: s.text(
                key("gate_map_path"),
                "config/platform/oracle/gate_map_v0.yaml",
            ),
            scenario_wiring_ref: s.text(
                key("scenario_wiring_ref"),
                "config/platform/sr/wiring_local.yaml",
            ),
            gate: GateSettings::read(s.section("gate")),
            stream: StreamSettings::read(s.section("stream")),
            supervision: SupervisionSettings::read(s.section("supervision")),
            cluster: ClusterSettings::read(s.section("cluster")),
            kinesis: KinesisSettings::read(s.section("kinesis")),
        };
        super::skip_other_planes(s);
        section.finish();
        wiring
    }
}

/// Keys of the pull model, which is gone (contract 9.2).
const REJECTED_KEYS: [&str; 3] = ["ready_lease", "pull_sharding", "pull_time_budget_seconds"];

fn read_ingest_url(section: &mut Section<'_, '_>) -> String {
    let name = "ig_ingest_url";
    let url = section.text(
        key(name)
            .env("IG_INGEST_URL")
            .missing_code("IG_INGEST_URL_MISSING"),
        "http://localhost:8081",
    );
    if !url.starts_with("http://") && !url.starts_with("https://") {
        section.problem(
            "IG_INGEST_URL_INVALID",
            name,
            "must start with http:// or https://",
        );
    }
    url.trim_end_matches('/').to_string()
}

fn read_retry(mut section: Section<'_, '_>) -> RetrySettings {
    let s = &mut section;
    let retry = RetrySettings {
        max_attempts: s.whole(key("max_attempts"), 5, 1..=1000) as u32,
        base_delay_ms: s.whole(key("base_delay_ms"), 250, 0..=600_000),
        max_delay_ms: s.whole(key("max_delay_ms"), 5_000, 0..=600_000),
    };
    if retry.base_delay_ms > retry.max_delay_ms {
        s.problem(
            "CONFIG_LIMITS_CONFLICT",
            "base_delay_ms",
            "must not be longer than max_delay_ms",
        );
    }
    section.finish();
    retry
}

fn read_producer(mut section: Section<'_, '_>) -> ProducerSettings {
    let s = &mut section;
    // An empty text in the profile is a missing identity, which the preflight reports by its code;
    // a key nobody wrote has the default.
    let producer_id = match s.says("producer_id") {
        true => s.optional_text(key("producer_id")),
        false => Some(s.text(key("producer_id"), "svc:world_stream_producer")),
    };
    let allowlist_ref = match s.says("allowlist_ref") {
        true => s.optional_text(key("allowlist_ref")),
        false => Some(s.text(
            key("allowlist_ref"),
            "config/platform/wsp/producer_allowlist_v0.txt",
        )),
    };
    section.finish();
    ProducerSettings {
        producer_id,
        allowlist_ref,
    }
}

fn read_health(s: &mut Section<'_, '_>) -> HealthSettings {
    HealthSettings {
        probe_interval_seconds: s.whole(key("health_probe_interval_seconds"), 30, 0..=86_400),
        bus_probe_mode: s.choice(
            key("health_bus_probe_mode"),
            "none",
            &[
                ("none", BusProbeMode::None),
                ("describe", BusProbeMode::Describe),
            ],
            "CONFIG_VALUE_INVALID",
        ),
        deny_on_amber: s.switch(key("health_deny_on_amber"), false),
        amber_sleep_seconds: s
            .number(key("health_amber_sleep_seconds"), 0.0)
            .clamp(0.0, 60.0),
        bus_publish_failure_threshold: s.whole(
            key("bus_publish_failure_threshold"),
            3,
            1..=1_000_000,
        ),
        metrics_flush_seconds: s.whole(key("metrics_flush_seconds"), 30, 1..=86_400),
        quarantine_spike_threshold: s.whole(key("quarantine_spike_threshold"), 25, 1..=u64::MAX),
        quarantine_spike_window_seconds: s.whole(
            key("quarantine_spike_window_seconds"),
            60,
            1..=86_400,
        ),
        internal_retry_max_attempts: s.whole(key("internal_retry_max_attempts"), 3, 1..=100) as u32,
        internal_retry_backoff_ms: s.whole(key("internal_retry_backoff_ms"), 250, 0..=60_000),
    }
}
