//! Heads: how far readers may read a partition (contract 8), and the topic's own description.
//!
//! A head is published after the commit it tells of, at most [`super::publisher`]'s interval later,
//! and never before it. It is not synced: a restart writes it anew from the journal.

use super::disk::{Durability, damaged, read_small_file, replace_file};
use super::layout;
use crate::failpoints::Artefact;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// The only `_topic.json` version this program writes and reads.
const TOPIC_VERSION: u32 = 1;

#[derive(Deserialize)]
struct Head {
    next_offset: u64,
}

/// Replaces a head file.
pub fn publish_head(path: &Path, next_offset: u64) -> Result<(), StoreError> {
    let text = format!("{{\"next_offset\":{next_offset}}}");
    replace_file(path, text.as_bytes(), Durability::Renamed, Artefact::Head)
}

/// Reads a head; `None` when it is absent or not a head (it is only a hint, contract 8).
pub fn read_head(path: &Path) -> Result<Option<u64>, StoreError> {
    let bytes = read_small_file(path)?;
    let head = bytes.and_then(|bytes| serde_json::from_slice::<Head>(&bytes).ok());
    Ok(head.map(|head| head.next_offset))
}

/// What a topic's folder says about it. Written when the topic is created, never changed for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDescription {
    version: u32,
    partitions: u32,
}

impl TopicDescription {
    /// A topic of `partitions` partitions.
    pub fn new(partitions: u32) -> TopicDescription {
        TopicDescription {
            version: TOPIC_VERSION,
            partitions,
        }
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The description of a topic, `None` when the topic does not exist or another program made it.
    pub fn read(run: &RunPaths, topic: &str) -> Result<Option<TopicDescription>, StoreError> {
        let path = layout::topic_description_path(run, topic);
        let path = Path::new(&path);
        let Some(bytes) = read_small_file(path)? else {
            return Ok(None);
        };
        let description: TopicDescription = serde_json::from_slice(&bytes)
            .map_err(|cause| damaged(path, 0, format!("topic description: {cause}")))?;
        if description.version != TOPIC_VERSION {
            return Err(StoreError::UnknownVersion {
                key: path.display().to_string(),
                found: description.version,
                known: TOPIC_VERSION,
            });
        }
        Ok(Some(description))
    }

    /// Writes the description of a new topic. Its folder must exist. Shards that create the topic at the same
    /// moment all write the same; each must find its own staged file when it renames it.
    pub fn write(&self, run: &RunPaths, topic: &str) -> Result<(), StoreError> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = layout::topic_description_path(run, topic);
        let text = format!(
            "{{\"version\":{},\"partitions\":{}}}",
            self.version, self.partitions
        );
        replace_file(
            Path::new(&path),
            text.as_bytes(),
            Durability::Synced,
            Artefact::TopicDescription,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_domain::run_paths::PlatformRunId;

    #[test]
    fn shards_that_create_one_topic_at_once_do_not_take_each_others_files_away() {
        let folder = tempfile::tempdir().unwrap();
        let id = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        let run = RunPaths::new(&folder.path().to_string_lossy(), &id);
        std::fs::create_dir_all(layout::topic_folder(&run, "a.topic")).unwrap();
        std::thread::scope(|scope| {
            let create = || {
                for _ in 0..20 {
                    TopicDescription::new(4).write(&run, "a.topic").unwrap();
                }
            };
            for _ in 0..4 {
                scope.spawn(create);
            }
        });
        let found = TopicDescription::read(&run, "a.topic").unwrap().unwrap();
        assert_eq!(found.partitions(), 4);
    }
}
