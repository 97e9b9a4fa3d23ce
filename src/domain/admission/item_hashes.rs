//! The digests of a batch's items, computed together: identity, payload and partition key of each, and where
//! that places it.

use crate::admission::judged::JudgedBatch;
use crate::admission::routing::{admission_shard_of, partition_of};
use crate::ids::Hash32;
use crate::sha256::HashBatch;

/// Bytes after which what waits is hashed: it stays in the processor's cache.
const WAITING_BYTES_MAX: usize = 128 * 1024;

/// Hashes that items of one batch wait for. Used again for the next.
#[derive(Default)]
pub(super) struct ItemHashes {
    hashes: HashBatch,
    digests: Vec<Hash32>,
    /// What each waiting message is, and the item it is of.
    wanted: Vec<(Wanted, u32)>,
    /// Where the items that are not placed yet go; none for those that are not published.
    topics: Vec<Option<Topic>>,
    /// Items that have their digests and their place.
    placed: usize,
}

/// One of an item's digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    DedupeKey,
    PayloadHash,
    PartitionKey,
}

/// The topic an item is published to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) index: u16,
    pub(super) partitions: u32,
}

impl ItemHashes {
    /// Begins another batch.
    pub(super) fn begin(&mut self) {
        debug_assert!(self.wanted.is_empty() && self.topics.is_empty());
        self.placed = 0;
    }

    /// Asks for one digest of the next item.
    pub(super) fn ask(&mut self, wanted: Wanted, item: usize, parts: &[&[u8]]) {
        self.hashes.push(parts);
        self.wanted.push((wanted, item as u32));
    }

    /// Says where the next item goes.
    pub(super) fn place(&mut self, topic: Option<Topic>) {
        self.topics.push(topic);
    }

    /// Gives items their digests when enough of them wait.
    pub(super) fn settle_when_full(&mut self, judged: &mut JudgedBatch, shards: u16) {
        if self.hashes.bytes() >= WAITING_BYTES_MAX {
            self.settle(judged, shards);
        }
    }

    /// Gives all waiting items their digests, and their partitions and shards with them.
    pub(super) fn settle(&mut self, judged: &mut JudgedBatch, shards: u16) {
        self.hashes.finish(&mut self.digests);
        for ((wanted, item), digest) in self.wanted.drain(..).zip(&self.digests) {
            let item = &mut judged.items[item as usize];
            match wanted {
                Wanted::DedupeKey => item.dedupe_key = *digest,
                Wanted::PayloadHash => item.payload_hash = *digest,
                Wanted::PartitionKey => item.partition_key = *digest,
            }
        }
        let items = judged.items[self.placed..].iter_mut();
        for (item, topic) in items.zip(self.topics.drain(..)) {
            match topic {
                Some(topic) => {
                    item.partition = partition_of(&item.partition_key, topic.partitions);
                    item.shard = admission_shard_of(topic.index, item.partition, shards);
                }
                None => {
                    item.shard = (item.dedupe_key.leading_u64() % u64::from(shards.max(1))) as u16;
                }
            }
        }
        self.placed = judged.items.len();
    }
}
