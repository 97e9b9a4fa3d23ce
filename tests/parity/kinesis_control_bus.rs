//! The control bus on a real stream: nothing that waits is lost (D12), whatever restarts, splits or repeats.

use crate::fault_proxy::Plan;
use crate::kinesis::{FAST, TestStream, bare_client, client_at};
use crate::memory_positions::MemoryPositions;
use crate::support;
use aws_sdk_kinesis::primitives::Blob;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use wellspring::blocking_runtime::block_on;
use wellspring::control_bus::{KinesisControlBus, KinesisControlBusSettings};
use wellspring_domain::ports::{ControlBus, ControlRecord, PutOutcome};

const TOPIC: &str = "fp.bus.control.v1";

struct Site {
    stream: TestStream,
    positions: Arc<MemoryPositions>,
}

fn settings() -> KinesisControlBusSettings {
    KinesisControlBusSettings {
        reader: FAST,
        publish_patience: Duration::from_secs(20),
        ..KinesisControlBusSettings::default()
    }
}

impl Site {
    fn new(shards: u32) -> Site {
        Site {
            stream: TestStream::new(support::kinesis_endpoint(), shards),
            positions: Arc::default(),
        }
    }

    /// A node's bus; another one is another node, or the same after a restart.
    fn bus(&self) -> KinesisControlBus {
        self.bus_with(settings())
    }

    fn bus_with(&self, settings: KinesisControlBusSettings) -> KinesisControlBus {
        let (client, name) = (self.stream.client.clone(), self.stream.name.clone());
        KinesisControlBus::new(client, name, settings, self.positions.clone())
    }

    fn put_raw(&self, data: &[u8]) {
        let bare = bare_client(&self.stream.endpoint);
        let request = bare.put_record().stream_name(&self.stream.name);
        let request = request.partition_key("raw").data(Blob::new(data));
        block_on(request.send()).unwrap();
    }
}

fn envelope(id: &str) -> Vec<u8> {
    json!({"topic": TOPIC, "message_id": id, "payload": {}})
        .to_string()
        .into_bytes()
}

fn send(bus: &KinesisControlBus, ids: &[&str]) {
    for id in ids {
        let published = bus.publish(TOPIC, id, "run", &envelope(id)).unwrap();
        assert_eq!(published, PutOutcome::Created);
    }
}

fn id(record: &ControlRecord) -> String {
    let envelope: Value = serde_json::from_slice(&record.bytes).unwrap();
    envelope["message_id"].as_str().unwrap().to_owned()
}

fn ids(bus: &KinesisControlBus) -> Vec<String> {
    bus.poll(TOPIC, 1_000).unwrap().iter().map(id).collect()
}

fn settle(bus: &KinesisControlBus, wanted: &str) {
    let records = bus.poll(TOPIC, 1_000).unwrap();
    let record = records.iter().find(|record| id(record) == wanted);
    bus.settle(TOPIC, record.unwrap()).unwrap();
}

#[test]
fn what_is_deferred_waits_over_polls_and_restarts_and_what_is_settled_does_not_come_back() {
    let site = Site::new(1);
    let bus = site.bus();
    assert_eq!(bus.poll(TOPIC, 10).unwrap(), []);
    send(&bus, &["a", "b", "c", "d"]);
    assert_eq!(ids(&bus), ["a", "b", "c", "d"]);
    settle(&bus, "c");
    settle(&bus, "a");
    assert_eq!(ids(&bus), ["b", "d"]);
    let again = site.bus();
    assert_eq!(
        ids(&again),
        ["b", "d"],
        "a restart shows exactly what waits"
    );
    send(&again, &["e"]);
    settle(&again, "b");
    let again = site.bus();
    assert_eq!(ids(&again), ["d", "e"]);
    settle(&again, "e");
    settle(&again, "d");
    assert!(ids(&again).is_empty() && ids(&site.bus()).is_empty());
}

