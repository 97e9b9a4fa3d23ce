//! Appends bus lines to partition files (contract 8): kept open, written at a known length.

use super::cache_window::CacheWindow;
use super::direct_io::{BlockMemory, DIRECT_BYTES, at_boundary};
use super::disk::{LogFile, create_folder, damaged, sync_folder};
use super::frame_encode::PlacedAppend;
use super::head::TopicDescription;
use super::layout;
use super::run_state::{LineEnd, PartitionKey, RunState};
use crate::checksum::crc32c_append;
use crate::failpoints::{Artefact, Operation, Step, around, writing};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_domain::admission::decision::PartitionAppend;
use wellspring_domain::admission::line_memory::BLOCK;
use wellspring_domain::ports::StoreError;

/// Bytes checked and written at once: what the checksum has read is still in the cache for the write.
const WRITE_BYTES: usize = 128 * 1024;

/// Appends of at least so many bytes go around the page cache: for small ones another turn to the disk costs more than
/// it saves.
const LARGE_APPEND_BYTES: usize = 256 * 1024;

const LINES_WRITE: Step = Step(Artefact::BusLines, Operation::Write);

/// The partitions one shard writes.
pub struct PartitionWriters {
    state: Arc<RunState>,
    shard: u16,
    writers: Vec<PartitionWriter>,
    /// For large appends whose lines are placed unlike their file; made with the first of them.
    memory: Option<BlockMemory>,
}

/// One partition file, open for appending.
pub struct PartitionWriter {
    key: PartitionKey,
    file: Arc<LogFile>,
    end: LineEnd,
    touched: bool,
    cached: CacheWindow,
}

impl PartitionWriters {
    /// No file is opened before it is written.
    pub fn new(state: Arc<RunState>, shard: u16) -> PartitionWriters {
        PartitionWriters {
            state,
            shard,
            writers: Vec::new(),
            memory: None,
        }
    }

    /// Writes the lines of one append behind the partition's end. Nothing is synced.
    pub fn append(&mut self, append: &PartitionAppend) -> Result<PlacedAppend, StoreError> {
        let place = self.writer(&append.topic, append.partition)?;
        let writer = &mut self.writers[place];
        if append.first_offset != writer.end.next_offset {
            let cause = format!(
                "flush starts at offset {}, the partition goes on at {}",
                append.first_offset, writer.end.next_offset
            );
            return Err(damaged(writer.file.path(), writer.end.next_byte, cause));
        }
        debug_assert_eq!(
            append.bytes.iter().filter(|byte| **byte == b'\n').count(),
            append.events as usize,
            "one line per event"
        );
        let first_byte = writer.end.next_byte;
        let is_large = append.bytes.len() >= LARGE_APPEND_BYTES;
        let checksum = match is_large && writer.file.writes_blocks() {
            true => writer.write_blocks(&append.bytes, &mut self.memory)?,
            false => writer.write(&append.bytes)?,
        };
        writer.end.next_offset += u64::from(append.events);
        writer.touched = true;
        Ok(PlacedAppend {
            first_byte,
            checksum,
        })
    }

    /// Files written since the last call.
    pub fn take_touched(&mut self, files: &mut Vec<Arc<LogFile>>) {
        files.clear();
        for writer in self.writers.iter_mut().filter(|writer| writer.touched) {
            writer.touched = false;
            files.push(writer.file.clone());
        }
    }

    /// Lets pages go that are far behind the ends. All files must be synced.
    pub fn let_pages_go(&mut self) {
        for writer in &mut self.writers {
            if let Some(behind) = writer.cached.behind(writer.end.next_byte) {
                writer.file.let_pages_go(behind);
            }
        }
    }

