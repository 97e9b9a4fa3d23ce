//! The file control bus: one JSON file per message (contract 5.9).
//!
//! `<root>/<topic>/<message_id>.json` holds the envelope (SJ) and a newline. A message id is kept
//! once: publishing it again changes nothing. Files appear whole, because they are written beside
//! their place and linked into it. What is settled is remembered until the process ends; the durable
//! memory of what was done with a message belongs to its consumer.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wellspring_domain::ports::{ControlBus, ControlRecord, ObjectStore, PutOutcome, StoreError};

use crate::failpoints::{Artefact, Operation, Step, around};
use crate::object_store::LocalFiles;

/// Characters of a message id; it becomes a file name.
const MESSAGE_ID_CHARS_MAX: usize = 128;

/// A folder as a control bus.
pub struct FileControlBus {
    files: LocalFiles,
    settled: Mutex<BTreeSet<String>>,
    warned: Mutex<BTreeSet<String>>,
}

impl FileControlBus {
    /// The bus below `root`; folders are made by the first publish.
    pub fn new(root: impl Into<PathBuf>) -> FileControlBus {
        FileControlBus {
            files: LocalFiles::new(root),
            settled: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// Says once per file that it is passed over.
    fn warn_once(&self, key: &str, cause: &str) {
        if lock(&self.warned).insert(key.to_owned()) {
            tracing::warn!(
                message_file = key,
                cause,
                "control bus file is not an envelope, skipped"
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message_key(topic: &str, message_id: &str) -> Result<String, StoreError> {
    let key = format!("{topic}/{message_id}.json");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let sized = (1..=MESSAGE_ID_CHARS_MAX).contains(&message_id.len());
    match sized && message_id.bytes().all(plain) {
        true => Ok(key),
        false => Err(StoreError::InvalidKey { key }),
    }
}

impl ControlBus for FileControlBus {
    fn publish(
        &self,
        topic: &str,
        message_id: &str,
        _partition_key: &str,
        envelope: &[u8],
    ) -> Result<PutOutcome, StoreError> {
        let key = message_key(topic, message_id)?;
        let mut line = Vec::with_capacity(envelope.len() + 1);
        line.extend_from_slice(envelope);
        line.push(b'\n');
        let step = Step(Artefact::ReadyMessage, Operation::Put);
        around(step, || self.files.put_if_absent(&key, &line))
    }

    fn poll(&self, topic: &str, max: usize) -> Result<Vec<ControlRecord>, StoreError> {
        let mut records = Vec::new();
        for file in self.files.list(topic)? {
            if records.len() == max {
                break;
            }
            let name = &file.key[topic.len() + 1..];
            let is_message = name.ends_with(".json") && !name.contains('/');
            if !is_message || lock(&self.settled).contains(&file.key) {
                continue;
            }
            // A file that was cleaned away since the listing is no message any more.
            let Some(bytes) = self.files.get(&file.key)? else {
                continue;
            };
            match serde_json::from_slice::<serde_json::Value>(&bytes) {
                Ok(envelope) if envelope.is_object() => {
                    records.push(ControlRecord {
                        position: file.key,
                        bytes,
                    });
                }
                Ok(_no_object) => self.warn_once(&file.key, "not a JSON object"),
                Err(error) => self.warn_once(&file.key, &error.to_string()),
            }
        }
        Ok(records)
    }

    fn settle(&self, _topic: &str, record: &ControlRecord) -> Result<(), StoreError> {
        lock(&self.settled).insert(record.position.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "fp.bus.control.v1";

    fn bus() -> (tempfile::TempDir, FileControlBus) {
        let folder = tempfile::tempdir().unwrap();
        let bus = FileControlBus::new(folder.path().join("not/yet/there"));
        (folder, bus)
    }

    #[test]
    fn a_message_id_is_kept_once_and_the_first_content_stays() {
        let (_folder, bus) = bus();
        let publish = |text: &str| bus.publish(TOPIC, "m1", "k", text.as_bytes()).unwrap();
        assert_eq!(publish("{\"n\": 1}"), PutOutcome::Created);
        assert_eq!(publish("{\"n\": 2}"), PutOutcome::AlreadyExists);
        let records = bus.poll(TOPIC, 10).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].bytes, b"{\"n\": 1}\n");
    }

    #[test]
    fn a_poll_gives_unsettled_messages_by_name_up_to_the_limit() {
        let (_folder, bus) = bus();
        for id in ["c", "a", "b"] {
            bus.publish(TOPIC, id, "k", b"{}").unwrap();
        }
        let names = |records: &[ControlRecord]| -> Vec<String> {
            records
                .iter()
                .map(|record| record.position.clone())
                .collect()
        };
        let records = bus.poll(TOPIC, 2).unwrap();
        assert_eq!(
            names(&records),
            [format!("{TOPIC}/a.json"), format!("{TOPIC}/b.json")]
        );
        bus.settle(TOPIC, &records[0]).unwrap();
        let left = bus.poll(TOPIC, 10).unwrap();
        assert_eq!(
            names(&left),
            [format!("{TOPIC}/b.json"), format!("{TOPIC}/c.json")]
        );
    }

    #[test]
    fn files_that_are_no_messages_are_passed_over_and_an_absent_topic_is_empty() {
        let (folder, bus) = bus();
        assert_eq!(bus.poll(TOPIC, 10).unwrap(), []);
        bus.publish(TOPIC, "good", "k", b"{}").unwrap();
        let topic = folder.path().join("not/yet/there").join(TOPIC);
        std::fs::write(topic.join("half.json"), b"{\"topic\": ").unwrap();
        std::fs::write(topic.join("list.json"), b"[]").unwrap();
        std::fs::write(topic.join("notes.txt"), b"{}").unwrap();
        std::fs::create_dir(topic.join("deeper")).unwrap();
        std::fs::write(topic.join("deeper/m.json"), b"{}").unwrap();
        assert_eq!(bus.poll(TOPIC, 10).unwrap().len(), 1);
    }

    #[test]
    fn a_message_id_never_becomes_a_path() {
        let (_folder, bus) = bus();
        for bad in ["", "../up", "a/b", "a.b", &"x".repeat(129)] {
            let refused = bus.publish(TOPIC, bad, "k", b"{}").unwrap_err();
            assert_eq!(refused.code(), "STORE_KEY_INVALID", "{bad}");
        }
    }
}
