//! What became of the events: counts, and how long their answers took.

use super::synthetic::Composition;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longer times are counted as this.
const HOUR_MICROS: u64 = 3_600_000_000;
/// Different refusals that are told apart.
const CODES_MAX: usize = 32;
/// Refused events whose numbers are kept.
const REFUSED_NUMBERS_MAX: usize = 1_000_000;
/// Most parts a recording is split into, so that producers rarely wait for each other.
const PARTS_MAX: u64 = 8;

/// What the gate said to one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Admitted.
    Admitted,
    /// Admitted before.
    Duplicate,
    /// Quarantined.
    Quarantined,
    /// Not taken, or nobody knows: the reason code.
    Refused(&'a str),
}

/// How many events were sent, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Answered ADMIT.
    pub admitted: u64,
    /// Answered DUPLICATE.
    pub duplicate: u64,
    /// Answered QUARANTINE.
    pub quarantined: u64,
    /// Turned away, failed, or without an answer.
    pub refused: u64,
}

impl Counts {
    /// Events the gate has decided.
    pub fn decided(&self) -> u64 {
        self.admitted + self.duplicate + self.quarantined
    }

    /// Events something was heard of.
    pub fn answered(&self) -> u64 {
        self.decided() + self.refused
    }

    fn join(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.admitted += other.admitted;
        self.duplicate += other.duplicate;
        self.quarantined += other.quarantined;
        self.refused += other.refused;
    }
}

/// One part of a recording.
#[derive(Debug)]
pub struct Part {
    counts: Counts,
    composition: Composition,
    latency: Histogram<u64>,
    interval: Histogram<u64>,
    lateness: Histogram<u64>,
    codes: BTreeMap<String, u64>,
    refused_numbers: Vec<u64>,
    refused_unnamed: u64,
    harness_nanos: u64,
    last_answer: u64,
}

/// A sent batch, seen when its answers came. Times are nanoseconds since the load began.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// When it was handed over.
    pub sent_at: u64,
    /// When its answers came.
    pub answered_at: u64,
    /// Nothing sent or due before this is measured.
    pub measured_from: u64,
}

/// A recording, shared by all producers.
#[derive(Debug)]
pub struct Recording {
    parts: Vec<Mutex<Part>>,
}

/// Everything recorded.
#[derive(Debug)]
pub struct Recorded {
    /// Counts.
    pub counts: Counts,
    /// What was sent.
    pub composition: Composition,
    /// Microseconds to the answer, of measured events.
    pub latency: Histogram<u64>,
    /// Microseconds from the planned to the real sending, of measured events of an open loop.
    pub lateness: Histogram<u64>,
    /// Refusals by reason code.
    pub codes: BTreeMap<String, u64>,
    /// Numbers of refused events; `None` when there were too many to keep.
    pub refused_numbers: Option<Vec<u64>>,
    /// Processor time of making events and recording answers.
    pub harness_seconds: f64,
    /// When the last answer came.
    pub last_answer: u64,
}

impl Recording {
    /// Nothing yet.
    pub fn new(producers: u64) -> Recording {
        let parts = (0..producers.clamp(1, PARTS_MAX)).map(|_| Mutex::new(Part::new()));
        Recording {
            parts: parts.collect(),
        }
    }

    /// The part a producer writes to.
    pub fn part(&self, producer: u64) -> MutexGuard<'_, Part> {
        let place = producer as usize % self.parts.len();
        lock(&self.parts[place])
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for part in &self.parts {
            counts.join(&lock(part).counts);
        }
        counts
    }

    /// Answers since this was last asked.
    pub fn take_interval(&self) -> Histogram<u64> {
        let mut interval = coarse();
        for part in &self.parts {
            let mut part = lock(part);
            // Adding fails only between different bounds, and all are made alike.
            let _ = interval.add(&part.interval);
            part.interval.reset();
        }
        interval
    }

    /// Everything.
    pub fn recorded(&self) -> Recorded {
        let mut all = Part::new();
        for part in &self.parts {
            all.join(&lock(part));
        }
        Recorded {
            counts: all.counts,
            composition: all.composition,
            latency: all.latency,
            lateness: all.lateness,
            codes: all.codes,
            refused_numbers: (all.refused_unnamed == 0).then_some(all.refused_numbers),
            harness_seconds: all.harness_nanos as f64 / 1e9,
            last_answer: all.last_answer,
        }
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fine() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HOUR_MICROS, 3).expect("the bounds are in order")
}

fn coarse() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HOUR_MICROS, 2).expect("the bounds are in order")
}

impl Part {
    fn new() -> Part {
        Part {
            counts: Counts::default(),
            composition: Composition::default(),
            latency: fine(),
            interval: coarse(),
            lateness: fine(),
            codes: BTreeMap::new(),
            refused_numbers: Vec::new(),
            refused_unnamed: 0,
            harness_nanos: 0,
            last_answer: 0,
        }
    }

    /// A batch is about to be handed over; making it took so much processor time.
    pub fn sent(&mut self, composition: &Composition, events: u64, harness_nanos: u64) {
        self.counts.sent += events;
        self.composition.join(composition);
        self.harness_nanos += harness_nanos;
    }

    /// Adds processor time of the harness itself.
    pub fn worked(&mut self, harness_nanos: u64) {
        self.harness_nanos += harness_nanos;
    }

