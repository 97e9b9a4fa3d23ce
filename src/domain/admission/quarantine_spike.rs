//! Many quarantines in a short time: `ig.quarantine.spike`, once per window (contract 7.11).

use crate::admission::decision::{Actor, Flush, PolicyRev, RowOutcome};
use crate::canonical_json::{CanonicalError, to_cj};
use crate::ids::{audit_event_id, is_hex};
use crate::time_text::Micros;
use serde_json::json;
use std::collections::VecDeque;

/// Type of the event that tells of a spike.
pub const SPIKE_EVENT_TYPE: &str = "ig.quarantine.spike";

/// The window is kept in this many parts, whatever its length.
const PARTS: u64 = 64;

/// When quarantines are a spike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpikeRule {
    /// Quarantines in the window that are one.
    pub threshold: u64,
    /// Length of the window.
    pub window_seconds: u64,
}

/// Quarantines of the last window. Times are monotonic microseconds.
#[derive(Clone, Debug)]
pub struct SpikeWindow {
    rule: SpikeRule,
    /// When a part began, and how many came in it.
    parts: VecDeque<(u64, u64)>,
    total: u64,
    quiet_until: u64,
}

impl SpikeWindow {
    /// An empty window.
    pub fn new(rule: SpikeRule) -> SpikeWindow {
        SpikeWindow {
            rule,
            parts: VecDeque::new(),
            total: 0,
            quiet_until: 0,
        }
    }

    /// Counts quarantines. The number in the window when that is a spike nobody was told of yet.
    pub fn quarantined(&mut self, count: u64, now: u64) -> Option<u64> {
        let window = self.rule.window_seconds.saturating_mul(1_000_000);
        while let Some((began, gone)) = self.parts.front().copied() {
            if began.saturating_add(window) > now {
                break;
            }
            self.parts.pop_front();
            self.total -= gone;
        }
        match self.parts.back_mut() {
            Some((began, part)) if now < began.saturating_add(window / PARTS) => *part += count,
            _ => self.parts.push_back((now, count)),
        }
        self.total += count;
        if self.total < self.rule.threshold || now < self.quiet_until {
            return None;
        }
        self.quiet_until = now.saturating_add(window);
        Some(self.total)
    }
}

/// Pins of quarantined events, as an audit event needs them (contract 7.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpikePins {
    /// Run of the platform.
    pub platform_run_id: String,
    /// Scenario run.
    pub scenario_run_id: String,
    /// World.
    pub manifest_fingerprint: String,
}

/// Quarantines of a flush that count towards a spike: how many, and the pins of the last that has valid
/// ones. The event that tells of a spike never counts, so it can never cause another.
pub fn countable(flush: &Flush) -> (u64, Option<SpikePins>) {
    let mut count = 0;
    let mut pins = None;
    for row in &flush.rows {
        let Some(context) = flush.contexts.get(usize::from(row.context)) else {
            continue;
        };
        let quarantined = matches!(row.outcome, RowOutcome::Quarantine { .. });
        if !quarantined || context.event_type == SPIKE_EVENT_TYPE {
            continue;
        }
        count += 1;
        let scenario_run_id = context.scenario_run_id.clone().unwrap_or_default();
        if is_hex(&scenario_run_id, 32) && is_hex(&context.manifest_fingerprint, 64) {
            pins = Some(SpikePins {
                platform_run_id: flush.run.to_string(),
                scenario_run_id,
                manifest_fingerprint: context.manifest_fingerprint.clone(),
            });
        }
    }
    (count, pins)
}

/// A spike somebody has to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spike {
    /// Quarantines in the window.
    pub count: u64,
    /// Length of the window.
    pub window_seconds: u64,
    /// When it was seen.
    pub detected_at: Micros,
    /// Whose events.
    pub pins: SpikePins,
}

