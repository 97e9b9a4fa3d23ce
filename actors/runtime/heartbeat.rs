//! A silent stage is as dead as a crashed one: stages beat while they are busy.
//!
//! An idle stage owes nothing. A handler holds a [`Busy`] guard, and long work beats through it;
//! waiting on something that may take as long as it likes (credits, a pause) is not work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const IDLE: u64 = 0;

/// One stage's heartbeat. Clones share it; threads a stage works with may hold one.
#[derive(Clone)]
pub struct Heartbeat {
    pulse: Arc<Pulse>,
}

struct Pulse {
    origin: Instant,
    /// Microseconds since `origin` plus one at the last beat, or `IDLE`.
    last: AtomicU64,
}

/// The stage is working until this is dropped.
pub struct Busy<'a> {
    heartbeat: &'a Heartbeat,
}

impl Heartbeat {
    /// A heartbeat of an idle stage.
    pub fn new() -> Self {
        let pulse = Pulse {
            origin: Instant::now(),
            last: AtomicU64::new(IDLE),
        };
        Heartbeat {
            pulse: Arc::new(pulse),
        }
    }

    /// Call at the start of a handler and keep the guard to its end.
    pub fn busy(&self) -> Busy<'_> {
        self.beat();
        Busy { heartbeat: self }
    }

    /// Shows life inside long work.
    pub fn beat(&self) {
        let micros = self.pulse.origin.elapsed().as_micros() as u64;
        self.pulse.last.store(micros + 1, Ordering::Relaxed);
    }

    /// How long the stage has been busy without a beat; `None` when it is idle.
    pub fn silence(&self) -> Option<Duration> {
        let last = self.pulse.last.load(Ordering::Relaxed);
        if last == IDLE {
            return None;
        }
        let since = Duration::from_micros(last - 1);
        Some(self.pulse.origin.elapsed().saturating_sub(since))
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

impl Busy<'_> {
    /// Shows life inside long work.
    pub fn beat(&self) {
        self.heartbeat.beat();
    }

    /// Waits for something that may take long without counting as silent (credits, a pause).
    pub async fn waiting<F: Future>(&self, until: F) -> F::Output {
        self.heartbeat.pulse.last.store(IDLE, Ordering::Relaxed);
        let output = until.await;
        self.heartbeat.beat();
        output
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.heartbeat.pulse.last.store(IDLE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_idle_stage_is_never_silent() {
        let heartbeat = Heartbeat::new();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(heartbeat.silence(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_grows_while_busy_and_a_beat_ends_it() {
        let heartbeat = Heartbeat::new();
        let busy = heartbeat.busy();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(heartbeat.silence(), Some(Duration::from_secs(5)));
        busy.beat();
        assert_eq!(heartbeat.silence(), Some(Duration::ZERO));
        drop(busy);
        assert_eq!(heartbeat.silence(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_credits_is_not_silence() {
        let heartbeat = Heartbeat::new();
        let busy = heartbeat.busy();
        let wait = busy.waiting(async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            heartbeat.silence()
        });
        assert_eq!(wait.await, None);
        assert_eq!(heartbeat.silence(), Some(Duration::ZERO));
    }
}
