//! The producer against a real server, with the faults of the proxy between them.

use crate::fault_proxy::Plan;
use crate::kinesis::{
    Event, TestStream, check, client_at, events, items, publish, scan_all, unpaced,
};
use crate::support;
use std::time::{Duration, Instant};
use wellspring::event_bus::kinesis::{Producer, ProducerSettings, PutItem, ScanFrom};
use wellspring_domain::event_bus::put_lanes::RequestLimits;
use wellspring_domain::event_bus::shard_buckets::ShardRates;
use wellspring_domain::ids::Hash32;

#[test]
fn everything_arrives_in_order_per_key_whatever_throttles_fails_or_is_lost() {
    for seed in 1..=4 {
        let stream = TestStream::new(support::kinesis_endpoint(), 3);
        let proxy = stream.proxy(Plan {
            seed,
            throttle: 0.1,
            partial: 0.1,
            lose: 0.1,
            delay_ms: 4,
            ..Plan::default()
        });
        let settings = ProducerSettings {
            request: RequestLimits {
                records_max: 60,
                bytes_max: 5 << 20,
            },
            ..unpaced(seed)
        };
        let producer = Producer::new(client_at(&proxy.url()), settings).unwrap();
        let events = events(2_000, 150, 200);
        let mut placed = Vec::new();
        for part in events.chunks(700) {
            placed.extend(publish(&producer, &stream.name, part));
        }
        let records = stream.everything();
        let strays = check(&records, &events, &placed);
        let stats = proxy.stats();
        println!("seed {seed}: {strays} strays, {stats:?}");
        assert!(
            stats.throttled > 0 && stats.partial > 0 && stats.lost > 0,
            "{stats:?}"
        );
        assert_eq!(stats.records_forwarded as usize, records.len());
        assert!(strays > 0, "a lost answer leaves a second copy");
    }
}

#[test]
fn the_token_buckets_keep_within_the_limits_of_the_shards() {
    let stream = TestStream::new(support::kinesis_endpoint(), 2);
    let limits = Plan {
        limits: true,
        ..Plan::default()
    };
    let events = events(3_500, 2_000, 100);
    let proxy = stream.proxy(limits);
    let settings = ProducerSettings {
        rates: ShardRates {
            records_per_second: 800,
            bytes_per_second: 800 << 10,
        },
        ..ProducerSettings::default()
    };
    let producer = Producer::new(client_at(&proxy.url()), settings).unwrap();
    let begun = Instant::now();
    let placed = publish(&producer, &stream.name, &events);
    let stats = proxy.stats();
    println!("paced: {:?}, {stats:?}", begun.elapsed());
    assert_eq!(
        stats.limited_writes, 0,
        "a paced producer is never refused: {stats:?}"
    );
    assert!(
        begun.elapsed() > Duration::from_millis(1_500),
        "3,500 records at 1,600 a second"
    );
    assert_eq!(check(&stream.everything(), &events, &placed), 0);
}

#[test]
fn without_buckets_the_refusals_of_the_shards_are_waited_out() {
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    let proxy = stream.proxy(Plan {
        limits: true,
        ..Plan::default()
    });
    let producer = Producer::new(client_at(&proxy.url()), unpaced(1)).unwrap();
    let events = events(2_500, 1_500, 100);
    let placed = publish(&producer, &stream.name, &events);
    assert!(proxy.stats().limited_writes > 0);
    assert_eq!(check(&stream.everything(), &events, &placed), 0);
}

#[test]
fn requests_keep_within_records_and_bytes_and_a_record_that_is_too_large_is_refused_unsent() {
    let stream = TestStream::new(support::kinesis_endpoint(), 2);
    let proxy = stream.proxy(Plan::default());
    let producer = Producer::new(client_at(&proxy.url()), unpaced(1)).unwrap();
    // The server refuses more than 500 records, a record over 1 MiB and a body over 7 MiB.
    let large = events(24, 24, (1 << 20) - 64);
    let placed = publish(&producer, &stream.name, &large);
    let small = events(1_700, 1_700, 40);
    let small_stream = TestStream::new(support::kinesis_endpoint(), 2);
    let small_placed = publish(&producer, &small_stream.name, &small);
    assert_eq!(check(&stream.everything(), &large, &placed), 0);
    assert_eq!(check(&small_stream.everything(), &small, &small_placed), 0);
    let calls = proxy.stats().calls;
    let mut too_large = events(3, 3, 100);
    too_large[2].data = vec![b'x'; (1 << 20) - 63];
    let refused = producer
        .publish(&items(&stream.name, &too_large), Duration::from_secs(5))
        .unwrap_err();
    assert_eq!(refused.cause.code(), "KINESIS_RECORD_TOO_LARGE");
    assert_eq!(refused.placed, [None, None, None]);
    assert_eq!(proxy.stats().calls, calls, "nothing was sent");
}