impl Spike {
    /// The canonical envelope (contract 2.1) with the payload of contract 7.11.
    pub fn envelope(&self, policy_rev: &PolicyRev) -> Result<Vec<u8>, CanonicalError> {
        let payload = json!({
            "policy_id": policy_rev.policy_id,
            "quarantine_count": self.count,
            "window_seconds": self.window_seconds,
            "detected_at_utc": self.detected_at.format_off(),
        });
        let ts_utc = self.detected_at.format_env();
        // The run is part of the payload's subject: two gates may see a spike in the same microsecond.
        let event_id = audit_event_id(
            SPIKE_EVENT_TYPE,
            &format!("{ts_utc}:{}", self.pins.platform_run_id),
            &payload,
        )?;
        let envelope = json!({
            "event_id": event_id,
            "event_type": SPIKE_EVENT_TYPE,
            "ts_utc": ts_utc,
            "manifest_fingerprint": self.pins.manifest_fingerprint,
            "platform_run_id": self.pins.platform_run_id,
            "scenario_run_id": self.pins.scenario_run_id,
            "producer": "svc:ingestion_gate",
            "payload": payload,
        });
        to_cj(&envelope).map(String::into_bytes)
    }
}

/// Who pushes a spike: the gate itself.
pub fn gate_actor() -> Actor {
    Actor {
        actor_id: "SYSTEM::ingestion_gate".to_owned(),
        source_type: "SYSTEM".to_owned(),
        auth_mode: "in_process".to_owned(),
        principal: "ingestion_gate".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::envelope::Envelope;

    const SECOND: u64 = 1_000_000;

    fn window(threshold: u64) -> SpikeWindow {
        SpikeWindow::new(SpikeRule {
            threshold,
            window_seconds: 60,
        })
    }

    #[test]
    fn a_spike_is_told_once_per_window() {
        let mut window = window(25);
        assert_eq!(window.quarantined(24, 0), None);
        assert_eq!(window.quarantined(1, SECOND), Some(25));
        assert_eq!(window.quarantined(1000, 2 * SECOND), None);
        assert_eq!(window.quarantined(1, 61 * SECOND), Some(1001));
    }

    #[test]
    fn what_has_left_the_window_does_not_count() {
        let mut window = window(3);
        assert_eq!(window.quarantined(2, 0), None);
        assert_eq!(window.quarantined(1, 60 * SECOND), None);
        assert_eq!(window.quarantined(2, 61 * SECOND), Some(3));
    }

    #[test]
    fn a_long_spike_keeps_no_more_than_the_parts_of_a_window() {
        let mut window = window(u64::MAX);
        for at in 0..10_000 {
            window.quarantined(1, at * SECOND / 10);
        }
        assert!(
            window.parts.len() as u64 <= PARTS + 1,
            "{}",
            window.parts.len()
        );
    }

    #[test]
    fn the_event_is_a_valid_envelope_with_the_pins_of_the_quarantined() {
        let spike = Spike {
            count: 31,
            window_seconds: 60,
            detected_at: Micros(1_767_225_600_000_000),
            pins: SpikePins {
                platform_run_id: "platform_20260101T000000Z".into(),
                scenario_run_id: "a".repeat(32),
                manifest_fingerprint: "b".repeat(64),
            },
        };
        let policy_rev = PolicyRev {
            policy_id: "ig_policy".into(),
            revision: "r".into(),
            content_digest: "d".into(),
        };
        let text = spike.envelope(&policy_rev).unwrap();
        let envelope = Envelope::read(&text).unwrap().unwrap();
        envelope.validate().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value["payload"],
            json!({"policy_id": "ig_policy", "quarantine_count": 31, "window_seconds": 60,
                "detected_at_utc": "2026-01-01T00:00:00+00:00"})
        );
        assert_eq!(value["ts_utc"], "2026-01-01T00:00:00.000000Z");
        assert_eq!(value["scenario_run_id"], "a".repeat(32));
    }
}
