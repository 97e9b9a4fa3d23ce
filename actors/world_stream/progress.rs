//! What one output has achieved so far, across restarts of its stream.

use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How the gate decided the events of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Admitted.
    pub admitted: u64,
    /// Admitted before.
    pub duplicate: u64,
    /// Quarantined with a record.
    pub quarantined: u64,
}

impl Tally {
    /// Events the gate took responsibility for (contract 6.8).
    pub fn accepted(&self) -> u64 {
        self.admitted + self.duplicate + self.quarantined
    }
}

/// Longer times are counted as this.
const HOUR_MICROS: u64 = 3_600_000_000;

/// Counters and latencies of one output of one run. Shared by the stream's generations.
#[derive(Debug)]
pub struct OutputProgress {
    submitted: AtomicU64,
    admitted: AtomicU64,
    duplicate: AtomicU64,
    quarantined: AtomicU64,
    rows_total: AtomicU64,
    measures: Mutex<Measures>,
}

#[derive(Debug)]
struct Measures {
    first_submit: Option<Instant>,
    last_answer: Option<Instant>,
    admit_micros: Histogram<u64>,
    lateness_micros: Histogram<u64>,
}

/// One view of an output's progress.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProgressView {
    /// Decisions so far.
    pub tally: Tally,
    /// Rows of the whole view, when known.
    pub rows_total: Option<u64>,
    /// From the first submit to the last answer.
    pub elapsed: Duration,
    /// Half of the events were answered within this many milliseconds.
    pub admit_p50_ms: f64,
    /// 99 % of the events were answered within this many milliseconds.
    pub admit_p99_ms: f64,
    /// 99 % of the events were sent at most this many milliseconds after they were due.
    pub lateness_p99_ms: f64,
}

impl OutputProgress {
    /// Nothing done yet.
    pub fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, HOUR_MICROS, 3).expect("the bounds are in order");
        OutputProgress {
            submitted: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            duplicate: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            rows_total: AtomicU64::new(0),
            measures: Mutex::new(Measures {
                first_submit: None,
                last_answer: None,
                admit_micros: histogram(),
                lateness_micros: histogram(),
            }),
        }
    }

    /// The view's rows, as its receipt says.
    pub fn set_rows_total(&self, rows: u64) {
        self.rows_total.store(rows, Ordering::Relaxed);
    }

    /// A batch went out `late` after it was due.
    pub fn submitted(&self, events: u64, late: Duration) {
        self.submitted.fetch_add(events, Ordering::Relaxed);
        let mut measures = self.measures();
        measures.first_submit.get_or_insert_with(Instant::now);
        measures
            .lateness_micros
            .saturating_record_n(late.as_micros() as u64, events);
    }

    /// A batch was answered `took` after it was submitted.
    pub fn answered(&self, tally: Tally, took: Duration) {
        self.admitted.fetch_add(tally.admitted, Ordering::Relaxed);
        self.duplicate.fetch_add(tally.duplicate, Ordering::Relaxed);
        self.quarantined
            .fetch_add(tally.quarantined, Ordering::Relaxed);
        let mut measures = self.measures();
        measures.last_answer = Some(Instant::now());
        let micros = took.as_micros() as u64;
        measures
            .admit_micros
            .saturating_record_n(micros, tally.accepted());
    }

    /// Events the gate took over so far.
    pub fn accepted(&self) -> u64 {
        self.tally().accepted()
    }

    /// How the gate decided so far.
    pub fn tally(&self) -> Tally {
        Tally {
            admitted: self.admitted.load(Ordering::Relaxed),
            duplicate: self.duplicate.load(Ordering::Relaxed),
            quarantined: self.quarantined.load(Ordering::Relaxed),
        }
    }

    /// Everything known now.
    pub fn view(&self) -> ProgressView {
        let measures = self.measures();
        let elapsed = match (measures.first_submit, measures.last_answer) {
            (Some(first), Some(last)) => last.saturating_duration_since(first),
            _ => Duration::ZERO,
        };
        let rows_total = self.rows_total.load(Ordering::Relaxed);
        ProgressView {
            tally: self.tally(),
            rows_total: (rows_total > 0).then_some(rows_total),
            elapsed,
            admit_p50_ms: milliseconds(&measures.admit_micros, 0.5),
            admit_p99_ms: milliseconds(&measures.admit_micros, 0.99),
            lateness_p99_ms: milliseconds(&measures.lateness_micros, 0.99),
        }
    }

    fn measures(&self) -> MutexGuard<'_, Measures> {
        // Each update is complete in itself, so a panic elsewhere leaves nothing half done.
        self.measures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for OutputProgress {
    fn default() -> Self {
        Self::new()
    }
}

fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}
