//! Writes a sorted run: filter, block index and blocks stream out side by side, the header last.
//!
//! The file has a temporary name until [`RunWriter::finish`] has synced and renamed it, so a run that
//! has its name is whole.

use super::files::{failed, remove_file, sync_folder};
use crate::checksum::{crc32c, crc32c_append};
use crate::event_bus::embedded_log::direct_io::BlockMemory;
use crate::event_bus::embedded_log::disk::LogFile;
use crate::failpoints::{Artefact, Operation, Step, around, writing};
use std::fs;
use std::path::{Path, PathBuf};
use wellspring_domain::admission::index_format::{
    BLOCK_ENTRIES, EntryBytes, FILTER_LINE, PAGE, RunHeader, end_block, filter_add, filter_line_of,
    filter_lines_within, key_of, put_entry,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

/// How the files of unfinished runs end.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

const RUN_WRITE: Step = Step(Artefact::IndexRun, Operation::Write);
const RUN_SYNC: Step = Step(Artefact::IndexRun, Operation::Sync);
const RUN_RENAME: Step = Step(Artefact::IndexRun, Operation::Rename);
const RUN_FOLDER_SYNC: Step = Step(Artefact::IndexRun, Operation::FolderSync);

/// Bytes of blocks that are synced together while a run is written through the page cache. A sync of the decision log
/// waits for the device to take what it was given before, so a whole run must not be given to it at once.
const SYNCED_BYTES: u64 = 1 << 20;

/// A run being written.
pub struct RunWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: LogFile,
    header: RunHeader,
    filter: SectionWriter,
    index: SectionWriter,
    blocks: SectionWriter,
    /// Where the blocks lie that are not synced yet.
    unsynced_from: u64,
    line: [u8; FILTER_LINE],
    line_number: u64,
    /// Entries in the block that is being filled.
    block_entries: usize,
    /// The entry before, if there was one.
    last_key: Hash32,
}

/// A part of the file that begins at a page and grows through a buffer of whole pages, around the page cache where that
/// is possible: nobody reads soon what is written here.
struct SectionWriter {
    at: u64,
    buffer: BlockMemory,
    filled: usize,
    /// Of all bytes so far, if anybody wants it.
    crc: Option<u32>,
}

impl RunWriter {
    /// Starts a run with at most `entries_max` entries, and a filter that suits so much free memory.
    pub fn create(
        path: &Path,
        entries_max: u64,
        free_bytes: usize,
        buffer_bytes: usize,
    ) -> Result<RunWriter, StoreError> {
        let temporary = temporary_path(path);
        remove_file(&temporary)?;
        let file = LogFile::open_for_appends(&temporary, &None)?;
        let filter_lines = filter_lines_within(entries_max, free_bytes as u64);
        let header = RunHeader::reserve(entries_max, filter_lines);
        Ok(RunWriter {
            path: path.to_owned(),
            temporary,
            file,
            header,
            filter: SectionWriter::new(header.filter_at, buffer_bytes, Some(0)),
            index: SectionWriter::new(header.index_at, buffer_bytes, Some(0)),
            blocks: SectionWriter::new(header.blocks_at, buffer_bytes, None),
            unsynced_from: header.blocks_at,
            line: [0; FILTER_LINE],
            line_number: 0,
            block_entries: 0,
            last_key: Hash32([0; 32]),
        })
    }

    /// Adds the next entry; keys must grow.
    pub fn push(&mut self, entry: &EntryBytes) -> Result<(), StoreError> {
        let key = Hash32(*key_of(entry));
        assert!(
            self.header.entries == 0 || self.last_key < key,
            "a run is written in key order"
        );
        self.last_key = key;
        self.fill_lines(filter_line_of(&key, self.header.filter_lines))?;
        filter_add(&mut self.line, &key);
        if self.block_entries == 0 {
            let prefix = key.leading_u64().to_be_bytes();
            self.index.push(&self.file, &prefix)?;
        }
        put_entry(self.blocks.page(), self.block_entries, entry);
        self.header.entries += 1;
        self.block_entries += 1;
        match self.block_entries {
            BLOCK_ENTRIES => self.end_block(),
            _room => Ok(()),
        }
    }

    /// Writes filter lines until `line` is the current one.
    fn fill_lines(&mut self, line: u64) -> Result<(), StoreError> {
        while self.line_number < line {
            self.filter.push(&self.file, &self.line)?;
            self.line = [0; FILTER_LINE];
            self.line_number += 1;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block_entries == 0 {
            return Ok(());
        }
        end_block(self.blocks.page(), self.block_entries, crc32c);
        self.block_entries = 0;
        self.header.blocks += 1;
        self.blocks.advance(&self.file, PAGE)?;
        self.sync_some()
    }

    /// Syncs when so much was written since the last time. What is promised is synced at the end.
    fn sync_some(&mut self) -> Result<(), StoreError> {
        if self.file.writes_blocks() || self.blocks.at - self.unsynced_from < SYNCED_BYTES {
            return Ok(());
        }
        self.unsynced_from = self.blocks.at;
        self.file.sync_data()
    }

    /// Writes the rest and the header, syncs, and gives the run its name.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.end_block()?;
        self.fill_lines(self.header.filter_lines)?;
        for section in [&mut self.filter, &mut self.index, &mut self.blocks] {
            section.flush(&self.file)?;
        }
        self.header.filter_crc = self.filter.crc.unwrap_or_default();
        self.header.index_crc = self.index.crc.unwrap_or_default();
        let page = self.header.encode(crc32c);
        writing(RUN_WRITE, &page, |page| self.file.write_at(page, 0))?;
        around(RUN_SYNC, || self.file.sync_all())?;
        around(RUN_RENAME, || fs::rename(&self.temporary, &self.path))
            .map_err(failed("rename", &self.temporary))?;
        around(RUN_FOLDER_SYNC, || {
            self.path.parent().map_or(Ok(()), sync_folder)
        })
    }

    /// Gives up and removes what was written.
    pub fn abandon(self) {
        // Left behind it would only cost space: the next open removes unfinished runs.
        let _ = fs::remove_file(&self.temporary);
    }
}

impl SectionWriter {
    fn new(at: u64, buffer_bytes: usize, crc: Option<u32>) -> SectionWriter {
        SectionWriter {
            at,
            buffer: BlockMemory::of(buffer_bytes.next_multiple_of(PAGE)),
            filled: 0,
            crc,
        }
    }

    /// The page behind all that was pushed, where only whole pages are.
    fn page(&mut self) -> &mut [u8; PAGE] {
        let page = self.buffer.bytes_mut()[self.filled..].first_chunk_mut();
        page.expect("a full buffer is written at once, and it holds whole pages")
    }

    /// Adds bytes whose number divides a page.
    fn push(&mut self, file: &LogFile, bytes: &[u8]) -> Result<(), StoreError> {
        self.buffer.bytes_mut()[self.filled..][..bytes.len()].copy_from_slice(bytes);
        self.advance(file, bytes.len())
    }

    /// Takes so many bytes as pushed.
    fn advance(&mut self, file: &LogFile, bytes: usize) -> Result<(), StoreError> {
        self.filled += bytes;
        match self.filled == self.buffer.bytes().len() {
            true => self.flush(file),
            false => Ok(()),
        }
    }

    fn flush(&mut self, file: &LogFile) -> Result<(), StoreError> {
        let bytes = &self.buffer.bytes()[..self.filled];
        file.write_blocks_at(bytes, self.at)?;
        self.crc = self.crc.map(|crc| crc32c_append(crc, bytes));
        self.at += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}
