//! Looks at a running load several times a second: progress for a person, points for the plots.

use super::recorder::{Counts, Recording};
use crate::cli::progress::Progress;
use crate::machine::Reading;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const EVERY: Duration = Duration::from_millis(200);
/// The last interval is left out when it is shorter.
const SHORTEST: Duration = Duration::from_millis(50);
/// Points after which the time between two of them doubles.
const POINTS_BEFORE_DOUBLING: usize = 600;

/// What happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// End of the interval, seconds since the load began.
    pub at_seconds: f64,
    /// Length of the interval.
    pub seconds: f64,
    /// Sent per second.
    pub sent_per_second: f64,
    /// Decided per second.
    pub decided_per_second: f64,
    /// Refused per second.
    pub refused_per_second: f64,
    /// Median latency of what was answered; none when nothing was, or while warming up.
    pub p50_ms: Option<f64>,
    /// 99 % of it.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
    /// Processors this process kept busy.
    pub process_processors: f64,
    /// Share of the machine that others took.
    pub others_share: Option<f64>,
}

/// Looks until told to stop; gives the points.
pub async fn sample(
    recording: Arc<Recording>,
    origin: Instant,
    gate_process: Option<u32>,
    progress: Arc<Progress>,
    mut stop: watch::Receiver<bool>,
) -> Vec<Point> {
    let mut points = Vec::new();
    let mut before = (Reading::now(gate_process), recording.counts());
    let mut every = EVERY;
    loop {
        let stopping = tokio::select! {
            () = tokio::time::sleep(every) => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let now = (Reading::now(gate_process), recording.counts());
        let point = point(&recording, origin, &before, &now);
        progress.note(&note(&point));
        progress.set(now.1.answered());
        if stopping && point.seconds < SHORTEST.as_secs_f64() && !points.is_empty() {
            // A rate over a few milliseconds would be a spike that never was.
            return points;
        }
        points.push(point);
        before = now;
        if stopping {
            return points;
        }
        if points.len().is_multiple_of(POINTS_BEFORE_DOUBLING) {
            every *= 2;
        }
    }
}

fn point(
    recording: &Recording,
    origin: Instant,
    (before, counted): &(Reading, Counts),
    (now, counts): &(Reading, Counts),
) -> Point {
    let used = now.since(before);
    let seconds = used.wall_seconds.max(1e-6);
    let per_second = |now: u64, then: u64| (now - then) as f64 / seconds;
    let interval = recording.take_interval();
    let quantile = |q: f64| {
        let measured = !interval.is_empty();
        measured.then(|| interval.value_at_quantile(q) as f64 / 1000.0)
    };
    Point {
        at_seconds: (now.at - origin).as_secs_f64(),
        seconds,
        sent_per_second: per_second(counts.sent, counted.sent),
        decided_per_second: per_second(counts.decided(), counted.decided()),
        refused_per_second: per_second(counts.refused, counted.refused),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        max_ms: quantile(1.0),
        process_processors: used.process_seconds / seconds,
        others_share: used.others_share,
    }
}

fn note(point: &Point) -> String {
    let latency = match (point.p50_ms, point.p99_ms) {
        (Some(p50), Some(p99)) => format!(", p50 {p50:.1} ms, p99 {p99:.1} ms"),
        _ => String::new(),
    };
    let rate = crate::cli::output::grouped(point.decided_per_second as u64);
    format!("{rate}/s{latency}")
}
