//! Writes a sorted run: filter, block index and blocks stream out side by side, the header last.
//!
//! The file has a temporary name until [`RunWriter::finish`] has synced and renamed it, so a run that
//! has its name is whole.

use super::files::{failed, sync_folder};
use crate::checksum::{crc32c, crc32c_append};
use crate::failpoints::{Artefact, Operation, Step, around, writing};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wellspring_domain::admission::index_format::{
    BLOCK_ENTRIES, FILTER_LINE, PAGE, RunHeader, Slot, encode_block, filter_add, filter_line_of,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

/// How the files of unfinished runs end.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

const RUN_WRITE: Step = Step(Artefact::IndexRun, Operation::Write);
const RUN_SYNC: Step = Step(Artefact::IndexRun, Operation::Sync);
const RUN_RENAME: Step = Step(Artefact::IndexRun, Operation::Rename);
const RUN_FOLDER_SYNC: Step = Step(Artefact::IndexRun, Operation::FolderSync);

/// Bytes of blocks that are synced together while a run is written. A sync of the decision log waits for the device
/// to take what it was given before, so a whole run must not be given to it at once.
const SYNCED_BYTES: u64 = 1 << 20;

/// A run being written.
pub struct RunWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    header: RunHeader,
    filter: SectionWriter,
    index: SectionWriter,
    blocks: SectionWriter,
    /// Where the blocks lie that are not synced yet.
    unsynced_from: u64,
    line: [u8; FILTER_LINE],
    line_number: u64,
    pending: Vec<Slot>,
    last_key: Option<Hash32>,
}

/// A part of the file that grows through a buffer.
struct SectionWriter {
    at: u64,
    buffer: Vec<u8>,
    buffer_bytes: usize,
    crc: u32,
}

impl RunWriter {
    /// Starts a run with at most `entries_max` entries.
    pub fn create(
        path: &Path,
        entries_max: u64,
        buffer_bytes: usize,
    ) -> Result<RunWriter, StoreError> {
        let temporary = temporary_path(path);
        let file = File::create(&temporary).map_err(failed("create", &temporary))?;
        let header = RunHeader::reserve(entries_max);
        Ok(RunWriter {
            path: path.to_owned(),
            temporary,
            file,
            header,
            filter: SectionWriter::new(header.filter_at, buffer_bytes),
            index: SectionWriter::new(header.index_at, buffer_bytes),
            blocks: SectionWriter::new(header.blocks_at, buffer_bytes),
            unsynced_from: header.blocks_at,
            line: [0; FILTER_LINE],
            line_number: 0,
            pending: Vec::with_capacity(BLOCK_ENTRIES),
            last_key: None,
        })
    }

    /// Adds the next entry; keys must grow.
    pub fn push(&mut self, slot: &Slot) -> Result<(), StoreError> {
        assert!(
            self.last_key < Some(slot.key),
            "a run is written in key order"
        );
        self.last_key = Some(slot.key);
        let line = filter_line_of(&slot.key, self.header.filter_lines);
        self.fill_lines(line)?;
        filter_add(&mut self.line, &slot.key);
        self.pending.push(*slot);
        self.header.entries += 1;
        match self.pending.len() {
            BLOCK_ENTRIES => self.end_block(),
            _room => Ok(()),
        }
    }

    /// Writes filter lines until `line` is the current one.
    fn fill_lines(&mut self, line: u64) -> Result<(), StoreError> {
        while self.line_number < line {
            self.filter
                .push(&self.file, &self.line)
                .map_err(failed("write", &self.temporary))?;
            self.line = [0; FILTER_LINE];
            self.line_number += 1;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        let Some(first) = self.pending.first() else {
            return Ok(());
        };
        let prefix = first.key.leading_u64().to_be_bytes();
        let mut page = Vec::with_capacity(PAGE);
        encode_block(&self.pending, &mut page, crc32c);
        self.pending.clear();
        self.header.blocks += 1;
        self.index
            .push(&self.file, &prefix)
            .and_then(|()| self.blocks.push(&self.file, &page))
            .and_then(|()| self.sync_some())
            .map_err(failed("write", &self.temporary))
    }

    /// Syncs when so much was written since the last time. What is promised is synced at the end.
    fn sync_some(&mut self) -> std::io::Result<()> {
        if self.blocks.at - self.unsynced_from < SYNCED_BYTES {
            return Ok(());
        }
        self.unsynced_from = self.blocks.at;
        self.file.sync_data()
    }

    /// Writes the rest and the header, syncs, and gives the run its name.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.end_block()?;
        self.fill_lines(self.header.filter_lines)?;
        let write = |writer: &mut RunWriter| -> std::io::Result<()> {
            for section in [&mut writer.filter, &mut writer.index, &mut writer.blocks] {
                section.flush(&writer.file)?;
            }
            writer.header.filter_crc = writer.filter.crc;
            writer.header.index_crc = writer.index.crc;
            let page = writer.header.encode(crc32c);
            writing(RUN_WRITE, &page, |page| writer.file.write_all_at(page, 0))?;
            around(RUN_SYNC, || writer.file.sync_all())?;
            around(RUN_RENAME, || fs::rename(&writer.temporary, &writer.path))
        };
        write(&mut self).map_err(failed("write", &self.temporary))?;
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
    fn new(at: u64, buffer_bytes: usize) -> SectionWriter {
        SectionWriter {
            at,
            buffer: Vec::new(),
            buffer_bytes,
            crc: 0,
        }
    }

    fn push(&mut self, file: &File, bytes: &[u8]) -> std::io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        match self.buffer.len() >= self.buffer_bytes {
            true => self.flush(file),
            false => Ok(()),
        }
    }

    fn flush(&mut self, file: &File) -> std::io::Result<()> {
        file.write_all_at(&self.buffer, self.at)?;
        self.crc = crc32c_append(self.crc, &self.buffer);
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}
