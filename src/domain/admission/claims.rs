//! Claims: of two racing copies of an event exactly one may proceed (contract 7.3, step 7).
//!
//! A claim is held by an admission shard from the moment it is granted until its event is durable
//! (settled) or will never be (released). Meanwhile other shards that ask for the same key are parked
//! and told the outcome; the key's own shard is told where its claim is noted, and knows what it did with it.
//!
//! What stays true: a key has at most one holder, and every parked shard is told exactly once.

use crate::admission::key_table::{KeyTable, Place};
use crate::ids::Hash32;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Hashes a digest by its own leading bytes: they are uniform already.
#[derive(Default, Clone, Copy)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.get(..8) {
            self.0 = u64::from_le_bytes(head.try_into().expect("eight bytes"));
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map keyed by digests.
pub type DigestMap<V> = HashMap<Hash32, V, BuildHasherDefault<DigestHasher>>;

/// Answer to a claim whose key is not admitted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The key is yours until you settle or release it. Until then nothing else is noted at this place.
    Won(Place),
    /// The key is yours already.
    Yours(Place),
    /// Another shard holds it; you will be told.
    Parked,
}

/// The claims one index shard holds for one run.
#[derive(Debug, Default)]
pub struct ClaimTable {
    held: KeyTable<Holder>,
    /// Shards to tell, for the few keys others wait for.
    waiting: DigestMap<Vec<u16>>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    shard: u16,
    /// Whether others wait.
    awaited: bool,
}

impl ClaimTable {
    /// Asks for a key that the index does not hold.
    pub fn claim(&mut self, key: Hash32, shard: u16) -> Claim {
        let new = Holder {
            shard,
            awaited: false,
        };
        let (place, won) = self.held.find_or_insert(key, new);
        if won {
            return Claim::Won(place);
        }
        if let Some(holder) = self.held.at_mut(place) {
            if holder.shard == shard {
                return Claim::Yours(place);
            }
            holder.awaited = true;
        }
        let waiting = self.waiting.entry(key).or_default();
        if !waiting.contains(&shard) {
            waiting.push(shard);
        }
        Claim::Parked
    }

    /// Brings what belongs to these keys into the cache ([`KeyTable::fetch`]).
    pub fn fetch<'k>(&self, keys: impl Iterator<Item = &'k Hash32>) {
        self.held.fetch(keys);
    }

    /// Ends a claim, whether its event is durable now or will never be. Returns the shards to tell.
    pub fn end(&mut self, key: &Hash32) -> Vec<u16> {
        let holder = self.held.remove(key);
        match holder.is_some_and(|holder| holder.awaited) {
            true => self.waiting.remove(key).unwrap_or_default(),
            false => Vec::new(),
        }
    }

    /// Keys a shard holds: what must be settled or released when its generation ends.
    pub fn held_by(&self, shard: u16) -> Vec<Hash32> {
        let mut keys: Vec<Hash32> = self
            .held
            .iter()
            .filter(|(_, holder)| holder.shard == shard)
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Forgets that a shard waits: its generation has ended and its parked copies were answered.
    pub fn forget_waiting(&mut self, shard: u16) {
        for shards in self.waiting.values_mut() {
            shards.retain(|waiting| *waiting != shard);
        }
    }

    /// Number of claims held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// True when no claim is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn key(number: u8) -> Hash32 {
        Hash32::of(&[number])
    }

    #[test]
    fn of_two_racing_copies_one_wins_and_the_other_is_told_once() {
        let mut table = ClaimTable::default();
        assert!(matches!(table.claim(key(1), 0), Claim::Won(_)));
        assert_eq!(table.claim(key(1), 1), Claim::Parked);
        assert_eq!(table.claim(key(1), 1), Claim::Parked);
        assert_eq!(table.end(&key(1)), [1]);
        assert!(table.end(&key(1)).is_empty());
        assert!(matches!(table.claim(key(1), 1), Claim::Won(_)));
    }

    #[test]
    fn a_generation_that_ends_leaves_nothing_behind() {
        let mut table = ClaimTable::default();
        table.claim(key(1), 0);
        table.claim(key(2), 1);
        table.claim(key(2), 0);
        assert_eq!(table.held_by(0), [key(1)]);
        table.forget_waiting(0);
        assert!(table.end(&key(2)).is_empty());
        table.end(&key(1));
        assert!(table.is_empty());
    }

    proptest! {
        /// Against a model: at any time a key has the holder that claimed it first since it was last free, and a place
        /// of its own.
        #[test]
        fn a_key_never_has_two_holders(steps in prop::collection::vec((0u8..6, 0u16..4, any::<bool>()), 0..200)) {
            let mut table = ClaimTable::default();
            let mut model: BTreeMap<u8, (u16, Place, BTreeSet<u16>)> = BTreeMap::new();
            for (number, shard, end) in steps {
                if end {
                    let told: BTreeSet<u16> = table.end(&key(number)).into_iter().collect();
                    prop_assert_eq!(told, model.remove(&number).map(|(_, _, waiting)| waiting).unwrap_or_default());
                    continue;
                }
                let claim = table.claim(key(number), shard);
                match model.get_mut(&number) {
                    None => {
                        let Claim::Won(place) = claim else {
                            panic!("{claim:?} of a free key");
                        };
                        prop_assert!(model.values().all(|(_, other, _)| *other != place));
                        model.insert(number, (shard, place, BTreeSet::new()));
                    }
                    Some((holder, place, _)) if *holder == shard => {
                        prop_assert_eq!(claim, Claim::Yours(*place));
                    }
                    Some((_, _, waiting)) => {
                        prop_assert_eq!(claim, Claim::Parked);
                        waiting.insert(shard);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
