//! Kinesis: what tests of producer, readers and control bus share.

use crate::fault_proxy::{FaultProxy, Plan};
use crate::support;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;
use wellspring::blocking_runtime::block_on;
use wellspring::event_bus::kinesis::{
    KinesisClient, KinesisWiring, Placed, Producer, ProducerSettings, PutItem, ReaderSettings,
    Record, Scan, ScanEnd, ScanFrom, describe_stream, ensure_stream,
};
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::event_bus::shard_buckets::ShardRates;
use wellspring_domain::ids::Hash32;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Reads as fast as the server answers.
pub const FAST: ReaderSettings = ReaderSettings {
    reads_per_second: 0,
    page_records_max: 1_000,
    patience: Duration::from_secs(20),
    backoff: wellspring_domain::event_bus::backoff::Backoff {
        base_ms: 10,
        max_ms: 500,
    },
};

/// No rate of our own, short waits: faults come from the proxy.
pub fn unpaced(seed: u64) -> ProducerSettings {
    ProducerSettings {
        rates: ShardRates::default(),
        backoff: FAST.backoff,
        seed,
        ..ProducerSettings::default()
    }
}

pub fn client_at(endpoint: &str) -> KinesisClient {
    let wiring = KinesisWiring {
        region: Some(support::region()),
        endpoint_url: Some(endpoint.to_owned()),
        ..KinesisWiring::default()
    };
    KinesisClient::connect(&wiring).unwrap()
}

/// The service's own client, for what Wellspring never does: splits, merges, deletions.
pub fn bare_client(endpoint: &str) -> aws_sdk_kinesis::Client {
    let keys = support::aws_keys();
    let credentials = Credentials::new(
        keys.access_key_id,
        keys.secret_access_key,
        None,
        None,
        "environment",
    );
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(support::region()))
        .credentials_provider(credentials)
        .endpoint_url(endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    aws_sdk_kinesis::Client::from_conf(config.build())
}

/// A stream of its own on a server.
pub struct TestStream {
    pub name: String,
    pub endpoint: String,
    pub client: KinesisClient,
}

impl TestStream {
    pub fn new(endpoint: String, shards: u32) -> TestStream {
        let client = client_at(&endpoint);
        let name = support::unique_name("stream");
        ensure_stream(&client, &name, shards, PATIENCE).unwrap();
        TestStream {
            name,
            endpoint,
            client,
        }
    }

    pub fn proxy(&self, plan: Plan) -> FaultProxy {
        FaultProxy::start(&self.endpoint, plan)
    }

    pub fn scanner(&self) -> Scan {
        Scan::new(self.client.clone(), FAST)
    }

    pub fn scan(&self, from: &ScanFrom) -> (Vec<Record>, ScanEnd) {
        scan_all(&self.scanner(), &self.name, from)
    }

    pub fn everything(&self) -> Vec<Record> {
        self.scan(&ScanFrom::start()).0
    }

    /// Splits a shard in the middle of its hashes.
    pub fn split(&self, shard_id: &str) {
        let tree = self.scanner().shards(&self.name).unwrap();
        let hashes = &tree.get(shard_id).unwrap().hashes;
        let middle = hashes.start() + (hashes.end() - hashes.start()) / 2;
        let bare = bare_client(&self.endpoint);
        let request = bare.split_shard().stream_name(&self.name);
        let request = request
            .shard_to_split(shard_id)
            .new_starting_hash_key(middle.to_string());
        block_on(request.send()).unwrap();
        self.wait_until_active();
    }

    /// Merges two adjacent shards.
    pub fn merge(&self, one: &str, other: &str) {
        let bare = bare_client(&self.endpoint);
        let request = bare.merge_shards().stream_name(&self.name);
        let request = request.shard_to_merge(one).adjacent_shard_to_merge(other);
        block_on(request.send()).unwrap();
        self.wait_until_active();
    }

