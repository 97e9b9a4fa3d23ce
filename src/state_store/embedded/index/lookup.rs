//! Looking for keys in the runs of a shard: the newest first, those with one filter together.

use super::run_file::{Run, RunLookupMemory};
use super::shared_filter::SharedFilter;
use std::sync::Arc;
use wellspring_domain::admission::decision::IndexEntry;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

/// Keys whose filter lines are fetched together: a few more than a core waits for at once.
pub const LINES_AT_ONCE: usize = 16;

/// Memory that lookups use again.
#[derive(Default)]
pub struct LookupMemory {
    /// Numbers of keys that are in no table.
    missing: Vec<u32>,
    /// Those of them that a shared filter lets pass.
    passed: Vec<u32>,
    run: RunLookupMemory,
}

/// Looks for the keys that are missing in `found`; `runs` are oldest first.
pub fn look_up_missing(
    runs: &[Arc<Run>],
    keys: &[Hash32],
    found: &mut [Option<IndexEntry>],
    memory: &mut LookupMemory,
) -> Result<(), StoreError> {
    let LookupMemory {
        missing,
        passed,
        run,
    } = memory;
    missing.clear();
    missing.extend(
        (0u32..)
            .zip(&*found)
            .filter_map(|(number, entry)| entry.is_none().then_some(number)),
    );
    for group in runs.chunk_by(|a, b| have_one_filter(a, b)).rev() {
        let numbers = match group[0].shared_filter() {
            Some(filter) => {
                let_pass(filter, keys, missing, passed);
                &*passed
            }
            None => &*missing,
        };
        for newest in group.iter().rev() {
            newest.lookup_missing(keys, numbers, found, run)?;
        }
    }
    Ok(())
}

fn have_one_filter(a: &Run, b: &Run) -> bool {
    a.shared_filter()
        .zip(b.shared_filter())
        .is_some_and(|(a, b)| Arc::ptr_eq(a, b))
}

/// Gathers the numbers of keys that may be in one of the filter's runs.
fn let_pass(filter: &SharedFilter, keys: &[Hash32], numbers: &[u32], passed: &mut Vec<u32>) {
    passed.clear();
    for some in numbers.chunks(LINES_AT_ONCE) {
        let key = |number: &u32| &keys[*number as usize];
        let lines = some.iter().map(|number| filter.fetch(key(number)));
        std::hint::black_box(lines.fold(0, |seen, word| seen ^ word));
        passed.extend(some.iter().filter(|number| filter.may_hold(key(number))));
    }
}

/// Bytes of all filters that runs have together.
pub fn shared_filter_bytes(runs: &[Arc<Run>]) -> usize {
    let groups = runs.chunk_by(|a, b| have_one_filter(a, b));
    let filters = groups.filter_map(|group| group[0].shared_filter());
    filters.map(|filter| filter.memory_bytes()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_store::embedded::index::resident_pool::ResidentPool;
    use crate::state_store::embedded::index::run_writer::RunWriter;
    use wellspring_domain::admission::decision::RowRef;
    use wellspring_domain::admission::index_format::{PAGE, Slot};

    fn slot(number: u32) -> Slot {
        Slot {
            key: Hash32::of(&number.to_be_bytes()),
            entry: IndexEntry {
                payload_hash: Hash32::of(b"p"),
                row: RowRef {
                    row: number,
                    ..RowRef::default()
                },
            },
        }
    }

    fn run_of(
        folder: &tempfile::TempDir,
        id: u64,
        slots: &[Slot],
        filter: Option<&Arc<SharedFilter>>,
    ) -> Arc<Run> {
        let path = folder.path().join(format!("{id}.wsx"));
        let mut writer = RunWriter::create(&path, slots.len() as u64, 1 << 20, PAGE).unwrap();
        let mut sorted = slots.to_vec();
        sorted.sort_by_key(|slot| slot.key);
        for slot in &sorted {
            writer.push(&slot.to_bytes()).unwrap();
        }
        writer.finish().unwrap();
        let run = Run::open(&path, id, &ResidentPool::of(1 << 20), 0).unwrap();
        Arc::new(run.behind(filter.cloned()))
    }

    /// Rows found for these numbers.
    fn found(runs: &[Arc<Run>], numbers: &[u32]) -> Vec<Option<u32>> {
        let keys: Vec<Hash32> = numbers.iter().map(|number| slot(*number).key).collect();
        let mut found = vec![None; keys.len()];
        look_up_missing(runs, &keys, &mut found, &mut LookupMemory::default()).unwrap();
        let row = |entry: Option<IndexEntry>| entry.map(|entry| entry.row.row);
        found.into_iter().map(row).collect()
    }

    #[test]
    fn runs_with_one_filter_are_asked_only_for_what_passes_it_and_the_newest_one_answers() {
        let folder = tempfile::tempdir().unwrap();
        let filter = SharedFilter::with_room(100, &ResidentPool::of(1 << 20)).map(Arc::new);
        let filter = filter.unwrap();
        (1..4).for_each(|number| filter.add(&slot(number).key));
        let newer_two = Slot {
            key: slot(2).key,
            entry: slot(20).entry,
        };
        let runs = [
            run_of(&folder, 0, &[slot(0), slot(2)], None),
            run_of(&folder, 1, &[slot(1), slot(4)], Some(&filter)),
            run_of(&folder, 2, &[newer_two, slot(3)], Some(&filter)),
        ];
        assert_eq!(
            found(&runs, &[0, 1, 2, 3, 4, 5]),
            [Some(0), Some(1), Some(20), Some(3), None, None],
            "four was not added to the filter, so nobody looked"
        );
        assert_eq!(shared_filter_bytes(&runs), filter.memory_bytes());
    }
}
