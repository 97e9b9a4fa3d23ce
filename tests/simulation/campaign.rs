//! Many seeds, each in a process of its own, and the report over all of them.
//!
//! A process a seed, because the numbers of `same_numbers.rs` must be the same whatever ran before.

use crate::faults::{Counts, expected};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The test that runs one seed in a child.
const CHILD_TEST: &str = "one_seed";
/// Names the seed a child runs.
pub const SEED: &str = "WELLSPRING_SIM_SEED";
/// Names a file a child writes its trace to.
pub const TRACE: &str = "WELLSPRING_SIM_TRACE";
/// Names the lie of a child's stores.
pub const LIE: &str = "WELLSPRING_SIM_LIE";
/// How long a seed may take on a busy machine.
const SEED_SECONDS_MAX: u64 = 300;

/// What a child said.
#[derive(Default)]
pub struct Said {
    pub violations: Vec<String>,
    pub counts: Counts,
    pub events: u64,
    pub lives: u64,
    pub virtual_ms: u64,
}

/// Runs a seed in a child.
pub fn run_child(seed: u64, trace: Option<&PathBuf>, lie: Option<&str>) -> Said {
    let mut command = Command::new(std::env::current_exe().expect("this test is a program"));
    command.args(["--exact", CHILD_TEST, "--nocapture", "--test-threads=1"]);
    command
        .env(SEED, seed.to_string())
        .env_remove(TRACE)
        .env_remove(LIE);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(path) = trace {
        command.env(TRACE, path);
    }
    if let Some(lie) = lie {
        command.env(LIE, lie);
    }
    let mut child = command.spawn().expect("this test can be started again");
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            // A child that is killed in the middle of a character has said enough.
            let _ = stream.map(|mut stream| stream.read_to_string(&mut text));
            text
        })
    };
    let out = read(out.map(|out| Box::new(out) as _));
    let err = read(err.map(|err| Box::new(err) as _));
    let began = Instant::now();
    let status = loop {
        match child.try_wait().expect("the child is ours") {
            Some(status) => break status.to_string(),
            None if began.elapsed().as_secs() > SEED_SECONDS_MAX => {
                // By its handle: nothing else is ended.
                let _ = child.kill();
                let _ = child.wait();
                break "it took too long".to_owned();
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (out, err) = (
        out.join().unwrap_or_default(),
        err.join().unwrap_or_default(),
    );
    let mut said = heard(&out);
    if !out.contains("\nsim end") {
        let tail: Vec<&str> = err.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        said.violations
            .push(format!("no end ({status}): {}", tail.join(" | ")));
    }
    said
}

/// Reads what [`crate::tell`] wrote.
fn heard(text: &str) -> Said {
    let mut said = Said::default();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("sim ") else {
            continue;
        };
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "broken" => said.violations.push(rest.to_owned()),
            "count" => {
                let (count, what) = rest.split_once(' ').unwrap_or(("0", rest));
                said.counts
                    .insert(what.to_owned(), count.parse().unwrap_or_default());
            }
            "size" => {
                let numbers: Vec<u64> = rest.split(' ').filter_map(|n| n.parse().ok()).collect();
                if let [events, lives, virtual_ms] = numbers[..] {
                    (said.events, said.lives, said.virtual_ms) = (events, lives, virtual_ms);
                }
            }
            _ => {}
        }
    }
    said
}

/// What a campaign came to.
#[derive(Default)]
pub struct Report {
    pub seeds: u64,
    pub failed: Vec<(u64, Vec<String>)>,
    pub counts: Counts,
    events: u64,
    lives: u64,
    virtual_ms: u64,
    seconds: f64,
}

/// Runs seeds beside each other, as many as the machine has cores.
pub fn run(seeds: impl IntoIterator<Item = u64>) -> Report {
    let queue: Mutex<VecDeque<u64>> = Mutex::new(seeds.into_iter().collect());
    let report = Mutex::new(Report::default());
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(seed) = next else { break };
                    let said = run_child(seed, None, None);
                    report.lock().unwrap().add(seed, said);
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap();
    report.seconds = began.elapsed().as_secs_f64();
    report.failed.sort();
    report
}

impl Report {
    fn add(&mut self, seed: u64, said: Said) {
        self.seeds += 1;
        self.events += said.events;
        self.lives += said.lives;
        self.virtual_ms += said.virtual_ms;
        for (what, count) in said.counts {
            *self.counts.entry(what).or_default() += count;
        }
        if !said.violations.is_empty() {
            println!("seed {seed} broke a promise; run it again: make simulate SEED={seed}");
            println!("  {}", said.violations.join("\n  "));
            self.failed.push((seed, said.violations));
        }
    }

    /// What never happened and should have.
    pub fn never(&self) -> Vec<String> {
        let mut never = expected();
        never.retain(|what| self.counts.get(what).copied().unwrap_or_default() == 0);
        never
    }

    /// The report in words.
    pub fn print(&self) {
        println!(
            "{} seeds, {} events, {} lives, {:.1} hours of virtual time, {:.0} s",
            self.seeds,
            self.events,
            self.lives,
            self.virtual_ms as f64 / 3_600_000.0,
            self.seconds
        );
        for what in expected() {
            let count = self.counts.get(&what).copied().unwrap_or_default();
            println!("{count:>9}  {what}");
        }
        println!("{} seeds broke a promise", self.failed.len());
    }
}