    /// The answers to a batch. For each event: its number, when it was due if there is a plan, and what the
    /// gate said.
    pub fn answered<'a>(
        &mut self,
        batch: &Answered,
        events: impl Iterator<Item = (u64, Option<u64>, Outcome<'a>)>,
    ) {
        self.last_answer = self.last_answer.max(batch.answered_at);
        let mut unplanned = 0;
        for (number, due, outcome) in events {
            match outcome {
                Outcome::Admitted => self.counts.admitted += 1,
                Outcome::Duplicate => self.counts.duplicate += 1,
                Outcome::Quarantined => self.counts.quarantined += 1,
                Outcome::Refused(code) => {
                    self.refused(number, code);
                    continue;
                }
            }
            match due {
                None => unplanned += 1,
                Some(due) if due >= batch.measured_from => {
                    let micros = batch.answered_at.saturating_sub(due) / 1000;
                    self.latency.saturating_record(micros);
                    self.interval.saturating_record(micros);
                    let late = batch.sent_at.saturating_sub(due) / 1000;
                    self.lateness.saturating_record(late);
                }
                Some(_warming_up) => {}
            }
        }
        if unplanned > 0 && batch.sent_at >= batch.measured_from {
            let micros = batch.answered_at.saturating_sub(batch.sent_at) / 1000;
            self.latency.saturating_record_n(micros, unplanned);
            self.interval.saturating_record_n(micros, unplanned);
        }
    }

    fn refused(&mut self, number: u64, code: &str) {
        self.counts.refused += 1;
        if self.refused_numbers.len() < REFUSED_NUMBERS_MAX {
            self.refused_numbers.push(number);
        } else {
            self.refused_unnamed += 1;
        }
        self.count_code(code, 1);
    }

    fn count_code(&mut self, code: &str, times: u64) {
        if let Some(count) = self.codes.get_mut(code) {
            *count += times;
            return;
        }
        let name = match self.codes.len() < CODES_MAX {
            true => code,
            false => "other",
        };
        *self.codes.entry(name.to_owned()).or_default() += times;
    }

    fn join(&mut self, other: &Part) {
        self.counts.join(&other.counts);
        self.composition.join(&other.composition);
        // Adding fails only between different bounds, and all are made alike.
        let _ = self.latency.add(&other.latency);
        let _ = self.lateness.add(&other.lateness);
        for (code, times) in &other.codes {
            self.count_code(code, *times);
        }
        self.refused_numbers.extend(&other.refused_numbers);
        self.refused_unnamed += other.refused_unnamed;
        self.harness_nanos += other.harness_nanos;
        self.last_answer = self.last_answer.max(other.last_answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn batch(sent_at: u64, answered_at: u64) -> Answered {
        Answered {
            sent_at,
            answered_at,
            measured_from: 10 * MS,
        }
    }

    #[test]
    fn latency_is_counted_from_the_planned_moment_and_not_from_the_sending() {
        let recording = Recording::new(1);
        let due = |ms: u64| (ms, Some(ms * MS), Outcome::Admitted);
        // The gate was stuck: what was due from 20 to 29 ms was sent at 100 ms.
        let events = (20..30).map(due);
        recording
            .part(0)
            .answered(&batch(100 * MS, 110 * MS), events);
        let recorded = recording.recorded();
        assert_eq!(recorded.latency.len(), 10);
        assert!((recorded.latency.max() as i64 - 90_000).abs() < 100);
        assert!((recorded.latency.min() as i64 - 81_000).abs() < 100);
        assert!((recorded.lateness.max() as i64 - 80_000).abs() < 100);
    }

    #[test]
    fn the_warm_up_is_counted_and_not_measured() {
        let recording = Recording::new(1);
        let closed = |outcome| (0, None, outcome);
        recording.part(0).answered(
            &batch(9 * MS, 30 * MS),
            [closed(Outcome::Admitted)].into_iter(),
        );
        let planned = (0, Some(9 * MS), Outcome::Admitted);
        recording
            .part(0)
            .answered(&batch(11 * MS, 30 * MS), [planned].into_iter());
        let recorded = recording.recorded();
        assert_eq!((recorded.counts.admitted, recorded.latency.len()), (2, 0));
    }

    #[test]
    fn every_outcome_is_counted_and_refusals_by_code_without_a_latency() {
        let recording = Recording::new(2);
        let outcomes = [
            Outcome::Admitted,
            Outcome::Duplicate,
            Outcome::Quarantined,
            Outcome::Refused("GATE_BUSY"),
            Outcome::Refused("GATE_BUSY"),
        ];
        let events = outcomes.iter().enumerate();
        let events = events.map(|(at, outcome)| (at as u64, None, *outcome));
        recording.part(0).sent(&Composition::default(), 4, 7);
        recording.part(1).sent(&Composition::default(), 1, 8);
        recording.part(1).answered(&batch(20 * MS, 21 * MS), events);
        let recorded = recording.recorded();
        let counts = recorded.counts;
        assert_eq!(counts.answered(), counts.sent);
        assert_eq!((counts.decided(), counts.refused), (3, 2));
        assert_eq!(recorded.codes["GATE_BUSY"], 2);
        assert_eq!(recorded.refused_numbers, Some(vec![3, 4]));
        assert_eq!(recorded.latency.len(), 3);
        assert_eq!(recording.take_interval().len(), 3);
        assert!(recording.take_interval().is_empty());
    }

    #[test]
    fn codes_without_end_are_gathered_under_one_name() {
        let recording = Recording::new(1);
        let names: Vec<String> = (0..100).map(|code| format!("code_{code}")).collect();
        let events = names
            .iter()
            .map(|code| (0, None, Outcome::Refused(code.as_str())));
        recording.part(0).answered(&batch(0, 1), events);
        let codes = recording.recorded().codes;
        assert_eq!(codes.len(), CODES_MAX + 1);
        assert_eq!(codes["other"], 100 - CODES_MAX as u64);
    }
}
