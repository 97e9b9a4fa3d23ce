//! Hostile bytes for every reader, bounded and repeatable: corpus files changed by a seeded generator.
//!
//! `WELLSPRING_FUZZ_SECONDS` makes each target run that long (a campaign takes 300), `WELLSPRING_FUZZ_SEED`
//! chooses where it begins. A failure prints the seed and keeps the input beside the corpus of the failed
//! target, in the temporary folder. `fuzz/` runs the same targets under a coverage-guided fuzzer.

mod slow_json;
mod targets;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target, journal_rows};

/// Inputs a target gets in CI.
const INPUTS: u64 = 3_000;
/// Longest time it gets for them.
const CI_SECONDS: u64 = 6;

/// Pieces readers look for.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\u0000",
    "\\ud800",
    "\\",
    ",",
    ":",
    "null",
    "true",
    "-0",
    "1e400",
    "0.1",
    "1E-7",
    "1e16",
    "18446744073709551616",
    "\n",
    "\r\n",
    "\u{0}",
    "\u{feff}",
    "..",
    "/",
    "${X:-y}",
    "&a",
    "*a",
    "- ",
    "WSFM",
    "PAR1",
    "\u{10ffff}",
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/hostile_inputs/corpus");
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join(target))
        .unwrap_or_else(|error| panic!("{target} has no corpus: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has an empty corpus");
    files
        .into_iter()
        .map(|file| fs::read(file).unwrap())
        .collect()
}

/// One to four changes of a corpus file.
fn changed(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let length = random.random_range(0..=(bytes.len() - at).min(64));
        match random.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..at + length)),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..at + length].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            5 => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                bytes.splice(at..at, token.bytes());
            }
            6 if at + 4 <= bytes.len() => {
                let number: u32 = [0, 1, u32::MAX, i32::MAX as u32][random.random_range(0..4)];
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                let to = (from + length).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// Feeds a target until its inputs or its time are used up.
fn feed(name: &str, target: Target) {
    let corpus = corpus(name);
    corpus.iter().for_each(|bytes| target(bytes));
    let campaign = number("WELLSPRING_FUZZ_SECONDS").map(Duration::from_secs);
    let end = Instant::now() + campaign.unwrap_or(Duration::from_secs(CI_SECONDS));
    let first = number("WELLSPRING_FUZZ_SEED").unwrap_or(1);
    let mut fed = 0;
    while Instant::now() < end && (campaign.is_some() || fed < INPUTS) {
        let seed = first + fed;
        let input = changed(&corpus, &mut StdRng::seed_from_u64(seed));
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            let kept = std::env::temp_dir().join(format!("wellspring-{name}-{seed}"));
            fs::write(&kept, &input).unwrap();
            panic!(
                "{name}: WELLSPRING_FUZZ_SEED={seed}, the input is {}",
                kept.display()
            );
        }
        fed += 1;
    }
    println!("FUZZED {name} {fed}");
}

fn feed_named(name: &str) {
    let target = TARGETS.iter().find(|(own, _)| *own == name);
    feed(name, target.expect("a target of that name").1);
}

#[test]
fn envelopes_are_read_as_the_slow_way_reads_them() {
    feed_named("envelope");
    feed_named("bus_line");
}

#[test]
fn batches_are_split_within_their_bounds() {
    feed_named("ndjson_batch");
}

#[test]
fn profiles_never_break_the_loader() {
    feed_named("profile");
}

#[test]
fn journals_index_runs_and_checkpoints_never_break_their_readers() {
    feed_named("journal");
    feed_named("index_run");
    feed_named("checkpoint");
}

#[test]
fn world_files_never_break_their_readers() {
    feed_named("gate_evidence");
    feed_named("world_documents");
    feed_named("parquet_part");
}

#[test]
fn every_way_of_hashing_gives_the_same_digests() {
    feed_named("hash_batch");
}

#[test]
fn a_changed_journal_never_gives_a_row_that_was_not_written() {
    let segment = corpus("journal").remove(0);
    let folder = tempfile::tempdir().unwrap();
    let written = journal_rows(folder.path(), &segment);
    assert!(written.len() > 3, "{written:?}");
    for seed in 0..400 {
        let changed = changed(
            std::slice::from_ref(&segment),
            &mut StdRng::seed_from_u64(seed),
        );
        let read = journal_rows(folder.path(), &changed);
        assert!(written.starts_with(&read), "seed {seed}: {read:?}");
    }
}

#[test]
fn every_target_has_a_fuzzer_and_a_corpus() {
    let fuzzers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let manifest = fs::read_to_string(fuzzers.join("../Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(fuzzers.join(format!("{name}.rs")).is_file(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(!corpus(name).is_empty());
    }
}
