//! Writes a flush as one journal frame into a buffer that is used again and again.

use super::format::{
    BODY_BYTES_MAX, BODY_HEAD_BYTES, END_ENTRY_BYTES, FRAME_HEAD_BYTES, FRAME_MAGIC,
    KIND_DECISIONS, PARTITION_ENTRY_BYTES, ROW_BYTES, entry, frame_checksum, row,
};
use super::frame_decode::ConfirmedEnd;
use super::text_packing::TimePacker;
use std::collections::HashMap;
use std::sync::Arc;
use wellspring_domain::admission::decision::{DecisionRow, Flush, ReceiptContext, RowOutcome};
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::ids::Hash32;
use wellspring_domain::time_text::Micros;

/// Contexts remembered by address, so that they are not rendered again for each flush.
const RECENT_CONTEXTS_MAX: usize = 256;

/// Where the lines of one append were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedAppend {
    /// First byte in the partition file.
    pub first_byte: u64,
    /// CRC32C of the lines.
    pub checksum: u32,
}

/// Why a flush cannot be written; nothing was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A row points to something the flush does not have.
    #[error("row {row} of the flush names a missing {what}")]
    Dangling {
        /// Index of the row.
        row: usize,
        /// What is missing.
        what: &'static str,
    },
    /// A number does not fit the format.
    #[error("the flush has too many {what} for one frame")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
    },
    /// A receipt context has no canonical form.
    #[error("receipt context cannot be written: {cause}")]
    Context {
        /// The reason.
        cause: String,
    },
}

/// Encodes frames of one segment after the other and keeps the segment's dictionary.
#[derive(Default)]
pub struct FrameEncoder {
    topics: Vec<Arc<str>>,
    codes: Vec<&'static str>,
    contexts: HashMap<String, u32>,
    recent: Vec<(Arc<ReceiptContext>, u32)>,
    flush_contexts: Vec<u32>,
    fresh: Vec<u8>,
    fresh_entries: u32,
    heap: Vec<u8>,
    times: TimePacker,
    out: Vec<u8>,
}

impl FrameEncoder {
    /// Forgets the dictionary: the next frame is the first of a new segment.
    pub fn start_segment(&mut self) {
        self.topics.clear();
        self.codes.clear();
        self.contexts.clear();
        self.recent.clear();
    }

    /// The frame's bytes. `placed` belongs to `flush.appends`; `ends` are written for the first frame
    /// of a segment.
    pub fn encode(
        &mut self,
        flush: &Flush,
        placed: &[PlacedAppend],
        ends: &[ConfirmedEnd],
    ) -> Result<&[u8], EncodeError> {
        assert_eq!(flush.appends.len(), placed.len(), "each append was placed");
        self.fresh.clear();
        self.fresh_entries = 0;
        self.heap.clear();
        self.out.clear();
        self.number_contexts(flush)?;
        self.number_codes(flush)?;
        self.out.resize(FRAME_HEAD_BYTES + BODY_HEAD_BYTES, 0);
        self.push_partitions(flush, placed)?;
        self.push_ends(ends)?;
        self.out.extend_from_slice(&self.fresh);
        self.push_rows(flush)?;
        self.out.extend_from_slice(&self.heap);
        self.finish(flush, ends.len())?;
        Ok(&self.out)
    }

    fn number_contexts(&mut self, flush: &Flush) -> Result<(), EncodeError> {
        self.flush_contexts.clear();
        for context in &flush.contexts {
            let known = self
                .recent
                .iter()
                .find(|(recent, _)| Arc::ptr_eq(recent, context));
            let number = match known {
                Some((_, number)) => *number,
                None => self.number_context(context)?,
            };
            self.flush_contexts.push(number);
        }
        Ok(())
    }

    fn number_context(&mut self, context: &Arc<ReceiptContext>) -> Result<u32, EncodeError> {
        let text = to_cj(context.as_ref()).map_err(|cause| EncodeError::Context {
            cause: cause.to_string(),
        })?;
        let next = self.contexts.len() as u32;
        let number = match self.contexts.get(&text) {
            Some(number) => *number,
            None => {
                self.push_fresh(entry::CONTEXT, text.as_bytes());
                self.contexts.insert(text, next);
                next
            }
        };
        if self.recent.len() == RECENT_CONTEXTS_MAX {
            self.recent.clear();
        }
        self.recent.push((context.clone(), number));
        Ok(number)
    }

