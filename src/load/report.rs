//! What a load found: one document for programs, and the figures thresholds ask for.

use super::checks::Check;
use super::recorder::{Counts, Recorded};
use super::require::{Measured, Metric, Verdict};
use super::sampler::Point;
use super::synthetic::Composition;
use crate::machine::Use;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the document's shape.
pub const SCHEMA: &str = "wellspring.load.v1";

/// The knobs of a load, as they were in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Knobs {
    /// `in process`, `http batch`, `http single` or `http single, minimal answers`.
    pub target: &'static str,
    /// The gate's address, over HTTP.
    pub url: Option<String>,
    /// `open` or `closed`.
    pub r#loop: &'static str,
    /// Events per second that were planned.
    pub rate: Option<f64>,
    /// `synthetic`, or where the world lies.
    pub source: String,
    /// Most events.
    pub events: Option<u64>,
    /// Longest time of sending, seconds.
    pub duration_seconds: Option<f64>,
    /// Time that is not measured, seconds.
    pub warmup_seconds: f64,
    /// Senders, or connections.
    pub producers: u64,
    /// Most events in a batch.
    pub batch: u64,
    /// Most batches of one producer without an answer.
    pub window: u64,
    /// Partition keys.
    pub keys: Option<u64>,
    /// How unevenly keys are used.
    pub skew: f64,
    /// Share of copies.
    pub duplicates: f64,
    /// Share of events to be quarantined.
    pub invalid: f64,
    /// Bytes of a payload.
    pub payload_bytes: Option<u64>,
    /// Bytes of an envelope.
    pub envelope_bytes: Option<u64>,
    /// Seed of the load.
    pub seed: u64,
    /// Admission shards of the gate in this process.
    pub shards: Option<u64>,
    /// Partitions of a topic of the gate in this process.
    pub partitions: Option<u64>,
}

/// Latencies in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// What they are counted from.
    pub from: &'static str,
    /// Events they are of.
    pub events: u64,
    /// The mean.
    pub mean_ms: f64,
    /// Quantiles.
    pub p50_ms: f64,
    /// 90 %.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Percent and milliseconds, for the curve.
    pub curve: Vec<(f64, f64)>,
}

/// How late events were sent, in milliseconds: what the harness or a full gate added.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lateness {
    /// Half of them.
    pub p50_ms: f64,
    /// 99 % of them.
    pub p99_ms: f64,
    /// The latest.
    pub max_ms: f64,
}

/// Processor time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// What the seconds of this process are of.
    pub of: &'static str,
    /// Both processes, while measuring.
    pub used: Use,
    /// CPU-seconds (user and system) per million decided events, gate included when it is known.
    pub seconds_per_million: Option<f64>,
    /// Processor time of making events and recording answers, over the whole load.
    pub harness_seconds: f64,
    /// The same per million events sent.
    pub harness_seconds_per_million: Option<f64>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Which build measured.
    pub build: &'static str,
    /// When it began, UTC.
    pub started_at: String,
    /// The platform run the events are of.
    pub platform_run_id: String,
    /// Where the run lies, when it lies here.
    pub run_root: Option<String>,
    /// The knobs.
    pub knobs: Knobs,
    /// Counts of the whole load.
    pub counts: Counts,
    /// What was sent.
    pub composition: Composition,
    /// Refusals by reason code.
    pub refusals: BTreeMap<String, u64>,
    /// Time measured, seconds.
    pub measured_seconds: f64,
    /// Events decided in it.
    pub measured_events: u64,
    /// Decided events per second.
    pub events_per_second: f64,
    /// Latencies; none when nothing was measured.
    pub latency: Option<Latency>,
    /// Lateness of an open loop.
    pub lateness: Option<Lateness>,
    /// Processor time.
    pub cpu: Cpu,
    /// Most resident memory of this process.
    pub peak_resident_bytes: Option<u64>,
    /// The load over time.
    pub points: Vec<Point>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What was required.
    pub requirements: Vec<Verdict>,
    /// Whether every check holds and every requirement is met.
    pub passed: bool,
}

