//! The slots of a table, kept apart by ranges of their keys.
//!
//! A table is written in key order. If its slots lay in the order they came, each would be read from another page of
//! memory then, and waiting for that was most of what writing costs. So a slot goes to the end of its range at once:
//! there are few enough ranges that their ends stay in the processor's cache, and a range is small enough to be sorted
//! in it. Memory is given to ranges in chunks, so it does not matter how evenly keys are spread.

use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::index_format::Slot;
use wellspring_domain::ids::Hash32;
use wellspring_domain::prefetch::prefetch_value;

/// Slots a range is given at once; a power of two.
const CHUNK: usize = 256;
/// Slots of a range when keys are spread evenly.
const RANGE: usize = 32 * CHUNK;
/// Bytes a slot costs while its range is sorted.
pub const SORTING_BYTES_PER_KEY: usize = size_of::<(u64, &Slot)>();
/// Bytes sorting takes at most while keys are spread evenly: a range is less than twice as long as it should be.
pub const SORTING_BYTES_MAX: usize = 2 * RANGE * SORTING_BYTES_PER_KEY;
/// What is in a slot that was not pushed yet.
const NOTHING: Slot = Slot {
    key: Hash32([0; 32]),
    entry: IndexEntry {
        payload_hash: Hash32([0; 32]),
        row: RowRef {
            shard: 0,
            segment: 0,
            row: 0,
        },
    },
};
/// How many slots ahead memory is asked for.
const SLOTS_AHEAD: usize = 8;

/// Slots by number, and in key order.
pub struct SlotStore {
    /// Chunk after chunk, filled up with slots that say nothing.
    slots: Vec<Slot>,
    ranges: Vec<Range>,
    /// Slots all chunks together may have.
    room: usize,
    len: usize,
}

/// The slots of one range of keys.
#[derive(Clone, Default)]
struct Range {
    /// Numbers of the first slots of its chunks.
    chunks: Vec<u32>,
    /// Number of the slot that is filled next, and the first behind the chunk.
    next: u32,
    end: u32,
}

impl SlotStore {
    /// An empty store that takes the memory of `room` slots at most.
    pub fn with_room(room: usize) -> SlotStore {
        SlotStore {
            slots: Vec::with_capacity(room),
            ranges: vec![Range::default(); (room / RANGE).max(1)],
            room,
            len: 0,
        }
    }

    /// Slots it takes whatever their keys are: every range but one may end in a chunk that is nearly empty.
    pub fn limit(&self) -> usize {
        self.room - (self.ranges.len() - 1) * CHUNK
    }

    /// Adds a slot and gives its number. There must be fewer than [`SlotStore::limit`].
    pub fn push(&mut self, slot: Slot) -> u32 {
        // Ranges grow with the key.
        let part = u128::from(slot.key.leading_u64()) * self.ranges.len() as u128;
        let range = &mut self.ranges[(part >> 64) as usize];
        if range.next == range.end {
            let first = self.slots.len();
            self.slots.resize((first + CHUNK).min(self.room), NOTHING);
            range.chunks.push(first as u32);
            (range.next, range.end) = (first as u32, self.slots.len() as u32);
        }
        let number = range.next;
        self.slots[number as usize] = slot;
        range.next += 1;
        // The next slot of this range comes after about one of every other range.
        if let Some(next) = self.slots.get(range.next as usize) {
            prefetch_value(next);
        }
        self.len += 1;
        number
    }

    /// The slot with this number.
    #[inline]
    pub fn slot(&self, number: u32) -> &Slot {
        &self.slots[number as usize]
    }

    /// The same, to be changed; its key stays.
    pub fn slot_mut(&mut self, number: u32) -> &mut Slot {
        &mut self.slots[number as usize]
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Forgets every slot and keeps the memory: fresh memory has to be cleared page by page.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.ranges.fill(Range::default());
        self.len = 0;
    }

    /// All slots in key order.
    pub fn sorted(&self) -> impl Iterator<Item = Slot> {
        self.ranges
            .iter()
            .flat_map(|range| self.sorted_range(range))
    }

    fn sorted_range(&self, range: &Range) -> impl Iterator<Item = Slot> {
        let chunks = range.chunks.iter().map(|first| *first as usize);
        let numbers = chunks.flat_map(|first| first..first + CHUNK);
        let is_filled =
            |number: &usize| !(range.next as usize..range.end as usize).contains(number);
        let slots = numbers
            .filter(is_filled)
            .map_while(|number| self.slots.get(number));
        let mut order: Vec<(u64, &Slot)> =
            slots.map(|slot| (slot.key.leading_u64(), slot)).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.key.cmp(&b.1.key)));
        let slot = move |place: usize| {
            if let Some((_, ahead)) = order.get(place + SLOTS_AHEAD) {
                prefetch_value(*ahead);
            }
            order.get(place).map(|(_, slot)| **slot)
        };
        (0..).map_while(slot)
    }

    /// Bytes allocated, and those of sorting one range.
    pub fn memory_bytes(&self) -> usize {
        let chunks = self.ranges.iter().map(|range| range.chunks.len()).max();
        let longest = chunks.unwrap_or(0) * CHUNK;
        self.slots.capacity() * size_of::<Slot>() + longest.min(self.len) * SORTING_BYTES_PER_KEY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(first: u8, number: u32) -> Slot {
        let mut key = Hash32::of(&number.to_be_bytes());
        key.0[0] = first;
        Slot {
            key,
            entry: IndexEntry {
                payload_hash: Hash32::of(b"p"),
                row: RowRef {
                    row: number,
                    ..RowRef::default()
                },
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// However uneven the keys are: as many as promised find room, twice, and come back by number and in order.
        #[test]
        fn it_takes_as_many_as_it_promised_whatever_their_keys(
            room in 1..5 * RANGE,
            firsts in prop::collection::vec(any::<u8>(), 1..9),
        ) {
            let mut store = SlotStore::with_room(room);
            for _ in 0..2 {
                let slots: Vec<Slot> = firsts.iter().cycle().zip(0..store.limit() as u32)
                    .map(|(first, number)| slot(*first, number)).collect();
                let numbers: Vec<u32> = slots.iter().map(|slot| store.push(*slot)).collect();
                prop_assert_eq!(store.len(), slots.len());
                prop_assert!(store.slots.len() <= room && store.slots.capacity() == room);
                for (number, slot) in numbers.iter().zip(&slots) {
                    prop_assert!(store.slot(*number) == slot && store.slot_mut(*number) == slot);
                }
                let mut expected = slots;
                expected.sort_by_key(|slot| slot.key);
                prop_assert!(store.sorted().eq(expected));
                store.clear();
                prop_assert_eq!(store.len(), 0);
                prop_assert!(store.sorted().next().is_none());
            }
        }
    }
}
