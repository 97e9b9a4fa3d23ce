//! Orders to runs: an operator or the daemon pauses, resumes, cancels or stops what streams here.

use super::pace::RunControl;
use super::run_streams::RunProgress;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The runs that stream in this process. Clones share them.
#[derive(Clone, Default)]
pub struct RunOrders {
    runs: Arc<Mutex<Runs>>,
}

#[derive(Default)]
struct Runs {
    next_seat: u64,
    stopping: bool,
    seats: BTreeMap<u64, Seat>,
}

struct Seat {
    platform_run_id: String,
    control: watch::Sender<RunControl>,
    progress: RunProgress,
}

/// A run's place in the list; leaving it takes the run off.
pub struct Enlisted {
    orders: RunOrders,
    seat: u64,
}

impl RunOrders {
    /// Puts a run on the list and gives it the orders to follow.
    pub fn enlist(
        &self,
        platform_run_id: &str,
        progress: RunProgress,
    ) -> (Enlisted, watch::Receiver<RunControl>) {
        let mut runs = self.runs();
        let first = if runs.stopping {
            RunControl::Stop
        } else {
            RunControl::Run
        };
        let (control, receiver) = watch::channel(first);
        let seat = runs.next_seat;
        runs.next_seat += 1;
        let platform_run_id = platform_run_id.to_owned();
        runs.seats.insert(
            seat,
            Seat {
                platform_run_id,
                control,
                progress,
            },
        );
        (
            Enlisted {
                orders: self.clone(),
                seat,
            },
            receiver,
        )
    }

    /// Gives an order to all streams of a platform run; false when none streams here. Once a run is
    /// to stop or to be cancelled, nothing holds or resumes it any more.
    pub fn order(&self, platform_run_id: &str, order: RunControl) -> bool {
        let runs = self.runs();
        let mut found = false;
        for seat in runs
            .seats
            .values()
            .filter(|seat| seat.platform_run_id == platform_run_id)
        {
            give(seat, order);
            found = true;
        }
        found
    }

    /// Stops every run, also those that start from now on: the process is ending.
    pub fn stop_all(&self) {
        let mut runs = self.runs();
        runs.stopping = true;
        for seat in runs.seats.values() {
            give(seat, RunControl::Stop);
        }
    }

    /// Whether the process is ending.
    pub fn is_stopping(&self) -> bool {
        self.runs().stopping
    }

    /// The progress of every run that streams here.
    pub fn progress(&self) -> Vec<(String, RunProgress)> {
        let runs = self.runs();
        let of = |seat: &Seat| (seat.platform_run_id.clone(), seat.progress.clone());
        runs.seats.values().map(of).collect()
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        // Every change is complete in itself.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give(seat: &Seat, order: RunControl) {
    seat.control.send_if_modified(|current| {
        let changes = *current < RunControl::Stop && *current != order || order > *current;
        if changes {
            *current = order;
        }
        changes
    });
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.orders.runs().seats.remove(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> RunProgress {
        RunProgress::none()
    }

    #[test]
    fn orders_reach_the_streams_of_their_run_only() {
        let orders = RunOrders::default();
        let (_a, first) = orders.enlist("a", progress());
        let (b, second) = orders.enlist("b", progress());
        assert!(orders.order("a", RunControl::Pause));
        assert_eq!(
            (*first.borrow(), *second.borrow()),
            (RunControl::Pause, RunControl::Run)
        );
        assert!(orders.order("a", RunControl::Run));
        assert_eq!(*first.borrow(), RunControl::Run);
        drop(b);
        assert!(!orders.order("b", RunControl::Pause));
    }

    #[test]
    fn a_cancelled_run_cannot_be_resumed() {
        let orders = RunOrders::default();
        let (_seat, control) = orders.enlist("a", progress());
        orders.order("a", RunControl::Cancel);
        orders.order("a", RunControl::Run);
        orders.stop_all();
        assert_eq!(*control.borrow(), RunControl::Cancel);
    }

    #[test]
    fn a_run_that_starts_while_the_process_ends_is_stopped_at_once() {
        let orders = RunOrders::default();
        orders.stop_all();
        let (_seat, control) = orders.enlist("a", progress());
        assert_eq!(*control.borrow(), RunControl::Stop);
    }
}
