//! The schedule of a run (design 3.11): event `i` is due at `t0 + (ts_i - ts_0) / speedup`.
//!
//! There is one `t0` and one `ts_0` per run, so outputs keep their distance to each other and time
//! spent sending never adds up to drift. Event times themselves are never rewritten.

use super::batch_cut::Paced;

/// When events are due, counted from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    origin_micros: i64,
    speedup: f64,
}

impl Schedule {
    /// A schedule whose event time `origin_micros` is due at the start; `speedup <= 0` (or not a
    /// number) means as fast as possible.
    pub fn new(origin_micros: i64, speedup: f64) -> Self {
        Self {
            origin_micros,
            speedup,
        }
    }

    /// Whether events wait at all.
    pub fn paced(&self) -> Paced {
        if self.speedup > 0.0 {
            Paced::Yes
        } else {
            Paced::No
        }
    }

    /// Microseconds after the start of the run at which an event of this time is due.
    /// Rounded up: an event is never early.
    pub fn due_micros(&self, ts_micros: i64) -> u64 {
        if self.paced() == Paced::No {
            return 0;
        }
        let elapsed = ts_micros.saturating_sub(self.origin_micros).max(0);
        (elapsed as f64 / self.speedup).ceil() as u64
    }
}

/// Where a run is anchored: the smallest of the times its outputs start from, so that a resumed run
/// continues with the output that is furthest behind (design 3.11).
pub fn anchor_micros(starts: impl IntoIterator<Item = i64>) -> Option<i64> {
    starts.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_minute_of_world_time_takes_a_tenth_of_a_second_at_600() {
        let schedule = Schedule::new(1_000_000, 600.0);
        assert_eq!(schedule.due_micros(1_000_000), 0);
        assert_eq!(schedule.due_micros(61_000_000), 100_000);
        assert_eq!(schedule.due_micros(61_000_001), 100_001);
    }

    #[test]
    fn events_before_the_anchor_are_due_at_once() {
        assert_eq!(Schedule::new(10, 1.0).due_micros(-5), 0);
        assert_eq!(Schedule::new(i64::MAX, 1.0).due_micros(i64::MIN), 0);
    }

    #[test]
    fn no_speedup_means_as_fast_as_possible() {
        for speedup in [0.0, -1.0, f64::NAN] {
            let schedule = Schedule::new(0, speedup);
            assert_eq!(schedule.paced(), Paced::No);
            assert_eq!(schedule.due_micros(i64::MAX), 0);
        }
    }

    #[test]
    fn a_resumed_run_is_anchored_at_the_output_furthest_behind() {
        assert_eq!(anchor_micros([30, 10, 20]), Some(10));
        assert_eq!(anchor_micros([]), None);
    }

    proptest! {
        #[test]
        fn due_times_never_run_backwards_and_are_never_early(
            origin in 0i64..2_000_000_000_000_000,
            first in 0i64..100_000_000_000,
            gap in 0i64..100_000_000_000,
            speedup in 0.001f64..100_000.0,
        ) {
            let schedule = Schedule::new(origin, speedup);
            let early = schedule.due_micros(origin + first);
            let late = schedule.due_micros(origin + first + gap);
            prop_assert!(early <= late);
            prop_assert!(early as f64 >= first as f64 / speedup);
        }
    }
}
