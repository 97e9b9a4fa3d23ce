//! The index against a plain map, over freezes, merges, reopens and damage.

use super::recovery::{index_folder, open_shards};
use super::resident_pool::ResidentPool;
use super::shard::IndexShard;
use super::table_pool::TablePool;
use super::{IndexMemory, digest, open};
use crate::state_store::embedded::journal_source::{JournalSource, RowSpan, VisitRow};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::index_format::Slot;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::admission::routing::index_shard_of;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{AdmissionIndex, RunLayout, StoreError};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// A journal of admitted keys only: all this projection reads.
#[derive(Default)]
struct KeyJournal {
    slots: Vec<Slot>,
    visited_from: std::sync::Mutex<Vec<RowRef>>,
}

impl KeyJournal {
    fn admit(&mut self, number: u32) -> Slot {
        let row = RowRef {
            shard: 0,
            segment: self.slots.len() as u32 / 1000,
            row: self.slots.len() as u32 % 1000,
        };
        let slot = slot_of(number, row);
        self.slots.push(slot);
        slot
    }
}

fn slot_of(number: u32, row: RowRef) -> Slot {
    Slot {
        key: Hash32::of(&number.to_be_bytes()),
        entry: IndexEntry {
            payload_hash: Hash32::of(&[number as u8]),
            row,
        },
    }
}

impl JournalSource for KeyJournal {
    fn shards(&self) -> Result<Vec<u16>, StoreError> {
        Ok(vec![0])
    }
    fn end(&self, shard: u16) -> Result<RowRef, StoreError> {
        let last = self.slots.last().map(|slot| slot.entry.row);
        Ok(last.map_or(
            RowRef {
                shard,
                ..RowRef::default()
            },
            |row| RowRef {
                row: row.row + 1,
                ..row
            },
        ))
    }
    fn segments(&self, _shard: u16) -> Result<Vec<u32>, StoreError> {
        Ok(Vec::new())
    }
    fn visit_rows(
        &self,
        _span: &RowSpan<'_>,
        _visit: &mut VisitRow<'_>,
    ) -> Result<Option<RowRef>, StoreError> {
        Ok(None)
    }
    fn row(&self, _at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        Ok(None)
    }
    fn visit_admitted(
        &self,
        from: RowRef,
        visit: &mut dyn FnMut((RowRef, Hash32, Hash32)) -> Result<(), StoreError>,
    ) -> Result<Option<RowRef>, StoreError> {
        self.visited_from.lock().unwrap().push(from);
        let mut last = None;
        for slot in self.slots.iter().filter(|slot| slot.entry.row >= from) {
            last = Some(slot.entry.row);
            visit((slot.entry.row, slot.key, slot.entry.payload_hash))?;
        }
        Ok(last)
    }
}

struct Fixture {
    _folder: tempfile::TempDir,
    paths: RunPaths,
    layout: RunLayout,
    memory: IndexMemory,
    journal: KeyJournal,
}

/// Memory for tables of two shards of a few dozen keys each, so that freezes and merges happen soon.
const TABLE_BYTES: usize = 96 << 10;

fn memory(tables: usize, resident: usize) -> IndexMemory {
    IndexMemory {
        tables: TablePool::of(tables, 2),
        resident: ResidentPool::of(resident),
    }
}

/// Two shards.
fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let run = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
    Fixture {
        paths: RunPaths::new(&folder.path().to_string_lossy(), &run),
        _folder: folder,
        layout: RunLayout {
            admission_shards: 1,
            index_shards: 2,
        },
        memory: memory(TABLE_BYTES, 12 << 10),
        journal: KeyJournal::default(),
    }
}

impl Fixture {
    fn digest(&self) -> Result<(u64, Hash32), StoreError> {
        digest(&self.paths, &self.layout, &self.journal, &self.memory)
    }

    fn open(&self) -> Vec<IndexShard> {
        open_shards(&self.paths, &self.layout, &self.journal, &self.memory).unwrap()
    }

    /// Admits `numbers` and inserts them as a gate does.
    fn admit(&mut self, shards: &mut [IndexShard], numbers: std::ops::Range<u32>) {
        for number in numbers {
            let slot = self.journal.admit(number);
            let owner = usize::from(index_shard_of(&slot.key, shards.len() as u16));
            for (shard, index) in shards.iter_mut().enumerate() {
                let entries = [(slot.key, slot.entry)];
                let mine = if shard == owner { &entries[..] } else { &[] };
                index.insert(mine, slot.entry.row).unwrap();
            }
        }
    }

