//! Limits of the gate, the streams and the supervision: units in the names, checked against each
//! other at start, and everything has one.

use super::section::{Section, key};
use std::time::Duration;
use wellspring_actors::runtime::{CreditLimits, RestartPolicy};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// `wiring.gate`: the Ingestion Gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettings {
    /// Address the HTTP listener binds.
    pub bind_host: String,
    /// Port the HTTP listener binds.
    pub bind_port: u16,
    /// Admission shards of a new run.
    pub admission_shards: u16,
    /// Index shards of a new run.
    pub index_shards: u16,
    /// Most bytes of one flush.
    pub flush_bytes_max: u64,
    /// Most events in flight towards one admission shard.
    pub credit_events_max: u32,
    /// Most bytes in flight towards one admission shard.
    pub credit_bytes_max: u32,
    /// Largest body of a single push.
    pub body_bytes_max: u64,
    /// Largest body of a batch push.
    pub batch_body_bytes_max: u64,
    /// Most events of a batch push.
    pub batch_events_max: u32,
    /// Most connections at once.
    pub connections_max: u32,
    /// Longest time a client may take to send its request head.
    pub header_timeout_ms: u64,
    /// Longest time one request may take.
    pub request_timeout_ms: u64,
    /// Free space on the disk below which nothing is admitted.
    pub min_free_bytes: u64,
    /// Most platform runs open at once.
    pub open_runs_max: u32,
    /// Memory of the admission index: over all its shards and all runs that may be open. Each shard takes 32 KiB for
    /// buffers at least.
    pub index_memory_bytes_max: u64,
    /// Longest time an absent facts view is remembered.
    pub facts_absence_cache_ms: u64,
    /// Longest time from SIGTERM to the end.
    pub shutdown_deadline_ms: u64,
}

impl GateSettings {
    /// Room in front of one admission shard.
    pub fn credit_limits(&self) -> CreditLimits {
        CreditLimits {
            events_max: self.credit_events_max,
            bytes_max: self.credit_bytes_max,
        }
    }

    /// Most index shards that are open at once, over all runs.
    pub fn open_index_shards_max(&self) -> usize {
        usize::from(self.index_shards) * self.open_runs_max as usize
    }

    /// Most bytes that can be in flight through all shards, known at start.
    pub fn in_flight_bytes_max(&self) -> u64 {
        u64::from(self.credit_bytes_max) * u64::from(self.admission_shards)
    }

    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let s = &mut section;
        let shards = default_shards();
        let gate = GateSettings {
            bind_host: s.text(key("bind_host"), "127.0.0.1"),
            bind_port: s.whole(key("bind_port"), 8081, 0..=65_535) as u16,
            admission_shards: s.whole(key("admission_shards"), shards, 1..=64) as u16,
            index_shards: s.whole(key("index_shards"), shards, 1..=64) as u16,
            flush_bytes_max: s.whole(key("flush_bytes_max"), 8 * MIB, 4096..=GIB),
            credit_events_max: s.whole(key("credit_events_max"), 65_536, 1..=16_777_216) as u32,
            credit_bytes_max: s.whole(key("credit_bytes_max"), 64 * MIB, 4096..=GIB) as u32,
            body_bytes_max: s.whole(key("body_bytes_max"), MIB, 1024..=64 * MIB),
            batch_body_bytes_max: s.whole(key("batch_body_bytes_max"), 32 * MIB, 1024..=GIB),
            batch_events_max: s.whole(key("batch_events_max"), 1000, 1..=65_536) as u32,
            connections_max: s.whole(key("connections_max"), 16_384, 1..=100_000) as u32,
            header_timeout_ms: s.whole(key("header_timeout_ms"), 5_000, 10..=600_000),
            request_timeout_ms: s.whole(key("request_timeout_ms"), 30_000, 10..=600_000),
            min_free_bytes: s.whole(key("min_free_bytes"), 256 * MIB, 0..=u64::MAX),
            open_runs_max: s.whole(key("open_runs_max"), 4, 1..=1024) as u32,
            index_memory_bytes_max: s.whole(
                key("index_memory_bytes_max"),
                768 * MIB,
                MIB / 16..=1024 * GIB,
            ),
            facts_absence_cache_ms: s.whole(key("facts_absence_cache_ms"), 2000, 0..=2000),
            shutdown_deadline_ms: s.whole(key("shutdown_deadline_ms"), 10_000, 100..=600_000),
        };
        gate.check(s);
        section.finish();
        gate
    }

    /// Limits that must fit into each other.
    fn check(&self, section: &Section<'_, '_>) {
        let fits = |holds: bool, name: &str, sentence: &str| {
            if !holds {
                section.problem("CONFIG_LIMITS_CONFLICT", name, sentence);
            }
        };
        let credit_bytes = u64::from(self.credit_bytes_max);
        fits(
            self.batch_events_max <= self.credit_events_max,
            "batch_events_max",
            "a batch would never fit into credit_events_max",
        );
        fits(
            self.batch_body_bytes_max <= credit_bytes,
            "batch_body_bytes_max",
            "a batch would never fit into credit_bytes_max",
        );
        fits(
            self.body_bytes_max <= self.batch_body_bytes_max,
            "body_bytes_max",
            "a single body may not be larger than batch_body_bytes_max",
        );
        fits(
            self.header_timeout_ms <= self.request_timeout_ms,
            "header_timeout_ms",
            "must not be longer than request_timeout_ms",
        );
    }
}

