//! One index shard: the active table in front, frozen table and runs behind it.

use super::background::Background;
use super::lookup::{LookupMemory, look_up_missing};
use super::manifest::Coverage;
use super::memory::MemTable;
use super::merge::MergedScan;
use super::shared::{Shared, View};
use super::table_pool::{TableLease, TablePool};
use std::sync::Arc;
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::index_format::Slot;
use wellspring_domain::admission::key_table::FETCHED_AT_ONCE;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{AdmissionIndex, StoreError};

/// The admitted keys of one index shard of one run.
pub struct IndexShard {
    shared: Arc<Shared>,
    background: Arc<Background>,
    active: MemTable,
    /// What the active table and the frozen one may take.
    lease: TableLease,
    /// Journal rows whose keys are in the active table or behind it.
    inserted: Coverage,
    memory: LookupMemory,
}

impl IndexShard {
    /// A shard over its opened runs.
    pub fn new(shared: Shared, background: Arc<Background>, tables: &Arc<TablePool>) -> IndexShard {
        let (lease, bytes) = tables.lease();
        let place = &shared.place;
        let table = MemTable::of(bytes).full_early(place.shard, place.index_shards);
        IndexShard {
            active: table.touched(),
            lease,
            inserted: shared.coverage(),
            shared: Arc::new(shared),
            background,
            memory: LookupMemory::default(),
        }
    }

    /// The last row of an admission shard whose keys are in this index shard.
    pub fn inserted_through(&self, admission_shard: u16) -> Option<RowRef> {
        self.inserted.get(&admission_shard).copied()
    }

    /// Visits every key once, in no order that means anything.
    pub fn visit(&self, visit: &mut dyn FnMut(&Slot)) -> Result<(), StoreError> {
        self.shared.settle()?;
        let View { runs, .. } = self.shared.view()?;
        let mut merged = MergedScan::new(&runs, self.shared.place.buffer_bytes)?;
        while let Some(entry) = merged.current() {
            let slot = Slot::from_bytes(entry);
            if self.active.get(&slot.key).is_none() {
                visit(&slot);
            }
            merged.advance()?;
        }
        self.active.sorted().for_each(|slot| visit(&slot));
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), StoreError> {
        let full = std::mem::replace(&mut self.active, MemTable::with_room(0));
        let full_bytes = full.bytes();
        let written = self.shared.freeze(full, self.inserted.clone())?;
        let bytes = self.lease.next_table(full_bytes);
        self.active = written
            .and_then(|table| table.emptied(bytes))
            .unwrap_or_else(|| MemTable::of(bytes));
        self.background.write(&self.shared)
    }

    fn look_up(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError> {
        let View {
            frozen,
            runs,
            filters,
        } = self.shared.view()?;
        let frozen = frozen.as_deref();
        found.extend(keys.iter().map(|key| {
            let active = self.active.get(key);
            active.or_else(|| frozen.and_then(|table| table.get(key)))
        }));
        look_up_missing(&runs, &filters, keys, found, &mut self.memory)
    }
}

impl AdmissionIndex for IndexShard {
    fn lookup(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError> {
        found.clear();
        let result = self.look_up(keys, found);
        if let Err(error @ StoreError::Damaged { .. }) = &result {
            self.shared.give_up_runs(error);
        }
        result
    }

    fn insert(
        &mut self,
        entries: &[(Hash32, IndexEntry)],
        through: RowRef,
    ) -> Result<(), StoreError> {
        for some in entries.chunks(FETCHED_AT_ONCE) {
            self.active.fetch(some.iter().map(|(key, _)| key));
            for (key, entry) in some {
                if self.active.is_full() {
                    self.freeze()?;
                }
                self.active.insert(key, *entry);
            }
        }
        if self.active.is_half_full() {
            self.shared.hurry(true);
        }
        let last = self.inserted.entry(through.shard).or_insert(through);
        *last = through.max(*last);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.active.memory_bytes() + self.shared.memory_bytes()
    }
}
