//! Large reads and writes around the page cache.
//!
//! A page in the cache costs more than the copy into it: it has to be found, mapped to the disk, written back and let
//! go of again, which is several times what handing the bytes to the disk costs. So whole blocks of a large append go
//! there directly, from memory that begins at a block boundary: where the lines were gathered (see
//! [`wellspring_domain::admission::line_memory`]), or a copy of them. What is left at its ends, and small appends, go
//! through the cache. The kernel keeps both views of a file the same; a sync is needed either way, for the
//! length of the file and the disk's own cache.

use crate::checksum::crc32c_append;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use wellspring_domain::admission::line_memory::BLOCK;

/// Bytes written at once: a little less than the 254 pages that fit into one request of common virtual disks.
pub const DIRECT_BYTES: usize = 250 * BLOCK;

/// Memory that begins at a block boundary, for bytes that do not.
#[derive(Debug)]
pub struct BlockMemory {
    memory: Vec<u8>,
    start: usize,
}

impl BlockMemory {
    /// So many bytes, all zero.
    pub fn of(bytes: usize) -> BlockMemory {
        let memory = vec![0; bytes + BLOCK];
        let start = memory.as_ptr().addr().next_multiple_of(BLOCK) - memory.as_ptr().addr();
        BlockMemory { memory, start }
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.memory.len() - BLOCK]
    }

    /// All its bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.memory.len() - BLOCK;
        &mut self.memory[self.start..][..length]
    }
}

/// Bytes copied at once: few enough to be in the fastest cache when the checksum reads them.
const COPY_BYTES: usize = 4096;

/// At most [`DIRECT_BYTES`] at a block boundary: where they are, or copied to `memory`. Their checksum is added to
/// `checksum`.
pub fn at_boundary<'b>(
    bytes: &'b [u8],
    memory: &'b mut Option<BlockMemory>,
    checksum: &mut u32,
) -> &'b [u8] {
    if bytes.as_ptr().addr().is_multiple_of(BLOCK) {
        *checksum = crc32c_append(*checksum, bytes);
        return bytes;
    }
    let memory = memory.get_or_insert_with(|| BlockMemory::of(DIRECT_BYTES));
    memory.copy(bytes, checksum)
}

impl BlockMemory {
    fn copy(&mut self, bytes: &[u8], checksum: &mut u32) -> &[u8] {
        let copy = &mut self.bytes_mut()[..bytes.len()];
        for (to, from) in copy.chunks_mut(COPY_BYTES).zip(bytes.chunks(COPY_BYTES)) {
            to.copy_from_slice(from);
            *checksum = crc32c_append(*checksum, to);
        }
        copy
    }
}

/// A file opened for reads or writes around the page cache.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
}

impl DirectFile {
    /// Opens a file that exists for writes; none where the file system has no such writes.
    pub fn open(path: &Path) -> Option<DirectFile> {
        DirectFile::open_as(OpenOptions::new().write(true), path)
    }

    /// Opens a file for reads; none where the file system has no such reads, or the file is gone.
    pub fn open_to_read(path: &Path) -> Option<DirectFile> {
        DirectFile::open_as(OpenOptions::new().read(true), path)
    }

    fn open_as(options: &mut OpenOptions, path: &Path) -> Option<DirectFile> {
        let direct = OFlags::DIRECT.bits() as i32;
        let file = options.custom_flags(direct).open(path);
        file.ok().map(|file| DirectFile { file })
    }

    /// Fills `blocks`, whole blocks of memory at a boundary, from a block boundary of the file on. False when nothing was
    /// read because the disk has larger blocks.
    pub fn read_blocks(&self, blocks: &mut [u8], offset: u64) -> io::Result<bool> {
        match self.file.read_exact_at(blocks, offset) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// Writes the whole blocks at the front of `bytes` and gives their length. Nothing is written where that is not
    /// possible: when bytes or `offset` are at no block boundary, or the disk has larger blocks.
    pub fn write_blocks(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if !(bytes.as_ptr().addr() | offset as usize).is_multiple_of(BLOCK) {
            return Ok(0);
        }
        let whole = bytes.len() / BLOCK * BLOCK;
        match self.file.write_all_at(&bytes[..whole], offset) {
            Ok(()) => Ok(whole),
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Ok(0),
            Err(cause) => Err(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::crc32c;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn bytes_are_copied_to_a_block_boundary_unless_they_are_at_one() {
        let bytes: Vec<u8> = (0..DIRECT_BYTES + BLOCK).map(|at| (at / 7) as u8).collect();
        let boundary = bytes.as_ptr().addr().next_multiple_of(BLOCK) - bytes.as_ptr().addr();
        let checksum = |part: &[u8]| crc32c(&[b"before", part].concat());
        for from in [boundary, (boundary + 1) % BLOCK] {
            let part = &bytes[from..from + DIRECT_BYTES];
            let (mut memory, mut made) = (None, crc32c(b"before"));
            let placed = at_boundary(part, &mut memory, &mut made);
            assert_eq!(placed.as_ptr().addr() % BLOCK, 0);
            assert!(placed == part);
            assert_eq!(placed.as_ptr() == part.as_ptr(), from == boundary);
            assert_eq!(made, checksum(part));
            assert_eq!(memory.is_none(), from == boundary);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn only_whole_blocks_at_a_boundary_are_written(
            before in 0..3 * BLOCK,
            blocks in 0..DIRECT_BYTES / BLOCK,
            rest in 0..BLOCK,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("lines");
            let mut file = File::create(&path).unwrap();
            file.write_all(&vec![1; before]).unwrap();
            let bytes: Vec<u8> = (0..blocks * BLOCK + rest).map(|at| (at / 7) as u8).collect();
            // A file system without direct writes has nothing to show.
            if let Some(direct) = DirectFile::open(&path) {
                let mut memory = BlockMemory::of(DIRECT_BYTES);
                let copy = memory.copy(&bytes, &mut 0);
                prop_assert_eq!(direct.write_blocks(&copy[1..], before as u64).unwrap(), 0);
                let written = direct.write_blocks(copy, before as u64).unwrap();
                match before % BLOCK {
                    0 => prop_assert!(written == 0 || written == blocks * BLOCK),
                    _ => prop_assert_eq!(written, 0),
                }
                let mut expected = vec![1; before];
                expected.extend_from_slice(&bytes[..written]);
                prop_assert_eq!(std::fs::read(&path).unwrap(), &expected[..]);
                let whole = expected.len() / BLOCK * BLOCK;
                let mut read = BlockMemory::of(whole);
                let reader = DirectFile::open_to_read(&path).unwrap();
                if reader.read_blocks(read.bytes_mut(), 0).unwrap() {
                    prop_assert_eq!(read.bytes(), &expected[..whole]);
                }
            }
        }
    }
}
