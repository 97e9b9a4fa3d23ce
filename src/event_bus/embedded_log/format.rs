//! The decision journal's file format, version 1. All numbers are little-endian.
//!
//! A segment file is one header and then frames. A frame never spans segments. Topics, receipt
//! contexts and reason codes stand once per segment in a dictionary that frames extend, so a segment
//! can be read without any other file.
//!
//! ```text
//! segment header, 80 bytes
//!   0  magic "WSPRJRNL"          24  rows in earlier segments u64
//!   8  version u32               32  bytes of the previous segment u64 (0: none)
//!  12  shard u16                 40  platform run id, 32 bytes, zero padded
//!  14  zero u16                  72  zero u32
//!  16  segment u32               76  CRC32C of bytes 0..76
//!  20  first row u32 (0)
//!
//! frame: magic "WSFM" u32, body length u32, CRC32C u32 over length and body, body
//!
//! body head, 40 bytes
//!   0  kind u8 (1: decisions)    16  dictionary entries u32
//!   1  zero u8                   20  dictionary bytes u32
//!   2  partition entries u16     24  heap bytes u32
//!   4  first row u32             28  zero u32
//!   8  rows u32                  32  decided at, microseconds since 1970 UTC, i64
//!  12  end entries u32
//!
//! then, in this order
//!   partition entries, 40 bytes: topic u16, zero u16, partition u32, first offset u64,
//!     first byte u64, bytes u32, events u32, CRC32C of the bytes u32, zero u32
//!   end entries, 24 bytes, in the first frame of a segment: topic u16, zero u16, partition u32,
//!     next offset u64, next byte u64: where each known partition ended before this frame
//!   dictionary entries: kind u8 (1 topic, 2 context as CJ, 3 reason code), length u32, bytes;
//!     numbered from 0 by kind within the segment
//!   rows, 160 bytes: decision u8 (1 ADMIT, 2 DUPLICATE, 3 QUARANTINE), flags u8 (1: event id
//!     is 64 hex and stands packed, 2: ts_utc is T-env and stands packed), small u16, context u32,
//!     event id 32 bytes, ts_utc micros i64, dedupe key 32, payload hash 32, partition key 32,
//!     large u64, heap offset u32, zero u32
//!       ADMIT: small = partition entry, large = bus offset
//!       DUPLICATE: small = shard, large = segment << 32 | row of the ADMIT row
//!       QUARANTINE: small = reason code, large = bytes of the quarantine record
//!   heap: per row that needs it, from its heap offset: event id (u32 length, bytes) unless packed,
//!     ts_utc (u32 length, bytes) unless packed, quarantine record
//! ```

use crate::checksum::{crc32c, crc32c_append};
use std::ops::Range;
use std::path::Path;
use wellspring_domain::ports::StoreError;
use wellspring_domain::time_text::Micros;

use super::disk::damaged;

/// First bytes of a segment file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"WSPRJRNL";
/// The only version this program writes and reads.
pub const SEGMENT_VERSION: u32 = 1;
/// Bytes of the segment header.
pub const SEGMENT_HEADER_BYTES: usize = 80;
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"WSFM";
/// Magic, length and checksum.
pub const FRAME_HEAD_BYTES: usize = 12;
/// Fixed part of a frame's body.
pub const BODY_HEAD_BYTES: usize = 40;
/// One partition entry.
pub const PARTITION_ENTRY_BYTES: usize = 40;
/// One end entry.
pub const END_ENTRY_BYTES: usize = 24;
/// One row.
pub const ROW_BYTES: usize = 160;
/// Largest body that is written or believed.
pub const BODY_BYTES_MAX: u64 = 1 << 30;
/// `kind` of a frame of decisions.
pub const KIND_DECISIONS: u8 = 1;

/// Dictionary entry kinds.
pub mod entry {
    /// A topic.
    pub const TOPIC: u8 = 1;
    /// A receipt context, CJ.
    pub const CONTEXT: u8 = 2;
    /// A reason code.
    pub const CODE: u8 = 3;
}

/// Where the fields of a row lie.
pub mod row {
    /// Decision byte.
    pub const DECISION: usize = 0;
    /// Flags byte.
    pub const FLAGS: usize = 1;
    /// Small number of the outcome.
    pub const SMALL: usize = 2;
    /// Context number.
    pub const CONTEXT: usize = 4;
    /// Packed event id.
    pub const EVENT_ID: usize = 8;
    /// Packed ts_utc.
    pub const TS: usize = 40;
    /// Dedupe key.
    pub const DEDUPE_KEY: usize = 48;
    /// Payload hash.
    pub const PAYLOAD_HASH: usize = 80;
    /// Partition key.
    pub const PARTITION_KEY: usize = 112;
    /// Large number of the outcome.
    pub const LARGE: usize = 144;
    /// Heap offset.
    pub const HEAP: usize = 152;

    /// Decision byte of an ADMIT.
    pub const ADMIT: u8 = 1;
    /// Decision byte of a DUPLICATE.
    pub const DUPLICATE: u8 = 2;
    /// Decision byte of a QUARANTINE.
    pub const QUARANTINE: u8 = 3;