#[test]
fn a_poll_gives_at_most_what_is_asked_for_and_never_forgets_the_rest() {
    let site = Site::new(1);
    let few = site.bus_with(KinesisControlBusSettings {
        waiting_max: 3,
        ..settings()
    });
    let all: Vec<String> = (0..12).map(|number| format!("m{number:02}")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    send(&few, &names);
    let mut handled = Vec::new();
    while handled.len() < all.len() {
        let records = few.poll(TOPIC, 2).unwrap();
        assert!((1..=2).contains(&records.len()));
        handled.push(id(&records[0]));
        few.settle(TOPIC, &records[0]).unwrap();
    }
    assert_eq!(handled, all);
}

#[test]
fn records_that_are_no_message_of_the_topic_are_passed_over_once() {
    let site = Site::new(1);
    let bus = site.bus();
    site.put_raw(b"{\"topic\": ");
    site.put_raw(b"[1]");
    site.put_raw(&[0xff, 0xfe]);
    site.put_raw(
        json!({"topic": "another", "message_id": "x"})
            .to_string()
            .as_bytes(),
    );
    send(&bus, &["good"]);
    assert_eq!(ids(&bus), ["good"]);
    settle(&bus, "good");
    assert!(ids(&site.bus()).is_empty(), "nothing of it is read again");
    send(&bus, &["later"]);
    assert_eq!(ids(&site.bus()), ["later"]);
}

#[test]
fn a_repeated_message_comes_at_each_of_its_places() {
    let site = Site::new(1);
    let bus = site.bus();
    send(&bus, &["twice", "twice"]);
    let records = bus.poll(TOPIC, 10).unwrap();
    assert_eq!(records.len(), 2);
    assert_ne!(records[0].position, records[1].position);
    bus.settle(TOPIC, &records[0]).unwrap();
    assert_eq!(
        ids(&site.bus()),
        ["twice"],
        "the consumer tells copies apart, not the bus"
    );
}

#[test]
fn all_shards_are_read_and_children_after_their_parents() {
    let site = Site::new(1);
    let bus = site.bus();
    send(&bus, &["before"]);
    assert_eq!(ids(&bus), ["before"]);
    site.stream.split("shardId-000000000000");
    for number in 0..6 {
        let key = format!("run-{number}");
        let name = format!("child-{number}");
        bus.publish(TOPIC, &name, &key, &envelope(&name)).unwrap();
    }
    let seen = ids(&bus);
    assert_eq!((seen.len(), &*seen[0]), (7, "before"));
    settle(&bus, "child-3");
    let mut again = ids(&site.bus());
    assert_eq!((again.len(), &*again[0]), (6, "before"));
    settle(&bus, "before");
    let open = site.stream.open_shards();
    site.stream.merge(&open[0], &open[1]);
    send(&bus, &["merged"]);
    again = ids(&site.bus());
    assert_eq!((again.len(), &*again[5]), (6, "merged"));
    assert_eq!(ids(&bus).len(), 6);
}

#[test]
fn what_one_node_settled_is_not_offered_by_another() {
    let site = Site::new(2);
    let (one, other) = (site.bus(), site.bus());
    send(&one, &["a", "b", "c"]);
    assert_eq!((ids(&one).len(), ids(&other).len()), (3, 3));
    settle(&one, "b");
    settle(&other, "a");
    assert_eq!(ids(&one), ["c"]);
    assert_eq!(ids(&other), ["c"]);
    settle(&other, "c");
    assert!(ids(&one).is_empty() && ids(&site.bus()).is_empty());
}

#[test]
fn throttles_and_lost_answers_lose_no_message() {
    let site = Site::new(2);
    let proxy = site.stream.proxy(Plan {
        seed: 7,
        throttle: 0.2,
        lose: 0.2,
        expire: 0.2,
        ..Plan::default()
    });
    let bus = KinesisControlBus::new(
        client_at(&proxy.url()),
        site.stream.name.clone(),
        settings(),
        site.positions.clone(),
    );
    let sent: Vec<String> = (0..25).map(|number| format!("m{number:02}")).collect();
    for name in &sent {
        send(&bus, &[name]);
    }
    let mut seen = ids(&bus);
    println!(
        "{} messages at {} places, {:?}",
        sent.len(),
        seen.len(),
        proxy.stats()
    );
    assert!(
        seen.len() > sent.len(),
        "a lost answer leaves a second copy"
    );
    seen.dedup();
    assert_eq!(seen, sent, "in order, copies beside each other");
}

#[test]
fn a_stream_that_was_made_anew_is_read_from_its_beginning() {
    let site = Site::new(1);
    let bus = site.bus();
    send(&bus, &["old"]);
    settle(&bus, "old");
    let bare = bare_client(&site.stream.endpoint);
    block_on(bare.delete_stream().stream_name(&site.stream.name).send()).unwrap();
    support::wait_until("the stream is gone", Duration::from_secs(20), || {
        let state = wellspring::event_bus::kinesis::describe_stream(
            &site.stream.client,
            &site.stream.name,
            Duration::from_secs(5),
        );
        state.unwrap().is_none()
    });
    // The server numbers the records of two streams alike when they are made in the same second.
    std::thread::sleep(Duration::from_millis(1_100));
    wellspring::event_bus::kinesis::ensure_stream(
        &site.stream.client,
        &site.stream.name,
        1,
        Duration::from_secs(20),
    )
    .unwrap();
    let again = site.bus();
    send(&again, &["new"]);
    assert_eq!(ids(&again), ["new"]);
    settle(&again, "new");
    assert!(
        ids(&site.bus()).is_empty(),
        "what was settled on the new stream stays so"
    );
}

#[test]
fn a_message_without_a_key_takes_its_id_and_one_that_is_too_large_is_refused() {
    let site = Site::new(1);
    let bus = site.bus();
    bus.publish(TOPIC, "m1", "", &envelope("m1")).unwrap();
    assert_eq!(site.stream.everything()[0].partition_key, "m1");
    let refused = bus
        .publish(TOPIC, "m2", "k", &vec![b'x'; 1 << 20])
        .unwrap_err();
    assert_eq!(refused.code(), "KINESIS_RECORD_TOO_LARGE");
    let foreign = ControlRecord {
        position: "not a place".to_owned(),
        bytes: Vec::new(),
    };
    assert_eq!(
        bus.settle(TOPIC, &foreign).unwrap_err().code(),
        "STORE_KEY_INVALID"
    );
}
