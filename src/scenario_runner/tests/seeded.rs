//! The runner under a seed: submissions, re-emits, deaths at any write, another runner's lease, time that
//! passes, evidence that comes late or is edited, in any order. Checked after every step.
//!
//! `WELLSPRING_SIM_SEEDS` says how many seeds, `WELLSPRING_SIM_SEED` plays one again.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use wellspring_domain::ports::LeaseGrant;
use wellspring_domain::scenario::control::RunVerdict;
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::reemit::ReemitRequest;

use super::support::{Bench, Death, RUN_ID, write, write_world};

/// Seeds of a plain test run.
const SEEDS_OF_A_TEST_RUN: u64 = 60;
/// Facts that may be told more than once: each try is one.
const TOLD_AGAIN: [&str; 6] = [
    "READY_PUBLISH_FAILED",
    "REEMIT_REQUESTED",
    "REEMIT_PUBLISHED",
    "REEMIT_FAILED",
    "GOV_REEMIT_KEY",
    "AUTH_DENIED",
];

/// How often each thing happened, over all seeds.
type Counts = BTreeMap<&'static str, u64>;

/// What an outsider sees of the run.
#[derive(Clone, Default)]
struct Seen {
    state: Value,
    ready: Value,
    facts_view: Value,
    record: Vec<Value>,
    ready_ids: Vec<Value>,
}

struct Scene<'a> {
    bench: Bench,
    dice: SmallRng,
    counts: &'a mut Counts,
    other: Option<LeaseGrant>,
    edited: bool,
}

impl Scene<'_> {
    fn below(&mut self, bound: i64) -> i64 {
        self.dice.random_range(0..bound)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A death within the next writes, or none.
    fn death(&mut self) -> Arc<Death> {
        match self.dice.random_bool(0.5) {
            true => Death::at(self.below(40), self.dice.random_bool(0.5)),
            false => Death::never(),
        }
    }

    fn step(&mut self) {
        match self.below(12) {
            0..5 => self.submit(),
            5 | 6 => self.reemit(),
            7 | 8 => {
                let seconds = self.below(400);
                self.bench.clock.pass_seconds(seconds);
                self.count("time passed");
            }
            9 => self.complete_the_world(),
            10 => self.edit_evidence(),
            _other_runner => self.other_runner(),
        }
    }

    fn submit(&mut self) {
        let death = self.death();
        let runner = self.bench.runner_with(self.bench.ports(&death));
        let answer = runner.submit(&self.bench.request(json!({})));
        self.count(match (&answer, death.struck()) {
            (_, true) => "submission killed",
            (Ok(answer), _) if answer.verdict == RunVerdict::LeaseBusy => "submission, lease busy",
            (Ok(_), _) => "submission answered",
            (Err(error), _) => panic!("nothing struck and it failed: {error}"),
        });
    }

    fn reemit(&mut self) {
        let kind = ["READY_ONLY", "TERMINAL_ONLY", "BOTH"][self.below(3) as usize];
        if self.dice.random_bool(0.3) {
            // The bus forgot what was said.
            let _ = fs::remove_dir_all(self.bench.paths().control_bus());
        }
        let death = self.death();
        let request = json!({"run_id": RUN_ID, "requested_by": "ops", "reemit_kind": kind});
        let request = ReemitRequest::from_value(request).unwrap();
        let runner = self.bench.runner_with(self.bench.ports(&death));
        let answer = runner.reemit(&request);
        self.count(match (answer, death.struck()) {
            (_, true) => "re-emit killed",
            (Ok(answer), _) if !answer.published.is_empty() => "re-emit published",
            (Ok(_), _) => "re-emit refused",
            (Err(error), _) => panic!("nothing struck and it failed: {error}"),
        });
    }

    /// Evidence that was missing arrives.
    fn complete_the_world(&mut self) {
        if !self.edited {
            write_world(&self.bench.world());
            self.count("evidence completed");
        }
    }

    /// A report no longer is what its gate has proven.
    fn edit_evidence(&mut self) {
        if self.dice.random_bool(0.3) {
            let report = format!("data/base/{}/report.json", "a".repeat(64));
            write(&self.bench.world(), &report, b"edited");
            self.edited = true;
            self.count("evidence edited");
        }
    }

    /// Another runner takes the run's lease, or gives it back.
    fn other_runner(&mut self) {
        let leases = self.bench.ports(&Death::never()).leases;
        self.other = match self.other.take() {
            Some(grant) => {
                leases.release(RUN_ID, &grant.token).unwrap();
                None
            }
            None => leases.acquire(RUN_ID, "other", 300).unwrap(),
        };
        self.count("another runner came or went");
    }

    fn see(&self) -> Seen {
        let bus = self.bench.bus();
        let ready = bus
            .iter()
            .filter(|message| message["attributes"]["kind"] != "TERMINAL_REEMIT");
        Seen {
            state: self.bench.document("run_status")["state"].clone(),
            ready: self.bench.document("ready_signal"),
            facts_view: self.bench.document("run_facts_view"),
            record: self.bench.record(),
            ready_ids: ready.map(|message| message["message_id"].clone()).collect(),
        }
    }
}

