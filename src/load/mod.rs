//! `wellspring load`: what a gate takes, how fast, and at what cost.
//!
//! Events are made or read, and pushed through the very actors of the daemon: in this process, or over HTTP
//! against a gate that runs. An open loop sends by a plan and counts latency from the planned moment, so a
//! gate that stalls cannot hide it; a closed loop sends as fast as it is answered. What must be true
//! afterwards is checked in the same run.

pub mod checks;
mod drive;
pub mod html;
pub mod http_connection;
mod lanes;
pub mod producer;
pub mod recorder;
pub mod report;
pub mod require;
mod run;
pub mod sampler;
pub mod schedule;
mod source;
pub mod svg;
pub mod synthetic;
pub mod template;
mod verify;
pub mod workload;
mod world;
pub mod zipf;

use self::http_connection::HttpGateAddress;
use self::producer::PushKind;
use self::require::Requirement;
use crate::settings::Settings;
use std::time::Duration;

pub use run::run;

/// Where events go.
#[derive(Clone, Debug)]
pub enum Target {
    /// A gate of this process, on the backends of the settings.
    InProcess,
    /// A gate that runs.
    Http {
        /// Where.
        address: HttpGateAddress,
        /// How.
        kind: PushKind,
        /// Its process, when it is on this machine and its processor time is wanted.
        gate_process: Option<u32>,
        /// Its runs root, when it is on this machine and its bus is to be verified.
        runs_root: Option<String>,
    },
}

/// What events are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Made by seed.
    Synthetic,
    /// The stream views of a sealed world.
    World {
        /// The world.
        root: String,
        /// Its scenario; the only one when not given.
        scenario_id: Option<String>,
        /// Only these outputs; empty is what the policy selects.
        outputs: Vec<String>,
    },
}

/// Knobs that do not fit each other or the gate: a mistake of whoever gave them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KnobProblem(pub String);

/// A load as it was asked for.
pub struct LoadPlan {
    /// Settings of the gate in this process, and of the producer.
    pub settings: Settings,
    /// Where events go.
    pub target: Target,
    /// What they are.
    pub source: Source,
    /// Events per second; `None` is a closed loop.
    pub rate: Option<f64>,
    /// Most events.
    pub events: Option<u64>,
    /// Longest time of sending.
    pub duration: Option<Duration>,
    /// Time at the beginning that is not measured.
    pub warmup: Duration,
    /// Senders in order; over HTTP each is a connection.
    pub producers: u64,
    /// Most events in a batch.
    pub batch: u64,
    /// Most batches of one producer without an answer, in process.
    pub window: u64,
    /// Partition keys.
    pub keys: u64,
    /// How unevenly they are used.
    pub skew: f64,
    /// Share of copies.
    pub duplicates: f64,
    /// Share of events to be quarantined.
    pub invalid: f64,
    /// Bytes of a payload; the smallest when not given.
    pub payload_bytes: Option<usize>,
    /// Another seed is another load.
    pub seed: u64,
    /// Compare the bus with what was sent.
    pub verify: bool,
    /// Thresholds.
    pub requirements: Vec<Requirement>,
}