    fn number_codes(&mut self, flush: &Flush) -> Result<(), EncodeError> {
        for decided in &flush.rows {
            if let RowOutcome::Quarantine { code, .. } = decided.outcome
                && !self.codes.contains(&code)
            {
                self.codes.push(code);
                self.push_fresh(entry::CODE, code.as_bytes());
            }
        }
        if self.codes.len() > usize::from(u16::MAX) {
            return Err(EncodeError::TooMany {
                what: "reason codes",
            });
        }
        Ok(())
    }

    fn topic_number(&mut self, topic: &Arc<str>) -> Result<u16, EncodeError> {
        let known = self.topics.iter().position(|known| known == topic);
        let number = known.unwrap_or(self.topics.len());
        if known.is_none() {
            self.topics.push(topic.clone());
            self.push_fresh(entry::TOPIC, topic.as_bytes());
        }
        u16::try_from(number).map_err(|_| EncodeError::TooMany { what: "topics" })
    }

    fn push_fresh(&mut self, kind: u8, text: &[u8]) {
        self.fresh.push(kind);
        self.fresh
            .extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.fresh.extend_from_slice(text);
        self.fresh_entries += 1;
    }

    fn push_partitions(
        &mut self,
        flush: &Flush,
        placed: &[PlacedAppend],
    ) -> Result<(), EncodeError> {
        if flush.appends.len() > usize::from(u16::MAX) {
            return Err(EncodeError::TooMany { what: "partitions" });
        }
        for (append, place) in flush.appends.iter().zip(placed) {
            let bytes = u32::try_from(append.bytes.len())
                .map_err(|_| EncodeError::TooMany { what: "bus bytes" })?;
            let mut slot = [0u8; PARTITION_ENTRY_BYTES];
            put(
                &mut slot,
                0,
                &self.topic_number(&append.topic)?.to_le_bytes(),
            );
            put(&mut slot, 4, &append.partition.to_le_bytes());
            put(&mut slot, 8, &append.first_offset.to_le_bytes());
            put(&mut slot, 16, &place.first_byte.to_le_bytes());
            put(&mut slot, 24, &bytes.to_le_bytes());
            put(&mut slot, 28, &append.events.to_le_bytes());
            put(&mut slot, 32, &place.checksum.to_le_bytes());
            self.out.extend_from_slice(&slot);
        }
        Ok(())
    }

    fn push_ends(&mut self, ends: &[ConfirmedEnd]) -> Result<(), EncodeError> {
        for end in ends {
            let mut slot = [0u8; END_ENTRY_BYTES];
            put(&mut slot, 0, &self.topic_number(&end.topic)?.to_le_bytes());
            put(&mut slot, 4, &end.partition.to_le_bytes());
            put(&mut slot, 8, &end.next_offset.to_le_bytes());
            put(&mut slot, 16, &end.next_byte.to_le_bytes());
            self.out.extend_from_slice(&slot);
        }
        Ok(())
    }

    fn push_rows(&mut self, flush: &Flush) -> Result<(), EncodeError> {
        let start = self.out.len();
        self.out.resize(start + flush.rows.len() * ROW_BYTES, 0);
        let slots = self.out[start..].chunks_exact_mut(ROW_BYTES);
        for (index, (decided, slot)) in flush.rows.iter().zip(slots).enumerate() {
            let context = self.flush_contexts.get(usize::from(decided.context));
            let context = context.ok_or(EncodeError::Dangling {
                row: index,
                what: "context",
            })?;
            put(slot, row::CONTEXT, &context.to_le_bytes());
            put_event_id(slot, decided.event_id.of(&flush.arena), &mut self.heap);
            let ts_utc = decided.ts_utc.of(&flush.arena);
            put_ts_utc(slot, ts_utc, self.times.pack(ts_utc), &mut self.heap);
            put(slot, row::DEDUPE_KEY, &decided.dedupe_key.0);
            put(slot, row::PAYLOAD_HASH, &decided.payload_hash.0);
            put(slot, row::PARTITION_KEY, &decided.partition_key.0);
            put_outcome(slot, decided, flush, &self.codes, &mut self.heap)
                .map_err(|what| EncodeError::Dangling { row: index, what })?;
        }
        Ok(())
    }

