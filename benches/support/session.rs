//! One bench: contenders that do the same work are run in turns, the floor first, and written to the report.

use super::measure::{Cost, Watch};
use super::report::{self, Figure, Goal, Row};

/// Rounds when `WELLSPRING_BENCH_ROUNDS` does not say.
const ROUNDS: usize = 3;

/// A run of one bench target.
pub struct Session {
    bench: &'static str,
    filters: Vec<String>,
    rounds: usize,
    rows: Vec<Row>,
}

/// One piece of work, done in different ways.
pub struct Work<'s, 'c> {
    session: &'s mut Session,
    name: String,
    events: u64,
    rounds: usize,
    contenders: Vec<Contender<'c>>,
    goals: Vec<Goal>,
    note: String,
}

struct Contender<'c> {
    name: String,
    run: Box<dyn FnMut(&mut Watch) + 'c>,
}

impl Session {
    /// Takes the words of the command line as filters: work whose name holds one of them is done.
    pub fn start(bench: &'static str) -> Session {
        let words = std::env::args().skip(1);
        Session {
            bench,
            filters: words.filter(|word| !word.starts_with("--")).collect(),
            rounds: super::number("WELLSPRING_BENCH_ROUNDS", ROUNDS),
            rows: Vec::new(),
        }
    }

    /// Whether this work was asked for; setting it up may be left out otherwise.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }

    /// Describes a piece of work on so many events.
    pub fn work<'c>(&mut self, name: impl Into<String>, events: u64) -> Work<'_, 'c> {
        Work {
            rounds: self.rounds,
            session: self,
            name: name.into(),
            events,
            contenders: Vec::new(),
            goals: Vec::new(),
            note: String::new(),
        }
    }

    /// Sets measured figures beside each other as a row of its own, the base first.
    pub fn relate(&mut self, name: &str, figures: &[&Figure], goals: Vec<Goal>) {
        let row = Row {
            work: name.to_owned(),
            figures: figures.iter().map(|figure| (*figure).clone()).collect(),
            goals,
            note: String::new(),
        };
        report::print_row(&row);
        self.rows.push(row);
    }

    /// Writes the report.
    pub fn finish(self) {
        report::save(self.bench, &self.rows);
    }
}

impl<'c> Work<'_, 'c> {
    /// A way to do it. The first one is the floor, the last one is ours.
    pub fn way(mut self, name: impl Into<String>, run: impl FnMut(&mut Watch) + 'c) -> Self {
        self.contenders.push(Contender {
            name: name.into(),
            run: Box::new(run),
        });
        self
    }

    /// What ours is meant to reach beside the floor.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// A remark for the report.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Rounds of long work.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = self.rounds.min(rounds);
        self
    }

    /// Runs all ways in turns; none when this work was not asked for.
    pub fn run(mut self) -> Option<Vec<Figure>> {
        if !self.session.wants(&self.name) {
            return None;
        }
        let mut costs = vec![Vec::new(); self.contenders.len()];
        let mut latencies = vec![None; self.contenders.len()];
        for _ in 0..self.rounds {
            for (number, contender) in self.contenders.iter_mut().enumerate() {
                let mut watch = Watch::default();
                (contender.run)(&mut watch);
                costs[number].push(watch.total());
                latencies[number] = watch.latency_ms();
            }
        }
        let figures = self.contenders.iter().zip(costs.iter().zip(latencies));
        let figures = figures.map(|(contender, (costs, latency_ms))| Figure {
            latency_ms,
            ..figure(&contender.name, self.events, costs)
        });
        let row = Row {
            work: self.name,
            figures: figures.collect(),
            goals: self.goals,
            note: self.note,
        };
        report::print_row(&row);
        let figures = row.figures.clone();
        self.session.rows.push(row);
        Some(figures)
    }
}

/// The round in the middle, by CPU seconds; others' share over all rounds.
fn figure(name: &str, events: u64, costs: &[Cost]) -> Figure {
    let mut sorted = costs.to_vec();
    sorted.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let middle = sorted[sorted.len() / 2];
    sorted.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let mut all = Cost::default();
    costs.iter().for_each(|cost| all += *cost);
    Figure {
        name: name.to_owned(),
        events,
        wall_seconds: sorted[sorted.len() / 2].wall,
        cpu_seconds: middle.cpu,
        other_share: all.other_share(),
        rounds: costs.len(),
        latency_ms: None,
    }
}
