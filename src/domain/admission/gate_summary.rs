//! What the gate says about itself every `metrics_flush_seconds`: counters and latencies (contract 7.11).

use crate::admission::decision::PolicyRev;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Buckets per power of two: a quantile is at most an eighth too high.
const STEPS: usize = 8;
const BUCKETS: usize = 62 * STEPS;

/// A latency in a fixed amount of memory: count, minimum and maximum are exact.
#[derive(Clone, Debug)]
pub struct LatencySeries {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
    min: u64,
    max: u64,
}

impl Default for LatencySeries {
    fn default() -> Self {
        LatencySeries {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

impl LatencySeries {
    /// Adds one measurement.
    pub fn add(&mut self, micros: u64) {
        let bucket = &mut self.buckets[bucket_of(micros)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.min = self.min.min(micros);
        self.max = self.max.max(micros);
    }

    /// How many measurements there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The least time that `share` of the measurements did not exceed, in microseconds; 0 when empty.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return last_of(bucket).clamp(self.min, self.max);
            }
        }
        self.max
    }

    fn value(&self) -> Value {
        let seconds = |micros: u64| micros as f64 / 1_000_000.0;
        json!({
            "count": self.count,
            "min": seconds(self.min),
            "max": seconds(self.max),
            "p50": seconds(self.quantile(0.50)),
            "p95": seconds(self.quantile(0.95)),
        })
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let power = 63 - micros.leading_zeros() as usize;
    let step = (micros >> (power - 3)) as usize & (STEPS - 1);
    (power - 2) * STEPS + step
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (power, step) = (bucket / STEPS + 2, (bucket % STEPS) as u64);
    let width = 1u64 << (power - 3);
    ((1u64 << power) + step * width) + (width - 1)
}

/// Decisions counted at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionCounts {
    /// Admitted.
    pub admitted: u64,
    /// Copies.
    pub duplicates: u64,
    /// Quarantined.
    pub quarantined: u64,
}

/// What has been counted since the last flush.
#[derive(Clone, Debug, Default)]
pub struct GateSummary {
    /// Decisions.
    pub decisions: DecisionCounts,
    /// Quarantines by reason code.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Judging of a batch.
    pub validate: LatencySeries,
    /// A batch from its arrival to its last answer.
    pub admission: LatencySeries,
}

impl GateSummary {
    /// True when there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.decisions == DecisionCounts::default()
            && self.validate.count() == 0
            && self.admission.count() == 0
    }

    /// Adds decisions.
    pub fn decided(&mut self, counts: DecisionCounts) {
        self.decisions.admitted += counts.admitted;
        self.decisions.duplicates += counts.duplicates;
        self.decisions.quarantined += counts.quarantined;
    }

    /// The metric line without its `IG metrics `.
    pub fn metrics(&self, policy_rev: &PolicyRev) -> Value {
        let mut counters = Map::new();
        for (name, count) in [
            ("ADMIT", self.decisions.admitted),
            ("DUPLICATE", self.decisions.duplicates),
            ("QUARANTINE", self.decisions.quarantined),
        ] {
            if count > 0 {
                counters.insert(format!("decision.{name}"), json!(count));
            }
        }
        for (code, count) in &self.reasons {
            counters.insert(format!("reason.{code}"), json!(count));
        }
        let mut latencies = Map::new();
        for (name, series) in [
            ("phase.validate_seconds", &self.validate),
            ("admission_seconds", &self.admission),
        ] {
            if series.count() > 0 {
                latencies.insert(name.to_owned(), series.value());
            }
        }
        json!({
            "counters": counters,
            "latencies": latencies,
            "context": {"policy_rev": policy_rev},
        })
    }

    /// The narrative line.
    pub fn line(&self) -> String {
        let counts = &self.decisions;
        format!(
            "IG summary admit={} duplicate={} quarantine={}",
            counts.admitted, counts.duplicates, counts.quarantined
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy_rev() -> PolicyRev {
        PolicyRev {
            policy_id: "ig_policy".into(),
            revision: "r".into(),
            content_digest: "d".into(),
        }
    }

    #[test]
    fn the_lines_tell_what_was_counted_and_nothing_else() {
        let mut summary = GateSummary::default();
        assert!(summary.is_empty());
        summary.decided(DecisionCounts {
            admitted: 3,
            duplicates: 0,
            quarantined: 2,
        });
        summary.reasons.insert("SCHEMA_FAIL", 2);
        summary.admission.add(2_000);
        summary.admission.add(1_000);
        assert!(!summary.is_empty());
        assert_eq!(
            summary.line(),
            "IG summary admit=3 duplicate=0 quarantine=2"
        );
        assert_eq!(
            summary.metrics(&policy_rev()),
            json!({
                "counters": {"decision.ADMIT": 3, "decision.QUARANTINE": 2, "reason.SCHEMA_FAIL": 2},
                "latencies": {"admission_seconds":
                    {"count": 2, "min": 0.001, "max": 0.002, "p50": 0.001023, "p95": 0.002}},
                "context": {"policy_rev":
                    {"policy_id": "ig_policy", "revision": "r", "content_digest": "d"}},
            })
        );
    }

    #[test]
    fn every_latency_has_a_bucket() {
        let mut series = LatencySeries::default();
        series.add(0);
        series.add(u64::MAX);
        assert_eq!((series.quantile(0.1), series.quantile(1.0)), (0, u64::MAX));
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_an_eighth_too_high(
            mut micros in proptest::collection::vec(0u64..100_000_000, 1..200),
            share in 0.01f64..1.0,
        ) {
            let mut series = LatencySeries::default();
            micros.iter().for_each(|micros| series.add(*micros));
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * share).ceil() as usize).max(1);
            let exact = micros[rank - 1];
            let told = series.quantile(share);
            prop_assert!(told >= exact && told <= exact + exact / 8 + 1, "{told} for {exact}");
        }
    }
}
