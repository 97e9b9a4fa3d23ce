//! Which backend each port uses, and the connection values of each (contract 9.2).
//!
//! A profile that names a managed backend never falls back to a folder in silence (W20): what does
//! not resolve is an error at load, under the code of the contract (T9).

use super::secret::{Secret, masked_url};
use super::section::{Section, key};
use crate::event_bus::embedded_log::CACHED_BYTES_DEFAULT;
use std::collections::BTreeMap;
use std::fmt;

/// Kinds of bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BusKind {
    /// Files under the run root.
    File,
    /// Kinesis streams.
    Kinesis,
    /// Kafka topics.
    Kafka,
}

const BUS_KINDS: [(&str, BusKind); 3] = [
    ("file", BusKind::File),
    ("kinesis", BusKind::Kinesis),
    ("kafka", BusKind::Kafka),
];

/// The event bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBusSettings {
    /// Which kind.
    pub kind: BusKind,
    /// Its path: `event_bus_path`, else `root`, else `stream`; run-scoped when it is a folder.
    pub root: Option<String>,
    /// Kinesis stream; `None` (also written `auto`, `topic`) means one stream per topic.
    pub stream: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Endpoint, when it is not the region's own.
    pub endpoint_url: Option<String>,
    /// Informational `topic_*` keys.
    pub topics: BTreeMap<String, String>,
    /// Partitions by topic for new topics of a run; topics not named have `partitions_default`.
    pub partitions: BTreeMap<String, u32>,
    /// Partitions of every other topic.
    pub partitions_default: u32,
    /// Bytes behind the end of a partition file or journal segment that stay in the page cache.
    pub cached_bytes: u64,
    /// Shards by topic for streams that `bootstrap` makes; topics not named have `shards_default`.
    pub shards: BTreeMap<String, u32>,
    /// Shards of every other stream.
    pub shards_default: u32,
}

/// Shards of a stream that `bootstrap` makes, when nobody says.
const SHARDS_DEFAULT: u32 = 4;

/// Most bytes to be kept in the page cache: a pebibyte is no limit.
const CACHED_BYTES_MAX: u64 = 1 << 50;

/// Most partitions a topic may have.
pub const PARTITIONS_MAX: u64 = 1024;

impl EventBusSettings {
    /// Partitions of a topic when it is created.
    pub fn partitions_of(&self, topic: &str) -> u32 {
        self.partitions
            .get(topic)
            .copied()
            .unwrap_or(self.partitions_default)
    }

    /// Shards of a topic's stream when it is made.
    pub fn shards_of(&self, topic: &str) -> u32 {
        self.shards
            .get(topic)
            .copied()
            .unwrap_or(self.shards_default)
    }

    pub(super) fn read(wiring: &mut Section<'_, '_>, strict: bool) -> Self {
        let said_kind = wiring.says("event_bus_kind");
        let kind = wiring.choice(
            key("event_bus_kind").env("EVENT_BUS_KIND"),
            "file",
            &BUS_KINDS,
            "EB_KIND_UNSUPPORTED",
        );
        if strict && kind == BusKind::File && !said_kind {
            wiring.problem(
                "LOCAL_BACKEND_IN_MANAGED_PROFILE",
                "event_bus_kind",
                "the event bus would be files; say event_bus_kind: file if that is meant",
            );
        }
        let path = wiring.optional_text(key("event_bus_path"));
        let mut section = wiring.section("event_bus");
        let s = &mut section;
        let root = s.optional_text(key("root").env("EVENT_BUS_ROOT"));
        let stream = s.optional_text(
            key("stream")
                .env("EVENT_BUS_STREAM")
                .missing_code("EVENT_BUS_STREAM_MISSING"),
        );
        if kind == BusKind::Kinesis && stream.is_none() && !s.has_problem("stream") {
            s.problem(
                "EVENT_BUS_STREAM_MISSING",
                "stream",
                "the bus is kinesis: name a stream, or say auto for one stream per topic",
            );
        }
        let per_topic =
            |name: &String| matches!(name.to_ascii_lowercase().as_str(), "auto" | "topic");
        let region = s.optional_text(key("region").env_fallback("EVENT_BUS_REGION"));
        let endpoint_url =
            s.optional_text(key("endpoint_url").env_fallback("EVENT_BUS_ENDPOINT_URL"));
        let (partitions_default, partitions) = read_counts(s, "partitions", 1);
        let (shards_default, shards) = read_counts(s, "shards", SHARDS_DEFAULT);
        let cached_bytes = s.whole(
            key("cached_bytes"),
            CACHED_BYTES_DEFAULT,
            0..=CACHED_BYTES_MAX,
        );
        let topics = read_topics(s);
        section.finish();
        EventBusSettings {
            kind,
            root: path
                .or(root)
                .or_else(|| stream.clone().filter(|_| kind == BusKind::File)),
            stream: stream.filter(|name| !per_topic(name)),
            region,
            endpoint_url,
            topics,
            partitions,
            partitions_default,
            cached_bytes,
            shards,
            shards_default,
        }
    }
}

