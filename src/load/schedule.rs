//! When a producer sends: the next batch at once, or what is due by now.
//!
//! Time is nanoseconds since the load began. In an open loop the moment each event is due is fixed before
//! anything is sent, so a gate that is slow delays no later event's due time: its waiting is measured, too.

/// How fast one producer sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The next batch as soon as there is room for it.
    Closed,
    /// Events at fixed moments, whatever the gate does.
    Open {
        /// Time between two events of this producer.
        nanos_per_event: f64,
        /// Share of that time before the first event, so that producers take turns.
        phase: f64,
    },
}

/// What one producer sends, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// How fast.
    pub pace: Pace,
    /// Events in all; `None` is no limit.
    pub events: Option<u64>,
    /// Nothing is sent or due from this moment on.
    pub end_nanos: Option<u64>,
    /// Most events sent at once.
    pub batch: u64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send so many events now.
    Send(u64),
    /// Nothing is due before this moment.
    WaitUntil(u64),
    /// All is sent.
    End,
}

impl Pace {
    /// The share of producer `producer` of `producers` in a rate of events per second.
    pub fn share(rate: Option<f64>, producer: u64, producers: u64) -> Pace {
        match rate {
            None => Pace::Closed,
            Some(rate) => Pace::Open {
                nanos_per_event: 1e9 * producers as f64 / rate,
                phase: producer as f64 / producers as f64,
            },
        }
    }
}

impl Schedule {
    /// When event `event` (from 0) is due; in a closed loop it never waits.
    pub fn due(&self, event: u64) -> Option<u64> {
        match self.pace {
            Pace::Closed => None,
            Pace::Open {
                nanos_per_event,
                phase,
            } => Some(((event as f64 + phase) * nanos_per_event) as u64),
        }
    }

    /// What to do at `now` after `sent` events.
    pub fn step(&self, sent: u64, now: u64) -> Step {
        let left = self.events.map_or(u64::MAX, |events| events - sent);
        let over = |moment: u64| self.end_nanos.is_some_and(|end| moment >= end);
        if left == 0 {
            return Step::End;
        }
        let Some(next_due) = self.due(sent) else {
            return match over(now) {
                true => Step::End,
                false => Step::Send(left.min(self.batch)),
            };
        };
        if over(next_due) {
            return Step::End;
        }
        if next_due > now {
            return Step::WaitUntil(next_due);
        }
        let due_now = self.due_by(now) - sent;
        Step::Send(due_now.min(left).min(self.batch))
    }

    /// How many events are due at `now`, and before the end.
    fn due_by(&self, now: u64) -> u64 {
        let Pace::Open {
            nanos_per_event,
            phase,
        } = self.pace
        else {
            return u64::MAX;
        };
        let last = match self.end_nanos {
            Some(end) => now.min(end.saturating_sub(1)),
            None => now,
        };
        let is_due = |event: u64| self.due(event).is_some_and(|due| due <= last);
        // The quotient is right up to rounding: look at its neighbours.
        let mut count = (last as f64 / nanos_per_event - phase).max(0.0) as u64;
        while is_due(count) {
            count += 1;
        }
        while count > 0 && !is_due(count - 1) {
            count -= 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(rate: f64, producer: u64, producers: u64) -> Schedule {
        Schedule {
            pace: Pace::share(Some(rate), producer, producers),
            events: None,
            end_nanos: None,
            batch: 512,
        }
    }

    #[test]
    fn producers_take_turns_at_the_whole_rate() {
        let due: Vec<u64> = (0..8)
            .map(|n| open(1000.0, n % 4, 4).due(n / 4).unwrap())
            .collect();
        let expected: Vec<u64> = (0..8).map(|n| n * 1_000_000).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn a_late_producer_sends_all_that_is_due_and_no_more_than_a_batch() {
        let schedule = open(1000.0, 0, 1);
        assert_eq!(schedule.step(0, 0), Step::Send(1));
        assert_eq!(schedule.step(1, 0), Step::WaitUntil(1_000_000));
        assert_eq!(schedule.step(1, 10_500_000), Step::Send(10));
        assert_eq!(schedule.step(1, 10_000_000_000), Step::Send(512));
    }

    #[test]
    fn an_open_loop_ends_with_its_events_or_its_time() {
        let mut schedule = open(1000.0, 0, 1);
        schedule.events = Some(5);
        assert_eq!(schedule.step(3, 1_000_000_000), Step::Send(2));
        assert_eq!(schedule.step(5, 1_000_000_000), Step::End);
        schedule.events = None;
        schedule.end_nanos = Some(10_000_000);
        assert_eq!(
            schedule.step(0, 1_000_000_000),
            Step::Send(10),
            "what was due before the end is sent, however late"
        );
        assert_eq!(schedule.step(10, 1_000_000_000), Step::End);
    }

    #[test]
    fn a_closed_loop_sends_whole_batches_until_its_end() {
        let schedule = Schedule {
            pace: Pace::Closed,
            events: Some(1000),
            end_nanos: Some(1_000),
            batch: 512,
        };
        assert_eq!(schedule.step(0, 0), Step::Send(512));
        assert_eq!(schedule.step(512, 999), Step::Send(488));
        assert_eq!(schedule.step(512, 1_000), Step::End);
        assert_eq!(schedule.step(1000, 0), Step::End);
    }

    proptest! {
        #[test]
        fn whatever_is_due_is_sent_once_in_order_and_nothing_before_it_is_due(
            rate in 0.5f64..2_000_000.0,
            producers in 1u64..64,
            pauses in prop::collection::vec(0u64..3_000_000, 1..60),
        ) {
            let schedule = open(rate, producers - 1, producers);
            let (mut now, mut sent) = (0, 0);
            for pause in pauses {
                now += pause;
                while let Step::Send(count) = schedule.step(sent, now) {
                    prop_assert!((1..=512).contains(&count));
                    prop_assert!(schedule.due(sent + count - 1).unwrap() <= now);
                    sent += count;
                }
                let next = schedule.due(sent).unwrap();
                prop_assert_eq!(schedule.step(sent, now), Step::WaitUntil(next));
                prop_assert!(next > now);
            }
        }

        #[test]
        fn the_producers_together_keep_the_rate(
            rate in 1.0f64..1_000_000.0,
            producers in 1u64..64,
        ) {
            let seconds = 10;
            let sent: u64 = (0..producers)
                .map(|producer| open(rate, producer, producers).due_by(seconds * 1_000_000_000))
                .sum();
            prop_assert!((sent as f64 - rate * seconds as f64).abs() <= 1.5 + 1e-6 * rate);
        }
    }
}