    fn finish(&mut self, flush: &Flush, ends: usize) -> Result<(), EncodeError> {
        let body_bytes = (self.out.len() - FRAME_HEAD_BYTES) as u64;
        if body_bytes > BODY_BYTES_MAX {
            return Err(EncodeError::TooMany { what: "bytes" });
        }
        let body = &mut self.out[FRAME_HEAD_BYTES..];
        body[0] = KIND_DECISIONS;
        put(body, 2, &(flush.appends.len() as u16).to_le_bytes());
        put(body, 4, &flush.first_row.row.to_le_bytes());
        put(body, 8, &(flush.rows.len() as u32).to_le_bytes());
        put(body, 12, &(ends as u32).to_le_bytes());
        put(body, 16, &self.fresh_entries.to_le_bytes());
        put(body, 20, &(self.fresh.len() as u32).to_le_bytes());
        put(body, 24, &(self.heap.len() as u32).to_le_bytes());
        put(body, 32, &flush.decided_at.0.to_le_bytes());
        let checksum = frame_checksum(body);
        put(&mut self.out, 0, &FRAME_MAGIC);
        put(&mut self.out, 4, &(body_bytes as u32).to_le_bytes());
        put(&mut self.out, 8, &checksum.to_le_bytes());
        Ok(())
    }
}

fn put(slot: &mut [u8], at: usize, bytes: &[u8]) {
    slot[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_event_id(slot: &mut [u8], event_id: &[u8], heap: &mut Vec<u8>) {
    put(slot, row::HEAP, &(heap.len() as u32).to_le_bytes());
    match Hash32::from_hex(event_id) {
        Some(packed) => {
            put(slot, row::EVENT_ID, &packed.0);
            slot[row::FLAGS] |= row::EVENT_ID_PACKED;
        }
        None => push_text(heap, event_id),
    }
}

fn put_ts_utc(slot: &mut [u8], ts_utc: &[u8], packed: Option<Micros>, heap: &mut Vec<u8>) {
    match packed {
        Some(packed) => {
            put(slot, row::TS, &packed.0.to_le_bytes());
            slot[row::FLAGS] |= row::TS_PACKED;
        }
        None => push_text(heap, ts_utc),
    }
}

fn push_text(heap: &mut Vec<u8>, text: &[u8]) {
    heap.extend_from_slice(&(text.len() as u32).to_le_bytes());
    heap.extend_from_slice(text);
}

fn put_outcome(
    slot: &mut [u8],
    decided: &DecisionRow,
    flush: &Flush,
    codes: &[&'static str],
    heap: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let (decision, small, large) = match decided.outcome {
        RowOutcome::Admit { append, offset } => {
            let lines = flush.appends.get(usize::from(append)).ok_or("append")?;
            let range = lines.first_offset..lines.first_offset + u64::from(lines.events);
            if !range.contains(&offset) {
                return Err("bus line");
            }
            (row::ADMIT, append, offset)
        }
        RowOutcome::Duplicate { original } => {
            let place = u64::from(original.segment) << 32 | u64::from(original.row);
            (row::DUPLICATE, original.shard, place)
        }
        RowOutcome::Quarantine { code, record } => {
            let number = codes.iter().position(|known| *known == code);
            heap.extend_from_slice(record.of(&flush.arena));
            let number = number.ok_or("reason code")? as u16;
            (row::QUARANTINE, number, u64::from(record.length))
        }
    };
    slot[row::DECISION] = decision;
    put(slot, row::SMALL, &small.to_le_bytes());
    put(slot, row::LARGE, &large.to_le_bytes());
    Ok(())
}
