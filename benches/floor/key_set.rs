//! Floor of claims: a hash table in memory, sized ahead, that knows every key and its payload hash.
//!
//! The table holds row numbers; keys stand in the order they came, so the table itself is five bytes a key and
//! a new key costs one cache miss. A key is its own hash. Nothing is durable, nothing bounds the memory.

use hashbrown::HashTable;
use wellspring_domain::ids::Hash32;

/// Keys seen so far.
pub struct KeySet {
    table: HashTable<u32>,
    keys: Vec<(Hash32, Hash32)>,
}

/// What a key turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Seen for the first time.
    New,
    /// Seen before in this row, with the same payload.
    Copy(u32),
    /// Seen before in this row, with another payload.
    Conflict(u32),
}

impl KeySet {
    /// Room for `keys` keys.
    pub fn with_capacity(keys: usize) -> KeySet {
        KeySet {
            table: HashTable::with_capacity(keys),
            keys: Vec::with_capacity(keys),
        }
    }

    /// Claims a key.
    pub fn claim(&mut self, key: Hash32, payload_hash: Hash32) -> Claimed {
        let hash = spread(&key);
        let known = self
            .table
            .find(hash, |row| self.keys[*row as usize].0 == key);
        if let Some(row) = known {
            return match self.keys[*row as usize].1 == payload_hash {
                true => Claimed::Copy(*row),
                false => Claimed::Conflict(*row),
            };
        }
        let keys = &self.keys;
        self.table
            .insert_unique(hash, self.keys.len() as u32, |row| {
                spread(&keys[*row as usize].0)
            });
        self.keys.push((key, payload_hash));
        Claimed::New
    }

    /// Whether a key is known.
    pub fn contains(&self, key: &Hash32) -> bool {
        let same = |row: &u32| self.keys[*row as usize].0 == *key;
        self.table.find(spread(key), same).is_some()
    }
}

/// Eight bytes of a digest are a hash already.
fn spread(key: &Hash32) -> u64 {
    u64::from_le_bytes(key.0[8..16].try_into().expect("eight of thirty-two bytes"))
}
