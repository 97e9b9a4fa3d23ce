//! How the index threads give way: they work in short turns and rest between them.
//!
//! A table is written in a fifth of a second, a merge takes longer. Done at one go, that is a processor less for
//! admission and a disk with a queue, and every flush of that time is late. In turns it takes three times as long and
//! hardly anyone is late. Who is in a hurry does not rest: a table that admission waits for, or soon will, and a merge
//! behind which others wait. Waiting for the disk is a rest, too.

use rustix::time::{ClockId, clock_gettime};
use std::thread::sleep;
use std::time::Duration;

/// Longest work without a rest, in time of a processor.
const TURN: Duration = Duration::from_micros(400);

/// A rest is so many times as long as the turn before it.
const REST_FACTOR: u32 = 2;

/// Longest rest.
const REST_MAX: Duration = Duration::from_millis(5);

/// Entries between two looks at the clock.
const ENTRIES_MAX: u32 = 128;

/// The turns of one piece of work.
pub struct Turns<F> {
    in_a_hurry: F,
    /// Time this thread had worked when the turn began.
    began: Duration,
    entries: u32,
}

impl<F: Fn() -> bool> Turns<F> {
    /// Begins the first turn. `in_a_hurry` says whether there is time for a rest now.
    pub fn new(in_a_hurry: F) -> Turns<F> {
        Turns {
            in_a_hurry,
            began: time_worked(),
            entries: 0,
        }
    }

    /// To be called behind every entry: rests when it is time to.
    pub fn step(&mut self) {
        self.entries += 1;
        if self.entries < ENTRIES_MAX {
            return;
        }
        self.entries = 0;
        if let Some(rest) = rest_after(time_worked().saturating_sub(self.began)) {
            if !(self.in_a_hurry)() {
                sleep(rest);
            }
            self.began = time_worked();
        }
    }
}

/// Time of a processor this thread has had.
fn time_worked() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime)
        .try_into()
        .unwrap_or_default()
}

/// How long to rest after so much work; none when the turn is not over.
fn rest_after(worked: Duration) -> Option<Duration> {
    (worked >= TURN).then(|| (worked * REST_FACTOR).min(REST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_turn_is_followed_by_a_rest_of_twice_its_length_up_to_a_limit() {
        assert_eq!(rest_after(TURN - Duration::from_nanos(1)), None);
        assert_eq!(rest_after(TURN), Some(2 * TURN));
        assert_eq!(rest_after(Duration::from_secs(1)), Some(REST_MAX));
    }

    /// Time that so many turns of work take, each just long enough.
    fn working(turns: u32, in_a_hurry: bool) -> Duration {
        let mut work = Turns::new(|| in_a_hurry);
        let began = Instant::now();
        for _ in 0..turns {
            let turn = time_worked();
            while time_worked() - turn < TURN {
                std::hint::spin_loop();
            }
            (0..ENTRIES_MAX).for_each(|_| work.step());
        }
        began.elapsed()
    }

    #[test]
    fn who_is_in_a_hurry_does_not_rest() {
        let shortest = 10 * TURN * (1 + REST_FACTOR);
        assert!(working(10, false) >= shortest);
        // Whatever else this machine does, one of a hundred tries is not held up.
        assert!((0..100).any(|_| working(10, true) < shortest));
    }
}
