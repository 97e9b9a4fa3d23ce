//! Floor of the commit: write lines, sync them, write the decision frame, sync it.
//!
//! The frame is the commit (design 3): checksummed, with each partition's range and checksum and a row of 160
//! bytes per decision, which is what a receipt is rendered from. Files grow by appending; one thread does it all.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Bytes of a decision row.
pub const ROW_BYTES: usize = 160;

/// Events after which everything is synced.
pub const COMMIT_EVENTS: u64 = 10_000;

/// Files of one run.
pub struct Log {
    partitions: Vec<Partition>,
    journal: File,
    frame: Vec<u8>,
    rows: u64,
    committed: u64,
}

struct Partition {
    file: File,
    bytes: u64,
    lines: u64,
    checksum: u32,
    /// Where the last commit ended.
    committed_bytes: u64,
    committed_lines: u64,
}

impl Log {
    /// New files in `folder`.
    pub fn create(folder: &Path, partitions: usize) -> Log {
        let create = |name: String| File::create(folder.join(name)).expect("a new file");
        let partition = |number| Partition {
            file: create(format!("partition={number}.jsonl")),
            bytes: 0,
            lines: 0,
            checksum: 0,
            committed_bytes: 0,
            committed_lines: 0,
        };
        Log {
            partitions: (0..partitions).map(partition).collect(),
            journal: create("journal".to_owned()),
            frame: Vec::new(),
            rows: 0,
            committed: 0,
        }
    }

    /// The bus offset the next line of a partition gets.
    pub fn next_offset(&self, partition: usize) -> u64 {
        self.partitions[partition].lines
    }

    /// Writes lines behind a partition's end.
    pub fn append(&mut self, partition: usize, bytes: &[u8], lines: u64) {
        let partition = &mut self.partitions[partition];
        partition.checksum = wellspring::checksum::crc32c_append(partition.checksum, bytes);
        partition.file.write_all(bytes).expect("room on the disk");
        partition.bytes += bytes.len() as u64;
        partition.lines += lines;
    }

    /// Keeps a decision for the next frame.
    pub fn decide(&mut self, row: &[u8; ROW_BYTES]) {
        if self.frame.is_empty() {
            self.frame
                .resize(HEAD_BYTES + ENTRY_BYTES * self.partitions.len(), 0);
        }
        self.frame.extend_from_slice(row);
        self.rows += 1;
    }

    /// Commits when enough events wait.
    pub fn commit_when_due(&mut self) {
        if self.rows - self.committed >= COMMIT_EVENTS {
            self.commit();
        }
    }

    /// Makes everything so far durable: lines first, then the frame that names them.
    pub fn commit(&mut self) {
        if self.frame.is_empty() {
            return;
        }
        let entries = self.frame[HEAD_BYTES..].chunks_exact_mut(ENTRY_BYTES);
        for (partition, entry) in self.partitions.iter_mut().zip(entries) {
            if partition.bytes > partition.committed_bytes {
                partition.file.sync_data().expect("a disk that syncs");
            }
            let fields = [partition.committed_bytes, partition.committed_lines];
            entry[..8].copy_from_slice(&fields[0].to_le_bytes());
            entry[8..16].copy_from_slice(&fields[1].to_le_bytes());
            entry[16..24].copy_from_slice(&partition.bytes.to_le_bytes());
            entry[24..32].copy_from_slice(&partition.lines.to_le_bytes());
            entry[32..36].copy_from_slice(&partition.checksum.to_le_bytes());
            partition.committed_bytes = partition.bytes;
            partition.committed_lines = partition.lines;
            partition.checksum = 0;
        }
        let length = (self.frame.len() - HEAD_BYTES) as u64;
        self.frame[..8].copy_from_slice(&length.to_le_bytes());
        let checksum = wellspring::checksum::crc32c(&self.frame[HEAD_BYTES..]);
        self.frame[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.journal
            .write_all(&self.frame)
            .expect("room on the disk");
        self.journal.sync_data().expect("a disk that syncs");
        self.frame.clear();
        self.committed = self.rows;
    }

    /// Decisions made durable.
    pub fn committed(&self) -> u64 {
        self.committed
    }
}

const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 40;
