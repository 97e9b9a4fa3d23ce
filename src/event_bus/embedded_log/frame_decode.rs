//! A frame read back: its tables, its dictionary entries and its rows, without copying.

use super::disk::damaged;
use super::format::{
    BodyLayout, END_ENTRY_BYTES, PARTITION_ENTRY_BYTES, ROW_BYTES, entry, row, u16_at, u32_at,
    u64_at,
};
use std::path::Path;
use std::sync::Arc;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::decision::{Decision, ReceiptContext, RowRef};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::time_text::Micros;

/// Topics, contexts and reason codes of one segment, as far as it has been read.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    topics: Vec<Arc<str>>,
    contexts: Vec<Arc<ReceiptContext>>,
    codes: Vec<Arc<str>>,
}

impl Dictionary {
    /// Adds the entries of one frame.
    pub fn extend(&mut self, mut bytes: &[u8], entries: u32) -> Result<(), String> {
        for _ in 0..entries {
            let (kind, text, rest) = split_entry(bytes).ok_or("dictionary entry is cut off")?;
            match kind {
                entry::TOPIC => self.topics.push(text_of(text)?.into()),
                entry::CODE => self.codes.push(text_of(text)?.into()),
                entry::CONTEXT => {
                    let context = serde_json::from_slice(text)
                        .map_err(|cause| format!("receipt context: {cause}"))?;
                    self.contexts.push(Arc::new(context));
                }
                other => return Err(format!("unknown dictionary entry kind {other}")),
            }
            bytes = rest;
        }
        Ok(())
    }

    /// A topic by its number.
    pub fn topic(&self, number: u16) -> Option<&Arc<str>> {
        self.topics.get(usize::from(number))
    }
}

fn split_entry(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let length = u32_at(bytes.get(..5)?, 1) as usize;
    let text = bytes.get(5..5 + length)?;
    Some((bytes[0], text, &bytes[5 + length..]))
}

fn text_of(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "dictionary entry is not text".to_owned())
}

/// Bus lines one frame confirms in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionEntry {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Offset of the first line.
    pub first_offset: u64,
    /// Where the first line starts in the partition file.
    pub first_byte: u64,
    /// Bytes of the lines.
    pub bytes: u32,
    /// Number of lines.
    pub events: u32,
    /// CRC32C of the lines.
    pub checksum: u32,
}

/// Where a partition ends according to the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmedEnd {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Offset of the next record.
    pub next_offset: u64,
    /// Where the next line starts.
    pub next_byte: u64,
}

impl PartitionEntry {
    /// Where the partition ends after these lines.
    pub fn end(&self) -> ConfirmedEnd {
        ConfirmedEnd {
            topic: self.topic.clone(),
            partition: self.partition,
            next_offset: self.first_offset + u64::from(self.events),
            next_byte: self.first_byte + u64::from(self.bytes),
        }
    }
}

/// Reads a partition table.
pub fn partition_entries(
    table: &[u8],
    dictionary: &Dictionary,
) -> Result<Vec<PartitionEntry>, String> {
    let entries = table.chunks_exact(PARTITION_ENTRY_BYTES).map(|bytes| {
        let topic = dictionary.topic(u16_at(bytes, 0));
        Ok(PartitionEntry {
            topic: topic
                .ok_or("partition entry names an unknown topic")?
                .clone(),
            partition: u32_at(bytes, 4),
            first_offset: u64_at(bytes, 8),
            first_byte: u64_at(bytes, 16),
            bytes: u32_at(bytes, 24),
            events: u32_at(bytes, 28),
            checksum: u32_at(bytes, 32),
        })
    });
    entries.collect()
}

/// Reads an end table.
pub fn end_entries(table: &[u8], dictionary: &Dictionary) -> Result<Vec<ConfirmedEnd>, String> {
    let entries = table.chunks_exact(END_ENTRY_BYTES).map(|bytes| {
        let topic = dictionary.topic(u16_at(bytes, 0));
        Ok(ConfirmedEnd {
            topic: topic.ok_or("end entry names an unknown topic")?.clone(),
            partition: u32_at(bytes, 4),
            next_offset: u64_at(bytes, 8),
            next_byte: u64_at(bytes, 16),
        })
    });
    entries.collect()
}