    /// Flag: the event id stands packed in the row.
    pub const EVENT_ID_PACKED: u8 = 1;
    /// Flag: ts_utc stands packed in the row.
    pub const TS_PACKED: u8 = 2;
}

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Admission shard.
    pub shard: u16,
    /// Number of the segment.
    pub segment: u32,
    /// Rows in all earlier segments of the shard.
    pub rows_before: u64,
    /// Exact length of the previous segment; 0 when there is none.
    pub previous_bytes: u64,
    /// Run the journal belongs to.
    pub run_id: String,
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0u8; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        out[12..14].copy_from_slice(&self.shard.to_le_bytes());
        out[16..20].copy_from_slice(&self.segment.to_le_bytes());
        out[24..32].copy_from_slice(&self.rows_before.to_le_bytes());
        out[32..40].copy_from_slice(&self.previous_bytes.to_le_bytes());
        let run_id = self.run_id.as_bytes();
        assert!(run_id.len() <= 32, "a platform run id has 25 bytes");
        out[40..40 + run_id.len()].copy_from_slice(run_id);
        let checksum = crc32c(&out[..76]);
        out[76..80].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header; refuses other files, other versions and damage.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<SegmentHeader, StoreError> {
        if bytes.len() < SEGMENT_HEADER_BYTES || bytes[0..8] != SEGMENT_MAGIC {
            return Err(damaged(path, 0, "not a decision journal segment"));
        }
        let version = u32_at(bytes, 8);
        if version != SEGMENT_VERSION {
            return Err(StoreError::UnknownVersion {
                key: path.display().to_string(),
                found: version,
                known: SEGMENT_VERSION,
            });
        }
        if crc32c(&bytes[..76]) != u32_at(bytes, 76) {
            return Err(damaged(path, 0, "segment header checksum does not match"));
        }
        let run_id: Vec<u8> = bytes[40..72]
            .iter()
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        Ok(SegmentHeader {
            shard: u16_at(bytes, 12),
            segment: u32_at(bytes, 16),
            rows_before: u64_at(bytes, 24),
            previous_bytes: u64_at(bytes, 32),
            run_id: String::from_utf8(run_id)
                .map_err(|_| damaged(path, 40, "run id is not text"))?,
        })
    }
}

/// Where the parts of a frame's body lie, checked against the body's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyLayout {
    /// Row number of the first row.
    pub first_row: u32,
    /// Number of rows.
    pub rows: u32,
    /// When the decisions were made.
    pub decided_at: Micros,
    /// Number of dictionary entries.
    pub dictionary_entries: u32,
    /// Bytes of the partition entries.
    pub partition_table: Range<usize>,
    /// Bytes of the end entries.
    pub end_table: Range<usize>,
    /// Bytes of the dictionary entries.
    pub dictionary: Range<usize>,
    /// Bytes of the rows.
    pub row_table: Range<usize>,
    /// Bytes of the heap.
    pub heap: Range<usize>,
}

impl BodyLayout {
    /// Reads the body head; the reason when it cannot be the head of a body of `body_bytes`.
    pub fn parse(head: &[u8], body_bytes: usize) -> Result<BodyLayout, &'static str> {
        if head.len() < BODY_HEAD_BYTES || body_bytes < BODY_HEAD_BYTES {
            return Err("frame is shorter than its head");
        }
        if head[0] != KIND_DECISIONS {
            return Err("unknown frame kind");
        }
        let mut end = BODY_HEAD_BYTES as u64;
        let mut part = |bytes: u64| {
            let start = end;
            end += bytes;
            start as usize..end as usize
        };
        let layout = BodyLayout {
            first_row: u32_at(head, 4),
            rows: u32_at(head, 8),
            decided_at: Micros(u64_at(head, 32) as i64),
            dictionary_entries: u32_at(head, 16),
            partition_table: part(u64::from(u16_at(head, 2)) * PARTITION_ENTRY_BYTES as u64),
            end_table: part(u64::from(u32_at(head, 12)) * END_ENTRY_BYTES as u64),
            dictionary: part(u64::from(u32_at(head, 20))),
            row_table: part(u64::from(u32_at(head, 8)) * ROW_BYTES as u64),
            heap: part(u64::from(u32_at(head, 24))),
        };
        if end != body_bytes as u64 {
            return Err("parts of the frame do not add up to its length");
        }
        if layout.first_row.checked_add(layout.rows).is_none() {
            return Err("row numbers overflow");
        }
        Ok(layout)
    }
}

/// The checksum of a frame: CRC32C over the length field and the body.
pub fn frame_checksum(body: &[u8]) -> u32 {
    let length = (body.len() as u32).to_le_bytes();
    crc32c_append(crc32c(&length), body)
}

/// A little-endian number in bytes known to be long enough.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// A little-endian number in bytes known to be long enough.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A little-endian number in bytes known to be long enough.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
