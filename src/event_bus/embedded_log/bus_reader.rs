//! Reads bus partitions by offset (contract 8), also while a gate writes them.

use super::bus_recovery::topics;
use super::disk::{damaged, entry_names, failed};
use super::head::{TopicDescription, read_head};
use super::journal_reader::JournalReader;
use super::layout;
use super::sparse_index::SparseIndex;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// Longest line that is believed.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// One bus record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusRecord {
    /// Offset: the 0-based number of the line.
    pub offset: u64,
    /// The line without its end: `{"partition_key","payload","published_at_utc"}`.
    pub line: Vec<u8>,
}

/// Where a reader stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBound {
    /// At the published head: what every reader may see.
    Head,
    /// At the journal's end: everything that is committed, also when its head was not published
    /// before a crash.
    Journal,
}

/// A topic partition open for reading. A folder another program wrote can be read too; there every
/// complete line counts.
pub struct BusReader {
    run: RunPaths,
    topic: String,
    partition: u32,
    path: PathBuf,
    ours: bool,
    bound: ReadBound,
    index: Option<SparseIndex>,
}

impl BusReader {
    /// Opens a partition; one that does not exist is empty.
    pub fn open(
        run: &RunPaths,
        topic: &str,
        partition: u32,
        bound: ReadBound,
    ) -> Result<BusReader, StoreError> {
        Ok(BusReader {
            path: PathBuf::from(layout::partition_path(run, topic, partition)),
            ours: TopicDescription::read(run, topic)?.is_some(),
            run: run.clone(),
            topic: topic.to_owned(),
            partition,
            bound,
            index: None,
        })
    }

    /// Offset behind the last record that may be read.
    pub fn end(&mut self) -> Result<u64, StoreError> {
        // The topic may have been created since.
        self.ours = self.ours || TopicDescription::read(&self.run, &self.topic)?.is_some();
        if self.ours && self.bound == ReadBound::Head {
            let head = layout::head_path(&self.run, &self.topic, self.partition);
            if let Some(next_offset) = read_head(Path::new(&head))? {
                return Ok(next_offset);
            }
        }
        self.index = None;
        Ok(self.index()?.end().next_offset)
    }

    /// At most `max` records from `from_offset` on (inclusive).
    pub fn read(&mut self, from_offset: u64, max: usize) -> Result<Vec<BusRecord>, StoreError> {
        self.stream(from_offset)?.take(max).collect()
    }

    /// Records from `from_offset` on, up to where the partition ends now.
    pub fn stream(&mut self, from_offset: u64) -> Result<BusStream, StoreError> {
        let end = self.end()?;
        let mut stream = BusStream {
            lines: None,
            path: self.path.clone(),
            next_offset: from_offset,
            end,
            line: Vec::new(),
        };
        if from_offset >= end {
            return Ok(stream);
        }
        let start = if from_offset == 0 {
            Default::default()
        } else {
            // A live partition may have grown far behind what the index knew.
            self.index = self
                .index
                .take()
                .filter(|index| from_offset <= index.end().next_offset);
            self.index()?.anchor_before(from_offset)
        };
        let mut file = File::open(&self.path).map_err(failed("open", &self.path))?;
        file.seek(SeekFrom::Start(start.next_byte))
            .map_err(failed("seek", &self.path))?;
        stream.lines = Some(BufReader::with_capacity(BUFFER_BYTES, file));
        stream.next_offset = start.next_offset;
        while stream.next_offset < from_offset {
            stream.read_line()?;
        }
        Ok(stream)
    }

    fn index(&mut self) -> Result<&SparseIndex, StoreError> {
        let index = match self.index.take() {
            Some(index) => index,
            None if self.ours => {
                let journal = JournalReader::new(&self.run);
                SparseIndex::from_journal(&journal, &self.topic, self.partition)?
            }
            None => SparseIndex::from_lines(&self.path)?,
        };
        Ok(self.index.insert(index))
    }
}

/// Records of one partition in order.
pub struct BusStream {
    lines: Option<BufReader<File>>,
    path: PathBuf,
    next_offset: u64,
    end: u64,
    line: Vec<u8>,
}

impl BusStream {
    /// The next record without copying its line. Blank lines are skipped but counted.
    pub fn next_line(&mut self) -> Result<Option<(u64, &[u8])>, StoreError> {
        while self.next_offset < self.end {
            let offset = self.next_offset;
            self.read_line()?;
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some((offset, &self.line)));
            }
        }
        Ok(None)
    }

    fn read_line(&mut self) -> Result<(), StoreError> {
        self.line.clear();
        let Some(lines) = &mut self.lines else {
            return Err(damaged(&self.path, 0, "partition is not open"));
        };
        lines
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut self.line)
            .map_err(failed("read", &self.path))?;
        if self.line.pop_if(|byte| *byte == b'\n').is_none() {
            let at = lines
                .stream_position()
                .map_err(failed("seek", &self.path))?;
            let cause = format!("record {} has no end", self.next_offset);
            return Err(damaged(&self.path, at, cause));
        }
        self.next_offset += 1;
        Ok(())
    }
}

impl Iterator for BusStream {
    type Item = Result<BusRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_line();
        let record = next.map(|line| {
            line.map(|(offset, line)| BusRecord {
                offset,
                line: line.to_vec(),
            })
        });
        if record.is_err() {
            self.end = self.next_offset;
        }
        record.transpose()
    }
}

/// Topic partitions that exist on a run's bus, in order.
pub fn bus_partitions(run: &RunPaths) -> Result<Vec<(String, u32)>, StoreError> {
    let mut found = BTreeSet::new();
    for topic in topics(run)? {
        let folder = layout::topic_folder(run, &topic);
        let names = entry_names(Path::new(&folder))?;
        let partitions = names
            .iter()
            .filter_map(|name| layout::parse_partition_name(name));
        found.extend(partitions.map(|partition| (topic.clone(), partition)));
    }
    Ok(found.into_iter().collect())
}

/// Bytes of a partition file; 0 when it does not exist.
pub fn partition_bytes(run: &RunPaths, topic: &str, partition: u32) -> Result<u64, StoreError> {
    let path = PathBuf::from(layout::partition_path(run, topic, partition));
    match std::fs::metadata(&path) {
        Ok(meta) => Ok(meta.len()),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(0),
        Err(cause) => Err(failed("stat", &path)(cause)),
    }
}
