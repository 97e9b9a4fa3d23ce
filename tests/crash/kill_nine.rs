//! kill -9 of `up` at five moments of a paced run: each event once, in order per key, every receipt
//! true, and no checkpoint ahead of an acknowledgement.
//!
//! `WELLSPRING_CRASH_EVENTS` sets the size of the run (traffic and context together), 300,000 for the
//! full promise; the default keeps the whole test suite short. `WELLSPRING_CRASH_KILLS` adds kills at random
//! moments, ten to a run (a campaign takes 200); the seed of their moments is printed.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::daemon::Daemon;
use crate::support::run::{ReadyRun, checkpointed_rows};
use crate::support::world::{STREAMED, World};

/// Kills, and the share of all events that must be there before each.
const KILL_AT: [f64; 5] = [0.10, 0.27, 0.44, 0.61, 0.78];

/// Seconds the streaming takes without a kill.
const RUN_SECONDS: f64 = 20.0;

/// Seconds the generated worlds span.
const WORLD_SECONDS: f64 = 7.0 * 86_400.0;

fn events_of_the_run() -> u64 {
    let set = std::env::var("WELLSPRING_CRASH_EVENTS").ok();
    set.map_or(30_000, |text| text.parse().expect("a number of events"))
}

/// Lines of every partition log, by topic. A line that is not committed yet counts, too.
fn lines(run_root: &Path) -> HashMap<String, u64> {
    let mut lines = HashMap::new();
    let Ok(topics) = fs::read_dir(run_root.join("eb")) else {
        return lines;
    };
    for topic in topics {
        let topic = topic.unwrap();
        let head = topic.path().join("partition=0.jsonl");
        if let Ok(file) = fs::File::open(head) {
            let count = BufReader::new(file).split(b'\n').count() as u64;
            lines.insert(topic.file_name().into_string().unwrap(), count);
        }
    }
    lines
}

/// Events readers may see: the published heads.
fn admitted(run_root: &Path) -> u64 {
    let Ok(topics) = fs::read_dir(run_root.join("eb")) else {
        return 0;
    };
    let head = |path: &Path| -> u64 {
        let text = fs::read_to_string(path.join("head.json")).unwrap_or_default();
        let head: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        head["next_offset"].as_u64().unwrap_or(0)
    };
    topics.map(|topic| head(&topic.unwrap().path())).sum()
}

/// The topic each output goes to (contract 7.5).
fn topic_of(output: &str) -> &'static str {
    match output {
        "arrival_events_5B" => "fp.bus.context.arrival_events.v1",
        "s1_arrival_entities_6B" => "fp.bus.context.arrival_entities.v1",
        "s3_flow_anchor_with_fraud_6B" => "fp.bus.context.flow_anchor.fraud.v1",
        _ => "fp.bus.traffic.fraud.v1",
    }
}

/// A checkpoint says what was acknowledged, and what was acknowledged is on the bus.
#[track_caller]
fn assert_no_checkpoint_is_ahead(run_root: &Path) {
    let lines = lines(run_root);
    for (output, rows) in checkpointed_rows(run_root) {
        let on_bus = lines.get(topic_of(&output)).copied().unwrap_or(0);
        assert!(
            rows <= on_bus,
            "{output}: checkpoint at {rows}, only {on_bus} on the bus"
        );
    }
}

#[test]
fn five_kills_lose_nothing_double_nothing_and_reorder_nothing() {
    let total = events_of_the_run();
    // Two traffic events and three context rows per flow.
    let traffic = total * 2 / 5 / 2 * 2;
    let world = World::generate(traffic, 77, 3);
    world.pack();
    world.sort();
    let total = traffic / 2 * 5;
    let run = ReadyRun::new(&world);
    let speedup = (WORLD_SECONDS / RUN_SECONDS).to_string();
    let up = ["up", "--port", "0", "--speedup", &speedup];
    for share in KILL_AT {
        let wanted = (share * total as f64) as u64;
        let mut daemon = Daemon::start(&run.site, &up);
        let seen = wait_for_events(&mut daemon, &run.root(), wanted);
        assert_eq!(daemon.kill().signal, Some(9));
        let there = seen as f64 / total as f64;
        println!(
            "killed with {seen} of {total} events admitted ({:.1} %)",
            there * 100.0
        );
        assert!((0.05..=0.95).contains(&there), "killed at {there}");
        assert_no_checkpoint_is_ahead(&run.root());
    }
    run.up_once(&[]).ok();
    run.verify();
    let found = run.recompute(&[]);
    assert_eq!(found.summary["events"], total);
    assert_eq!(found.receipts("ADMIT"), total);
    assert_eq!(found.checked("order_per_key"), total);
    assert_eq!(found.rows(STREAMED[3]), traffic);
}

/// Kills of one run in a campaign, and its events.
const KILLS_A_RUN: u64 = 10;
const EVENTS_OF_A_RUN: u64 = 20_000;

#[test]
fn kills_at_random_moments_lose_nothing() {
    let kills = std::env::var("WELLSPRING_CRASH_KILLS").ok();
    let kills: u64 = kills.map_or(2, |text| text.parse().expect("a number of kills"));
    let world = World::generate(EVENTS_OF_A_RUN * 2 / 5, 78, 2);
    world.pack();
    world.sort();
    let seed = u64::from(std::process::id());
    println!("kills at random moments, seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = kills;
    while left > 0 {
        let now = left.min(KILLS_A_RUN);
        killed_at_random(&world, now, &mut random);
        left -= now;
    }
}

fn killed_at_random(world: &World, kills: u64, random: &mut StdRng) {
    let run = ReadyRun::new(world);
    let mut shares: Vec<f64> = (0..kills)
        .map(|_| random.random_range(0.05..0.93))
        .collect();
    shares.sort_by(f64::total_cmp);
    for share in shares {
        // The whole world in about six seconds, so that a kill falls where it should.
        let speedup = (WORLD_SECONDS / 6.0).to_string();
        let mut daemon = Daemon::start(&run.site, &["up", "--port", "0", "--speedup", &speedup]);
        let wanted = (share * EVENTS_OF_A_RUN as f64) as u64;
        let seen = wait_for_events(&mut daemon, &run.root(), wanted);
        std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
        assert_eq!(daemon.kill().signal, Some(9));
        println!("killed with {seen} of {EVENTS_OF_A_RUN} events admitted");
        assert_no_checkpoint_is_ahead(&run.root());
    }
    run.up_once(&[]).ok();
    run.verify();
    let found = run.recompute(&[]);
    assert_eq!(found.summary["events"], EVENTS_OF_A_RUN);
    assert_eq!(found.receipts("ADMIT"), EVENTS_OF_A_RUN);
}

fn wait_for_events(daemon: &mut Daemon, run_root: &Path, wanted: u64) -> u64 {
    let end = Instant::now() + Duration::from_secs(180);
    loop {
        let seen = admitted(run_root);
        if seen >= wanted {
            return seen;
        }
        assert!(daemon.is_running(), "the daemon ended: {}", daemon.stderr());
        assert!(
            Instant::now() < end,
            "only {seen} of {wanted} came: {}",
            daemon.stderr()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
