//! Values by digest, for keys that come and leave in about the same order: claims in flight.
//!
//! A hash table of numbers is a few bytes per key and stays in the processor's cache; keys and values lie beside
//! each other in slots, and the slot that became empty last is filled next, because it is in the cache too. A table
//! of keys and values would miss the cache with every step.

use crate::ids::Hash32;
use crate::prefetch::prefetch_value;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hint::black_box;

/// How many keys are fetched together ([`KeyTable::fetch`]): enough to hide the wait for memory behind each other, and
/// what belongs to them stays in the cache until it is used.
pub const FETCHED_AT_ONCE: usize = 32;

/// How many more keys come before the slot that is asked for is filled.
const SLOTS_AHEAD: usize = 7;

/// Where a key lies, for as long as it is not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// Places are numbered from 0, and a number is given again before a larger one is.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// Keys and their values.
#[derive(Debug)]
pub struct KeyTable<V> {
    numbers: HashTable<u32>,
    slots: Vec<Option<(Hash32, V)>>,
    /// Empty slots, the one empty for longest first.
    free: Vec<u32>,
}

impl<V> Default for KeyTable<V> {
    fn default() -> KeyTable<V> {
        KeyTable {
            numbers: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<V> KeyTable<V> {
    /// Finds a key, or adds it with this value. True when it was added.
    pub fn find_or_insert(&mut self, key: Hash32, value: V) -> (Place, bool) {
        let slots = &mut self.slots;
        let entry = self.numbers.entry(
            key.leading_u64(),
            |number| holds(slots, *number, &key),
            |number| hash_at(slots, *number),
        );
        match entry {
            Entry::Occupied(found) => (Place(*found.get()), false),
            Entry::Vacant(vacant) => {
                let filled = Some((key, value));
                let number = match self.free.pop() {
                    Some(number) => {
                        slots[number as usize] = filled;
                        if let Some(ahead) = self.free.iter().nth_back(SLOTS_AHEAD) {
                            prefetch_value(&slots[*ahead as usize]);
                        }
                        number
                    }
                    None => {
                        slots.push(filled);
                        (slots.len() - 1) as u32
                    }
                };
                vacant.insert(number);
                (Place(number), true)
            }
        }
    }

    /// Brings what belongs to these keys into the processor's cache, waiting for all of it at once instead of once for
    /// each. To be called with a few keys, just before each of them is looked for.
    pub fn fetch<'k>(&self, keys: impl Iterator<Item = &'k Hash32>) {
        for key in keys {
            black_box(self.find(key));
        }
    }

    /// Where a key lies.
    pub fn find(&self, key: &Hash32) -> Option<Place> {
        let slots = &self.slots;
        let found = self
            .numbers
            .find(key.leading_u64(), |number| holds(slots, *number, key));
        found.map(|number| Place(*number))
    }

    /// The value of a key that was not removed since, to look at or change; none when it was.
    pub fn at_mut(&mut self, place: Place) -> Option<&mut V> {
        let slot = self.slots.get_mut(place.0 as usize)?.as_mut();
        slot.map(|(_, value)| value)
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &Hash32) -> Option<V> {
        let slots = &mut self.slots;
        let found = self
            .numbers
            .find_entry(key.leading_u64(), |number| holds(slots, *number, key));
        let (number, _) = found.ok()?.remove();
        self.free.push(number);
        slots[number as usize].take().map(|(_, value)| value)
    }

    /// Keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &(Hash32, V)> {
        self.slots.iter().flatten()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// True without any key.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

fn holds<V>(slots: &[Option<(Hash32, V)>], number: u32, key: &Hash32) -> bool {
    let slot = slots[number as usize].as_ref();
    slot.is_some_and(|(held, _)| held == key)
}

/// Digests are uniform already.
fn hash_at<V>(slots: &[Option<(Hash32, V)>], number: u32) -> u64 {
    let slot = slots[number as usize].as_ref();
    slot.map_or(0, |(held, _)| held.leading_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key(number: u8) -> Hash32 {
        // Every fourth key begins with the same eight bytes.
        let mut digest = Hash32::of(&[number % 4]);
        digest.0[31] = number;
        digest
    }

    #[test]
    fn the_slot_that_became_empty_last_is_filled_first() {
        let mut table = KeyTable::default();
        let places: Vec<Place> = (0..4).map(|n| table.find_or_insert(key(n), n).0).collect();
        for number in [1, 0, 2] {
            assert_eq!(table.remove(&key(number)), Some(number));
        }
        let again: Vec<Place> = (4..8).map(|n| table.find_or_insert(key(n), n).0).collect();
        assert_eq!(again[..3], [places[2], places[0], places[1]]);
        assert_eq!(table.slots.len(), 5);
        assert_eq!(table.at_mut(places[2]).copied(), Some(4));
        table.remove(&key(4));
        assert_eq!(table.at_mut(places[2]), None);
    }

    proptest! {
        /// Against a map: whatever comes and leaves, also keys whose hashes are the same.
        #[test]
        fn it_holds_what_a_map_would_hold(
            steps in prop::collection::vec((0u8..24, 0u8..3, any::<u32>()), 0..300),
        ) {
            let mut table = KeyTable::default();
            let mut model: BTreeMap<Hash32, u32> = BTreeMap::new();
            for (number, step, value) in steps {
                let key = key(number);
                match step {
                    0 => {
                        let (place, added) = table.find_or_insert(key, value);
                        prop_assert_eq!(added, !model.contains_key(&key));
                        let held = *model.entry(key).or_insert(value);
                        prop_assert_eq!(table.at_mut(place).copied(), Some(held));
                    }
                    1 => prop_assert_eq!(table.remove(&key), model.remove(&key)),
                    _ => {
                        let place = table.find(&key);
                        prop_assert_eq!(place.is_some(), model.contains_key(&key));
                        if let Some(held) = place.and_then(|place| table.at_mut(place)) {
                            *held = value;
                            model.insert(key, value);
                        }
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let held: BTreeMap<Hash32, u32> = table.iter().copied().collect();
            prop_assert_eq!(held, model);
        }
    }
}
