//! The schedule of a run as its outputs see it: one start for all, moved on when the run was paused.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use wellspring_domain::stream::batch_cut::Paced;
use wellspring_domain::stream::pacing::Schedule;
use wellspring_domain::time_text::Micros;

/// A schedule and the moment it started.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When events are due, counted from the start.
    pub schedule: Schedule,
    /// The start of the run.
    pub started: Instant,
}

impl Pace {
    /// The moment an event of this time is due.
    pub fn due(&self, at: Micros) -> Instant {
        self.started + Duration::from_micros(self.schedule.due_micros(at.0))
    }

    /// Whether events wait at all.
    pub fn paced(&self) -> Paced {
        self.schedule.paced()
    }
}

/// How outputs learn the pace; empty until every output of the run knows where it starts.
pub type PaceReceiver = watch::Receiver<Option<Pace>>;

/// What an operator or the daemon wants of a run. A later variant wins over an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunControl {
    /// Stream.
    #[default]
    Run,
    /// Send nothing new; answers still count.
    Pause,
    /// Send nothing new, wait for answers, save, end; the run continues another time.
    Stop,
    /// As `Stop`, and the run is over.
    Cancel,
}