/// `partitions: 4`, or `partitions: {default: 1, fp.bus.traffic.fraud.v1: 4}`; `shards` likewise.
fn read_counts(
    section: &mut Section<'_, '_>,
    name: &'static str,
    default: u32,
) -> (u32, BTreeMap<String, u32>) {
    let mut by_topic = BTreeMap::new();
    let Some(value) = section.value(key(name)) else {
        return (default, by_topic);
    };
    let number = |value: &serde_json::Value| {
        let number = match value {
            serde_json::Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        };
        number
            .filter(|count| (1..=PARTITIONS_MAX).contains(count))
            .map(|count| count as u32)
    };
    let wrong = format!("must be a number from 1 to {PARTITIONS_MAX}, or such numbers by topic");
    let serde_json::Value::Object(map) = value else {
        let Some(count) = number(&value) else {
            section.problem("CONFIG_VALUE_INVALID", name, wrong);
            return (default, by_topic);
        };
        return (count, by_topic);
    };
    let mut default = default;
    for (topic, count) in &map {
        match number(count) {
            Some(count) if topic == "default" => default = count,
            Some(count) => {
                by_topic.insert(topic.clone(), count);
            }
            None => section.problem("CONFIG_VALUE_INVALID", name, format!("{topic}: {wrong}")),
        }
    }
    (default, by_topic)
}

fn read_topics(section: &mut Section<'_, '_>) -> BTreeMap<String, String> {
    let (topics, rest): (Vec<_>, Vec<_>) = section
        .take_rest()
        .into_iter()
        .partition(|(name, _)| name.starts_with("topic_"));
    for (name, _) in rest {
        section.problem("CONFIG_KEY_UNKNOWN", &name, "this key does not exist here");
    }
    topics
        .into_iter()
        .filter_map(|(name, topic)| Some((name, topic.as_str()?.to_string())))
        .collect()
}

/// The control bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlBusSettings {
    /// Which kind.
    pub kind: BusKind,
    /// Its folder; run-scoped.
    pub root: Option<String>,
    /// Its topic.
    pub topic: String,
    /// Kinesis stream.
    pub stream: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Endpoint, when it is not the region's own.
    pub endpoint_url: Option<String>,
}

impl ControlBusSettings {
    pub(super) fn read(mut section: Section<'_, '_>, strict: bool) -> Self {
        let s = &mut section;
        let said_kind = s.says("kind");
        let kind = s.choice(
            key("kind").env("CONTROL_BUS_KIND"),
            "file",
            &BUS_KINDS,
            "CONTROL_BUS_KIND_UNSUPPORTED",
        );
        if strict && kind == BusKind::File && !said_kind {
            s.problem(
                "LOCAL_BACKEND_IN_MANAGED_PROFILE",
                "kind",
                "the control bus would be files; say kind: file if that is meant",
            );
        }
        let settings = ControlBusSettings {
            kind,
            root: s.optional_text(key("root").env("CONTROL_BUS_ROOT")),
            topic: s.text(key("topic"), "fp.bus.control.v1"),
            stream: s.optional_text(
                key("stream")
                    .env("CONTROL_BUS_STREAM")
                    .missing_code("CONTROL_BUS_STREAM_MISSING"),
            ),
            region: s.optional_text(key("region").env_fallback("CONTROL_BUS_REGION")),
            endpoint_url: s
                .optional_text(key("endpoint_url").env_fallback("CONTROL_BUS_ENDPOINT_URL")),
        };
        if kind == BusKind::Kinesis && settings.stream.is_none() && !s.has_problem("stream") {
            s.problem(
                "CONTROL_BUS_STREAM_MISSING",
                "stream",
                "the control bus is kinesis, but no stream is named",
            );
        }
        section.finish();
        settings
    }
}

