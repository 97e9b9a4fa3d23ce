//! The memory table of an index shard.

use super::slot_store::{SORTING_BYTES_MAX, SORTING_BYTES_PER_KEY, SlotStore};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hint::black_box;
use wellspring_domain::admission::decision::IndexEntry;
use wellspring_domain::admission::index_format::{PAGE, Slot};
use wellspring_domain::ids::Hash32;

/// Bytes one key costs: the slot, number and control byte at a load of at least 7/16.
const BYTES_PER_KEY: usize = size_of::<Slot>() + 12;
/// Fewer keys than any table has room for.
const KEYS_MIN: usize = 4;

/// Keys in memory: slots, and a hash table of their numbers.
///
/// Memory is touched as keys come, and there is one cache miss for a key that is not there.
pub struct MemTable {
    slots: SlotStore,
    numbers: HashTable<u32>,
    /// Slots it has memory for.
    room: usize,
    /// Keys after which it is full this time.
    limit: usize,
}

impl MemTable {
    /// An empty table of at most so many bytes.
    pub fn of(bytes: usize) -> MemTable {
        let in_one_range = bytes / (BYTES_PER_KEY + SORTING_BYTES_PER_KEY);
        let in_many = bytes.saturating_sub(SORTING_BYTES_MAX) / BYTES_PER_KEY;
        MemTable::with_room(in_one_range.max(in_many).max(KEYS_MIN))
    }

    /// An empty table with memory for so many slots; it never grows beyond that.
    pub fn with_room(room: usize) -> MemTable {
        let slots = SlotStore::with_room(room);
        let limit = slots.limit();
        MemTable {
            slots,
            numbers: HashTable::with_capacity(limit),
            room,
            limit,
        }
    }

    /// The same table, full earlier this once.
    ///
    /// Keys are spread evenly, so tables of all shards that begin together would be full together. The first of each
    /// shard has a limit of its own; from then on they take turns.
    pub fn full_early(self, shard: u16, shards: u16) -> MemTable {
        let part = (usize::from(shard) + 1) * self.limit / usize::from(shards);
        MemTable {
            limit: part.max(1),
            ..self
        }
    }

    /// The same table, empty, its numbers' memory touched. Keys lie anywhere in it, so the first thousands of a run
    /// would each wait for a fresh page, all of them at once.
    pub fn touched(mut self) -> MemTable {
        let places = self.numbers.capacity() as u64 * 8 / 7;
        for place in (0..places).step_by(PAGE / size_of::<u32>()) {
            self.numbers.insert_unique(place, 0, |_| place);
        }
        self.numbers.clear();
        self
    }

    /// Bytes it takes when it is full and written.
    pub fn bytes(&self) -> usize {
        self.room * BYTES_PER_KEY + (self.room * SORTING_BYTES_PER_KEY).min(SORTING_BYTES_MAX)
    }

    /// The same table without keys, if it is about as large as `bytes` allow. Its memory is kept: fresh memory has to be
    /// cleared page by page.
    pub fn emptied(mut self, bytes: usize) -> Option<MemTable> {
        self.slots.clear();
        self.numbers.clear();
        self.limit = self.slots.limit();
        let least = bytes - bytes / 8;
        (least..=bytes).contains(&self.bytes()).then_some(self)
    }

    /// Adds a key, or replaces what was known of it.
    pub fn insert(&mut self, key: &Hash32, entry: IndexEntry) {
        let slots = &mut self.slots;
        let place = self.numbers.entry(
            hash_of(key),
            |number| slots.slot(*number).key == *key,
            |number| hash_of(&slots.slot(*number).key),
        );
        match place {
            Entry::Occupied(known) => slots.slot_mut(*known.get()).entry = entry,
            Entry::Vacant(free) => {
                assert!(
                    slots.len() < self.limit,
                    "a full table is frozen before the next key"
                );
                free.insert(slots.push(Slot { key: *key, entry }));
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
    #[inline]
    pub fn get(&self, key: &Hash32) -> Option<IndexEntry> {
        let slots = &self.slots;
        self.numbers
            .find(hash_of(key), |number| slots.slot(*number).key == *key)
            .map(|number| slots.slot(*number).entry)
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

    /// Bytes allocated, with what writing it takes.
    pub fn memory_bytes(&self) -> usize {
        self.slots.memory_bytes() + self.numbers.allocation_size()
    }

    /// The slots sorted by key.
    pub fn sorted(&self) -> impl Iterator<Item = Slot> {
        self.slots.sorted()
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
    fn a_table_stays_within_its_bytes() {
        for bytes in [
            1 << 10,
            1 << 16,
            1 << 20,
            1_500_000,
            1_800_000,
            3 << 20,
            64 << 20,
        ] {
            let mut table = MemTable::of(bytes);
            for number in 0u32.. {
                if table.is_full() {
                    break;
                }
                table.insert(&Hash32::of(&number.to_be_bytes()), entry(number));
            }
            let total = table.memory_bytes();
            assert!(
                total <= bytes && table.bytes() <= bytes,
                "{total} of {bytes}"
            );
        }
    }

    #[test]
    fn keys_come_back_sorted_and_the_last_value_wins() {
        let mut table = MemTable::with_room(100);
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
        let (memory, bytes) = (table.memory_bytes(), table.bytes());
        let table = table.emptied(bytes + 1).unwrap();
        assert_eq!((table.len(), table.get(&keys[0])), (0, None));
        assert!(table.memory_bytes() <= memory);
        assert!(table.emptied(bytes - 1).is_none(), "it takes too much");
        assert!(
            MemTable::with_room(100).emptied(2 * bytes).is_none(),
            "half of what it may take"
        );
    }

    #[test]
    fn a_touched_table_is_as_empty_as_before_and_has_as_much_room() {
        let key = |number: u32| Hash32::of(&number.to_be_bytes());
        let mut table = MemTable::with_room(5000).touched();
        let limit = table.limit as u32;
        assert_eq!((table.len(), table.get(&key(0))), (0, None));
        (0..limit).for_each(|number| table.insert(&key(number), entry(number)));
        assert!(table.is_full());
        assert!((0..limit).all(|number| table.get(&key(number)) == Some(entry(number))));
        assert!(table.memory_bytes() <= table.bytes());
    }

    #[test]
    fn a_table_that_is_full_early_once_has_all_its_room_the_next_time() {
        let mut table = MemTable::with_room(10).full_early(1, 5);
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
        let bytes = table.bytes();
        let mut table = table.emptied(bytes).unwrap();
        assert_eq!(filled(&mut table), 10);
    }
}