    pub fn wait_until_active(&self) {
        support::wait_until("the stream is active", PATIENCE, || {
            let state = describe_stream(&self.client, &self.name, PATIENCE).unwrap();
            state.is_some_and(|state| state.status == "ACTIVE")
        });
    }

    pub fn open_shards(&self) -> Vec<String> {
        let tree = self.scanner().shards(&self.name).unwrap();
        tree.open().map(|shard| shard.id.clone()).collect()
    }
}

pub fn scan_all(scan: &Scan, stream: &str, from: &ScanFrom) -> (Vec<Record>, ScanEnd) {
    let mut records = Vec::new();
    let end = scan.scan(stream, from, &mut |record| {
        records.push(record);
        Ok(ControlFlow::Continue(()))
    });
    (records, end.unwrap())
}

/// An event of a test: which key, which number of that key.
#[derive(Clone, Debug)]
pub struct Event {
    pub key: Hash32,
    pub data: Vec<u8>,
}

/// `count` events over `keys` keys, a tenth of them of one hot key; data say key and number of the key.
pub fn events(count: usize, keys: u64, bytes: usize) -> Vec<Event> {
    let mut numbers = BTreeMap::new();
    let event = |at: u64| {
        // Any spread of keys will do; this one needs no random numbers.
        let key = match at % 10 {
            0 => 0,
            _ => at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33,
        } % keys;
        let number = numbers.entry(key).or_insert(0u32);
        *number += 1;
        let mut data = format!("{key} {number} ").into_bytes();
        data.resize(bytes.max(data.len()), b'.');
        Event {
            key: Hash32::of(&key.to_le_bytes()),
            data,
        }
    };
    (0..count as u64).map(event).collect()
}

pub fn items<'a>(stream: &'a str, events: &'a [Event]) -> Vec<PutItem<'a>> {
    let item = |event: &'a Event| PutItem {
        stream,
        partition_key: event.key,
        data: &event.data,
    };
    events.iter().map(item).collect()
}

pub fn publish(producer: &Producer, stream: &str, events: &[Event]) -> Vec<Placed> {
    producer.publish(&items(stream, events), PATIENCE).unwrap()
}

/// Nothing is lost, each place names its event, and the named records of a key lie in the order of its events.
/// Returns how many records are strays.
pub fn check(records: &[Record], events: &[Event], placed: &[Placed]) -> usize {
    assert_eq!(events.len(), placed.len());
    let mut by_place: BTreeMap<(u32, SequenceNumber), usize> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        let known = by_place.insert((record.partition, record.sequence), at);
        assert_eq!(known, None, "a record is read once");
    }
    let mut last_of_key: BTreeMap<Hash32, usize> = BTreeMap::new();
    let mut named = vec![false; records.len()];
    for (event, place) in events.iter().zip(placed) {
        let at = by_place[&(place.partition, place.sequence)];
        let record = &records[at];
        assert_eq!(record.data, event.data, "the place names the event");
        assert_eq!(record.partition_key.as_bytes(), event.key.hex());
        assert!(
            !std::mem::replace(&mut named[at], true),
            "a place is given once"
        );
        if let Some(before) = last_of_key.insert(event.key, at) {
            assert!(
                before < at,
                "records of a key are read in the order of its events"
            );
        }
    }
    check_strays(records, events, &named);
    named.iter().filter(|named| !**named).count()
}

/// Whoever reads everything and drops what it has seen gets each key in order, too.
fn check_strays(records: &[Record], events: &[Event], named: &[bool]) {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    for (record, named) in records.iter().zip(named) {
        let text = std::str::from_utf8(&record.data).unwrap();
        let number: u32 = text.split(' ').nth(1).unwrap().parse().unwrap();
        let last = numbers.entry(&record.partition_key).or_default();
        assert!(
            number <= *last + 1,
            "{text:.20} came after number {last} (named: {named})"
        );
        *last = number.max(*last);
    }
    let total: u32 = numbers.values().sum();
    assert_eq!(total as usize, events.len(), "nothing is lost");
}
