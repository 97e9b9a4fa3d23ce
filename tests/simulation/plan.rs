//! A seed, read: the sizes, limits and rates of one simulated run.

use crate::faults::{FAULTS, Fault};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use wellspring_actors::runtime::RestartPolicy;
use wellspring_domain::stream::batch_cut::BatchLimits;
use wellspring_domain::stream::cursor::FlushPolicy;
use wellspring_domain::stream::retry::RetryPolicy;

/// An output of the world.
#[derive(Clone, Debug)]
pub struct PlannedOutput {
    /// Its id; its events have this type.
    pub output_id: String,
    /// Rows of each part.
    pub parts: Vec<u64>,
    /// Partition keys its rows use.
    pub keys: u64,
}

/// A producer outside of the process.
#[derive(Clone, Debug)]
pub struct PlannedProducer {
    /// Events it pushes.
    pub events: u64,
    /// Events in a request.
    pub batch: usize,
    /// Partition keys it uses.
    pub keys: u64,
    /// Index into [`RUNS`]: the platform run it pushes to.
    pub run: usize,
    /// Longest pause between two requests.
    pub pause_ms_max: u64,
}

/// Platform runs of the simulation; the first is the process's own.
pub const RUNS: [&str; 4] = [
    "platform_20260101T000000Z",
    "platform_20260101T000001Z",
    "platform_20260101T000002Z",
    "platform_20260101T000003Z",
];

/// Everything a seed decides before the run starts.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Claims in a ledger and records in streams, as nodes share them, instead of files.
    pub shared_backends: bool,
    pub admission_shards: u16,
    pub index_shards: u16,
    pub partitions: u32,
    pub credit_events: u32,
    pub credit_bytes: u32,
    pub flush_bytes_max: usize,
    pub open_runs_max: usize,
    pub deny_on_amber: bool,
    /// Batches an output has on their way; 1 means that it pushes over a network.
    pub window: usize,
    pub batch: BatchLimits,
    pub flush: FlushPolicy,
    pub retry: RetryPolicy,
    pub stream_restart: RestartPolicy,
    pub shard_restart: RestartPolicy,
    pub speedup: f64,
    pub output_concurrency: Option<usize>,
    pub runs_max: usize,
    pub poll_interval: Duration,
    pub outputs: Vec<PlannedOutput>,
    pub producers: Vec<PlannedProducer>,
    /// Lives that end by a scheduled death.
    pub short_lives: u32,
    /// Longest scheduled life.
    pub life_ms_max: u64,
    /// From then on nothing goes wrong any more.
    pub calm_after_ms: u64,
    /// Longest pause between two blows of the chaos.
    pub blow_ms_max: u64,
    rates: Vec<f64>,
}

