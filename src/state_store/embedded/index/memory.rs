//! The memory table of an index shard.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hint::black_box;
use wellspring_domain::admission::decision::IndexEntry;
use wellspring_domain::admission::index_format::Slot;
use wellspring_domain::ids::Hash32;
use wellspring_domain::prefetch::prefetch_value;

/// How many slots ahead memory is asked for: a table is larger than the processor's cache.
const SLOTS_AHEAD: usize = 16;
/// Bytes one key costs: the slot, number and control byte at a load of at least 7/16, and its place in key order while
/// the table is written.
const BYTES_PER_KEY: usize = size_of::<Slot>() + 12 + size_of::<(u64, u32)>();
/// Fewer keys than any table has room for.
const KEYS_MIN: usize = 4;

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
    /// An empty table of at most so many bytes.
    pub fn of(bytes: usize) -> MemTable {
        MemTable::with_room((bytes / BYTES_PER_KEY).max(KEYS_MIN))
    }

    /// An empty table for so many keys; it never grows beyond that.
    pub fn with_room(limit: usize) -> MemTable {
        MemTable {
            slots: Vec::with_capacity(limit),
            numbers: HashTable::with_capacity(limit),
            room: limit,
            limit,
        }
    }

    /// The same table, full earlier this once.
    ///
    /// Keys are spread evenly, so tables of all shards that begin together would be full together. The first of each
    /// shard has a limit of its own; from then on they take turns.
    pub fn full_early(self, shard: u16, shards: u16) -> MemTable {
        let part = (usize::from(shard) + 1) * self.room / usize::from(shards);
        MemTable {
            limit: part.max(1),
            ..self
        }
    }

    /// Bytes it takes when it is full and written.
    pub fn bytes(&self) -> usize {
        self.room * BYTES_PER_KEY
    }

    /// The same table without keys, if it is about as large as `bytes` allow. Its memory is kept: fresh memory has to be
    /// cleared page by page.
    pub fn emptied(mut self, bytes: usize) -> Option<MemTable> {
        self.slots.clear();
        self.numbers.clear();
        self.limit = self.room;
        let least = bytes - bytes / 4;
        (least..=bytes).contains(&self.bytes()).then_some(self)
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
    fn a_table_stays_within_its_bytes() {
        for bytes in [1 << 10, 1 << 16, 1 << 20, 3 << 20, 64 << 20] {
            let table = MemTable::of(bytes);
            let sorting = table.room * size_of::<(u64, u32)>();
            let total = table.memory_bytes() + sorting;
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
        assert_eq!(table.memory_bytes(), memory);
        assert!(table.emptied(bytes - 1).is_none(), "it takes too much");
        assert!(
            MemTable::with_room(100).emptied(2 * bytes).is_none(),
            "half of what it may take"
        );
    }

    #[test]
    fn a_table_that_is_full_early_once_has_all_its_room_the_next_time() {
        let mut table = MemTable::with_room(10).full_early(1, 5);
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
        let bytes = table.bytes();
        let mut table = table.emptied(bytes).unwrap();
        assert_eq!(filled(&mut table), 10);
        assert_eq!(table.memory_bytes(), memory);
    }
}
