//! The shards of a stream: which keys each takes, and who came from whom by splits and merges.
//!
//! A child is read after its parents, because a key's records lie in the parent up to the split and in the
//! child behind it. Shards that the service has forgotten need not be waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::admission::bus_offset::SequenceNumber;

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name, `shardId-000000000000`.
    pub id: String,
    /// The number in its name: the contract's partition.
    pub partition: u32,
    /// The shards it came from: none, one (split) or two (merge).
    pub parents: Vec<String>,
    /// Hashes of the partition keys it takes.
    pub hashes: RangeInclusive<u128>,
    /// Sequence number it starts at.
    pub first: SequenceNumber,
    /// False when it was split or merged: it takes no further record.
    pub open: bool,
}

/// The contract's partition of a shard: the number in its name.
pub fn partition_of(shard_id: &str) -> Option<u32> {
    shard_id.strip_prefix("shardId-")?.parse().ok()
}

/// All shards of a stream the service still knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardTree {
    shards: BTreeMap<String, Shard>,
}

impl FromIterator<Shard> for ShardTree {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let by_id = |shard: Shard| (shard.id.clone(), shard);
        ShardTree {
            shards: shards.into_iter().map(by_id).collect(),
        }
    }
}

impl ShardTree {
    /// A shard by its name.
    pub fn get(&self, id: &str) -> Option<&Shard> {
        self.shards.get(id)
    }

    /// All shards by name.
    pub fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// Shards that take records.
    pub fn open(&self) -> impl Iterator<Item = &Shard> {
        self.iter().filter(|shard| shard.open)
    }

    /// The parents of a shard that the service still knows.
    pub fn known_parents<'a>(&'a self, shard: &'a Shard) -> impl Iterator<Item = &'a Shard> {
        shard.parents.iter().filter_map(|parent| self.get(parent))
    }

    /// True when everything of the shard's parents has been read.
    pub fn is_ready(&self, shard: &Shard, finished: &BTreeSet<String>) -> bool {
        self.known_parents(shard)
            .all(|parent| finished.contains(&parent.id))
    }

    /// `named` and everything that came from them.
    pub fn with_descendants<'a>(
        &self,
        named: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let named = named.into_iter().filter(|id| self.shards.contains_key(*id));
        let mut found: BTreeSet<String> = named.map(str::to_owned).collect();
        loop {
            let children = self.iter().filter(|shard| {
                let is_child = shard.parents.iter().any(|parent| found.contains(parent));
                is_child && !found.contains(&shard.id)
            });
            let children: Vec<String> = children.map(|shard| shard.id.clone()).collect();
            if children.is_empty() {
                return found;
            }
            found.extend(children);
        }
    }

    /// Every shard, parents before children, otherwise by partition.
    pub fn reading_order(&self) -> Vec<&Shard> {
        let mut left: Vec<&Shard> = self.iter().collect();
        left.sort_by_key(|shard| (shard.partition, &shard.id));
        let mut finished = BTreeSet::new();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let ready = left
                .iter()
                .position(|shard| self.is_ready(shard, &finished))
                // Shards that name each other as parents cannot exist; if they do, they are read by number.
                .unwrap_or(0);
            let shard = left.remove(ready);
            finished.insert(shard.id.clone());
            order.push(shard);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(partition: u32, parents: &[u32], open: bool) -> Shard {
        let id = |number: &u32| format!("shardId-{number:012}");
        Shard {
            id: id(&partition),
            partition,
            parents: parents.iter().map(id).collect(),
            hashes: 0..=u128::MAX,
            first: SequenceNumber::default(),
            open,
        }
    }

    fn partitions<'a>(shards: impl IntoIterator<Item = &'a Shard>) -> Vec<u32> {
        shards.into_iter().map(|shard| shard.partition).collect()
    }

    #[test]
    fn the_partition_is_the_number_in_the_name() {
        assert_eq!(partition_of("shardId-000000000012"), Some(12));
        assert_eq!(partition_of("shardId-"), None);
        assert_eq!(partition_of("12"), None);
    }

    #[test]
    fn parents_are_read_before_their_children_and_forgotten_ones_are_not_waited_for() {
        // 0 splits into 1 and 2, 2 and 3 merge into 4, 5 came from the forgotten 9, 6 from 4.
        let tree: ShardTree = [
            shard(0, &[], false),
            shard(1, &[0], true),
            shard(2, &[0], false),
            shard(3, &[], false),
            shard(4, &[2, 3], false),
            shard(5, &[9], true),
            shard(6, &[4], true),
        ]
        .into_iter()
        .collect();
        assert_eq!(partitions(tree.reading_order()), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(partitions(tree.open()), [1, 5, 6]);
        let descendants = tree.with_descendants(["shardId-000000000002", "unknown"]);
        let found: Vec<_> = descendants.iter().filter_map(|id| tree.get(id)).collect();
        assert_eq!(partitions(found), [2, 4, 6]);
        let four = tree.get("shardId-000000000004").unwrap();
        let mut finished = BTreeSet::from(["shardId-000000000002".to_owned()]);
        assert!(!tree.is_ready(four, &finished));
        finished.insert("shardId-000000000003".to_owned());
        assert!(tree.is_ready(four, &finished));
    }

    #[test]
    fn a_child_with_a_smaller_number_still_waits_for_its_parent() {
        let tree: ShardTree = [shard(1, &[7], true), shard(7, &[], false)]
            .into_iter()
            .collect();
        assert_eq!(partitions(tree.reading_order()), [7, 1]);
    }

    #[test]
    fn shards_that_name_each_other_do_not_stop_the_reader() {
        let tree: ShardTree = [shard(1, &[2], true), shard(2, &[1], true)]
            .into_iter()
            .collect();
        assert_eq!(partitions(tree.reading_order()), [1, 2]);
    }
}
