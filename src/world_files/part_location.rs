//! Where a Parquet part lies, and how its bytes are read: a file directly, an object by ranges.
//!
//! An object is never read as a whole. Its footer comes with one request for its end; of a row group only
//! the chunks of the columns that are wanted are fetched, neighbours together. A row group too big for the
//! byte bound is read through a window of blocks instead.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};
use wellspring_domain::ports::{ObjectStore, StoreError};

use super::parquet_reader::PartError;
use crate::object_store::LocalFiles;

/// Bytes fetched with the footer; footers of views are smaller.
const TAIL_BYTES: u64 = 256 << 10;
/// Column chunks with less than this between them are fetched together.
const GAP_BYTES: u64 = 128 << 10;
/// A block of the window.
const BLOCK_BYTES: u64 = 1 << 20;

/// One part: an object, or a file when the store has files.
#[derive(Clone)]
pub struct PartLocation {
    store: Arc<dyn ObjectStore>,
    key: String,
}

impl PartLocation {
    /// The part under a key of a store.
    pub fn new(store: Arc<dyn ObjectStore>, key: impl Into<String>) -> PartLocation {
        PartLocation {
            store,
            key: key.into(),
        }
    }

    /// A part in a file of this machine.
    pub fn of_file(path: &Path) -> PartLocation {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().unwrap_or(Path::new(""));
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        PartLocation::new(Arc::new(LocalFiles::new(folder)), name.into_owned())
    }

    /// The part's full name.
    pub fn shown(&self) -> PathBuf {
        match self.store.local_file(&self.key) {
            Some(path) => path,
            None => PathBuf::from(self.store.absolute(&self.key)),
        }
    }

    /// True when the part is read by ranges.
    pub fn is_remote(&self) -> bool {
        self.store.local_file(&self.key).is_none()
    }

    /// Opens the part: a file, or the end of an object.
    pub fn open(&self) -> Result<PartBytes, PartError> {
        if let Some(path) = self.store.local_file(&self.key) {
            let opened = File::open(&path);
            let file = opened.map_err(|source| PartError::Open { path, source })?;
            return Ok(PartBytes::File(Arc::new(file)));
        }
        let failed = |source: io::Error| PartError::Open {
            path: self.shown(),
            source,
        };
        let tail = self.store.get_tail(&self.key, TAIL_BYTES);
        let tail = tail.map_err(|error| failed(io::Error::other(error)))?;
        let tail = tail.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let start = tail.size - tail.bytes.len() as u64;
        Ok(PartBytes::Object(Arc::new(RemotePart {
            location: self.clone(),
            size: tail.size,
            held: vec![(start, Bytes::from(tail.bytes))],
            window: Mutex::default(),
            window_blocks: 1,
        })))
    }

    fn range(&self, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let length = range.end - range.start;
        let bytes = self.store.get_range(&self.key, range.start, length)?;
        match bytes.len() as u64 == length {
            true => Ok(Bytes::from(bytes)),
            false => Err(StoreError::Unavailable {
                operation: "get_range",
                key: self.store.absolute(&self.key),
                cause: "the object is shorter than it was".to_owned(),
            }),
        }
    }
}

/// An opened part, as the Parquet decoder reads it.
#[derive(Clone)]
pub enum PartBytes {
    /// A file.
    File(Arc<File>),
    /// An object.
    Object(Arc<RemotePart>),
}

/// An object of which some ranges are here.
pub struct RemotePart {
    location: PartLocation,
    size: u64,
    /// Ranges that are here, by where they begin.
    held: Vec<(u64, Bytes)>,
    /// Blocks read last, for what is not held.
    window: Mutex<VecDeque<(u64, Bytes)>>,
    window_blocks: usize,
}

impl PartBytes {
    /// The same part with the column chunks of a row group at hand, when they are within `bytes_max`; else
    /// with a window of about that size.
    pub fn with_group(
        &self,
        metadata: &ParquetMetaData,
        group: usize,
        columns: &ProjectionMask,
        bytes_max: u64,
    ) -> Result<PartBytes, PartError> {
        let PartBytes::Object(part) = self else {
            return Ok(self.clone());
        };
        let ranges = chunk_ranges(metadata, group, columns);
        let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let (fetched, blocks) = match total <= bytes_max {
            true => (ranges, 1),
            false => (Vec::new(), (bytes_max / BLOCK_BYTES).max(2)),
        };
        let mut held = part.held.clone();
        for range in fetched {
            let bytes = part.location.range(&range);
            held.push((range.start, bytes.map_err(|error| part.unreadable(error))?));
        }
        Ok(PartBytes::Object(Arc::new(RemotePart {
            location: part.location.clone(),
            size: part.size,
            held,
            window: Mutex::default(),
            window_blocks: usize::try_from(blocks).unwrap_or(usize::MAX),
        })))
    }
}