/// A frame whose checksum matched, with the dictionary that was in force.
#[derive(Clone, Debug)]
pub struct Frame {
    shard: u16,
    segment: u32,
    path: Arc<Path>,
    offset: u64,
    layout: BodyLayout,
    partitions: Vec<PartitionEntry>,
    ends: Vec<ConfirmedEnd>,
    dictionary: Arc<Dictionary>,
    body: Vec<u8>,
}

impl Frame {
    /// Takes a body whose checksum matched and a dictionary that has its entries already.
    pub fn decode(
        place: FramePlace,
        layout: BodyLayout,
        body: Vec<u8>,
        dictionary: Arc<Dictionary>,
    ) -> Result<Frame, StoreError> {
        let refuse = |cause: String| damaged(&place.path, place.offset, cause);
        let mut decisions = body[layout.row_table.clone()]
            .chunks_exact(ROW_BYTES)
            .map(|row| row[row::DECISION]);
        if decisions.any(|decision| !(row::ADMIT..=row::QUARANTINE).contains(&decision)) {
            return Err(refuse("unknown decision in a row".to_owned()));
        }
        Ok(Frame {
            shard: place.shard,
            segment: place.segment,
            partitions: partition_entries(&body[layout.partition_table.clone()], &dictionary)
                .map_err(refuse)?,
            ends: end_entries(&body[layout.end_table.clone()], &dictionary).map_err(refuse)?,
            path: place.path.clone(),
            offset: place.offset,
            dictionary,
            layout,
            body,
        })
    }

    /// Bus lines the frame confirms.
    pub fn partitions(&self) -> &[PartitionEntry] {
        &self.partitions
    }

    /// All known partition ends before this frame; only in the first frame of a segment.
    pub fn ends(&self) -> &[ConfirmedEnd] {
        &self.ends
    }

    /// Where the frame's rows begin.
    pub fn first_row(&self) -> RowRef {
        self.row_ref(0)
    }

    /// Number of rows.
    pub fn row_count(&self) -> u32 {
        self.layout.rows
    }

    /// When the decisions were made.
    pub fn decided_at(&self) -> Micros {
        self.layout.decided_at
    }

    /// The rows in order.
    pub fn rows(&self) -> impl Iterator<Item = RowView<'_>> {
        (0..self.layout.rows).map(|index| RowView { frame: self, index })
    }

    /// The row at `index` in the frame; `index` must be below [`Frame::row_count`].
    pub fn row(&self, index: u32) -> RowView<'_> {
        assert!(index < self.layout.rows, "row lies in the frame");
        RowView { frame: self, index }
    }

    fn row_ref(&self, index: u32) -> RowRef {
        RowRef {
            shard: self.shard,
            segment: self.segment,
            row: self.layout.first_row + index,
        }
    }
}

/// Where a frame was read.
#[derive(Clone, Debug)]
pub struct FramePlace {
    /// Segment file.
    pub path: Arc<Path>,
    /// Admission shard.
    pub shard: u16,
    /// Segment.
    pub segment: u32,
    /// First byte of the frame.
    pub offset: u64,
}

/// One row of a frame, read in place.
#[derive(Clone, Copy)]
pub struct RowView<'a> {
    frame: &'a Frame,
    index: u32,
}