#[test]
fn a_call_ends_at_its_deadline_and_says_what_was_placed() {
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    let proxy = stream.proxy(Plan::default());
    let producer = Producer::new(client_at(&proxy.url()), unpaced(1)).unwrap();
    let first = events(20, 20, 50);
    publish(&producer, &stream.name, &first);
    proxy.set_plan(Plan {
        partial: 0.9,
        ..Plan::default()
    });
    let begun = Instant::now();
    let patience = Duration::from_millis(1_200);
    let many = events(400, 40, 50);
    let error = producer
        .publish(&items(&stream.name, &many), patience)
        .unwrap_err();
    assert!(begun.elapsed() < patience + Duration::from_secs(1));
    assert_eq!(error.cause.code(), "STORE_UNAVAILABLE");
    let placed = error.placed.iter().flatten().count();
    assert!((1..400).contains(&placed), "{placed} of 400");
    let records = stream.everything();
    let named = error
        .placed
        .iter()
        .zip(&many)
        .filter_map(|(place, event)| Some((place.as_ref()?, event)));
    for (place, event) in named {
        let found = records
            .iter()
            .find(|record| record.sequence == place.sequence);
        assert_eq!(found.unwrap().data, event.data);
    }
    // Each key stopped at its first record that was not placed.
    for (at, event) in many
        .iter()
        .enumerate()
        .filter(|(at, _)| error.placed[*at].is_none())
    {
        let later = many
            .iter()
            .enumerate()
            .skip(at)
            .filter(|(_, later)| later.key == event.key);
        assert!(later.into_iter().all(|(at, _)| error.placed[at].is_none()));
    }
}

#[test]
fn a_server_that_is_not_there_and_a_stream_that_is_not_there_are_told_apart() {
    let absent = Producer::new(client_at("http://127.0.0.1:9"), unpaced(1)).unwrap();
    let one = events(1, 1, 10);
    let patience = Duration::from_millis(500);
    let error = absent.publish(&items("s", &one), patience).unwrap_err();
    assert_eq!(error.cause.code(), "STORE_UNAVAILABLE");
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    let producer = Producer::new(stream.client.clone(), unpaced(1)).unwrap();
    let begun = Instant::now();
    let error = producer
        .publish(&items("no-such-stream", &one), Duration::from_secs(30))
        .unwrap_err();
    assert_eq!(error.cause.code(), "KINESIS_STREAM_NOT_FOUND");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "it is not tried again"
    );
}

#[test]
fn several_streams_and_several_writers_share_a_producer() {
    let streams = [1, 2].map(|shards| TestStream::new(support::kinesis_endpoint(), shards));
    let producer = Producer::new(streams[0].client.clone(), ProducerSettings::default()).unwrap();
    let both = [events(600, 30, 80), events(500, 20, 80)];
    // Two writers with keys of their own, each call on both streams.
    let placed: Vec<Vec<_>> = std::thread::scope(|scope| {
        let writers: Vec<_> = [0u8, 1]
            .map(|writer| {
                let (producer, both, streams) = (&producer, &both, &streams);
                scope.spawn(move || {
                    let of_writer = |event: &&Event| event.key.0[0] & 1 == writer;
                    let mine: Vec<(&str, &Event)> = streams
                        .iter()
                        .zip(both)
                        .flat_map(|(stream, events)| {
                            events
                                .iter()
                                .filter(of_writer)
                                .map(|event| (&*stream.name, event))
                        })
                        .collect();
                    let items: Vec<PutItem<'_>> = mine
                        .iter()
                        .map(|(stream, event)| PutItem {
                            stream,
                            partition_key: event.key,
                            data: &event.data,
                        })
                        .collect();
                    let placed = producer.publish(&items, Duration::from_secs(30)).unwrap();
                    let places = mine.into_iter().zip(placed);
                    places
                        .map(|((stream, event), place)| (stream, event, place))
                        .collect()
                })
            })
            .into_iter()
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    for (stream, events) in streams.iter().zip(&both) {
        let of_stream = placed
            .iter()
            .flatten()
            .filter(|(name, ..)| *name == stream.name);
        let (mine, places): (Vec<Event>, Vec<_>) = of_stream
            .map(|(_, event, place)| ((*event).clone(), *place))
            .unzip();
        assert_eq!(mine.len(), events.len());
        assert_eq!(check(&stream.everything(), &mine, &places), 0);
    }
}

#[test]
fn a_producer_follows_a_resharding() {
    let stream = TestStream::new(support::kinesis_endpoint(), 1);
    let producer = Producer::new(stream.client.clone(), ProducerSettings::default()).unwrap();
    let events = events(900, 50, 60);
    let mut placed = publish(&producer, &stream.name, &events[..300]);
    stream.split("shardId-000000000000");
    placed.extend(publish(&producer, &stream.name, &events[300..600]));
    let open = stream.open_shards();
    stream.merge(&open[0], &open[1]);
    placed.extend(publish(&producer, &stream.name, &events[600..]));
    assert_eq!(check(&stream.everything(), &events, &placed), 0);
    let shards: std::collections::BTreeSet<u32> =
        placed.iter().map(|place| place.partition).collect();
    assert_eq!(shards.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn the_stand_in_with_every_call_takes_and_gives_records_too() {
    let stream = TestStream::new(support::kinesis_mock_endpoint(), 2);
    let producer = Producer::new(stream.client.clone(), ProducerSettings::default()).unwrap();
    let events = events(200, 20, 60);
    let placed = publish(&producer, &stream.name, &events);
    assert_eq!(check(&stream.everything(), &events, &placed), 0);
    let key = Hash32::of(b"unused");
    assert!(
        stream
            .everything()
            .iter()
            .all(|record| record.partition_key.as_bytes() != key.hex())
    );
    let (again, _) = scan_all(&stream.scanner(), &stream.name, &ScanFrom::start());
    assert_eq!(again.len(), events.len());
}
