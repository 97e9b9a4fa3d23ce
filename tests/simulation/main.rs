//! The control and ingress plane under a seed: the real actors and rules over simulated stores, in one
//! process and in virtual time. `docs/testing.md` says how to read it.

mod campaign;
mod chaos;
mod desk;
mod disk;
mod faults;
mod gate_store;
mod judge;
mod ledger;
mod plan;
mod process;
mod same_numbers;
mod senders;
mod sim;
mod stores;
mod world;

use campaign::{LIE, SEED, TRACE};
use faults::LIES;
use process::Outcome;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// How many seeds a campaign has.
const SEEDS: &str = "WELLSPRING_SIM_SEEDS";
/// Seeds of a plain test run.
const SEEDS_OF_A_TEST_RUN: u64 = 30;
/// From so many seeds on, everything must have happened.
const SEEDS_OF_A_CAMPAIGN: u64 = 100;

/// Panics nobody ordered.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what a panic says, and is silent about those that were ordered.
fn watch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let ordered = info.payload().downcast_ref::<&str>() == Some(&"simulated");
        if !ordered {
            let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
            panics.push(info.to_string().replace('\n', " "));
        }
    }));
}

/// Tells the parent what became of a seed, line by line.
fn tell(outcome: &Outcome) {
    println!();
    for violation in &outcome.violations {
        println!("sim broken {violation}");
    }
    for (what, count) in &outcome.counts {
        println!("sim count {count} {what}");
    }
    let (events, lives, ms) = (outcome.events, outcome.lives, outcome.virtual_ms);
    println!("sim size {events} {lives} {ms}");
    println!("sim end");
}

#[test]
fn one_seed() {
    let asked = std::env::var(SEED).ok().filter(|seed| !seed.is_empty());
    let seed = asked
        .as_deref()
        .map_or(1, |text| text.parse().expect("a seed is a number"));
    if asked.is_some() {
        watch_panics();
    }
    let lie = std::env::var(LIE).ok();
    let lie = lie.and_then(|name| LIES.into_iter().find(|(known, _)| *known == name));
    let mut outcome = process::run_seed(seed, lie.map(|(_, lie)| lie));
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    let panics = panics
        .into_iter()
        .map(|panic| format!("a panic nobody ordered: {panic}"));
    outcome.violations.extend(panics);
    if let Some(path) = std::env::var_os(TRACE) {
        std::fs::write(path, &outcome.trace).expect("the trace can be written");
    }
    tell(&outcome);
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn seeds_keep_every_promise() {
    let asked = std::env::var(SEEDS).ok().and_then(|text| text.parse().ok());
    let seeds = asked.unwrap_or(SEEDS_OF_A_TEST_RUN);
    let report = campaign::run(1..=seeds);
    report.print();
    assert!(report.failed.is_empty(), "{:#?}", report.failed);
    let never = report.never();
    assert!(
        seeds < SEEDS_OF_A_CAMPAIGN || never.is_empty(),
        "never happened: {never:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for seed in [1, 2, 3] {
        let traces = ["first", "second"].map(|name| {
            let path = folder.join(format!("simulation-{seed}-{name}.trace"));
            campaign::run_child(seed, Some(&path), None);
            let trace = std::fs::read(&path).expect("the child wrote its trace");
            std::fs::remove_file(&path).expect("the trace is ours");
            trace
        });
        assert!(traces[0].len() > 10_000, "the trace tells something");
        let lines = traces
            .each_ref()
            .map(|trace| trace.split(|byte| *byte == b'\n'));
        let [first, second] = lines;
        let differs = first
            .zip(second)
            .position(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed} differs from that line on");
        assert_eq!(traces[0].len(), traces[1].len());
    }
}

#[test]
fn a_store_that_lies_is_caught_by_the_judge() {
    for (name, _) in LIES {
        let caught = (1..=6).any(|seed| {
            let said = campaign::run_child(seed, None, Some(name));
            !said.violations.is_empty()
        });
        assert!(caught, "nobody noticed {name}");
    }
}

#[test]
fn randomness_nobody_asked_for_is_taken_away() {
    let before = same_numbers::drawn();
    let map: std::collections::HashMap<u8, u8> = std::thread::spawn(Default::default)
        .join()
        .expect("a map can be made");
    assert!(map.is_empty() && same_numbers::drawn() > before);
}