/// How far a state is; ends are as far as each other.
fn rank(state: &Value) -> usize {
    let order = ["OPEN", "PLANNED", "EXECUTING", "WAITING_EVIDENCE"];
    match state.as_str() {
        None => 0,
        Some(state) => order.iter().position(|one| *one == state).unwrap_or(9) + 1,
    }
}

fn check(before: &Seen, now: &Seen) {
    assert!(
        rank(&now.state) >= rank(&before.state),
        "{} became {}",
        before.state,
        now.state
    );
    if rank(&before.state) == 10 {
        assert_eq!(now.state, before.state, "an end is an end");
    }
    for (was, is) in [
        (&before.ready, &now.ready),
        (&before.facts_view, &now.facts_view),
    ] {
        assert!(was.is_null() || was == is, "{was} became {is}");
    }
    assert!(
        now.record.starts_with(&before.record),
        "what was recorded stays"
    );
    let mut told: BTreeMap<&str, u32> = BTreeMap::new();
    for event in &now.record {
        let kind = event["event_kind"].as_str().unwrap();
        *told.entry(kind).or_default() += 1;
    }
    told.retain(|kind, count| *count > 1 && !TOLD_AGAIN.contains(kind));
    assert!(told.is_empty(), "told twice: {told:?}");
    if !now.ready_ids.is_empty() {
        let ids = &now.ready_ids;
        assert!(ids.iter().all(|id| *id == ids[0]), "two READYs: {ids:?}");
        assert!(
            !now.ready.is_null() && !now.facts_view.is_null(),
            "READY was said before it was stored"
        );
        assert_ne!(now.state, "FAILED");
        assert_ne!(now.state, "QUARANTINED");
    }
}

fn play(seed: u64, counts: &mut Counts) {
    let mut scene = Scene {
        bench: Bench::new(),
        dice: SmallRng::seed_from_u64(seed),
        counts,
        other: None,
        edited: false,
    };
    if scene.dice.random_bool(0.5) {
        fs::remove_dir_all(scene.bench.world().join("data/context")).unwrap();
    }
    let mut before = scene.see();
    for _ in 0..scene.dice.random_range(6..16) {
        scene.step();
        let now = scene.see();
        check(&before, &now);
        before = now;
    }
    // Without faults, and when every lease has run out, the run goes on to where it belongs.
    scene.bench.clock.pass_seconds(301);
    let last = scene.bench.submit(json!({})).unwrap();
    let now = scene.see();
    check(&before, &now);
    assert_eq!(now.state, last.state.as_str());
    let ended = last.state.is_terminal() || last.verdict == RunVerdict::Waiting;
    assert!(ended, "{last:?}");
    scene.count(match last.verdict {
        RunVerdict::Ready => "ended READY",
        RunVerdict::Waiting => "ended waiting",
        RunVerdict::Quarantined => "ended QUARANTINED",
        _failed => "ended FAILED",
    });
}

#[test]
fn a_run_never_goes_backwards_whatever_happens_in_any_order() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("WELLSPRING_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("WELLSPRING_SIM_SEEDS").unwrap_or(SEEDS_OF_A_TEST_RUN),
    };
    let mut counts = Counts::new();
    for seed in seeds.clone() {
        // Told only when the test fails.
        println!("scenario runner seed {seed}");
        play(seed, &mut counts);
    }
    println!("scenario runner over {seeds:?}: {counts:#?}");
    let wanted = [
        "submission killed",
        "submission, lease busy",
        "re-emit killed",
        "re-emit published",
        "evidence completed",
        "evidence edited",
        "ended READY",
        "ended waiting",
        "ended QUARANTINED",
        "ended FAILED",
    ];
    let never: Vec<_> = wanted
        .into_iter()
        .filter(|what| !counts.contains_key(what))
        .collect();
    assert!(
        seeds.count() < SEEDS_OF_A_TEST_RUN as usize || never.is_empty(),
        "never happened: {never:?}"
    );
}
