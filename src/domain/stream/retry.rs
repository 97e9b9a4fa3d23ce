//! What an answer of the gate means for the sender, and how long a retry waits (contract 6.8, D8).
//!
//! Three outcomes are never mixed: a retry uses up an attempt, backpressure waits without using one,
//! and a rejection ends the output. A retry always sends the same bytes.

/// Codes that mark a transient condition even when the gate answers 400 (D8).
pub const TRANSIENT_CODES: [&str; 3] = [
    "IG_UNHEALTHY",
    "PUBLISH_IN_FLIGHT_RETRY",
    "PUBLISH_AMBIGUOUS_RETRY",
];

/// How the sender must treat one answer of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerClass {
    /// Below 400: the gate took responsibility, whatever its decision.
    Accepted,
    /// The gate asked to slow down: wait, and do not count an attempt.
    Backpressure {
        /// How long the gate asked to wait.
        wait_ms: u64,
    },
    /// Transient: send the same bytes again; counts as an attempt.
    Retry {
        /// Why, for example `http_503` or `timeout`.
        reason: String,
    },
    /// The gate refused for good: terminal for the output.
    Rejected,
}

/// Classifies an HTTP answer by status, `Retry-After` (in milliseconds) and the error code of its body.
pub fn classify(status: u16, retry_after_ms: Option<u64>, code: Option<&str>) -> AnswerClass {
    if status < 400 {
        return AnswerClass::Accepted;
    }
    let transient_body = status == 400 && code.is_some_and(|c| TRANSIENT_CODES.contains(&c));
    match (status, retry_after_ms) {
        (429 | 503, Some(wait_ms)) => AnswerClass::Backpressure { wait_ms },
        (408 | 429 | 500..=599, _) => retry(status),
        _ if transient_body => retry(status),
        _ => AnswerClass::Rejected,
    }
}

fn retry(status: u16) -> AnswerClass {
    AnswerClass::Retry {
        reason: format!("http_{status}"),
    }
}

/// Attempts and delays of a push (contract 6.8: 5 attempts, 250 ms to 5 s).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included.
    pub attempts_max: u32,
    /// Delay after the first failed attempt, before jitter.
    pub delay_base_ms: u64,
    /// Upper bound of the delay, before jitter.
    pub delay_max_ms: u64,
    /// How long backpressure may last without progress before it counts as exhausted.
    pub backpressure_deadline_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            delay_base_ms: 250,
            delay_max_ms: 5_000,
            backpressure_deadline_ms: 120_000,
        }
    }
}

/// What to do after an attempt left something unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAttempt {
    /// Wait this long, then send the same bytes again.
    After {
        /// The wait in milliseconds.
        wait_ms: u64,
    },
    /// All attempts or all patience are used up: `IG_PUSH_RETRY_EXHAUSTED`.
    Exhausted,
}

/// The retry state of one batch. It starts afresh whenever at least one item was answered.
#[derive(Clone, Debug, Default)]
pub struct RetryState {
    attempts_failed: u32,
    backpressure_waited_ms: u64,
}

impl RetryState {
    /// Records a failed attempt; `jitter` in `0.0..1.0` decides how much of the delay is added again.
    pub fn after_failure(&mut self, policy: &RetryPolicy, jitter: f64) -> NextAttempt {
        self.attempts_failed += 1;
        if self.attempts_failed >= policy.attempts_max {
            return NextAttempt::Exhausted;
        }
        NextAttempt::After {
            wait_ms: delay_ms(policy, self.attempts_failed, jitter),
        }
    }

    /// Records that the gate asked to wait; attempts stay as they are.
    pub fn after_backpressure(&mut self, policy: &RetryPolicy, wait_ms: u64) -> NextAttempt {
        let wait_ms = wait_ms.max(1);
        self.backpressure_waited_ms = self.backpressure_waited_ms.saturating_add(wait_ms);
        if self.backpressure_waited_ms > policy.backpressure_deadline_ms {
            return NextAttempt::Exhausted;
        }
        NextAttempt::After { wait_ms }
    }

