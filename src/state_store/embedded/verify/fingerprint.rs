//! Fingerprints of topics: equal when two buses hold the same records, in the same order per
//! partition key, whatever the order of different keys and the number of partitions.

use crate::event_bus::embedded_log::{BusReader, ReadBound, bus_partitions};
use crate::state_store::embedded::prune::PrunedTopics;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use wellspring_domain::admission::bus_line::BusLine;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// Partition keys followed at once. More keys than that take more passes, not more memory.
pub const KEYS_MAX: usize = 1 << 19;

/// What a topic holds, in two digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicFingerprint {
    /// Topic.
    pub topic: String,
    /// Records.
    pub records: u64,
    /// Lines that are no bus records; they are in no digest.
    pub unreadable: u64,
    /// Equal for equal sets of records.
    pub records_digest: String,
    /// Equal when each partition key has the same records in the same order.
    pub order_digest: String,
}

/// An order-independent sum of digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestSum([u64; 4]);

impl DigestSum {
    /// Adds a digest.
    pub fn add(&mut self, hash: &Hash32) {
        for (part, bytes) in self.0.iter_mut().zip(hash.0.chunks_exact(8)) {
            let bytes: [u8; 8] = bytes.try_into().expect("chunks of eight");
            *part = part.wrapping_add(u64::from_be_bytes(bytes));
        }
    }

    /// Adds another sum.
    pub fn join(&mut self, other: &DigestSum) {
        for (part, more) in self.0.iter_mut().zip(other.0) {
            *part = part.wrapping_add(more);
        }
    }

    /// The sum as text.
    pub fn hex(&self) -> String {
        self.0.iter().map(|part| format!("{part:016x}")).collect()
    }
}

/// Fingerprints of every topic of a run's bus, pruned ones as they were recorded. `keys_max` bounds
/// the memory.
pub fn fingerprint_bus(
    paths: &RunPaths,
    keys_max: usize,
) -> Result<Vec<TopicFingerprint>, StoreError> {
    let pruned = PrunedTopics::load(paths)?;
    let mut fingerprints = fingerprint_files(paths, keys_max)?;
    fingerprints.retain(|topic| pruned.topic(&topic.topic).is_none());
    fingerprints.extend(pruned.topics().map(|stub| stub.fingerprint.clone()));
    fingerprints.sort_by(|a, b| a.topic.cmp(&b.topic));
    Ok(fingerprints)
}

/// Fingerprints of the topics whose data is there.
pub fn fingerprint_files(
    paths: &RunPaths,
    keys_max: usize,
) -> Result<Vec<TopicFingerprint>, StoreError> {
    let mut partitions: Vec<(String, Vec<u32>)> = Vec::new();
    for (topic, partition) in bus_partitions(paths)? {
        match partitions.last_mut() {
            Some((last, numbers)) if *last == topic => numbers.push(partition),
            _ => partitions.push((topic, vec![partition])),
        }
    }
    let topics = partitions.into_iter();
    topics
        .map(|(topic, numbers)| fingerprint_topic(paths, topic, &numbers, keys_max.max(1)))
        .collect()
}

fn fingerprint_topic(
    paths: &RunPaths,
    topic: String,
    partitions: &[u32],
    keys_max: usize,
) -> Result<TopicFingerprint, StoreError> {
    let mut records = DigestSum::default();
    let mut order = DigestSum::default();
    let (mut count, mut unreadable) = (0, 0);
    // Keys are digests: a pass takes those whose leading bytes are in its range, and gives up the
    // upper half of the range when there are too many of them.
    let (mut low, mut first_pass) = (Some(0u64), true);
    while let Some(from) = low {
        let mut chains = KeyChains::new(from, keys_max);
        for partition in partitions {
            let mut reader = BusReader::open(paths, &topic, *partition, ReadBound::Journal)?;
            let mut stream = reader.stream(0)?;
            while let Some((_, line)) = stream.next_line()? {
                let Some((key, hash)) = record_hash(line) else {
                    unreadable += u64::from(first_pass);
                    continue;
                };
                if first_pass {
                    count += 1;
                    records.add(&hash);
                }
                chains.add(&key, &hash);
            }
        }
        chains.finish(&mut order);
        low = chains.next_low();
        first_pass = false;
    }
    Ok(TopicFingerprint {
        topic,
        records: count,
        unreadable,
        records_digest: records.hex(),
        order_digest: order.hex(),
    })
}

/// The key a record is ordered by, and a digest of what it says: event, payload, key, event time.
fn record_hash(line: &[u8]) -> Option<(Hash32, Hash32)> {
    let record = BusLine::parse(line)?;
    let facts = record.facts()?;
    let key = &*record.partition_key;
    let digest = record_digest(&facts.payload_hash, key, &facts.ts_utc, &facts.event_id);
    Some((Hash32::of(key.as_bytes()), digest))
}

/// The digest of one record. A journal row has all that is in it.
pub fn record_digest(payload_hash: &Hash32, key: &str, ts_utc: &str, event_id: &str) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(payload_hash.0);
    hasher.update(key.as_bytes());
    hasher.update(ts_utc.as_bytes());
    hasher.update(event_id.as_bytes());
    Hash32(hasher.finalize().into())
}

/// Per key a digest chained over its records in order, for keys within a range.
pub struct KeyChains {
    low: u64,
    high: u64,
    keys_max: usize,
    chains: HashMap<Hash32, Hash32>,
}

impl KeyChains {
    /// Chains of all keys, however many there are.
    pub fn all() -> KeyChains {
        KeyChains::new(0, usize::MAX)
    }

    fn new(low: u64, keys_max: usize) -> KeyChains {
        KeyChains {
            low,
            high: u64::MAX,
            keys_max,
            chains: HashMap::new(),
        }
    }

    /// Adds the next record of a key.
    pub fn add(&mut self, key: &Hash32, record: &Hash32) {
        if !(self.low..=self.high).contains(&key.leading_u64()) {
            return;
        }
        let chain = self.chains.entry(*key).or_default();
        let mut hasher = Sha256::new();
        hasher.update(chain.0);
        hasher.update(record.0);
        *chain = Hash32(hasher.finalize().into());
        while self.chains.len() > self.keys_max && self.high > self.low {
            self.high = self.low + (self.high - self.low) / 2;
            let high = self.high;
            self.chains.retain(|key, _| key.leading_u64() <= high);
        }
    }

    /// Adds every chain to a sum.
    pub fn finish(&self, order: &mut DigestSum) {
        for (key, chain) in &self.chains {
            let mut hasher = Sha256::new();
            hasher.update(key.0);
            hasher.update(chain.0);
            order.add(&Hash32(hasher.finalize().into()));
        }
    }

    /// Where the next pass starts; `None` when every key was taken.
    fn next_low(&self) -> Option<u64> {
        self.high.checked_add(1)
    }
}