impl Latency {
    /// From a histogram of microseconds; `None` when it is empty.
    pub fn of(histogram: &Histogram<u64>, from: &'static str) -> Option<Latency> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile: f64| quantile_ms(histogram, quantile);
        Some(Latency {
            from,
            events: histogram.len(),
            mean_ms: histogram.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
            curve: curve(histogram),
        })
    }
}

impl Lateness {
    /// From a histogram of microseconds; `None` when it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Lateness> {
        (!histogram.is_empty()).then(|| Lateness {
            p50_ms: quantile_ms(histogram, 0.5),
            p99_ms: quantile_ms(histogram, 0.99),
            max_ms: quantile_ms(histogram, 1.0),
        })
    }
}

fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// Ten points for each nine of the percentage, as far as there are events to fill them.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let events = histogram.len() as f64;
    let mut points = Vec::new();
    for step in 0.. {
        let above = 10f64.powf(-f64::from(step) / 10.0);
        if above * events < 1.0 {
            break;
        }
        points.push(((1.0 - above) * 100.0, quantile_ms(histogram, 1.0 - above)));
    }
    points
}

/// A measured load with its histograms, before it is a document: thresholds may ask for any quantile.
pub struct Figures<'a> {
    /// Counts and histograms.
    pub recorded: &'a Recorded,
    /// Decided events per second.
    pub events_per_second: Option<f64>,
    /// CPU-seconds per million decided events.
    pub cpu_per_million: Option<f64>,
    /// Most resident memory, bytes.
    pub peak_resident_bytes: Option<u64>,
}

impl Measured for Figures<'_> {
    fn value(&self, metric: Metric) -> Option<f64> {
        let latency = &self.recorded.latency;
        let quantile = |histogram: &Histogram<u64>, quantile: f64| {
            (!histogram.is_empty()).then(|| quantile_ms(histogram, quantile))
        };
        let counts = &self.recorded.counts;
        match metric {
            Metric::Quantile(thousandths) => quantile(latency, f64::from(thousandths) / 100_000.0),
            Metric::Max => quantile(latency, 1.0),
            Metric::Mean => (!latency.is_empty()).then(|| latency.mean() / 1000.0),
            Metric::Lateness => quantile(&self.recorded.lateness, 0.99),
            Metric::Rate => self.events_per_second,
            Metric::Errors => Some(counts.refused as f64),
            Metric::ErrorShare => {
                (counts.sent > 0).then(|| counts.refused as f64 / counts.sent as f64)
            }
            Metric::Cpu => self.cpu_per_million,
            Metric::Rss => self.peak_resident_bytes.map(|bytes| bytes as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorder::Recording;
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        for value in values {
            histogram.record(value).unwrap();
        }
        histogram
    }

    #[test]
    fn quantiles_are_in_milliseconds_and_the_curve_rises_to_the_rarest() {
        let latency = Latency::of(&histogram((1..=10_000).map(|ms| ms * 1000)), "x").unwrap();
        assert!((latency.p50_ms / 5_000.0 - 1.0).abs() < 0.002);
        assert!((latency.p999_ms / 9_990.0 - 1.0).abs() < 0.002);
        assert_eq!(latency.events, 10_000);
        assert_eq!(latency.curve.len(), 41, "four nines, ten points each");
        assert!(latency.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert!(Latency::of(&histogram([]), "x").is_none());
    }

    #[test]
    fn thresholds_find_every_figure_or_none() {
        let recorded = Recording::new(1).recorded();
        let figures = Figures {
            recorded: &recorded,
            events_per_second: None,
            cpu_per_million: Some(2.5),
            peak_resident_bytes: Some(7),
        };
        for metric in [
            Metric::Quantile(99_000),
            Metric::Max,
            Metric::Mean,
            Metric::Lateness,
            Metric::Rate,
            Metric::ErrorShare,
        ] {
            assert_eq!(figures.value(metric), None, "{metric}");
        }
        assert_eq!(figures.value(Metric::Errors), Some(0.0));
        assert_eq!(figures.value(Metric::Cpu), Some(2.5));
        assert_eq!(figures.value(Metric::Rss), Some(7.0));
    }
}
