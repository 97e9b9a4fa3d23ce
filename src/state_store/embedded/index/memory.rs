//! The memory table of an index shard, and how a shard spends its memory cap.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hint::black_box;
use wellspring_domain::admission::decision::IndexEntry;
use wellspring_domain::admission::index_format::{PAGE, Slot};
use wellspring_domain::ids::Hash32;
use wellspring_domain::prefetch::prefetch_value;

/// Bytes one key costs in a table: the slot, and number and control byte at a load of at least 7/16.
const TABLE_BYTES_PER_KEY: usize = size_of::<Slot>() + 12;
/// How many slots ahead memory is asked for: a table is larger than the processor's cache.
const SLOTS_AHEAD: usize = 16;
/// Bytes one key costs while a frozen table is sorted.
const SORT_BYTES_PER_KEY: usize = size_of::<(u64, u32)>();

/// How a shard spends its cap: an active table, a frozen one while it is written, and buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Keys after which a table is frozen.
    pub table_keys: usize,
    /// Bytes of one read or write buffer.
    pub buffer_bytes: usize,
}

impl MemoryPlan {
    /// The plan for a cap in bytes.
    pub fn of(cap: usize) -> MemoryPlan {
        let buffer_bytes = (cap / 256).clamp(PAGE, 64 * PAGE) / PAGE * PAGE;
        let tables = cap.saturating_sub(8 * buffer_bytes);
        let table_keys = (tables / (2 * TABLE_BYTES_PER_KEY + SORT_BYTES_PER_KEY)).max(4);
        MemoryPlan {
            table_keys,
            buffer_bytes,
        }
    }
}

/// Keys in memory: slots in the order they came, and a hash table of their numbers.
///
/// The slots grow at the end only, so memory is touched as keys come and there is one cache miss for
/// a key that is not there.
pub struct MemTable {
    slots: Vec<Slot>,
    numbers: HashTable<u32>,
    /// Keys it has room for.
    room: usize,
    /// Keys after which it is full this time.
    limit: usize,
}

impl MemTable {
    /// An empty table for `limit` keys; it never grows beyond that.
    pub fn with_limit(limit: usize) -> MemTable {
        MemTable {
            slots: Vec::with_capacity(limit),
            numbers: HashTable::with_capacity(limit),
            room: limit,
            limit,
        }
    }

    /// The same table, full earlier until it is cleared.
    pub fn full_at(self, limit: usize) -> MemTable {
        MemTable {
            limit: limit.min(self.room),
            ..self
        }
    }

    /// Forgets every key and keeps the memory: fresh memory has to be cleared page by page.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.numbers.clear();
        self.limit = self.room;
    }

    /// Adds a key, or replaces what was known of it.
    pub fn insert(&mut self, key: &Hash32, entry: IndexEntry) {
        let slots = &mut self.slots;
        let place = self.numbers.entry(
            hash_of(key),
            |n| slots[*n as usize].key == *key,
            |n| hash_of(&slots[*n as usize].key),
        );
        match place {
            Entry::Occupied(known) => slots[*known.get() as usize].entry = entry,
            Entry::Vacant(free) => {
                assert!(
                    slots.len() < self.limit,
                    "a full table is frozen before the next key"
                );
                free.insert(slots.len() as u32);
                slots.push(Slot { key: *key, entry });
                if let Some(ahead) = slots.spare_capacity_mut().get(SLOTS_AHEAD) {
                    prefetch_value(ahead);
                }
            }
        }
    }

    /// Brings what belongs to these keys into the processor's cache, waiting for all of it at once instead of once for
    /// each. To be called with a few keys, just before they are added.
    pub fn fetch<'k>(&self, keys: impl Iterator<Item = &'k Hash32>) {
        for key in keys {
            black_box(self.get(key));
        }
    }

    /// What is known of a key.
    pub fn get(&self, key: &Hash32) -> Option<IndexEntry> {
        let slots = &self.slots;
        self.numbers
            .find(hash_of(key), |n| slots[*n as usize].key == *key)
            .map(|number| slots[*number as usize].entry)
    }

    /// True when the table must be frozen before it takes another key.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.limit
    }

    /// True when half of what it takes is in it.
    pub fn is_half_full(&self) -> bool {
        self.slots.len() >= self.limit / 2
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes allocated.
    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.numbers.allocation_size()
    }

    /// The slots sorted by key.
    ///
    /// Each is somewhere else in memory, so it is asked for some time before it is used.
    pub fn sorted(&self) -> impl Iterator<Item = Slot> {
        let mut order: Vec<(u64, u32)> = self
            .slots
            .iter()
            .zip(0u32..)
            .map(|(slot, number)| (slot.key.leading_u64(), number))
            .collect();
        order.sort_unstable_by(|a, b| {
            let key = |number: u32| &self.slots[number as usize].key;
            a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1)))
        });
        let slot = move |place: usize| {
            if let Some((_, ahead)) = order.get(place + SLOTS_AHEAD) {
                prefetch_value(&self.slots[*ahead as usize]);
            }
            self.slots[order[place].1 as usize]
        };
        (0..self.slots.len()).map(slot)
    }
}

/// Keys are digests: eight of their bytes, none of which choose shard or run place, are hash enough.
fn hash_of(key: &Hash32) -> u64 {
    u64::from_le_bytes(key.0[8..16].try_into().expect("eight of thirty-two bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_domain::admission::decision::RowRef;

    fn entry(row: u32) -> IndexEntry {
        IndexEntry {
            payload_hash: Hash32::of(&row.to_be_bytes()),
            row: RowRef {
                shard: 0,
                segment: 0,
                row,
            },
        }
    }

    #[test]
    fn a_table_stays_within_what_the_plan_counts_for_it() {
        for cap in [1 << 16, 1 << 20, 3 << 20, 64 << 20] {
            let plan = MemoryPlan::of(cap);
            let table = MemTable::with_limit(plan.table_keys);
            let sorting = plan.table_keys * SORT_BYTES_PER_KEY;
            let total = 2 * table.memory_bytes() + sorting + 8 * plan.buffer_bytes;
            assert!(total <= cap, "{total} of {cap}");
        }
    }

    #[test]
    fn keys_come_back_sorted_and_the_last_value_wins() {
        let mut table = MemTable::with_limit(100);
        for number in 0..100u32 {
            table.insert(&Hash32::of(&number.to_be_bytes()), entry(number));
        }
        assert!(table.is_full());
        table.insert(&Hash32::of(&7u32.to_be_bytes()), entry(700));
        assert_eq!(
            table.get(&Hash32::of(&7u32.to_be_bytes())),
            Some(entry(700))
        );
        assert_eq!(table.get(&Hash32::of(b"absent")), None);
        let keys: Vec<Hash32> = table.sorted().map(|slot| slot.key).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
        let memory = table.memory_bytes();
        table.clear();
        assert_eq!((table.len(), table.get(&keys[0])), (0, None));
        assert_eq!(table.memory_bytes(), memory);
    }

    #[test]
    fn a_table_that_is_full_early_once_has_all_its_room_the_next_time() {
        let mut table = MemTable::with_limit(10).full_at(4);
        let memory = table.memory_bytes();
        let filled = |table: &mut MemTable| {
            for number in 0u32.. {
                if table.is_full() {
                    break;
                }
                table.insert(&Hash32::of(&number.to_be_bytes()), entry(number));
            }
            table.len()
        };
        assert_eq!(filled(&mut table), 4);
        table.clear();
        assert_eq!(filled(&mut table), 10);
        assert_eq!(table.memory_bytes(), memory);
    }
}
