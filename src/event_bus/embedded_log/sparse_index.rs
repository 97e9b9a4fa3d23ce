//! Byte positions of some bus offsets, so that a read finds any offset in O(log n) and a short scan.
//!
//! For our own folders the positions come from the journal's partition tables. A folder another program
//! wrote has no journal; there the file itself is scanned once.

use super::disk::failed;
use super::journal_reader::JournalReader;
use super::run_state::LineEnd;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use wellspring_domain::ports::StoreError;

/// Least distance of two remembered positions.
const ANCHOR_BYTES: u64 = 64 * 1024;
/// Bytes read at once when a file is scanned.
const SCAN_BYTES: usize = 256 * 1024;

/// Starts of some lines, in order, and the end of the last complete line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseIndex {
    anchors: Vec<LineEnd>,
    end: LineEnd,
}

impl SparseIndex {
    /// Positions of one partition as the journals of its run know them.
    pub fn from_journal(
        journal: &JournalReader,
        topic: &str,
        partition: u32,
    ) -> Result<SparseIndex, StoreError> {
        let mut index = SparseIndex::default();
        journal.visit_heads(|head| {
            let entries = head.partitions.iter();
            for entry in
                entries.filter(|entry| &*entry.topic == topic && entry.partition == partition)
            {
                let start = LineEnd {
                    next_offset: entry.first_offset,
                    next_byte: entry.first_byte,
                };
                let end = entry.end();
                index.add_anchor(start);
                if end.next_byte >= index.end.next_byte {
                    index.end = LineEnd {
                        next_offset: end.next_offset,
                        next_byte: end.next_byte,
                    };
                }
            }
        })?;
        // A partition's entries lie in several journals when the number of shards was changed.
        index.anchors.sort_by_key(|anchor| anchor.next_offset);
        Ok(index)
    }

    /// Positions found by reading the whole file; every line counts, blank ones too (contract 8).
    pub fn from_lines(path: &Path) -> Result<SparseIndex, StoreError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(SparseIndex::default()),
            Err(cause) => return Err(failed("open", path)(cause)),
        };
        let mut index = SparseIndex::default();
        let mut buffer = vec![0u8; SCAN_BYTES];
        let mut at = 0u64;
        loop {
            let count = file.read(&mut buffer).map_err(failed("read", path))?;
            if count == 0 {
                return Ok(index);
            }
            for (place, _) in buffer[..count]
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
            {
                index.end = LineEnd {
                    next_offset: index.end.next_offset + 1,
                    next_byte: at + place as u64 + 1,
                };
                index.add_anchor(index.end);
            }
            at += count as u64;
        }
    }

    /// End of the last complete line.
    pub fn end(&self) -> LineEnd {
        self.end
    }

    /// The last remembered line start at or before `offset`.
    pub fn anchor_before(&self, offset: u64) -> LineEnd {
        let after = self
            .anchors
            .partition_point(|anchor| anchor.next_offset <= offset);
        after
            .checked_sub(1)
            .map(|place| self.anchors[place])
            .unwrap_or_default()
    }

    fn add_anchor(&mut self, anchor: LineEnd) {
        let last = self.anchors.last().map_or(0, |last| last.next_byte);
        if anchor.next_byte.abs_diff(last) >= ANCHOR_BYTES {
            self.anchors.push(anchor);
        }
    }
}