    fn run_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(index_folder(&self.paths))
            .unwrap()
            .flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap())
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "wsx"))
            .collect();
        files.sort();
        files
    }
}

fn look_up(shards: &mut [IndexShard], number: u32) -> Result<Option<IndexEntry>, StoreError> {
    let key = Hash32::of(&number.to_be_bytes());
    let owner = usize::from(index_shard_of(&key, shards.len() as u16));
    let mut found = Vec::new();
    shards[owner].lookup(&[key], &mut found)?;
    Ok(found[0])
}

fn assert_holds(shards: &mut [IndexShard], journal: &KeyJournal) {
    for (number, slot) in journal.slots.iter().enumerate() {
        assert_eq!(
            look_up(shards, number as u32).unwrap(),
            Some(slot.entry),
            "key {number}"
        );
    }
    for absent in 1_000_000..1_000_500 {
        assert_eq!(look_up(shards, absent).unwrap(), None);
    }
}

#[test]
fn keys_survive_freezes_merges_and_reopening_and_only_the_tail_is_read_again() {
    let mut fixture = fixture();
    let mut shards = fixture.open();
    fixture.admit(&mut shards, 0..6000);
    assert_holds(&mut shards, &fixture.journal);
    shards
        .iter()
        .for_each(|shard| shard.visit(&mut |_| ()).unwrap());
    drop(shards);
    assert!(fixture.run_files().len() >= 2);
    let mut shards = fixture.open();
    let from = *fixture.journal.visited_from.lock().unwrap().last().unwrap();
    assert!(
        from > RowRef {
            shard: 0,
            segment: 3,
            row: 0
        },
        "read again from {from:?}"
    );
    assert_holds(&mut shards, &fixture.journal);
    fixture.admit(&mut shards, 6000..6500);
    assert_holds(&mut shards, &fixture.journal);
}

#[test]
fn one_batch_finds_its_keys_in_whatever_table_or_run_they_are() {
    let mut fixture = fixture();
    let mut shards = fixture.open();
    fixture.admit(&mut shards, 0..3000);
    let known = fixture.journal.slots.iter();
    let admitted = known.map(|slot| (slot.key, Some(slot.entry)));
    let absent = (1_000_000u32..1_001_000).map(|number| (Hash32::of(&number.to_be_bytes()), None));
    let all: Vec<(Hash32, Option<IndexEntry>)> = admitted.chain(absent).collect();
    for (number, shard) in (0u16..).zip(&mut shards) {
        let mine = all
            .iter()
            .filter(|(key, _)| index_shard_of(key, 2) == number);
        let (keys, expected): (Vec<Hash32>, Vec<Option<IndexEntry>>) = mine.copied().unzip();
        let mut found = Vec::new();
        shard.lookup(&keys, &mut found).unwrap();
        assert!(found == expected, "index shard {number}");
    }
}

#[test]
fn memory_stays_within_the_cap_however_many_keys_come() {
    let mut fixture = fixture();
    // Room for whole filters of the first runs only.
    let pool = 8 << 10;
    fixture.memory = memory(TABLE_BYTES, pool);
    let mut shards = fixture.open();
    for thousand in 0..20 {
        fixture.admit(&mut shards, thousand * 1000..(thousand + 1) * 1000);
        let bytes: usize = shards.iter().map(|shard| shard.memory_bytes()).sum();
        assert!(bytes <= TABLE_BYTES + pool, "{bytes} bytes");
    }
    assert_holds(&mut shards, &fixture.journal);
}

#[test]
fn a_changed_number_of_index_shards_is_handled_at_the_next_open() {
    let mut fixture = fixture();
    let mut shards = fixture.open();
    fixture.admit(&mut shards, 0..3000);
    drop(shards);
    for index_shards in [3, 1] {
        fixture.layout.index_shards = index_shards;
        let mut shards = fixture.open();
        assert_eq!(shards.len(), usize::from(index_shards));
        assert_holds(&mut shards, &fixture.journal);
    }
}