/// Events of a run, at least.
pub const EVENTS_MIN: u64 = 2_000;

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut dice = SmallRng::seed_from_u64(seed ^ 0x0005_eed0_fa11);
        let batch_events = dice.random_range(4..=64);
        let producers = producers(&mut dice);
        let largest = producers.iter().map(|p| p.batch as u32).max();
        let credit_floor = batch_events.max(largest.unwrap_or(1));
        let credit_events = credit_floor + dice.random_range(0..200) * dice.random_range(0..=4);
        Plan {
            seed,
            shared_backends: dice.random_bool(0.35),
            admission_shards: dice.random_range(1..=4),
            index_shards: dice.random_range(1..=3),
            partitions: dice.random_range(1..=4),
            credit_events,
            credit_bytes: credit_events * 1_500,
            flush_bytes_max: [600, 4_000, 32_000, 1 << 20][dice.random_range(0..4)],
            open_runs_max: dice.random_range(2..=3),
            deny_on_amber: dice.random_bool(0.3),
            window: [1, 1, 2, 4, 16][dice.random_range(0..5)],
            batch: BatchLimits {
                events_max: batch_events,
                bytes_max: [2_000, 20_000, 1 << 20][dice.random_range(0..3)],
                schedule_span_micros_max: Some(5_000),
            },
            flush: FlushPolicy {
                events_min: dice.random_range(1..200),
                interval_min_micros: dice.random_range(0..50_000),
                interval_max_micros: dice.random_range(50_000..500_000),
            },
            retry: RetryPolicy {
                attempts_max: dice.random_range(2..=6),
                delay_base_ms: dice.random_range(5..250),
                delay_max_ms: 2_000,
                backpressure_deadline_ms: dice.random_range(5_000..60_000),
            },
            stream_restart: restart(&mut dice, 3),
            shard_restart: restart(&mut dice, 8),
            speedup: [0.0, 0.0, 20.0, 60.0][dice.random_range(0..4)],
            output_concurrency: [None, None, Some(1)][dice.random_range(0..3)],
            runs_max: dice.random_range(1..=2),
            poll_interval: Duration::from_millis(dice.random_range(50..1_000)),
            outputs: outputs(&mut dice),
            producers,
            short_lives: dice.random_range(1..=6),
            life_ms_max: dice.random_range(500..15_000),
            calm_after_ms: dice.random_range(15_000..60_000),
            blow_ms_max: dice.random_range(300..5_000),
            rates: rates(&mut dice),
        }
    }

    /// How likely a fault is at one chance for it.
    pub fn rate(&self, fault: Fault) -> f64 {
        self.rates[fault as usize]
    }

    /// Rows of all outputs and events of all producers.
    pub fn events(&self) -> u64 {
        let rows = self.outputs.iter().flat_map(|output| &output.parts);
        let pushed = self.producers.iter().map(|producer| producer.events);
        rows.sum::<u64>() + pushed.sum::<u64>()
    }
}

fn restart(dice: &mut SmallRng, failures_max: u32) -> RestartPolicy {
    RestartPolicy {
        backoff_first: Duration::from_millis(dice.random_range(1..200)),
        backoff_max: Duration::from_millis(dice.random_range(200..5_000)),
        failures_max: dice.random_range(1..=failures_max),
        window: Duration::from_secs(dice.random_range(5..120)),
        heartbeat_max: Some(Duration::from_secs(dice.random_range(5..30))),
        ..RestartPolicy::default()
    }
}

fn outputs(dice: &mut SmallRng) -> Vec<PlannedOutput> {
    let count = dice.random_range(1..=3u64);
    let rows = (EVENTS_MIN * 7 / 10).div_ceil(count);
    let output = |number: u64| {
        let mut left = rows;
        let mut parts = Vec::new();
        while left > 0 {
            let part = dice.random_range(1..=600).min(left);
            parts.push(part);
            left -= part;
        }
        PlannedOutput {
            output_id: format!("output_{number}"),
            parts,
            keys: dice.random_range(1..40),
        }
    };
    (0..count).map(output).collect()
}

fn producers(dice: &mut SmallRng) -> Vec<PlannedProducer> {
    let count = dice.random_range(2..=5u64);
    let events = (EVENTS_MIN * 3 / 10).div_ceil(count);
    let producer = |number: u64| PlannedProducer {
        events,
        batch: dice.random_range(1..=24),
        keys: dice.random_range(1..12),
        // The first pushes to the run the streams use.
        run: if number == 0 {
            0
        } else {
            dice.random_range(0..RUNS.len())
        },
        pause_ms_max: dice.random_range(1..2_000),
    };
    (0..count).map(producer).collect()
}

/// Half of the faults stay away from a seed, the others come seldom or often: each seed has its own weather.
fn rates(dice: &mut SmallRng) -> Vec<f64> {
    let rate = |(_, per_mille): &(Fault, u32)| {
        let factor = [0.0, 0.0, 0.0, 0.3, 1.0, 1.0, 2.5][dice.random_range(0..7)];
        (f64::from(*per_mille) / 1_000.0 * factor).min(0.7)
    };
    FAULTS.iter().map(rate).collect()
}