    fn writer(&mut self, topic: &Arc<str>, partition: u32) -> Result<usize, StoreError> {
        let is_it = |writer: &PartitionWriter| writer.key.0 == *topic && writer.key.1 == partition;
        if let Some(place) = self.writers.iter().position(is_it) {
            return Ok(place);
        }
        let key = (topic.clone(), partition);
        let writer = open_partition(&self.state, self.shard, key)?;
        self.writers.push(writer);
        Ok(self.writers.len() - 1)
    }
}

impl PartitionWriter {
    /// Writes bytes behind the end and gives their checksum.
    fn write(&mut self, bytes: &[u8]) -> Result<u32, StoreError> {
        let mut checksum = 0;
        for part in bytes.chunks(WRITE_BYTES) {
            checksum = crc32c_append(checksum, part);
            let (file, at) = (&self.file, self.end.next_byte);
            writing(LINES_WRITE, part, |part| file.write_at(part, at))?;
            self.end.next_byte += part.len() as u64;
        }
        Ok(checksum)
    }

    /// The same around the page cache: first up to a block boundary, then whole blocks.
    fn write_blocks(
        &mut self,
        bytes: &[u8],
        memory: &mut Option<BlockMemory>,
    ) -> Result<u32, StoreError> {
        let to_boundary = BLOCK - self.end.next_byte as usize % BLOCK;
        let (first, rest) = bytes.split_at(to_boundary);
        let mut checksum = self.write(first)?;
        for part in rest.chunks(DIRECT_BYTES) {
            let placed = at_boundary(part, memory, &mut checksum);
            let (file, at) = (&self.file, self.end.next_byte);
            writing(LINES_WRITE, placed, |placed| {
                file.write_blocks_at(placed, at)
            })?;
            self.end.next_byte += part.len() as u64;
        }
        Ok(checksum)
    }
}

fn open_partition(
    state: &RunState,
    shard: u16,
    key: PartitionKey,
) -> Result<PartitionWriter, StoreError> {
    state.claim(&key, shard)?;
    let (topic, partition) = (&*key.0, key.1);
    if !is_topic_name(topic) {
        return Err(StoreError::InvalidKey {
            key: topic.chars().take(128).collect(),
        });
    }
    let folder = PathBuf::from(layout::topic_folder(state.run(), topic));
    let partitions = describe_topic(state, topic, &folder)?.partitions();
    if partition >= partitions {
        return Err(StoreError::InvalidKey {
            key: format!("{topic} has no partition {partition}, only {partitions}"),
        });
    }
    let path = layout::partition_path(state.run(), topic, partition);
    let open = match state.options().cached_bytes {
        0 => LogFile::open_for_appends,
        _ => LogFile::open,
    };
    let file = open(Path::new(&path), &state.options().faults)?;
    let end = state.ends().get(&key);
    let length = file.length()?;
    if length != end.next_byte {
        let cause = format!(
            "file has {length} bytes, the journal says {}",
            end.next_byte
        );
        return Err(damaged(file.path(), length.min(end.next_byte), cause));
    }
    if length == 0 {
        around(Step(Artefact::PartitionFile, Operation::Sync), || {
            file.sync_all()
        })?;
        around(Step(Artefact::PartitionFile, Operation::FolderSync), || {
            sync_folder(&folder)
        })?;
    }
    Ok(PartitionWriter {
        key,
        file: Arc::new(file),
        end,
        touched: false,
        cached: CacheWindow::new(state.options().cached_bytes, end.next_byte),
    })
}

/// The topic's description; a new topic gets one, on the disk before its first line.
fn describe_topic(
    state: &RunState,
    topic: &str,
    folder: &Path,
) -> Result<TopicDescription, StoreError> {
    if let Some(description) = TopicDescription::read(state.run(), topic)? {
        return Ok(description);
    }
    create_folder(folder)?;
    let description = TopicDescription::new(state.options().partitions.of(topic));
    description.write(state.run(), topic)?;
    Ok(description)
}

/// A topic is a folder name of its own.
fn is_topic_name(topic: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&topic.len()) && topic.bytes().all(plain) && !topic.starts_with('.')
}
