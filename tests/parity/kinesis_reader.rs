//! Readers against real servers: positions, splits and merges, pages of shards, expired iterators.

use crate::fault_proxy::{FaultProxy, Plan};
use crate::kinesis::{
    Event, FAST, TestStream, bare_client, check, client_at, events, publish, scan_all, unpaced,
};
use crate::support;
use aws_sdk_kinesis::types::ScalingType;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use wellspring::blocking_runtime::block_on;
use wellspring::event_bus::kinesis::{
    EnsuredStream, OtherShards, PageEnd, Placed, Producer, ReadFrom, ReaderSettings, Record, Scan,
    ScanFrom, describe_stream, ensure_stream, list_shards_by_page,
};
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::time_text::Micros;

const FIRST: &str = "shardId-000000000000";

fn writer(stream: &TestStream) -> Producer {
    Producer::new(stream.client.clone(), unpaced(1)).unwrap()
}

fn only(shard_id: &str, from: ReadFrom) -> ScanFrom {
    ScanFrom {
        positions: BTreeMap::from([(shard_id.to_owned(), from)]),
        others: OtherShards::OnlyDescendants,
    }
}

fn sequences(records: &[Record]) -> Vec<SequenceNumber> {
    records.iter().map(|record| record.sequence).collect()
}

/// Positions to go on from, when the records after `placed` are to be read.
fn behind(placed: &[Placed]) -> ScanFrom {
    let mut last: BTreeMap<String, SequenceNumber> = BTreeMap::new();
    for place in placed {
        let shard = format!("shardId-{:012}", place.partition);
        let known = last.entry(shard).or_insert(place.sequence);
        *known = place.sequence.max(*known);
    }
    let positions = last.into_iter();
    ScanFrom {
        positions: positions
            .map(|(shard, last)| (shard, ReadFrom::After(last)))
            .collect(),
        others: OtherShards::OnlyDescendants,
    }
}

#[test]
fn a_shard_is_read_from_its_start_at_a_record_behind_one_and_from_a_time() {
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    let placed = publish(&writer(&stream), &stream.name, &events(30, 30, 40));
    let mut order: Vec<SequenceNumber> = placed.iter().map(|place| place.sequence).collect();
    order.sort_unstable();
    let read = |from| sequences(&stream.scan(&only(FIRST, from)).0);
    assert_eq!(read(ReadFrom::Start), order);
    assert_eq!(read(ReadFrom::At(order[10])), order[10..]);
    assert_eq!(read(ReadFrom::After(order[10])), order[11..]);
    assert_eq!(read(ReadFrom::After(order[29])), []);
    assert_eq!(read(ReadFrom::Time(Micros(0))), order);
    std::thread::sleep(Duration::from_millis(1_100));
    let later = publish(&writer(&stream), &stream.name, &events(5, 5, 40));
    let first = later.iter().map(|place| place.sequence).min().unwrap();
    let everything = stream.everything();
    let record = everything.iter().find(|record| record.sequence == first);
    let from_time = read(ReadFrom::Time(record.unwrap().arrived_at.unwrap()));
    assert_eq!(from_time, sequences(&everything[30..]));
}

#[test]
fn a_scan_goes_on_where_the_last_one_ended_through_splits_and_merges() {
    let stream = TestStream::new(support::kinesis_endpoint(), 2);
    let producer = writer(&stream);
    let events = events(800, 60, 50);
    let mut placed = publish(&producer, &stream.name, &events[..200]);
    let (mut seen, end) = stream.scan(&ScanFrom::start());
    assert_eq!(seen.len(), 200);
    let mut from = ScanFrom {
        positions: end.positions,
        others: OtherShards::FromTheirStart,
    };
    for (round, part) in [200..400, 400..600, 600..800].into_iter().enumerate() {
        match round {
            0 => stream.split(FIRST),
            1 => {
                let open = stream.open_shards();
                stream.merge(&open[1], &open[2]);
            }
            _ => {}
        }
        placed.extend(publish(&producer, &stream.name, &events[part]));
        let (records, end) = stream.scan(&from);
        assert_eq!(records.len(), 200, "round {round}");
        seen.extend(records);
        from.positions.extend(end.positions);
    }
    assert_eq!(check(&seen, &events, &placed), 0);
    assert_eq!(sequences(&stream.everything()).len(), events.len());
}

#[test]
fn what_was_put_behind_stored_positions_is_found_in_the_children_of_their_shards() {
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    let producer = writer(&stream);
    let events = events(300, 20, 50);
    let before = publish(&producer, &stream.name, &events[..100]);
    stream.split(FIRST);
    let open = stream.open_shards();
    stream.merge(&open[0], &open[1]);
    let after = publish(&producer, &stream.name, &events[100..]);
    let (records, end) = stream.scan(&behind(&before));
    let found: BTreeSet<_> = records
        .iter()
        .map(|record| (record.partition, record.sequence))
        .collect();
    let expected: BTreeSet<_> = after
        .iter()
        .map(|place| (place.partition, place.sequence))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(end.positions.len(), 4, "parent, children, grandchild");
    assert!(end.stale.is_empty() && !end.stopped);
    // Shards without a position whose parents have none are left alone.
    let nothing = ScanFrom {
        positions: BTreeMap::new(),
        others: OtherShards::OnlyDescendants,
    };
    assert!(stream.scan(&nothing).0.is_empty());
}

