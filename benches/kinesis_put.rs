//! The floor: a bare loop of `PutRecords` with nothing around it, beside `Producer::publish` of the same records.
//!
//! Needs a Kinesis server: `WELLSPRING_TEST_KINESIS_ENDPOINT` and credentials in the environment, as
//! `make parity-up` prints them. `KINESIS_PUT_RECORDS`, `KINESIS_PUT_BYTES` and `KINESIS_PUT_LANES` size it.

#![allow(missing_docs, clippy::disallowed_methods)]

use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use std::time::{Duration, Instant};
use wellspring::blocking_runtime::block_on;
use wellspring::event_bus::kinesis::{
    KinesisClient, KinesisWiring, Producer, ProducerSettings, PutItem, ensure_stream,
};
use wellspring::machine::process_seconds;
use wellspring_domain::event_bus::shard_buckets::ShardRates;
use wellspring_domain::ids::Hash32;

const REQUEST_RECORDS: usize = 500;
const SHARDS: u32 = 8;
const HINT: &str = "start one with `make parity-up` and use the environment it prints";

fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

fn needed(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: {HINT}"))
}

fn measure(name: &str, records: usize, work: impl FnOnce()) -> f64 {
    let (begun, cpu) = (Instant::now(), process_seconds());
    work();
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    let cpu = (process_seconds() - cpu) / records as f64 * 1e6;
    println!("{name:<28} {rate:>9.0} records/s   {cpu:>6.2} client CPU-s per million");
    rate
}

fn bare_client(endpoint: &str) -> aws_sdk_kinesis::Client {
    let credentials = Credentials::new(
        needed("AWS_ACCESS_KEY_ID"),
        needed("AWS_SECRET_ACCESS_KEY"),
        None,
        None,
        "environment",
    );
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    aws_sdk_kinesis::Client::from_conf(config.build())
}

async fn bare_loop(
    client: aws_sdk_kinesis::Client,
    stream: String,
    keys: Vec<Hash32>,
    data: bytes::Bytes,
) {
    for chunk in keys.chunks(REQUEST_RECORDS) {
        let entry = |key: &Hash32| {
            PutRecordsRequestEntry::builder()
                .data(Blob::from_maybe_shared(data.clone()))
                .partition_key(String::from_utf8(key.hex().to_vec()).expect("hex"))
                .build()
                .expect("data and key are set")
        };
        let entries = chunk.iter().map(entry).collect();
        let request = client.put_records().stream_name(&stream);
        let answer = request.set_records(Some(entries)).send().await;
        assert_eq!(
            answer.expect("no faults here").failed_record_count(),
            Some(0)
        );
    }
}

fn main() {
    let Ok(endpoint) = std::env::var("WELLSPRING_TEST_KINESIS_ENDPOINT") else {
        println!("not measured: WELLSPRING_TEST_KINESIS_ENDPOINT names no server; {HINT}");
        return;
    };
    let records = number("KINESIS_PUT_RECORDS", 40_000);
    let bytes = number("KINESIS_PUT_BYTES", 1_000);
    let lanes = number("KINESIS_PUT_LANES", 4);
    let wiring = KinesisWiring {
        region: Some("us-east-1".to_owned()),
        endpoint_url: Some(endpoint.clone()),
        ..KinesisWiring::default()
    };
    let client = KinesisClient::connect(&wiring).expect("a client");
    let stream = format!("bench-put-{}", std::process::id());
    ensure_stream(&client, &stream, SHARDS, Duration::from_secs(30)).expect("a stream");
    let keys: Vec<Hash32> = (0..records)
        .map(|at| Hash32::of(&at.to_le_bytes()))
        .collect();
    let data = vec![b'x'; bytes];
    println!("{records} records of {bytes} bytes, {SHARDS} shards, {lanes} connections or lanes");
    let mut rates = Vec::new();
    for round in 1..=3 {
        let bare = measure(&format!("bare PutRecords loop {round}"), records, || {
            let client = bare_client(&endpoint);
            let shared = bytes::Bytes::from(data.clone());
            let loops: Vec<_> = keys
                .chunks(records.div_ceil(lanes))
                .map(|part| {
                    bare_loop(
                        client.clone(),
                        stream.clone(),
                        part.to_vec(),
                        shared.clone(),
                    )
                })
                .collect();
            block_on(futures::future::join_all(loops));
        });
        let settings = ProducerSettings {
            lanes,
            rates: ShardRates::default(),
            ..ProducerSettings::default()
        };
        let producer = Producer::new(client.clone(), settings).expect("settings");
        let ours = measure(&format!("Producer::publish {round}"), records, || {
            // A flush of the gate at full speed is a few requests per lane.
            for part in keys.chunks(REQUEST_RECORDS * lanes * 4) {
                let items: Vec<PutItem<'_>> = part
                    .iter()
                    .map(|key| PutItem {
                        stream: &stream,
                        partition_key: *key,
                        data: &data,
                    })
                    .collect();
                producer
                    .publish(&items, Duration::from_secs(60))
                    .expect("placed");
            }
        });
        rates.push(ours / bare);
    }
    rates.sort_by(f64::total_cmp);
    println!("ratio to the floor, middle of three: {:.2}", rates[1]);
}