/// As many shards as there are cores, within reason: each has its own journal and its own syncs.
fn default_shards() -> u64 {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (cores as u64).clamp(1, 8)
}

/// `wiring.stream`: the World Streamer.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamSettings {
    /// Most events of one batch.
    pub batch_events_max: u32,
    /// Most bytes of one batch.
    pub batch_bytes_max: u32,
    /// Rows read from a part at once.
    pub read_batch_rows: u32,
    /// Outputs streamed at once; `None` is all of them.
    pub output_concurrency: Option<u32>,
    /// Unanswered pushes at once towards a single-push gate; above 1 the order per key is lost.
    pub push_concurrency: u32,
    /// Schedule covered by one batch.
    pub schedule_slice_ms: u64,
    /// Longest time between checkpoints while events are acknowledged.
    pub checkpoint_interval_ms_max: u64,
    /// Longest time one push may take.
    pub push_timeout_ms: u64,
    /// How long the gate may push back (429, 503) before an output gives up.
    pub backpressure_deadline_ms: u64,
    /// Pooled connections to the gate.
    pub http_pool_max: u32,
    /// Events between progress lines.
    pub progress_every: u64,
    /// Seconds between progress lines.
    pub progress_seconds: u64,
    /// Seconds between looks at the control bus.
    pub poll_seconds: f64,
    /// Seconds between log lines about a READY already done.
    pub duplicate_log_interval_seconds: u64,
    /// Cap per output; 0 is none.
    pub max_events_per_output: u64,
    /// Streams the same run again under checkpoints of its own.
    pub checkpoint_attempt_id: Option<String>,
}