    /// Forgets the past after progress, so that only a lasting fault exhausts the attempts.
    pub fn progressed(&mut self) {
        *self = Self::default();
    }

    /// Failed attempts since the last progress.
    pub fn attempts_failed(&self) -> u32 {
        self.attempts_failed
    }
}

/// Delay before the attempt that follows failed attempt `attempt` (1-based): `d + U(0, d)`.
fn delay_ms(policy: &RetryPolicy, attempt: u32, jitter: f64) -> u64 {
    let doublings = attempt.saturating_sub(1).min(32);
    let delay = policy
        .delay_base_ms
        .saturating_mul(1 << doublings)
        .min(policy.delay_max_ms);
    delay + (delay as f64 * jitter.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_answer_table_is_classified() {
        let retry = |s: u16| AnswerClass::Retry {
            reason: format!("http_{s}"),
        };
        let table = [
            (200, None, None, AnswerClass::Accepted),
            (302, None, None, AnswerClass::Accepted),
            (408, None, None, retry(408)),
            (429, None, None, retry(429)),
            (
                429,
                Some(2_000),
                None,
                AnswerClass::Backpressure { wait_ms: 2_000 },
            ),
            (500, Some(2_000), None, retry(500)),
            (502, None, None, retry(502)),
            (503, None, None, retry(503)),
            (503, Some(0), None, AnswerClass::Backpressure { wait_ms: 0 }),
            (400, None, Some("IG_UNHEALTHY"), retry(400)),
            (400, None, Some("PUBLISH_IN_FLIGHT_RETRY"), retry(400)),
            (400, None, Some("PUBLISH_AMBIGUOUS_RETRY"), retry(400)),
            (400, None, Some("INVALID_JSON"), AnswerClass::Rejected),
            (401, Some(1), Some("UNAUTHORIZED"), AnswerClass::Rejected),
            (404, None, None, AnswerClass::Rejected),
            (422, None, None, AnswerClass::Rejected),
        ];
        for (status, after, code, expected) in table {
            assert_eq!(
                classify(status, after, code),
                expected,
                "status {status} code {code:?}"
            );
        }
    }

    #[test]
    fn delays_double_from_250_ms_to_5_s_and_jitter_adds_at_most_the_delay() {
        let policy = RetryPolicy {
            attempts_max: 99,
            ..RetryPolicy::default()
        };
        let mut state = RetryState::default();
        let waits: Vec<_> = (0..7).map(|_| state.after_failure(&policy, 0.0)).collect();
        let expected = [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000];
        let expected: Vec<_> = expected
            .iter()
            .map(|&wait_ms| NextAttempt::After { wait_ms })
            .collect();
        assert_eq!(waits, expected);
        assert_eq!(delay_ms(&policy, 1, 1.0), 500);
        assert_eq!(delay_ms(&policy, 60, 0.5), 7_500);
    }

    #[test]
    fn the_fifth_failure_exhausts_and_progress_starts_afresh() {
        let policy = RetryPolicy::default();
        let mut state = RetryState::default();
        for _ in 0..4 {
            assert_ne!(state.after_failure(&policy, 0.0), NextAttempt::Exhausted);
        }
        let mut progressed = state.clone();
        assert_eq!(state.after_failure(&policy, 0.0), NextAttempt::Exhausted);
        progressed.progressed();
        assert_eq!(
            progressed.after_failure(&policy, 0.0),
            NextAttempt::After { wait_ms: 250 }
        );
    }

    #[test]
    fn backpressure_uses_no_attempt_but_has_a_deadline() {
        let policy = RetryPolicy {
            backpressure_deadline_ms: 3_000,
            ..RetryPolicy::default()
        };
        let mut state = RetryState::default();
        for _ in 0..3 {
            let next = state.after_backpressure(&policy, 1_000);
            assert_eq!(next, NextAttempt::After { wait_ms: 1_000 });
        }
        assert_eq!(state.attempts_failed(), 0);
        assert_eq!(
            state.after_backpressure(&policy, 1_000),
            NextAttempt::Exhausted
        );
    }
}
