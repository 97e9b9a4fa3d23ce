//! The limits of each shard, counted per second as the service does.

use md5::{Digest, Md5};
use serde_json::Value;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use tokio::time::Instant;

const RECORDS_PER_SECOND: u64 = 1_000;
const BYTES_PER_SECOND: u64 = 1 << 20;
const READS_PER_SECOND: u64 = 5;
const ITERATORS_MAX: usize = 100_000;

#[derive(Default)]
struct Second {
    number: u64,
    records: u64,
    bytes: u64,
    reads: u64,
}

pub struct Limits {
    started: Instant,
    ranges: HashMap<String, Vec<(String, RangeInclusive<u128>)>>,
    seconds: HashMap<String, Second>,
    iterators: HashMap<String, String>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            started: Instant::now(),
            ranges: HashMap::new(),
            seconds: HashMap::new(),
            iterators: HashMap::new(),
        }
    }
}

impl Limits {
    pub fn knows(&self, stream: &str) -> bool {
        self.ranges.contains_key(stream)
    }

    /// Takes the open shards from an answer to `ListShards`.
    pub fn learn(&mut self, stream: &str, listing: &Value) {
        let number = |value: &Value| value.as_str().unwrap().parse::<u128>().unwrap();
        let shards = listing["Shards"].as_array().into_iter().flatten();
        let open =
            shards.filter(|shard| shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null());
        let ranges = open.map(|shard| {
            let range = &shard["HashKeyRange"];
            let hashes = number(&range["StartingHashKey"])..=number(&range["EndingHashKey"]);
            (shard["ShardId"].as_str().unwrap().to_owned(), hashes)
        });
        let ranges = ranges.collect();
        self.ranges.insert(stream.to_owned(), ranges);
    }

    /// A resharded stream is listed again.
    pub fn forget(&mut self) {
        self.ranges.clear();
    }

    fn second(&mut self, shard: &str) -> &mut Second {
        let number = self.started.elapsed().as_secs();
        let second = self.seconds.entry(shard.to_owned()).or_default();
        if second.number != number {
            *second = Second {
                number,
                ..Second::default()
            };
        }
        second
    }

    /// Counts a record; false when its shard takes no more in this second.
    pub fn takes(&mut self, stream: &str, record: &Value) -> bool {
        let key = record["PartitionKey"].as_str().unwrap_or_default();
        let hash = match record["ExplicitHashKey"].as_str() {
            Some(explicit) => explicit.parse().unwrap_or_default(),
            None => u128::from_be_bytes(Md5::digest(key).into()),
        };
        let ranges = self.ranges.get(stream);
        let shard =
            ranges.and_then(|ranges| ranges.iter().find(|(_, range)| range.contains(&hash)));
        let Some((shard, _)) = shard else {
            return true;
        };
        let name = format!("{stream}/{shard}");
        let encoded = record["Data"].as_str().map_or(0, str::len) as u64;
        let bytes = encoded * 3 / 4 + key.len() as u64;
        let second = self.second(&name);
        let fits = second.records < RECORDS_PER_SECOND && second.bytes + bytes <= BYTES_PER_SECOND;
        if fits {
            second.records += 1;
            second.bytes += bytes;
        }
        fits
    }

    /// Counts a read; false when the iterator's shard answers no more in this second.
    pub fn answers(&mut self, iterator: &str) -> bool {
        let Some(shard) = self.iterators.get(iterator).cloned() else {
            return true;
        };
        let second = self.second(&shard);
        second.reads += 1;
        second.reads <= READS_PER_SECOND
    }

    /// Remembers whose iterator this is.
    pub fn iterator_of(&mut self, iterator: &Value, shard: String) {
        if self.iterators.len() >= ITERATORS_MAX {
            self.iterators.clear();
        }
        if let Some(iterator) = iterator.as_str() {
            self.iterators.insert(iterator.to_owned(), shard);
        }
    }

    /// The next iterator belongs to the same shard.
    pub fn next_iterator(&mut self, iterator: &str, next: &Value) {
        if let Some(shard) = self.iterators.remove(iterator) {
            self.iterator_of(next, shard);
        }
    }
}