#[test]
fn a_scan_stops_when_its_visitor_says_so_and_tells_where() {
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    publish(&writer(&stream), &stream.name, &events(50, 50, 40));
    let mut count = 0;
    let end = stream
        .scanner()
        .scan(&stream.name, &ScanFrom::start(), &mut |_record| {
            count += 1;
            Ok(match count {
                7 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        });
    assert!(end.unwrap().stopped);
    assert_eq!(count, 7);
}

#[test]
fn a_position_of_another_stream_is_told_and_everything_is_read() {
    let (old, new) = (
        TestStream::new(support::kinesis_endpoint(), 3),
        TestStream::new(support::kinesis_endpoint(), 1),
    );
    publish(&writer(&new), &new.name, &events(20, 20, 40));
    let placed = publish(&writer(&old), &old.name, &events(200, 200, 40));
    let foreign = placed.iter().find(|place| place.partition == 2).unwrap();
    let (records, end) = new.scan(&only(FIRST, ReadFrom::After(foreign.sequence)));
    assert_eq!(records.len(), 20);
    assert_eq!(end.stale, [FIRST]);
}

#[test]
fn expired_iterators_throttles_and_lost_answers_cost_no_record_and_repeat_none() {
    let stream = TestStream::new(support::kinesis_endpoint(), 2);
    let events = events(1_200, 100, 60);
    let placed = publish(&writer(&stream), &stream.name, &events);
    for seed in 1..=3 {
        let proxy = stream.proxy(Plan {
            seed,
            throttle: 0.15,
            lose: 0.15,
            expire: 0.2,
            ..Plan::default()
        });
        let settings = ReaderSettings {
            page_records_max: 25,
            ..FAST
        };
        let scan = Scan::new(client_at(&proxy.url()), settings);
        let (records, _) = scan_all(&scan, &stream.name, &ScanFrom::start());
        assert_eq!(check(&records, &events, &placed), 0);
        let stats = proxy.stats();
        assert!(
            stats.expired > 0 && stats.throttled > 0 && stats.lost > 0,
            "{stats:?}"
        );
    }
}

#[test]
fn reads_of_a_shard_keep_within_five_a_second() {
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    publish(&writer(&stream), &stream.name, &events(80, 80, 40));
    let proxy = FaultProxy::start(
        &stream.endpoint,
        Plan {
            limits: true,
            ..Plan::default()
        },
    );
    let settings = ReaderSettings {
        page_records_max: 10,
        ..ReaderSettings::default()
    };
    let begun = Instant::now();
    let scan = Scan::new(client_at(&proxy.url()), settings);
    let (records, _) = scan_all(&scan, &stream.name, &ScanFrom::start());
    assert_eq!(records.len(), 80);
    assert_eq!(proxy.stats().limited_reads, 0);
    assert!(
        begun.elapsed() > Duration::from_millis(1_400),
        "eight pages and an empty one"
    );
    // One that does not pace itself is refused, waits, and still reads everything.
    let hasty = ReaderSettings {
        page_records_max: 10,
        ..FAST
    };
    let scan = Scan::new(client_at(&proxy.url()), hasty);
    let (records, _) = scan_all(&scan, &stream.name, &ScanFrom::start());
    assert_eq!(records.len(), 80);
    assert!(proxy.stats().limited_reads > 0);
}

#[test]
fn a_closed_shard_is_read_to_its_end() {
    for endpoint in [
        support::kinesis_endpoint(),
        support::kinesis_mock_endpoint(),
    ] {
        let stream = TestStream::new(endpoint, 1);
        let placed = publish(&writer(&stream), &stream.name, &events(12, 12, 40));
        stream.split(FIRST);
        let mut reader = stream.scanner().shard(&stream.name, FIRST, ReadFrom::Start);
        let mut read = 0;
        support::wait_until(
            "the end of the closed shard",
            Duration::from_secs(20),
            || {
                let page = reader.next_page().unwrap();
                read += page.records.len();
                page.end == PageEnd::Closed
            },
        );
        assert_eq!(read, placed.len());
        assert!(reader.is_closed());
        assert_eq!(reader.next_page().unwrap().end, PageEnd::Closed);
    }
}

#[test]
fn shards_are_listed_page_by_page_and_streams_are_made_once() {
    let stream = TestStream::new(support::kinesis_mock_endpoint(), 5);
    let again = ensure_stream(&stream.client, &stream.name, 9, Duration::from_secs(10));
    assert_eq!(again.unwrap(), EnsuredStream::Existed);
    let bare = bare_client(&stream.endpoint);
    let request = bare.update_shard_count().stream_name(&stream.name);
    let request = request
        .target_shard_count(8)
        .scaling_type(ScalingType::UniformScaling);
    block_on(request.send()).unwrap();
    stream.wait_until_active();
    let patience = Duration::from_secs(20);
    let whole = stream.scanner().shards(&stream.name).unwrap();
    let paged = list_shards_by_page(&stream.client, &stream.name, patience, 3).unwrap();
    assert_eq!(paged, whole);
    assert_eq!(paged.open().count(), 8);
    assert!(paged.iter().count() > 8, "closed shards are listed, too");
    let state = describe_stream(&stream.client, &stream.name, patience).unwrap();
    let state = state.unwrap();
    assert!(
        state.active && state.open_shards == 8 && state.retention_hours >= 24,
        "{state:?}"
    );
    let absent = describe_stream(&stream.client, "no-such-stream", patience);
    assert_eq!(absent.unwrap(), None);
}

#[test]
fn the_stand_in_with_every_call_is_followed_through_a_split() {
    let stream = TestStream::new(support::kinesis_mock_endpoint(), 1);
    let producer = writer(&stream);
    let events: Vec<Event> = events(120, 12, 40);
    let mut placed = publish(&producer, &stream.name, &events[..60]);
    stream.split(FIRST);
    placed.extend(publish(&producer, &stream.name, &events[60..]));
    assert_eq!(check(&stream.everything(), &events, &placed), 0);
}
