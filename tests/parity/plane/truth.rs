//! What is really there: rows of the ledger by plain SQL, records by a plain scan of the stream. Nothing of the
//! gate's own reading is used.

use super::Site;
use super::world::Contents;
use crate::kinesis::{FAST, client_at, scan_all};
use crate::support;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use wellspring::event_bus::kinesis::{Scan, ScanFrom};

/// Counts of a look.
#[derive(Debug, PartialEq, Eq)]
pub struct Truth {
    /// Admitted events, each there once.
    pub admitted: u64,
    /// Records of the run on the stream that no row names.
    pub strays: u64,
    /// Flushes that nobody has settled.
    pub unsettled: u64,
}

/// Every admitted row names a record that is there, each event is admitted once, and per key the order by
/// sequence is that of the world. Nothing is in flight any more.
#[track_caller]
pub fn assert_run_is_whole(site: &Site, run: &str) -> Truth {
    let (contents, truth) = look(site, run);
    let wanted = &site.world.reference;
    assert_eq!(contents.len(), wanted.len(), "partition keys");
    for (key, ids) in wanted {
        let found = contents
            .get(key)
            .unwrap_or_else(|| panic!("nothing of {key:?}"));
        assert_eq!(found, ids, "events of {key:?}");
    }
    assert_eq!(truth.admitted, site.world.events());
    assert_eq!(truth.unsettled, 0, "flushes nobody has settled");
    truth
}

/// The same for the part of a run that is there.
#[track_caller]
pub fn look(site: &Site, run: &str) -> (Contents, Truth) {
    let records = records(site, run);
    let total = records.len() as u64;
    let of_run = format!("platform_run_id = '{run}'");
    let in_flight = site.rows(&format!(
        "SELECT event_id FROM admissions WHERE {of_run} AND state IS DISTINCT FROM 'ADMITTED'"
    ));
    assert!(in_flight.is_empty(), "not admitted: {in_flight:?}");
    let mut by_key: BTreeMap<_, Vec<(String, String)>> = BTreeMap::new();
    let rows = site.rows(&format!(
        "SELECT event_id, eb_topic, eb_partition, eb_offset, eb_offset_kind FROM admissions WHERE {of_run}"
    ));
    let mut named = HashMap::new();
    for row in &rows {
        let [event, topic, partition, offset, kind] = &row[..] else {
            panic!("{row:?}")
        };
        assert_eq!(kind, "kinesis_sequence", "{row:?}");
        let place = (partition.parse::<u32>().unwrap(), by_value(offset));
        let record = records
            .get(&place)
            .unwrap_or_else(|| panic!("{event}: no record at {place:?}"));
        assert_eq!(&record.event_id, event, "at {place:?}");
        let before = named.insert(place.clone(), event.clone());
        assert_eq!(before, None, "two rows name {place:?}");
        let key = (topic.clone(), record.key.clone());
        by_key
            .entry(key)
            .or_default()
            .push((place.1, event.clone()));
    }
    let contents = by_key.into_iter().map(|(key, mut events)| {
        events.sort();
        (key, events.into_iter().map(|(_, event)| event).collect())
    });
    let unsettled = site.rows(&format!(
        "SELECT 1 FROM ws_flushes WHERE {of_run} AND state = 'CLAIMED'"
    ));
    let truth = Truth {
        admitted: rows.len() as u64,
        strays: total - rows.len() as u64,
        unsettled: unsettled.len() as u64,
    };
    (contents.collect(), truth)
}

/// A sequence number as a text that sorts by its value.
fn by_value(sequence: &str) -> String {
    assert!(
        sequence.bytes().all(|byte| byte.is_ascii_digit()),
        "{sequence:?}"
    );
    format!("{sequence:0>60}")
}

struct OnStream {
    event_id: String,
    key: String,
}

fn records(site: &Site, run: &str) -> HashMap<(u32, String), OnStream> {
    let scan = Scan::new(client_at(&support::kinesis_endpoint()), FAST);
    let (records, _) = scan_all(&scan, &site.stream, &ScanFrom::start());
    let records = records.into_iter().filter_map(|record| {
        let envelope: Value = serde_json::from_slice(&record.data).unwrap();
        let text = |name: &str| envelope[name].as_str().unwrap().to_owned();
        let sequence = by_value(&record.sequence.to_string());
        let found = OnStream {
            event_id: text("event_id"),
            key: record.partition_key.clone(),
        };
        (text("platform_run_id") == run).then_some(((record.partition, sequence), found))
    });
    records.collect()
}
