//! Brings partition files in line with the journals: the journal says where each partition ends.
//!
//! Lines behind that end were never committed and are cut. A file that is shorter, or whose lines do
//! not match their checksum, is refused: what was answered for would be missing.

use super::disk::{LogFile, damaged, entry_names, failed};
use super::frame_decode::PartitionEntry;
use super::head::{TopicDescription, publish_head};
use super::journal_recovery::rewrite_range;
use super::layout;
use super::run_state::{EndMap, LineEnd, PartitionKey, RunState};
use crate::checksum::crc32c_append;
use crate::failpoints::{Artefact, Operation, Step, around};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// Bytes read at once to prove a checksum.
const READ_BYTES: usize = 1 << 20;

/// A partition file as it was found. Nothing has been changed yet.
#[derive(Debug)]
pub struct InspectedPartition {
    key: PartitionKey,
    path: PathBuf,
    end: LineEnd,
    length: u64,
    rewrite_from: Option<u64>,
}

/// Every partition that exists: known to the journals or found in a topic folder.
pub fn all_partitions(run: &RunPaths, ends: &EndMap) -> Result<Vec<PartitionKey>, StoreError> {
    let mut keys: BTreeSet<PartitionKey> = ends
        .confirmed()
        .map(|end| (end.topic, end.partition))
        .collect();
    for topic in topics(run)? {
        let folder = layout::topic_folder(run, &topic);
        let names = entry_names(Path::new(&folder))?;
        let found = names
            .iter()
            .filter_map(|name| layout::parse_partition_name(name));
        let described = TopicDescription::read(run, &topic)?.map_or(0, |topic| topic.partitions());
        keys.extend(
            found
                .chain(0..described)
                .map(|partition| (topic.as_str().into(), partition)),
        );
    }
    Ok(keys.into_iter().collect())
}

/// Topics that have a folder, in order.
pub fn topics(run: &RunPaths) -> Result<Vec<String>, StoreError> {
    let eb = PathBuf::from(run.eb());
    let mut names = entry_names(&eb)?;
    names.retain(|name| eb.join(name).is_dir());
    Ok(names)
}

impl InspectedPartition {
    /// Checks one partition file against its end and the lines confirmed after the sync mark.
    pub fn inspect(
        run: &RunPaths,
        key: &PartitionKey,
        ends: &EndMap,
        tail: &[PartitionEntry],
    ) -> Result<InspectedPartition, StoreError> {
        let path = PathBuf::from(layout::partition_path(run, &key.0, key.1));
        let end = ends.get(key);
        let length = match std::fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => 0,
            Err(cause) => return Err(failed("stat", &path)(cause)),
        };
        if length < end.next_byte {
            let cause = format!("bus file ends here, the journal says {}", end.next_byte);
            return Err(damaged(&path, length, cause));
        }
        if length > 0 && !ends.contains(key) && TopicDescription::read(run, &key.0)?.is_none() {
            let cause =
                "lines of another program, which no journal knows; they are left as they are";
            return Err(damaged(&path, 0, cause));
        }
        let own = tail
            .iter()
            .filter(|entry| entry.topic == key.0 && entry.partition == key.1);
        let mut rewrite_from: Option<u64> = None;
        for entry in own.filter(|entry| entry.bytes > 0) {
            prove(&path, entry)?;
            let first = rewrite_from.map_or(entry.first_byte, |first| first.min(entry.first_byte));
            rewrite_from = Some(first);
        }
        Ok(InspectedPartition {
            key: key.clone(),
            path,
            end,
            length,
            rewrite_from,
        })
    }

    /// Cuts unconfirmed lines, writes and syncs confirmed ones that were not proven to be on the disk,
    /// publishes the head.
    pub fn repair(&self, state: &RunState) -> Result<(), StoreError> {
        if self.length > self.end.next_byte {
            tracing::warn!(
                path = %self.path.display(),
                offset = self.end.next_byte,
                bytes = self.length - self.end.next_byte,
                "cut bus lines that were never committed"
            );
            let file = LogFile::open(&self.path, &state.options().faults)?;
            let step = Step(Artefact::BusLines, Operation::Cut);
            around(step, || {
                file.truncate(self.end.next_byte)
                    .and_then(|()| file.sync_all())
            })?;
        }
        if let Some(start) = self.rewrite_from {
            let file = LogFile::open(&self.path, &state.options().faults)?;
            let step = Step(Artefact::BusLines, Operation::Rewrite);
            around(step, || rewrite_range(&file, start, self.end.next_byte))?;
        }
        let (topic, partition) = &self.key;
        let head = layout::head_path(state.run(), topic, *partition);
        if self.path.exists() {
            publish_head(Path::new(&head), self.end.next_offset)?;
        }
        Ok(())
    }

    /// The partition and where it ends.
    pub fn end(&self) -> (&PartitionKey, LineEnd) {
        (&self.key, self.end)
    }
}

/// Reads the lines of one entry and compares their checksum.
fn prove(path: &Path, entry: &PartitionEntry) -> Result<(), StoreError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut buffer = vec![0u8; READ_BYTES.min(entry.bytes as usize)];
    let (mut at, end) = (entry.first_byte, entry.end().next_byte);
    let mut checksum = 0;
    while at < end {
        let count = (end - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..count], at)
            .map_err(failed("read", path))?;
        checksum = crc32c_append(checksum, &buffer[..count]);
        at += count as u64;
    }
    if checksum == entry.checksum {
        return Ok(());
    }
    let cause = format!("bus lines up to byte {end} do not match the journal's checksum");
    Err(damaged(path, entry.first_byte, cause))
}
