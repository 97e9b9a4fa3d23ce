//! SIGTERM drains: what was accepted is answered, checkpoints are saved, exit 0 within ten seconds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::Site;
use crate::support::bus::records;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{RUN, traffic};
use crate::support::run::{ReadyRun, checkpointed_rows};
use crate::support::world::{STREAMED, World};

#[test]
fn a_stopped_stream_saves_its_checkpoints_and_goes_on_later() {
    let world = World::generate(4_000, 5, 2);
    world.pack();
    world.sort();
    let run = ReadyRun::new(&world);
    // A world of a week in a minute: the stop comes in the middle.
    let daemon = Daemon::start(&run.site, &["up", "--port", "0", "--speedup", "10080"]);
    let root = run.root();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while checkpointed_rows(&root).len() < STREAMED.len() {
        assert!(
            std::time::Instant::now() < end,
            "no checkpoint: {}",
            daemon.stderr()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = daemon.terminate();
    assert_eq!(ended.code, Some(0));
    assert!(ended.took < Duration::from_secs(10), "{ended:?}");
    let rows = checkpointed_rows(&root);
    let there = run.records().len() as u64;
    assert_eq!(
        rows.values().sum::<u64>(),
        there,
        "what was admitted is checkpointed: {rows:?}"
    );
    assert!(there < 10_000, "the stop came too late to tell anything");
    run.up_once(&[]).ok();
    run.verify();
    let found = run.recompute(&[]);
    assert_eq!(found.summary["events"], 10_000);
    assert_eq!(
        found.receipts("DUPLICATE"),
        0,
        "nothing acknowledged was sent again"
    );
}

#[test]
fn a_gate_that_is_stopped_answers_what_it_has_taken() {
    let site = Site::new();
    let daemon = Daemon::gate(&site);
    let (url, stop) = (daemon.url.clone(), Arc::new(AtomicBool::new(false)));
    let admitted: Arc<Mutex<Vec<String>>> = Arc::default();
    let pushers: Vec<_> = (0..4)
        .map(|pusher| {
            let (url, stop, admitted) = (url.clone(), stop.clone(), admitted.clone());
            std::thread::spawn(move || push_until(&url, pusher, &stop, &admitted))
        })
        .collect();
    while admitted.lock().unwrap().len() < 40 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = daemon.terminate();
    stop.store(true, Ordering::Relaxed);
    pushers
        .into_iter()
        .for_each(|pusher| pusher.join().unwrap());
    assert_eq!(ended.code, Some(0));
    assert!(ended.took < Duration::from_secs(10), "{ended:?}");
    let records = records(&site.run_root(RUN));
    let on_bus: std::collections::HashSet<&str> =
        records.iter().map(|record| record.event_id()).collect();
    for event_id in admitted.lock().unwrap().iter() {
        assert!(
            on_bus.contains(event_id.as_str()),
            "{event_id} was answered ADMIT and is not there"
        );
    }
}

/// Pushes one event after the other; a connection that ends is the gate's end, not a failure.
fn push_until(url: &str, pusher: u64, stop: &AtomicBool, admitted: &Mutex<Vec<String>>) {
    let client = reqwest::blocking::Client::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let event_id = format!("p{pusher}-{number}");
        let body = traffic(&event_id, pusher).to_string();
        let Ok(response) = client
            .post(format!("{url}/v1/ingest/push"))
            .body(body)
            .send()
        else {
            return;
        };
        let Ok(text) = response.text() else {
            return;
        };
        if text.contains("\"ADMIT\"") {
            admitted.lock().unwrap().push(event_id);
        }
    }
}
