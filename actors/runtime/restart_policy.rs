//! When the next generation starts, and when to give up.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Source of randomness for backoff: numbers in `0.0..1.0`. Tests and simulations pass their own.
pub type Jitter = Box<dyn FnMut() -> f64 + Send>;

/// No randomness at all: every delay is exact.
pub fn no_jitter() -> Jitter {
    Box::new(|| 0.0)
}

/// Randomness from a seed; give each pipeline its own seed so that they do not restart in step.
pub fn seeded_jitter(seed: u64) -> Jitter {
    let mut rng = SmallRng::seed_from_u64(seed);
    Box::new(move || rng.random::<f64>())
}

/// Restart policy of one pipeline. Every wait in it has a bound.
#[derive(Clone, Debug, PartialEq)]
pub struct RestartPolicy {
    /// Delay before the first restart; doubles with every failure in the window.
    pub backoff_first: Duration,
    /// Longest delay between restarts.
    pub backoff_max: Duration,
    /// How far back failures count.
    pub window: Duration,
    /// Most failures inside the window; one more gives up.
    pub failures_max: u32,
    /// How long a generation may take to start (recovery included).
    pub start_deadline: Duration,
    /// How long each stage may work off its mailbox in an orderly stop.
    pub drain_deadline: Duration,
    /// How long each stage may take to stop without draining.
    pub stop_deadline: Duration,
    /// How long a killed stage may take to disappear before we give up on starting beside it.
    pub kill_deadline: Duration,
    /// Longest time a busy stage may go without a beat; `None` switches the check off.
    pub heartbeat_max: Option<Duration>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy {
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            window: Duration::from_secs(120),
            failures_max: 8,
            start_deadline: Duration::from_secs(600),
            drain_deadline: Duration::from_secs(5),
            stop_deadline: Duration::from_secs(2),
            kill_deadline: Duration::from_secs(5),
            heartbeat_max: Some(Duration::from_secs(30)),
        }
    }
}

/// The failures inside the window and what follows from them.
pub(super) struct FailureWindow {
    failures: VecDeque<Instant>,
}

impl FailureWindow {
    pub(super) fn new() -> Self {
        FailureWindow {
            failures: VecDeque::new(),
        }
    }

    /// Counts a failure. `Some(delay)`: restart after it. `None`: too many, give up.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        policy: &RestartPolicy,
        jitter: &mut Jitter,
    ) -> Option<Duration> {
        self.failures.push_back(now);
        while self
            .failures
            .front()
            .is_some_and(|at| now - *at > policy.window)
        {
            self.failures.pop_front();
        }
        let failures = self.failures.len() as u32;
        if failures > policy.failures_max {
            return None;
        }
        let doubled = policy
            .backoff_first
            .saturating_mul(2u32.saturating_pow(failures - 1));
        let jittered = doubled.mul_f64(1.0 + 0.25 * jitter().clamp(0.0, 1.0));
        Some(jittered.min(policy.backoff_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_delay_doubles_up_to_its_limit_and_then_the_window_gives_up() {
        let policy = RestartPolicy {
            backoff_max: Duration::from_millis(500),
            failures_max: 5,
            ..RestartPolicy::default()
        };
        let mut window = FailureWindow::new();
        let mut delays = Vec::new();
        while let Some(delay) = window.fail(Instant::now(), &policy, &mut no_jitter()) {
            delays.push(delay.as_millis());
        }
        assert_eq!(delays, [100, 200, 400, 500, 500]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_outside_the_window_are_forgotten() {
        let policy = RestartPolicy {
            window: Duration::from_secs(10),
            failures_max: 1,
            ..RestartPolicy::default()
        };
        let mut window = FailureWindow::new();
        for _ in 0..5 {
            let delay = window.fail(Instant::now(), &policy, &mut no_jitter());
            assert_eq!(delay, Some(policy.backoff_first));
            tokio::time::advance(Duration::from_secs(11)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_lengthens_a_delay_by_at_most_a_quarter() {
        let policy = RestartPolicy::default();
        for seed in 0..50 {
            let mut window = FailureWindow::new();
            let delay = window
                .fail(Instant::now(), &policy, &mut seeded_jitter(seed))
                .unwrap();
            assert!(delay >= policy.backoff_first && delay <= policy.backoff_first.mul_f64(1.25));
        }
    }
}
