//! The event bus as its files say it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::gate_client::GateClient;

/// One record of the bus.
pub struct Record {
    /// Topic it lies in.
    pub topic: String,
    /// Partition it lies in.
    pub partition: u32,
    /// Its partition key.
    pub partition_key: String,
    /// Its envelope.
    pub envelope: Value,
}

impl Record {
    /// The event's id.
    pub fn event_id(&self) -> &str {
        self.envelope["event_id"].as_str().unwrap()
    }

    /// The event's time; its form sorts as text.
    pub fn ts_utc(&self) -> &str {
        self.envelope["ts_utc"].as_str().unwrap()
    }
}

/// Every record of a run, by topic, partition and offset.
pub fn records(run_root: &Path) -> Vec<Record> {
    let mut logs = Vec::new();
    for topic in fs::read_dir(run_root.join("eb")).unwrap() {
        let topic = topic.unwrap();
        let name = topic.file_name().into_string().unwrap();
        for file in fs::read_dir(topic.path()).unwrap() {
            let path = file.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if let Some(partition) = stem.strip_prefix("partition=") {
                logs.push((name.clone(), partition.parse().unwrap(), path));
            }
        }
    }
    logs.sort();
    let mut records = Vec::new();
    for (topic, partition, path) in logs {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{} is torn",
            path.display()
        );
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            records.push(Record {
                topic: topic.clone(),
                partition,
                partition_key: record["partition_key"].as_str().unwrap().to_owned(),
                envelope: record["payload"].clone(),
            });
        }
    }
    records
}

/// Asserts that each event is on the bus once and that its ADMIT receipt can be looked up.
#[track_caller]
pub fn assert_each_once_and_receipted(client: &GateClient, run_root: &Path) -> Vec<String> {
    let records = records(run_root);
    let mut seen = HashSet::new();
    for record in &records {
        let event_id = record.event_id();
        assert!(
            seen.insert((&record.topic, event_id)),
            "{event_id} is there twice"
        );
        let found = client.get(&format!("/v1/ops/lookup?event_id={event_id}"));
        assert_eq!(
            found.body["decision"], "ADMIT",
            "{event_id} has no receipt: {found:?}"
        );
    }
    let ids = records.iter().map(|record| record.event_id().to_owned());
    ids.collect()
}
