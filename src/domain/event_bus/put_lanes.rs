//! Which records go into the next `PutRecords`, so that the order of each partition key survives every fault.
//!
//! Records of one call are spread over lanes by partition key. A lane has one request in flight, and a request
//! holds at most one record of a key: when single records of it fail, no later record of the same key can have
//! overtaken them. Keys with the most records left go first, because the longest key decides how many requests
//! there have to be; what failed goes before everything else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::ids::Hash32;

/// What one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Records.
    pub records_max: usize,
    /// Bytes of data and partition keys.
    pub bytes_max: usize,
}

/// A record as the lanes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// Its partition key.
    pub key: Hash32,
    /// Its number among the records of the call.
    pub item: u32,
    /// Bytes of its data and its partition key.
    pub bytes: u32,
}

/// Whether a record may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Now,
    /// Not before this microsecond of the caller's clock.
    At(u64),
}

/// What a lane does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPut {
    /// Send the items that were filled in.
    Send,
    /// Nothing may be sent before this microsecond.
    WaitUntil(u64),
    /// Everything is placed.
    Done,
}

const NONE: u32 = u32::MAX;

/// A record in its key's list.
struct Link {
    item: u32,
    bytes: u32,
    next: u32,
}

/// What is left of a key.
struct KeyList {
    first: u32,
    last: u32,
    left: u32,
    failed: bool,
}

/// A key's place among those that wait: failed ones, then long ones, then the earlier item.
type Turn = (bool, u32, Reverse<u32>, u32);

/// One lane.
#[derive(Default)]
pub struct PutLane {
    links: Vec<Link>,
    keys: Vec<KeyList>,
    waiting: BinaryHeap<Turn>,
    in_flight: Vec<u32>,
    held: Vec<u32>,
}

/// Spreads the records of one stream over at most `lanes_max` lanes; as few as fill their requests.
pub fn spread(records: &[LaneRecord], limits: &RequestLimits, lanes_max: usize) -> Vec<PutLane> {
    let bytes: u64 = records.iter().map(|record| u64::from(record.bytes)).sum();
    let by_bytes = bytes.div_ceil(limits.bytes_max.max(1) as u64) as usize;
    let by_count = records.len().div_ceil(limits.records_max.max(1));
    let count = by_count.max(by_bytes).clamp(1, lanes_max.max(1));
    let mut lanes: Vec<PutLane> = (0..count).map(|_| PutLane::default()).collect();
    let mut known: HashMap<Hash32, u32> = HashMap::with_capacity(records.len());
    for record in records {
        let lane = &mut lanes[lane_of(&record.key, count)];
        let key = *known.entry(record.key).or_insert_with(|| lane.new_key());
        lane.push(key, record);
    }
    for lane in &mut lanes {
        for key in 0..lane.keys.len() as u32 {
            lane.queue(key);
        }
    }
    lanes
}

/// The lane of a key. The last bytes decide: the first ones have chosen the admission shard already, so
/// that all records of one call may agree on them.
fn lane_of(key: &Hash32, lanes: usize) -> usize {
    let last: [u8; 8] = key.0[24..].try_into().expect("eight of thirty-two bytes");
    (u64::from_be_bytes(last) % lanes as u64) as usize
}

impl PutLane {
    fn new_key(&mut self) -> u32 {
        self.keys.push(KeyList {
            first: NONE,
            last: NONE,
            left: 0,
            failed: false,
        });
        (self.keys.len() - 1) as u32
    }

    fn push(&mut self, key: u32, record: &LaneRecord) {
        let link = self.links.len() as u32;
        self.links.push(Link {
            item: record.item,
            bytes: record.bytes,
            next: NONE,
        });
        let list = &mut self.keys[key as usize];
        match list.left {
            0 => list.first = link,
            _ => self.links[list.last as usize].next = link,
        }
        list.last = link;
        list.left += 1;
    }

    fn queue(&mut self, key: u32) {
        let list = &self.keys[key as usize];
        if list.left > 0 {
            let item = self.links[list.first as usize].item;
            let turn = (list.failed, list.left, Reverse(item), key);
            self.waiting.push(turn);
        }
    }

    /// Fills `items` with the next request. `admit` is asked once per record, in the order in which they
    /// would go; records it holds back are asked about again for the next request.
    pub fn next_put(
        &mut self,
        limits: &RequestLimits,
        admit: &mut dyn FnMut(u32) -> Admission,
        items: &mut Vec<u32>,
    ) -> NextPut {
        assert!(
            self.in_flight.is_empty(),
            "a lane has one request in flight"
        );
        items.clear();
        let mut bytes = 0usize;
        let mut earliest: Option<u64> = None;
        while items.len() < limits.records_max {
            let Some(turn) = self.waiting.pop() else {
                break;
            };
            let key = turn.3;
            let link = &self.links[self.keys[key as usize].first as usize];
            let fits = items.is_empty() || bytes + link.bytes as usize <= limits.bytes_max;
            if !fits {
                self.waiting.push(turn);
                break;
            }
            match admit(link.item) {
                Admission::Now => {
                    bytes += link.bytes as usize;
                    items.push(link.item);
                    self.in_flight.push(key);
                }
                Admission::At(micros) => {
                    earliest = Some(earliest.map_or(micros, |other| other.min(micros)));
                    self.held.push(key);
                }
            }
        }
        for key in std::mem::take(&mut self.held) {
            self.queue(key);
        }
        match (items.is_empty(), earliest) {
            (false, _) => NextPut::Send,
            (true, Some(micros)) => NextPut::WaitUntil(micros),
            (true, None) => NextPut::Done,
        }
    }

    /// Tells what became of the request in flight: `placed(n)` says whether its `n`-th record was placed.
    /// The others go back to the head of the lane.
    pub fn settle(&mut self, mut placed: impl FnMut(usize) -> bool) {
        let mut in_flight = std::mem::take(&mut self.in_flight);
        for (position, &key) in in_flight.iter().enumerate() {
            let list = &mut self.keys[key as usize];
            list.failed = !placed(position);
            if !list.failed {
                list.first = self.links[list.first as usize].next;
                list.left -= 1;
            }
            self.queue(key);
        }
        in_flight.clear();
        self.in_flight = in_flight;
    }

    /// Records that are not placed yet.
    pub fn left(&self) -> usize {
        self.keys.iter().map(|list| list.left as usize).sum()
    }
}

#[cfg(test)]
#[path = "put_lanes_tests.rs"]
mod tests;
