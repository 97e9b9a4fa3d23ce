//! How long a client of a managed service waits before it tries again: doubling, with full jitter.

/// Bounds of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Most that the first wait takes, in milliseconds.
    pub base_ms: u64,
    /// Most that any wait takes, in milliseconds.
    pub max_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            base_ms: 50,
            max_ms: 5_000,
        }
    }
}

impl Backoff {
    /// The wait after failed attempt `attempt` (from 1), in milliseconds: half of the doubled base, and the
    /// other half as `jitter` in `0.0..1.0` says, so that clients that failed together do not return together.
    pub fn wait_ms(&self, attempt: u32, jitter: f64) -> u64 {
        let doublings = attempt.saturating_sub(1).min(32);
        let most = self.base_ms.saturating_mul(1 << doublings).min(self.max_ms);
        let half = most / 2;
        half + ((most - half) as f64 * jitter.clamp(0.0, 1.0)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_50_ms_to_5_s_and_jitter_takes_away_at_most_half() {
        let backoff = Backoff::default();
        let waits = |jitter| (1..=9).map(move |attempt| backoff.wait_ms(attempt, jitter));
        let longest: Vec<_> = waits(1.0).collect();
        let expected = [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000];
        assert_eq!(longest, expected);
        for (shortest, longest) in waits(0.0).zip(longest) {
            assert_eq!(shortest, longest / 2);
        }
        assert_eq!(backoff.wait_ms(u32::MAX, 1.0), 5_000);
    }
}
