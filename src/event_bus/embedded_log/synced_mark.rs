//! The sync mark of a journal: everything before it was synced and need not be proven again.
//!
//! Written by rename about once a second, after 64 MiB and at a clean close, always behind the sync it
//! tells of. It also carries all partition ends, so that a start reads only what lies after it.

use super::disk::{Durability, damaged, read_small_file, replace_file};
use super::frame_decode::ConfirmedEnd;
use super::journal_writer::JournalEnd;
use super::layout;
use crate::failpoints::Artefact;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// The only version this program writes and reads.
const MARK_VERSION: u32 = 1;

/// How far one shard's journal is known to be on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncedMark {
    version: u32,
    /// Segment the mark lies in.
    pub segment: u32,
    /// Bytes of that segment known to be on the disk.
    pub bytes: u64,
    /// Ends of all partitions the shard knows of.
    pub ends: Vec<MarkedEnd>,
}

/// A partition's end in a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedEnd {
    topic: Arc<str>,
    partition: u32,
    next_offset: u64,
    next_byte: u64,
}

impl SyncedMark {
    /// The mark at `end`.
    pub fn new(end: &JournalEnd, ends: &[ConfirmedEnd]) -> SyncedMark {
        let ends = ends.iter().map(|end| MarkedEnd {
            topic: end.topic.clone(),
            partition: end.partition,
            next_offset: end.next_offset,
            next_byte: end.next_byte,
        });
        SyncedMark {
            version: MARK_VERSION,
            segment: end.segment,
            bytes: end.bytes,
            ends: ends.collect(),
        }
    }

    /// The partition ends at the mark.
    pub fn confirmed_ends(&self) -> impl Iterator<Item = ConfirmedEnd> + '_ {
        self.ends.iter().map(|end| ConfirmedEnd {
            topic: end.topic.clone(),
            partition: end.partition,
            next_offset: end.next_offset,
            next_byte: end.next_byte,
        })
    }

    /// The last mark. `None` when there is none or power loss left half of one: then the newest
    /// segment is read from its start.
    pub fn read(run: &RunPaths, shard: u16) -> Result<Option<SyncedMark>, StoreError> {
        let path = layout::synced_mark_path(run, shard);
        let path = Path::new(&path);
        let Some(bytes) = read_small_file(path)? else {
            return Ok(None);
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
            tracing::warn!(path = %path.display(), "sync mark is unreadable, reading the segment");
            return Ok(None);
        };
        let found = value["version"].as_u64().unwrap_or_default();
        if found != u64::from(MARK_VERSION) {
            return Err(StoreError::UnknownVersion {
                key: path.display().to_string(),
                found: u32::try_from(found).unwrap_or(u32::MAX),
                known: MARK_VERSION,
            });
        }
        serde_json::from_value(value)
            .map(Some)
            .map_err(|cause| damaged(path, 0, format!("sync mark: {cause}")))
    }

    /// Replaces the mark.
    pub fn write(&self, run: &RunPaths, shard: u16) -> Result<(), StoreError> {
        let path = layout::synced_mark_path(run, shard);
        let text = serde_json::to_vec(self)
            .map_err(|cause| damaged(Path::new(&path), 0, cause.to_string()))?;
        replace_file(
            Path::new(&path),
            &text,
            Durability::Renamed,
            Artefact::SyncMark,
        )
    }
}
