//! What every stage counts, under the same names (see [`crate::telemetry`]).

use crate::telemetry::names;
use metrics::{Counter, Gauge, counter, gauge};

/// Counters of one stage. Made once at start; counting is an atomic add.
#[derive(Clone)]
pub struct StageMetrics {
    stage: String,
    events_in: Counter,
    events_out: Counter,
    bytes_in: Counter,
    refused: Counter,
    blocked_micros: Counter,
    oldest_unacknowledged_seconds: Gauge,
}

impl StageMetrics {
    /// Counters labelled with the stage's name. Names are few and fixed; ids of runs do not belong.
    pub fn new(stage: impl Into<String>) -> Self {
        let stage = stage.into();
        let of = |name| counter!(name, "stage" => stage.clone());
        StageMetrics {
            events_in: of(names::STAGE_EVENTS_IN),
            events_out: of(names::STAGE_EVENTS_OUT),
            bytes_in: of(names::STAGE_BYTES_IN),
            refused: of(names::STAGE_REFUSED),
            blocked_micros: of(names::STAGE_BLOCKED_MICROS),
            oldest_unacknowledged_seconds: gauge!(
                names::STAGE_OLDEST_UNACKNOWLEDGED_SECONDS,
                "stage" => stage.clone()
            ),
            stage,
        }
    }

    /// Events and bytes that came in.
    pub fn taken(&self, events: u64, bytes: u64) {
        self.events_in.increment(events);
        self.bytes_in.increment(bytes);
    }

    /// Events that left, durable or sent on.
    pub fn passed_on(&self, events: u64) {
        self.events_out.increment(events);
    }

    /// Events refused with an answer.
    pub fn refused(&self, events: u64) {
        self.refused.increment(events);
    }

    /// Events dropped; nothing is dropped without a reason.
    pub fn dropped(&self, reason: &'static str, events: u64) {
        let stage = self.stage.clone();
        counter!(names::STAGE_DROPPED, "stage" => stage, "reason" => reason).increment(events);
    }

    /// Time spent waiting for room downstream.
    pub fn blocked(&self, micros: u64) {
        self.blocked_micros.increment(micros);
    }

    /// Age of the oldest event taken and not acknowledged yet.
    pub fn oldest_unacknowledged(&self, seconds: f64) {
        self.oldest_unacknowledged_seconds.set(seconds);
    }
}
