//! Looking for keys in the runs of a shard: the newest first, in most of them only for keys that pass a filter of all.

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
    /// Those of them that a filter of the shard lets pass.
    passed: Vec<u32>,
    run: RunLookupMemory,
}

/// Looks for the keys that are missing in `found`; `runs` are oldest first, `filters` are those of the shard.
pub fn look_up_missing(
    runs: &[Arc<Run>],
    filters: &[Arc<SharedFilter>],
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
    let_pass(filters, keys, missing, passed);
    for newest in runs.iter().rev() {
        let numbers = match newest.is_filtered() {
            true => &*passed,
            false => &*missing,
        };
        newest.lookup_missing(keys, numbers, found, run)?;
    }
    Ok(())
}

/// Gathers the numbers of keys that one of the filters may hold.
fn let_pass(
    filters: &[Arc<SharedFilter>],
    keys: &[Hash32],
    numbers: &[u32],
    passed: &mut Vec<u32>,
) {
    passed.clear();
    for some in numbers.chunks(LINES_AT_ONCE) {
        let key = |number: &u32| &keys[*number as usize];
        for filter in filters {
            let lines = some.iter().map(|number| filter.fetch(key(number)));
            std::hint::black_box(lines.fold(0, |seen, word| seen ^ word));
        }
        let may_hold = |number: &&u32| filters.iter().any(|filter| filter.may_hold(key(number)));
        passed.extend(some.iter().filter(may_hold));
    }
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

    fn run_of(folder: &tempfile::TempDir, id: u64, slots: &[Slot], is_filtered: bool) -> Arc<Run> {
        let path = folder.path().join(format!("{id}.wsx"));
        let mut writer = RunWriter::create(&path, slots.len() as u64, 1 << 20, PAGE).unwrap();
        let mut sorted = slots.to_vec();
        sorted.sort_by_key(|slot| slot.key);
        for slot in &sorted {
            writer.push(&slot.to_bytes()).unwrap();
        }
        writer.finish().unwrap();
        let run = Run::open(&path, id, &ResidentPool::of(1 << 20), 0).unwrap();
        Arc::new(run.filtered(is_filtered))
    }

    fn filter_of(numbers: &[u32]) -> Arc<SharedFilter> {
        let filter = SharedFilter::behind(None, 100, &ResidentPool::of(1 << 20)).unwrap();
        numbers
            .iter()
            .for_each(|number| filter.add(&slot(*number).key));
        Arc::new(filter)
    }

    #[test]
    fn filtered_runs_are_asked_only_for_what_passes_a_filter_and_the_newest_one_answers() {
        let folder = tempfile::tempdir().unwrap();
        let newer_two = Slot {
            key: slot(2).key,
            entry: slot(20).entry,
        };
        let runs = [
            run_of(&folder, 0, &[slot(0), slot(2)], false),
            run_of(&folder, 1, &[slot(1), slot(4)], true),
            run_of(&folder, 2, &[newer_two, slot(3)], true),
        ];
        let filters = [filter_of(&[1, 2]), filter_of(&[3])];
        let keys: Vec<Hash32> = (0..6).map(|number| slot(number).key).collect();
        let mut found = vec![None; keys.len()];
        let memory = &mut LookupMemory::default();
        look_up_missing(&runs, &filters, &keys, &mut found, memory).unwrap();
        let row = |entry: Option<IndexEntry>| entry.map(|entry| entry.row.row);
        let rows: Vec<Option<u32>> = found.into_iter().map(row).collect();
        assert_eq!(
            rows,
            [Some(0), Some(1), Some(20), Some(3), None, None],
            "four was not added to a filter, so nobody looked"
        );
    }
}