#[test]
fn a_run_file_damaged_anywhere_is_found_and_made_again_from_the_journal() {
    // How large the first run is depends on what was merged by then.
    let places: [fn(usize) -> usize; 5] = [
        |_| 0,
        |_| 16,
        |_| 4096 + 3,
        |_| 8192 + 5,
        |length| length - 3000,
    ];
    for place in places {
        let mut fixture = fixture();
        let mut shards = fixture.open();
        fixture.admit(&mut shards, 0..2000);
        shards
            .iter()
            .for_each(|shard| shard.visit(&mut |_| ()).unwrap());
        drop(shards);
        let path = fixture.run_files().remove(0);
        let mut broken = fs::read(&path).unwrap();
        let at = place(broken.len());
        broken[at] ^= 0x10;
        fs::write(&path, &broken).unwrap();
        let mut shards = fixture.open();
        for (number, slot) in fixture.journal.slots.iter().enumerate() {
            match look_up(&mut shards, number as u32) {
                Ok(found) => assert_eq!(found, Some(slot.entry), "byte {at}: silently wrong"),
                Err(error) => assert_eq!(error.code(), "STORE_DAMAGED"),
            }
        }
        drop(shards);
        let mut shards = fixture.open();
        let left = fs::read(&path).ok();
        assert!(left != Some(broken), "byte {at}: damage was not noticed");
        assert_holds(&mut shards, &fixture.journal);
        shards
            .iter()
            .for_each(|shard| shard.visit(&mut |_| ()).unwrap());
    }
}

#[test]
fn a_file_of_an_unknown_version_is_refused_by_name() {
    let mut fixture = fixture();
    let mut shards = fixture.open();
    fixture.admit(&mut shards, 0..2000);
    shards
        .iter()
        .for_each(|shard| shard.visit(&mut |_| ()).unwrap());
    drop(shards);
    let path = fixture.run_files().remove(0);
    let mut newer = fs::read(&path).unwrap();
    newer[8] = 2;
    fs::write(&path, &newer).unwrap();
    let error = open(
        &fixture.paths,
        &fixture.layout,
        &fixture.journal,
        &fixture.memory,
    )
    .err()
    .unwrap();
    assert_eq!(error.code(), "FORMAT_VERSION_UNKNOWN");
    assert!(
        error.to_string().contains(&*path.to_string_lossy()),
        "{error}"
    );
}

#[test]
fn an_index_ahead_of_its_journal_or_without_a_run_file_is_made_again() {
    let mut fixture = fixture();
    let mut shards = fixture.open();
    fixture.admit(&mut shards, 0..3000);
    drop(shards);
    fixture.journal.slots.truncate(500);
    let mut shards = fixture.open();
    assert_holds(&mut shards, &fixture.journal);
    assert_eq!(look_up(&mut shards, 2000).unwrap(), None);
    fixture.journal.slots.clear();
    drop(shards);
    let mut shards = fixture.open();
    fixture.admit(&mut shards, 0..3000);
    drop(shards);
    fs::remove_file(fixture.run_files().remove(0)).unwrap();
    assert_holds(&mut fixture.open(), &fixture.journal);
}

#[test]
fn the_digest_does_not_depend_on_how_keys_are_spread_over_files() {
    let mut fixture = fixture();
    let mut shards = fixture.open();
    fixture.admit(&mut shards, 0..3000);
    drop(shards);
    let spread = fixture.digest().unwrap();
    fs::remove_dir_all(index_folder(&fixture.paths)).unwrap();
    fixture.memory = memory(16 << 20, 0);
    let in_memory = fixture.digest().unwrap();
    assert_eq!(spread, in_memory);
    assert_eq!(spread.0, 3000);
    fixture.journal.slots[17].entry.payload_hash = Hash32::of(b"other");
    fs::remove_dir_all(index_folder(&fixture.paths)).unwrap();
    let changed = fixture.digest().unwrap();
    assert_ne!(spread.1, changed.1);
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u32),
    Look(u32),
    Reopen,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u32..200).prop_map(Step::Admit),
        4 => (0u32..4000).prop_map(Step::Look),
        1 => Just(Step::Reopen),
        1 => Just(Step::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_inserts_lookups_and_reopens_equals_a_plain_map(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut fixture = fixture();
        let mut shards = fixture.open();
        let mut model: BTreeMap<u32, IndexEntry> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Admit(count) => {
                    let first = fixture.journal.slots.len() as u32;
                    fixture.admit(&mut shards, first..first + count);
                    for number in first..first + count {
                        model.insert(number, fixture.journal.slots[number as usize].entry);
                    }
                }
                Step::Look(number) => {
                    for number in number..number + 20 {
                        prop_assert_eq!(look_up(&mut shards, number).unwrap(), model.get(&number).copied());
                    }
                }
                Step::Reopen => {
                    drop(shards);
                    shards = fixture.open();
                }
                Step::Settle => shards.iter().for_each(|shard| shard.visit(&mut |_| ()).unwrap()),
            }
        }
        assert_holds(&mut shards, &fixture.journal);
    }
}
