//! An immutable sorted run, opened by reference: filter and block index in memory when the plan has
//! room for them, else read from the file; blocks are always read, and checked each time.

use super::files::{damaged, failed};
use super::lookup::LINES_AT_ONCE;
use super::resident_pool::{ResidentLease, ResidentPool};
use crate::checksum::{crc32c, crc32c_append};
use crate::event_bus::embedded_log::direct_io::{BlockMemory, DirectFile};
use rustix::fs::Advice;
use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_domain::admission::decision::IndexEntry;
use wellspring_domain::admission::index_format::{
    EntryBytes, FILTER_LINE, PAGE, PageError, RunHeader, VERSION, decode_block, entry_at,
    filter_line_of, filter_may_hold,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

/// A run file, open and checked.
pub struct Run {
    /// Number in the file name; grows with time within a shard.
    pub id: u64,
    path: PathBuf,
    file: File,
    header: RunHeader,
    filter: Section,
    index: Section,
    lease: ResidentLease,
    /// Whether the shard's filters hold all its keys.
    is_filtered: bool,
}

/// Memory that the lookup in a run uses again.
#[derive(Default)]
pub struct RunLookupMemory {
    page: Vec<u8>,
    /// Numbers of keys whose block must be read, and how many blocks begin before the key or with it.
    candidates: Vec<(u32, u64)>,
}

/// A part of the file that may be held in memory.
enum Section {
    Resident(Vec<u8>),
    OnDisk { at: u64 },
}

impl Run {
    /// Opens a run and checks header, filter and block index. They are kept in memory as far as the pool has
    /// room, where `going` bytes are those of runs that this one replaces.
    pub fn open(
        path: &Path,
        id: u64,
        pool: &Arc<ResidentPool>,
        going: usize,
    ) -> Result<Run, StoreError> {
        let file = File::open(path).map_err(failed("open", path))?;
        let header = read_header(&file, path)?;
        let filter_bytes = header.filter_lines * FILTER_LINE as u64;
        let index_bytes = header.blocks * 8;
        // The block index saves many more reads per byte than the filter, so it comes first, and a
        // filter leaves at least as much room as it takes.
        let (filter, index) = (filter_bytes as usize, index_bytes as usize);
        let lease = pool.lease(&[(filter + index, filter), (index, 0)], going);
        let index_resident = lease.bytes() >= index;
        let filter_resident = lease.bytes() >= filter + index;
        let open_section = |at, bytes, crc, resident, what| {
            read_section(&file, at, bytes, crc, resident)
                .map_err(failed("read", path))?
                .ok_or_else(|| damaged(path, at, what))
        };
        Ok(Run {
            id,
            path: path.to_owned(),
            filter: open_section(
                header.filter_at,
                filter_bytes,
                header.filter_crc,
                filter_resident,
                "filter checksum",
            )?,
            index: open_section(
                header.index_at,
                index_bytes,
                header.index_crc,
                index_resident,
                "block index checksum",
            )?,
            file,
            header,
            lease,
            is_filtered: false,
        })
    }

    /// The same run; whether its shard's filters hold all its keys.
    pub fn filtered(self, is_filtered: bool) -> Run {
        Run {
            is_filtered,
            ..self
        }
    }

    /// Whether its shard's filters hold all its keys.
    pub fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    /// Number of entries.
    pub fn entries(&self) -> u64 {
        self.header.entries
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of memory in use.
    pub fn memory_bytes(&self) -> usize {
        self.lease.bytes()
    }

    /// Looks up those of the keys with these numbers that are still missing in `found`.
    pub fn lookup_missing(
        &self,
        keys: &[Hash32],
        numbers: &[u32],
        found: &mut [Option<IndexEntry>],
        memory: &mut RunLookupMemory,
    ) -> Result<(), StoreError> {
        memory.candidates.clear();
        for group in numbers.chunks(LINES_AT_ONCE) {
            self.fetch_lines(keys, group);
            for number in group {
                let key = &keys[*number as usize];
                if found[*number as usize].is_none() && self.may_hold(key)? {
                    let behind = self.blocks_where(|first| first <= key.leading_u64())?;
                    memory.candidates.push((*number, behind));
                }
            }
        }
        self.ask_for_blocks(&memory.candidates);
        for (number, behind) in &memory.candidates {
            let number = *number as usize;
            found[number] = self.find(&keys[number], *behind, &mut memory.page)?;
        }
        Ok(())
    }

    /// Has the disk read the blocks of several candidates at once, so that one wait is for all of them. Only a hint.
    fn ask_for_blocks(&self, candidates: &[(u32, u64)]) {
        if candidates.len() < 2 {
            return;
        }
        for (_, behind) in candidates {
            let block = self.block_at(behind.saturating_sub(1));
            let length = NonZeroU64::new(PAGE as u64);
            let _ = rustix::fs::fadvise(&self.file, block, length, Advice::WillNeed);
        }
    }

    /// Reads a byte of every key's filter line, with nothing between that waits for one: lines lie anywhere in
    /// the filter, so each is a cache miss, and these misses overlap.
    fn fetch_lines(&self, keys: &[Hash32], numbers: &[u32]) {
        let keys = numbers.iter().map(|number| &keys[*number as usize]);
        let lines = keys.filter_map(|key| self.resident_line(key));
        std::hint::black_box(lines.fold(0, |seen, line| seen ^ line[0]));
    }

    fn resident_line(&self, key: &Hash32) -> Option<&[u8; FILTER_LINE]> {
        let Section::Resident(bytes) = &self.filter else {
            return None;
        };
        let (lines, _) = bytes.as_chunks::<FILTER_LINE>();
        Some(&lines[filter_line_of(key, self.header.filter_lines) as usize])
    }

    fn may_hold(&self, key: &Hash32) -> Result<bool, StoreError> {
        if let Some(line) = self.resident_line(key) {
            return Ok(filter_may_hold(line, key));
        }
        let number = filter_line_of(key, self.header.filter_lines);
        let mut line = [0u8; FILTER_LINE];
        self.filter
            .read(&self.file, number * FILTER_LINE as u64, &mut line)
            .map_err(failed("read", &self.path))?;
        Ok(filter_may_hold(&line, key))
    }

    /// Reads the last of the first `behind` blocks, which may hold the key; blocks before it only while they begin with
    /// the key's own leading bytes.
    fn find(
        &self,
        key: &Hash32,
        mut behind: u64,
        page: &mut Vec<u8>,
    ) -> Result<Option<IndexEntry>, StoreError> {
        let prefix = key.leading_u64();
        while behind > 0 {
            behind -= 1;
            self.read_block(behind, page)?;
            let view =
                decode_block(page, crc32c).map_err(|error| self.damaged_at(behind, &error))?;
            let found = view.find(key);
            if found.is_some() || view.slot(0).key.leading_u64() != prefix {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// How many blocks from the first on begin with leading bytes that satisfy `before`.
    fn blocks_where(&self, before: impl Fn(u64) -> bool) -> Result<u64, StoreError> {
        let (mut low, mut high) = (0, self.header.blocks);
        while low < high {
            let middle = (low + high) / 2;
            let mut first = [0u8; 8];
            self.index
                .read(&self.file, middle * 8, &mut first)
                .map_err(failed("read", &self.path))?;
            if before(u64::from_be_bytes(first)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn read_block(&self, block: u64, page: &mut Vec<u8>) -> Result<(), StoreError> {
        page.resize(PAGE, 0);
        self.file
            .read_exact_at(page, self.block_at(block))
            .map_err(failed("read", &self.path))
    }

    fn block_at(&self, block: u64) -> u64 {
        self.header.blocks_at + block * PAGE as u64
    }

    fn damaged_at(&self, block: u64, error: &PageError) -> StoreError {
        damaged(&self.path, self.block_at(block), error.to_string())
    }
}

impl Section {
    /// Fills `out` from `position` within the section.
    fn read(&self, file: &File, position: u64, out: &mut [u8]) -> std::io::Result<()> {
        match self {
            Section::Resident(bytes) => {
                let start = position as usize;
                out.copy_from_slice(&bytes[start..start + out.len()]);
                Ok(())
            }
            Section::OnDisk { at } => file.read_exact_at(out, at + position),
        }
    }
}

fn read_header(file: &File, path: &Path) -> Result<RunHeader, StoreError> {
    let size = file.metadata().map_err(failed("read", path))?.len();
    if size < PAGE as u64 {
        return Err(damaged(path, 0, "file is shorter than its header"));
    }
    let mut page = vec![0; PAGE];
    file.read_exact_at(&mut page, 0)
        .map_err(failed("read", path))?;
    RunHeader::decode(&page, size, crc32c).map_err(|error| match error {
        PageError::Version(found) => StoreError::UnknownVersion {
            key: path.display().to_string(),
            found,
            known: VERSION,
        },
        other => damaged(path, 0, other.to_string()),
    })
}

/// Reads a section in pieces and checks its checksum; `None` when that is wrong.
fn read_section(
    file: &File,
    at: u64,
    bytes: u64,
    crc: u32,
    resident: bool,
) -> std::io::Result<Option<Section>> {
    let end = file.metadata()?.len();
    if at
        .checked_add(bytes)
        .is_none_or(|section_end| section_end > end)
    {
        return Ok(None);
    }
    let mut kept = Vec::with_capacity(if resident { bytes as usize } else { 0 });
    let mut piece = vec![0; (64 * PAGE).min(bytes as usize)];
    let (mut position, mut sum) = (0, 0);
    while position < bytes {
        let length = ((bytes - position) as usize).min(piece.len());
        file.read_exact_at(&mut piece[..length], at + position)?;
        sum = crc32c_append(sum, &piece[..length]);
        if resident {
            kept.extend_from_slice(&piece[..length]);
        }
        position += length as u64;
    }
    let section = match resident {
        true => Section::Resident(kept),
        false => Section::OnDisk { at },
    };
    Ok((sum == crc).then_some(section))
}

/// All entries of a run in key order, read in big pieces, around the page cache where that is possible.
pub struct RunScan {
    run: Arc<Run>,
    direct: Option<DirectFile>,
    buffer: BlockMemory,
    /// What of the buffer was read; it begins with the block at hand.
    read: Range<usize>,
    /// Which entry of the block at hand is next, of how many.
    entry: usize,
    entries: usize,
    next_block: u64,
}

impl RunScan {
    /// Starts at the first entry.
    pub fn new(run: Arc<Run>, buffer_bytes: usize) -> Result<RunScan, StoreError> {
        let mut scan = RunScan {
            direct: DirectFile::open_to_read(&run.path),
            run,
            buffer: BlockMemory::of(buffer_bytes.next_multiple_of(PAGE)),
            read: 0..0,
            entry: 0,
            entries: 0,
            next_block: 0,
        };
        scan.enter_block()?;
        Ok(scan)
    }

    /// The next entry, `None` behind the last one.
    #[inline]
    pub fn current(&self) -> Option<&EntryBytes> {
        let page = &self.buffer.bytes()[self.read.start..];
        (self.entry < self.entries).then(|| entry_at(page, self.entry))
    }

    /// Goes behind the next entry.
    #[inline]
    pub fn advance(&mut self) -> Result<(), StoreError> {
        self.entry += 1;
        if self.entry < self.entries {
            return Ok(());
        }
        self.read.start += PAGE;
        self.enter_block()
    }

    /// Checks the next block if there is one, reading ahead when the buffer is used up.
    fn enter_block(&mut self) -> Result<(), StoreError> {
        (self.entry, self.entries) = (0, 0);
        if self.next_block == self.run.header.blocks {
            self.read = 0..0;
            return Ok(());
        }
        if self.read.is_empty() {
            self.read_ahead().map_err(failed("read", &self.run.path))?;
        }
        let page = &self.buffer.bytes()[self.read.start..][..PAGE];
        let view = decode_block(page, crc32c)
            .map_err(|error| self.run.damaged_at(self.next_block, &error))?;
        self.entries = view.len();
        self.next_block += 1;
        Ok(())
    }

    fn read_ahead(&mut self) -> std::io::Result<()> {
        let left = (self.run.header.blocks - self.next_block) as usize;
        let bytes = (self.buffer.bytes().len()).min(left.saturating_mul(PAGE));
        let at = self.run.block_at(self.next_block);
        let blocks = &mut self.buffer.bytes_mut()[..bytes];
        let direct = self.direct.as_ref();
        if !direct.map_or(Ok(false), |file| file.read_blocks(blocks, at))? {
            self.run.file.read_exact_at(blocks, at)?;
        }
        self.read = 0..bytes;
        Ok(())
    }
}