/// Where stream checkpoints live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointBackend {
    /// Files under the run root.
    File,
    /// A PostgreSQL table.
    Postgres,
}

/// Stream checkpoints (contract 6.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Where they live.
    pub backend: CheckpointBackend,
    /// Their folder; run-scoped.
    pub root: Option<String>,
    /// PostgreSQL connection.
    pub dsn: Option<Secret>,
    /// Acknowledged events between saves, a lower bound.
    pub flush_every: u64,
}

impl CheckpointSettings {
    pub(super) fn read(mut section: Section<'_, '_>, strict: bool) -> Self {
        let s = &mut section;
        let said_backend = s.says("backend");
        let backend = s.choice(
            key("backend").env("WSP_CHECKPOINT_BACKEND"),
            "file",
            &[
                ("file", CheckpointBackend::File),
                ("postgres", CheckpointBackend::Postgres),
            ],
            "CHECKPOINT_BACKEND_UNSUPPORTED",
        );
        if strict && backend == CheckpointBackend::File && !said_backend {
            s.problem(
                "LOCAL_BACKEND_IN_MANAGED_PROFILE",
                "backend",
                "checkpoints would be files; say backend: file if that is meant",
            );
        }
        let settings = CheckpointSettings {
            backend,
            root: s.optional_text(key("root").env("WSP_CHECKPOINT_ROOT")),
            dsn: s.secret_url(
                key("dsn")
                    .env("WSP_CHECKPOINT_DSN")
                    .missing_code("CHECKPOINT_DSN_MISSING"),
            ),
            flush_every: s.whole(
                key("flush_every").env("WSP_CHECKPOINT_FLUSH_EVERY"),
                1,
                1..=1_000_000,
            ),
        };
        if backend == CheckpointBackend::Postgres && settings.dsn.is_none() && !s.has_problem("dsn")
        {
            s.problem(
                "CHECKPOINT_DSN_MISSING",
                "dsn",
                "the backend is postgres, but dsn is empty",
            );
        }
        section.finish();
        settings
    }
}

/// Where the admission index lives (contract 7.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionSettings {
    /// Embedded in the run root; `path` only names the place tables are exported to.
    Embedded {
        /// A run-scoped path, when one is given.
        path: Option<String>,
    },
    /// A PostgreSQL database.
    Postgres {
        /// Its connection.
        dsn: Secret,
    },
}

impl AdmissionSettings {
    pub(super) fn read(wiring: &mut Section<'_, '_>, strict: bool) -> Self {
        let name = "admission_db_path";
        let path = wiring.secret_url(
            key(name)
                .env("IG_ADMISSION_DSN")
                .missing_code("IG_ADMISSION_DSN_MISSING"),
        );
        match path {
            Some(dsn) if is_postgres(dsn.expose()) => AdmissionSettings::Postgres { dsn },
            Some(path) => AdmissionSettings::Embedded {
                path: Some(path.expose().to_string()),
            },
            None => {
                if strict && !wiring.has_problem(name) {
                    wiring.problem(
                        "IG_ADMISSION_DSN_MISSING",
                        name,
                        "the admission index would be embedded; give a path if that is meant",
                    );
                }
                AdmissionSettings::Embedded { path: None }
            }
        }
    }
}

fn is_postgres(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

impl fmt::Display for AdmissionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdmissionSettings::Embedded { .. } => f.write_str("embedded"),
            AdmissionSettings::Postgres { dsn } => f.write_str(&masked_url(dsn.expose())),
        }
    }
}