/// The byte ranges of a row group's wanted column chunks, neighbours joined.
fn chunk_ranges(
    metadata: &ParquetMetaData,
    group: usize,
    columns: &ProjectionMask,
) -> Vec<Range<u64>> {
    let chunks = metadata.row_group(group).columns().iter().enumerate();
    let mut ranges: Vec<Range<u64>> = chunks
        .filter(|(leaf, _)| columns.leaf_included(*leaf))
        .map(|(_, chunk)| chunk.byte_range())
        .map(|(start, length)| start..start + length)
        .collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + GAP_BYTES => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

impl RemotePart {
    fn unreadable(&self, error: StoreError) -> PartError {
        PartError::Open {
            path: self.location.shown(),
            source: io::Error::other(error),
        }
    }

    /// Bytes from `start`, as many as are at hand there; fetches a block when none are.
    fn at(&self, start: u64) -> Result<Bytes, StoreError> {
        if start >= self.size {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = find(self.held.iter(), start) {
            return Ok(bytes);
        }
        if let Some(bytes) = find(self.blocks().iter(), start) {
            return Ok(bytes);
        }
        let first = start - start % BLOCK_BYTES;
        let block = first..(first + BLOCK_BYTES).min(self.size);
        let bytes = self.location.range(&block)?;
        let mut blocks = self.blocks();
        while blocks.len() >= self.window_blocks {
            blocks.pop_front();
        }
        blocks.push_back((first, bytes.clone()));
        Ok(bytes.slice((start - first) as usize..))
    }

    fn blocks(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Bytes)>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exactly(&self, start: u64, length: usize) -> Result<Bytes, StoreError> {
        let first = self.at(start)?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&first);
        while bytes.len() < length {
            let more = self.at(start + bytes.len() as u64)?;
            if more.is_empty() {
                return Err(StoreError::Damaged {
                    key: self.location.store.absolute(&self.location.key),
                    offset: self.size,
                    cause: "the part ends before its data".to_owned(),
                });
            }
            let wanted = more.len().min(length - bytes.len());
            bytes.extend_from_slice(&more[..wanted]);
        }
        Ok(Bytes::from(bytes))
    }
}

fn find<'a>(ranges: impl Iterator<Item = &'a (u64, Bytes)>, start: u64) -> Option<Bytes> {
    let holds =
        |(first, bytes): &&(u64, Bytes)| *first <= start && start - *first < bytes.len() as u64;
    let mut holding = ranges.into_iter().filter(holds);
    holding
        .next()
        .map(|(first, bytes)| bytes.slice((start - first) as usize..))
}

impl Length for PartBytes {
    fn len(&self) -> u64 {
        match self {
            PartBytes::File(file) => Length::len(file.as_ref()),
            PartBytes::Object(part) => part.size,
        }
    }
}

impl ChunkReader for PartBytes {
    type T = PartRead;

    fn get_read(&self, start: u64) -> Result<PartRead, ParquetError> {
        match self {
            PartBytes::File(file) => Ok(PartRead::File(BufReader::new(FileAt {
                file: file.clone(),
                next: start,
            }))),
            PartBytes::Object(part) => Ok(PartRead::Object {
                part: part.clone(),
                next: start,
            }),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            PartBytes::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start)?;
                Ok(Bytes::from(bytes))
            }
            PartBytes::Object(part) => part
                .exactly(start, length)
                .map_err(|error| ParquetError::External(Box::new(error))),
        }
    }
}

/// Reads a part from some byte on.
pub enum PartRead {
    /// Of a file.
    File(BufReader<FileAt>),
    /// Of an object.
    Object {
        /// The object.
        part: Arc<RemotePart>,
        /// Next byte.
        next: u64,
    },
}

/// A file read at a position of its own: threads that share the file do not move each other.
pub struct FileAt {
    file: Arc<File>,
    next: u64,
}

impl Read for FileAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.file.read_at(buffer, self.next)?;
        self.next += taken as u64;
        Ok(taken)
    }
}

impl Read for PartRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            PartRead::File(file) => file.read(buffer),
            PartRead::Object { part, next } => {
                let bytes = part.at(*next).map_err(io::Error::other)?;
                let taken = bytes.len().min(buffer.len());
                buffer[..taken].copy_from_slice(&bytes[..taken]);
                *next += taken as u64;
                Ok(taken)
            }
        }
    }
}

#[cfg(test)]
#[path = "part_location_tests.rs"]
mod tests;