impl StreamSettings {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let s = &mut section;
        let stream = StreamSettings {
            batch_events_max: s.whole(key("batch_events_max"), 512, 1..=65_536) as u32,
            batch_bytes_max: s.whole(key("batch_bytes_max"), 4 * MIB, 4096..=256 * MIB) as u32,
            read_batch_rows: s.whole(
                key("read_batch_rows").env("WSP_STREAM_VIEW_BATCH_SIZE"),
                1024,
                1..=1_000_000,
            ) as u32,
            output_concurrency: s
                .optional_whole(
                    key("output_concurrency").env("WSP_OUTPUT_CONCURRENCY"),
                    1..=1024,
                )
                .map(|outputs| outputs as u32),
            push_concurrency: s.whole(
                key("push_concurrency").env("WSP_IG_PUSH_CONCURRENCY"),
                1,
                1..=1024,
            ) as u32,
            schedule_slice_ms: s.whole(key("schedule_slice_ms"), 5, 1..=1000),
            checkpoint_interval_ms_max: s.whole(key("checkpoint_interval_ms_max"), 250, 1..=60_000),
            push_timeout_ms: s.whole(key("push_timeout_ms"), 30_000, 10..=600_000),
            backpressure_deadline_ms: s.whole(
                key("backpressure_deadline_ms"),
                300_000,
                0..=86_400_000,
            ),
            http_pool_max: s.whole(
                key("http_pool_max").env("WSP_HTTP_POOL_MAXSIZE"),
                256,
                1..=65_536,
            ) as u32,
            progress_every: s.whole(
                key("progress_every").env("WSP_PROGRESS_EVERY"),
                1000,
                1..=u64::MAX,
            ),
            progress_seconds: s.whole(
                key("progress_seconds").env("WSP_PROGRESS_SECONDS"),
                30,
                1..=86_400,
            ),
            poll_seconds: s.number(key("poll_seconds"), 2.0),
            duplicate_log_interval_seconds: s.whole(
                key("duplicate_log_interval_seconds")
                    .env("WSP_READY_DUPLICATE_LOG_INTERVAL_SECONDS"),
                60,
                0..=86_400,
            ),
            max_events_per_output: s.whole(
                key("max_events_per_output").env("WSP_MAX_EVENTS_PER_OUTPUT"),
                0,
                0..=u64::MAX,
            ),
            checkpoint_attempt_id: s
                .optional_text(key("checkpoint_attempt_id").env("WSP_CHECKPOINT_ATTEMPT_ID")),
        };
        if !(0.0..=3600.0).contains(&stream.poll_seconds) {
            s.problem(
                "CONFIG_VALUE_INVALID",
                "poll_seconds",
                "must be from 0 to 3600",
            );
        }
        section.finish();
        stream
    }

    /// How long to wait between looks at the control bus.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_secs_f64(self.poll_seconds.clamp(0.01, 3600.0))
    }
}

/// `wiring.supervision`: restarts and heartbeats of every pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisionSettings {
    /// Delay before the first restart.
    pub backoff_first_ms: u64,
    /// Longest delay between restarts.
    pub backoff_max_ms: u64,
    /// Most failures inside the window.
    pub failures_max: u32,
    /// How far back failures count.
    pub window_seconds: u64,
    /// How long a generation may take to start.
    pub start_deadline_ms: u64,
    /// How long a stage may work off its mailbox when it is stopped in order.
    pub drain_deadline_ms: u64,
    /// How long a stage may take to stop without draining.
    pub stop_deadline_ms: u64,
    /// Longest silence of a busy stage.
    pub heartbeat_ms_max: u64,
}

impl SupervisionSettings {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let s = &mut section;
        let settings = SupervisionSettings {
            backoff_first_ms: s.whole(key("backoff_first_ms"), 100, 1..=60_000),
            backoff_max_ms: s.whole(key("backoff_max_ms"), 30_000, 1..=3_600_000),
            failures_max: s.whole(key("failures_max"), 8, 0..=1000) as u32,
            window_seconds: s.whole(key("window_seconds"), 120, 1..=86_400),
            start_deadline_ms: s.whole(key("start_deadline_ms"), 600_000, 100..=86_400_000),
            drain_deadline_ms: s.whole(key("drain_deadline_ms"), 5_000, 10..=600_000),
            stop_deadline_ms: s.whole(key("stop_deadline_ms"), 2_000, 10..=600_000),
            heartbeat_ms_max: s.whole(key("heartbeat_ms_max"), 30_000, 100..=3_600_000),
        };
        if settings.backoff_first_ms > settings.backoff_max_ms {
            s.problem(
                "CONFIG_LIMITS_CONFLICT",
                "backoff_first_ms",
                "must not be longer than backoff_max_ms",
            );
        }
        section.finish();
        settings
    }

    /// The restart policy these settings describe.
    pub fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy {
            backoff_first: Duration::from_millis(self.backoff_first_ms),
            backoff_max: Duration::from_millis(self.backoff_max_ms),
            window: Duration::from_secs(self.window_seconds),
            failures_max: self.failures_max,
            start_deadline: Duration::from_millis(self.start_deadline_ms),
            drain_deadline: Duration::from_millis(self.drain_deadline_ms),
            stop_deadline: Duration::from_millis(self.stop_deadline_ms),
            heartbeat_max: Some(Duration::from_millis(self.heartbeat_ms_max)),
            ..RestartPolicy::default()
        }
    }
}
