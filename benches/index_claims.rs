//! What claims cost in the admission index beside a hash table in memory: look a key up, find nothing, insert it;
//! and look up what is there already. At 10^5, 10^6 and 10^7 keys in one index shard.
//!
//! `cargo bench --bench index_claims`. `WELLSPRING_BENCH_KEYS=1000000` runs that size only; 100000000 is run only
//! when it is named so, and its floor needs 8 GiB of memory. `WELLSPRING_BENCH_INDEX_MIB` is what the shard may
//! use: 32 unless it is set, little enough for the disk to matter at every size; a gate has 768 for all its shards.

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use floor::key_set::{Claimed, KeySet};
use std::cell::RefCell;
use support::measure::Watch;
use support::report::{Figure, Goal};
use support::session::Session;
use wellspring::event_bus::embedded_log::JournalReader;
use wellspring::state_store::embedded::index::{self, IndexMemory, IndexMemoryCap};
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{AdmissionIndex, RunLayout};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u32 = 512;
/// Keys looked up in each way.
const LOOKUPS: u32 = 200 * BATCH;

/// What the index shard may use.
fn memory_mib() -> usize {
    support::number("WELLSPRING_BENCH_INDEX_MIB", 32)
}

fn main() {
    let only: u32 = support::number("WELLSPRING_BENCH_KEYS", 0);
    // Floor and product alike: as the program does.
    wellspring::process::without_huge_pages();
    let mut session = Session::start("index_claims");
    let mut million: Option<Figure> = None;
    for keys in [100_000u32, 1_000_000, 10_000_000, 100_000_000] {
        let wanted = match only {
            0 => keys < 100_000_000,
            only => only == keys || keys == 1_000_000,
        };
        if !wanted {
            continue;
        }
        let claimed = claims(&mut session, keys);
        if let (Some(claimed), Some(million)) = (&claimed, &million) {
            let name = format!("claims of {keys} keys beside 1000000");
            session.relate(&name, &[million, claimed], vec![Goal::CpuRatioMax(1.25)]);
        }
        if keys == 1_000_000 {
            million = claimed;
        }
    }
    session.finish();
}

/// Fills both sides, then looks keys up; gives what filling the index cost.
fn claims(session: &mut Session, keys: u32) -> Option<Figure> {
    let fill = format!("claims of {keys} new keys");
    if !session.wants(&fill) {
        return None;
    }
    // The last round's state is looked at afterwards.
    let (set, index) = (RefCell::new(None), RefCell::new(None));
    let rounds = if keys > 1_000_000 { 1 } else { 3 };
    let name = format!("admission index, {} MiB", memory_mib());
    let work = session.work(fill, u64::from(keys)).rounds(rounds);
    let figures = work
        .way("floor: hash table in memory", |watch| {
            set.replace(Some(watch.measure(|| fill_set(keys))));
        })
        .way(&name, |watch| {
            index.replace(None);
            index.replace(Some(Filled::new(watch, keys)));
        })
        .run();
    let (set, index) = (set.into_inner()?, index.into_inner()?);
    println!(
        "  index of {keys} keys: {:.1} MiB of memory",
        index.index.memory_bytes() as f64 / f64::from(1 << 20)
    );
    lookups(session, keys, &set, index);
    figures?.pop()
}

fn lookups(session: &mut Session, keys: u32, set: &KeySet, index: Filled) {
    let index = RefCell::new(index);
    for (kind, first, present) in [("present", 0, true), ("absent", keys, false)] {
        let name = format!("lookups of {kind} keys among {keys}");
        let numbers = move || (0..LOOKUPS).map(move |n| first + scattered(n) % keys);
        let work = session.work(name, u64::from(LOOKUPS));
        work.way("floor: hash table in memory", |watch| {
            watch.measure(|| {
                for number in numbers() {
                    assert_eq!(set.contains(&key(number)), present);
                }
            });
        })
        .way(format!("admission index, {} MiB", memory_mib()), |watch| {
            let mut index = index.borrow_mut();
            watch.measure(|| index.look_up(numbers(), present));
        })
        .run();
    }
}

fn fill_set(keys: u32) -> KeySet {
    let mut set = KeySet::with_capacity(keys as usize);
    for number in 0..keys {
        let key = key(number);
        assert_eq!(set.claim(key, key), Claimed::New);
    }
    set
}

/// An index and the folder it lies in.
struct Filled {
    index: Box<dyn AdmissionIndex>,
    found: Vec<Option<IndexEntry>>,
    _folder: tempfile::TempDir,
}

impl Filled {
    fn new(watch: &mut Watch, keys: u32) -> Filled {
        let folder = support::folder();
        let mut filled = Filled {
            index: open(&folder.path().to_string_lossy()),
            found: Vec::new(),
            _folder: folder,
        };
        watch.measure(|| {
            for first in (0..keys).step_by(BATCH as usize) {
                filled.claim(first..(first + BATCH).min(keys));
            }
        });
        filled
    }

    /// What the gate does with a batch of new events.
    fn claim(&mut self, numbers: std::ops::Range<u32>) {
        let keys: Vec<Hash32> = numbers.clone().map(key).collect();
        self.index
            .lookup(&keys, &mut self.found)
            .expect("the index answers");
        assert!(self.found.iter().all(Option::is_none));
        let row = |row| RowRef {
            shard: 0,
            segment: 0,
            row,
        };
        let entry = |(key, number): (&Hash32, u32)| {
            let (payload_hash, row) = (*key, row(number));
            (*key, IndexEntry { payload_hash, row })
        };
        let entries: Vec<_> = keys.iter().zip(numbers.clone()).map(entry).collect();
        self.index
            .insert(&entries, row(numbers.end))
            .expect("the index takes them");
    }

    fn look_up(&mut self, numbers: impl Iterator<Item = u32>, present: bool) {
        let keys: Vec<Hash32> = numbers.map(key).collect();
        for batch in keys.chunks(BATCH as usize) {
            let answered = self.index.lookup(batch, &mut self.found);
            answered.expect("the index answers");
            assert!(self.found.iter().all(|found| found.is_some() == present));
        }
    }
}

fn open(runs_root: &str) -> Box<dyn AdmissionIndex> {
    let run = PlatformRunId::parse("platform_20260101T000000Z").expect("a run id");
    let paths = RunPaths::new(runs_root, &run);
    let memory = IndexMemory::of(IndexMemoryCap {
        bytes: memory_mib() << 20,
        shards_max: 1,
    });
    let layout = RunLayout {
        admission_shards: 1,
        index_shards: 1,
    };
    let mut shards =
        index::open(&paths, &layout, &JournalReader::new(&paths), &memory).expect("it opens");
    shards.remove(0)
}

/// A number that stands anywhere.
fn scattered(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) ^ 0x5bd1_e995
}

/// Thirty-two bytes that look random, different for every number and cheaper than a digest.
fn key(number: u32) -> Hash32 {
    let mut out = [0; 32];
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for eight in out.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        eight.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    Hash32(out)
}
