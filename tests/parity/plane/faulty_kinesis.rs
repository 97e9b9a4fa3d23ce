//! The event bus throttles, refuses parts and loses answers: the run is whole, repeated puts are strays that no
//! reader of the bus sees.

use super::Site;
use super::truth::assert_run_is_whole;
use crate::fault_proxy::{FaultProxy, Plan};
use crate::support;
use serde_json::Value;
use std::collections::HashSet;

#[test]
fn a_faulty_event_bus_gives_a_whole_run_and_its_repeated_puts_are_never_read() {
    let mut site = Site::new();
    let plan = Plan {
        seed: 7,
        throttle: 0.1,
        partial: 0.05,
        lose: 0.15,
        delay_ms: 20,
        ..Plan::default()
    };
    let proxy = FaultProxy::start(&support::kinesis_endpoint(), plan);
    site.set("EVENT_BUS_ENDPOINT_URL", proxy.url());
    let run = site.ready_run();
    let streamed = site.up_once_within(6.0).ok();
    assert_eq!(
        streamed.json()[0]["status"],
        "STREAMED",
        "{}",
        streamed.everything()
    );
    let stats = proxy.stats();
    println!("{stats:?}");
    assert!(
        stats.throttled > 0 && stats.partial > 0 && stats.lost > 0,
        "{stats:?}"
    );
    site.set("EVENT_BUS_ENDPOINT_URL", support::kinesis_endpoint());
    let truth = assert_run_is_whole(&site, &run);
    println!("{truth:?}");
    assert!(truth.strays > 0, "lost answers make repeated puts");
    let bus = site.verify();
    let partitions = bus["partitions"].as_array().unwrap();
    let strays: u64 = partitions
        .iter()
        .map(|one| one["stray"].as_u64().unwrap())
        .sum();
    assert_eq!(strays, truth.strays, "{bus}");
    let places: Vec<(&str, String)> = partitions
        .iter()
        .map(|one| (one["topic"].as_str().unwrap(), one["partition"].to_string()))
        .collect();
    assert_each_event_is_read_once(&site, &places);
}

/// `bus read` shows each admitted event once.
#[track_caller]
fn assert_each_event_is_read_once(site: &Site, places: &[(&str, String)]) {
    let mut seen = HashSet::new();
    for (topic, partition) in places {
        let args = ["bus", "read", "--max", "10000000", "--topic", topic];
        let read = site.run(&[&args[..], &["--partition", partition]].concat());
        for line in read.ok().stdout.lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            let envelope = &entry["record"]["payload"];
            let event = envelope["event_id"].as_str().unwrap().to_owned();
            assert!(seen.insert((*topic, event)), "read twice: {line}");
        }
    }
    assert_eq!(seen.len() as u64, site.world.events());
}
