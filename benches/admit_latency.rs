//! How long an event waits until it is durable, in an open loop at half of the largest rate, beside the least that
//! makes as many bytes durable at the same pace.
//!
//! `cargo bench --bench admit_latency`. The largest rate is measured first, closed loop. Then floor and product take
//! turns, [`SECONDS`] each: the floor is one thread that writes and syncs what has come due. When it waits for the disk
//! now and then, so does whoever else writes to it, so its tail says how much of the product's is the disk's.

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use floor::disk::{Log, ROW_BYTES};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::cell::RefCell;
use std::process::Command;
use std::time::{Duration, Instant};
use support::measure::{Cost, Watch};
use support::report::Goal;
use support::session::Session;

/// Events of the closed loop that finds the largest rate.
const CLOSED_LOOP_EVENTS: &str = "3M";
/// Length of each open loop.
const SECONDS: u64 = 10;
/// Most events of one commit of the floor, as of one flush.
const GROUP_MAX: u64 = 8192;
/// Goals: quantile and milliseconds.
const GOALS: [(&str, f64); 3] = [("p50", 8.0), ("p99", 20.0), ("p99.9", 60.0)];

/// Milliseconds of the quantiles of [`GOALS`].
type Quantiles = [f64; 3];

fn main() {
    let mut session = Session::start("admit_latency");
    let name = "admit latency in process, open loop at half of the largest rate";
    if !session.wants(name) {
        return session.finish();
    }
    let closed = load(&["--events", CLOSED_LOOP_EVENTS]);
    let largest = number(&closed, "/events_per_second");
    let rate = (largest / 2000.0).round() * 1000.0;
    let line = vec![b'x'; number(&closed, "/knobs/envelope_bytes") as usize];
    println!("largest rate {largest:.0} events/s, so {rate:.0} events/s");
    let events = rate as u64 * SECONDS;
    let gate_rounds = RefCell::new(Vec::new());
    let figures = session
        .work(name, events)
        .way("floor: write, fdatasync, frame, fdatasync", |watch| {
            let quantiles = watch.measure(|| pace_bare(rate, events, &line));
            note(watch, "floor", quantiles);
        })
        .way("gate, durable", |watch| {
            let quantiles = pace_gate(watch, rate);
            note(watch, "gate", quantiles);
            gate_rounds.borrow_mut().push(quantiles);
        })
        .run();
    let medians = medians(&gate_rounds.into_inner());
    let goals = GOALS.iter().zip(medians);
    let goals = goals.map(|((_, most), millis)| Goal::ValueMax(millis, *most));
    let figures: Vec<_> = figures.iter().flatten().collect();
    let name = "the gate's p50, p99, p99.9 in milliseconds, medians of its rounds";
    session.relate(name, &figures, goals.collect());
    session.finish();
}

/// Prints what a round had, because rounds differ, and keeps two of its quantiles for the report.
fn note(watch: &mut Watch, who: &str, quantiles: Quantiles) {
    let texts = GOALS.iter().zip(quantiles);
    let texts: Vec<String> = texts
        .map(|((name, _), millis)| format!("{name} {millis:.1} ms"))
        .collect();
    println!("  {who}: {}", texts.join(", "));
    watch.note_latency(quantiles[0], quantiles[1]);
}

fn medians(rounds: &[Quantiles]) -> Quantiles {
    [0, 1, 2].map(|quantile| {
        let mut values: Vec<f64> = rounds.iter().map(|round| round[quantile]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

/// One open loop of the program.
fn pace_gate(watch: &mut Watch, rate: f64) -> Quantiles {
    let seconds = format!("{SECONDS}s");
    let report = load(&["--rate", &rate.to_string(), "--duration", &seconds]);
    let wall = number(&report, "/measured_seconds");
    let events = number(&report, "/measured_events");
    watch.add(Cost {
        wall,
        cpu: number(&report, "/cpu/seconds_per_million") * events / 1e6,
        other: 0.0,
    });
    ["p50", "p99", "p999"].map(|name| number(&report, &format!("/latency/{name}_ms")))
}

/// Makes every event durable as soon as it may be after it has come due, many at a time when many are.
fn pace_bare(rate: f64, events: u64, line: &[u8]) -> Quantiles {
    let folder = support::folder();
    let mut log = Log::create(folder.path(), 1);
    let mut waits = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a minute at most");
    let lines = line.repeat(GROUP_MAX as usize);
    let began = Instant::now();
    let mut done = 0;
    while done < events {
        let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(events);
        let group = (due - done).min(GROUP_MAX);
        if group == 0 {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        log.append(0, &lines[..group as usize * line.len()], group);
        (0..group).for_each(|_| log.decide(&[0; ROW_BYTES]));
        log.commit();
        let now = began.elapsed().as_secs_f64();
        for event in done..done + group {
            let wait = now - event as f64 / rate;
            waits.saturating_record((wait * 1e6) as u64);
        }
        done += group;
    }
    [0.5, 0.99, 0.999].map(|quantile| waits.value_at_quantile(quantile) as f64 / 1000.0)
}

/// Runs `wellspring load` in a folder of its own and gives its report.
fn load(knobs: &[&str]) -> Value {
    let folder = support::folder();
    let output = Command::new(env!("CARGO_BIN_EXE_wellspring"))
        .arg("load")
        .args(knobs)
        .args(["--format", "json", "--dir"])
        .arg(folder.path())
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the load failed: {said}");
    serde_json::from_slice(&output.stdout).expect("a report is JSON")
}

fn number(report: &Value, place: &str) -> f64 {
    let value = report.pointer(place).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("the report has no {place}"))
}