impl RowView<'_> {
    /// Where the row lies.
    pub fn row_ref(&self) -> RowRef {
        self.frame.row_ref(self.index)
    }

    /// The decision.
    pub fn decision(&self) -> Decision {
        match self.bytes()[row::DECISION] {
            row::ADMIT => Decision::Admit,
            row::DUPLICATE => Decision::Duplicate,
            // Frame::decode refused everything else.
            _ => Decision::Quarantine,
        }
    }

    /// Uniqueness (V11).
    pub fn dedupe_key(&self) -> Hash32 {
        self.hash(row::DEDUPE_KEY)
    }

    /// Payload hash (V12).
    pub fn payload_hash(&self) -> Hash32 {
        self.hash(row::PAYLOAD_HASH)
    }

    /// The row with everything it refers to.
    pub fn to_row(&self) -> Result<JournalRow, StoreError> {
        self.read()
            .map_err(|cause| damaged(&self.frame.path, self.frame.offset, cause))
    }

    /// Where an ADMIT row was published: topic, partition and offset.
    pub fn published(&self) -> Option<(&PartitionEntry, u64)> {
        if self.decision() != Decision::Admit {
            return None;
        }
        let place = usize::from(u16_at(self.bytes(), row::SMALL));
        let entry = self.frame.partitions.get(place)?;
        Some((entry, u64_at(self.bytes(), row::LARGE)))
    }

    fn read(&self) -> Result<JournalRow, String> {
        let bytes = self.bytes();
        let frame = self.frame;
        let context = frame
            .dictionary
            .contexts
            .get(u32_at(bytes, row::CONTEXT) as usize);
        let mut heap = self.heap()?;
        Ok(JournalRow {
            row_ref: self.row_ref(),
            decided_at: frame.layout.decided_at,
            context: context.ok_or("row names an unknown context")?.clone(),
            event_id: self.event_id(&mut heap)?,
            ts_utc: self.ts_utc(&mut heap)?,
            dedupe_key: self.dedupe_key(),
            payload_hash: self.payload_hash(),
            partition_key: self.hash(row::PARTITION_KEY),
            outcome: self.outcome(heap)?,
        })
    }

    fn outcome(&self, heap: &[u8]) -> Result<JournalOutcome, String> {
        let bytes = self.bytes();
        let small = u16_at(bytes, row::SMALL);
        let large = u64_at(bytes, row::LARGE);
        match self.decision() {
            Decision::Admit => {
                let published = self.published();
                let (entry, offset) = published.ok_or("row names an unknown partition entry")?;
                Ok(JournalOutcome::Admit {
                    topic: entry.topic.clone(),
                    partition: entry.partition,
                    offset: BusOffset::Line(offset),
                })
            }
            Decision::Duplicate => Ok(JournalOutcome::Duplicate {
                original: RowRef {
                    shard: small,
                    segment: (large >> 32) as u32,
                    row: large as u32,
                },
            }),
            Decision::Quarantine => {
                let code = self.frame.dictionary.codes.get(usize::from(small));
                let record = usize::try_from(large).ok().and_then(|end| heap.get(..end));
                Ok(JournalOutcome::Quarantine {
                    code: code.ok_or("row names an unknown reason code")?.clone(),
                    record: record.ok_or("quarantine record is cut off")?.to_vec(),
                })
            }
        }
    }

    fn event_id(&self, heap: &mut &[u8]) -> Result<String, String> {
        if self.bytes()[row::FLAGS] & row::EVENT_ID_PACKED == 0 {
            return take_text(heap);
        }
        Ok(self.hash(row::EVENT_ID).to_string())
    }

    fn ts_utc(&self, heap: &mut &[u8]) -> Result<String, String> {
        if self.bytes()[row::FLAGS] & row::TS_PACKED == 0 {
            return take_text(heap);
        }
        Ok(Micros(u64_at(self.bytes(), row::TS) as i64).format_env())
    }

    fn heap(&self) -> Result<&[u8], String> {
        let start = u32_at(self.bytes(), row::HEAP) as usize;
        let heap = &self.frame.body[self.frame.layout.heap.clone()];
        heap.get(start..)
            .ok_or_else(|| "row points behind the heap".to_owned())
    }

    fn hash(&self, at: usize) -> Hash32 {
        let mut hash = [0u8; 32];
        hash.copy_from_slice(&self.bytes()[at..at + 32]);
        Hash32(hash)
    }

    fn bytes(&self) -> &[u8] {
        let start = self.frame.layout.row_table.start + self.index as usize * ROW_BYTES;
        &self.frame.body[start..start + ROW_BYTES]
    }
}

fn take_text(heap: &mut &[u8]) -> Result<String, String> {
    let cut_off = || "text in the heap is cut off".to_owned();
    let length = u32_at(heap.get(..4).ok_or_else(cut_off)?, 0) as usize;
    let text = heap.get(4..4 + length).ok_or_else(cut_off)?;
    let text = String::from_utf8(text.to_vec()).map_err(|_| "text is not UTF-8".to_owned())?;
    *heap = &heap[4 + length..];
    Ok(text)
}
