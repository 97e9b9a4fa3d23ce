//! Gathers decisions into the next flush: assigns offsets and row numbers, writes the bus lines.
//!
//! Row numbers and offsets are final when they are assigned. A shard builds one flush at a time per run
//! and commits flushes in order, so a decision may refer to a row of an earlier flush that is still
//! being synced: if that flush fails, none of the later ones is ever committed.

use crate::admission::decision::{
    DecisionRow, Flush, PartitionAppend, ReceiptContext, RowOutcome, RowRef, Span,
};
use crate::admission::intake::{JudgedBatch, JudgedItem};
use crate::admission::line_memory::LineMemory;
use crate::admission::quarantine::{QuarantineDraft, RecordStamp};
use crate::canonical_json::push_cj;
use crate::ports::PartitionEnd;
use crate::run_paths::PlatformRunId;
use crate::time_text::Micros;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows after which a journal segment is closed: bounds what one segment's index costs.
pub const SEGMENT_ROWS_MAX: u32 = 1 << 20;

/// When a journal segment is closed and the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentRule {
    /// After [`SEGMENT_ROWS_MAX`] rows.
    Rows,
    /// After every flush: segments are objects that are written once.
    Flush,
}

/// How many recent contexts a shard remembers, so that streams share theirs across batches.
const CONTEXTS_KEPT: usize = 64;

/// Where one shard's journal and partitions of one run end.
#[derive(Debug)]
pub struct LogEnds {
    run: PlatformRunId,
    next_row: RowRef,
    segments: SegmentRule,
    partitions: BTreeMap<(Arc<str>, u32), Next>,
    /// Recent contexts as they were given, and the copy that stands for each.
    contexts: Vec<(Arc<ReceiptContext>, Arc<ReceiptContext>)>,
    spare: Spare,
}

/// Where a partition goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Next {
    offset: u64,
    /// Of its file; 0 where it is none.
    byte: u64,
}

/// Memory of committed flushes, to be filled again: fresh pages cost more than what is copied into them.
#[derive(Debug)]
struct Spare {
    texts: Vec<Vec<u8>>,
    rows: Vec<Vec<DecisionRow>>,
}

/// Flushes of a run at a time: one is filled while another is written. The memory of as many is kept.
pub const FLUSHES_UNDER_WAY: usize = 2;

/// Most bytes of text kept for later flushes: those of a flush being gathered and one being written, at the
/// size a flush has by default, each in memory that was doubled to hold it.
const SPARE_BYTES_MAX: usize = 40 * 1024 * 1024;

/// Bytes of lines a flush has under load, and when it has to catch up. Memory that grew to that would be copied, and made
/// anew, several times.
const LINES_ROOM: usize = 4 * 1024 * 1024;
/// What is touched of it.
const LINES_TOUCHED: usize = 1024 * 1024;

impl Spare {
    /// Memory for the first flushes, as far as they will fill it: a run that begins under load would wait for one fresh
    /// page after the other.
    fn touched() -> Spare {
        let mut texts = Vec::with_capacity(2 * FLUSHES_UNDER_WAY);
        for _ in 0..FLUSHES_UNDER_WAY {
            let mut lines = Vec::with_capacity(LINES_ROOM);
            // Zeros might be had without touching anything.
            lines.resize(LINES_TOUCHED, 1);
            lines.clear();
            // The smallest is for the few texts of a flush.
            texts.extend([lines, Vec::new()]);
        }
        Spare {
            texts,
            rows: Vec::new(),
        }
    }

    /// Memory for lines: the largest there is.
    fn lines(&mut self) -> Vec<u8> {
        let largest = (0..self.texts.len()).max_by_key(|at| self.texts[*at].capacity());
        self.take(largest)
    }

    /// Memory for the few texts of a flush: the smallest there is.
    fn arena(&mut self) -> Vec<u8> {
        let smallest = (0..self.texts.len()).min_by_key(|at| self.texts[*at].capacity());
        self.take(smallest)
    }

    fn take(&mut self, place: Option<usize>) -> Vec<u8> {
        place.map_or_else(Vec::new, |at| self.texts.swap_remove(at))
    }

    fn keep(&mut self, mut text: Vec<u8>) {
        let kept: usize = self.texts.iter().map(Vec::capacity).sum();
        if kept + text.capacity() <= SPARE_BYTES_MAX {
            text.clear();
            self.texts.push(text);
        }
    }
}

impl LogEnds {
    /// The ends as recovery found them.
    pub fn new(
        run: PlatformRunId,
        next_row: RowRef,
        segments: SegmentRule,
        ends: &[PartitionEnd],
    ) -> LogEnds {
        let next = |end: &PartitionEnd| Next {
            offset: end.next_offset,
            byte: end.next_byte,
        };
        let partitions = ends
            .iter()
            .map(|end| ((end.topic.clone(), end.partition), next(end)))
            .collect();
        LogEnds {
            run,
            next_row,
            segments,
            partitions,
            contexts: Vec::new(),
            spare: Spare::touched(),
        }
    }

    /// Starts the next flush. Everything decided in it carries `decided_at`.
    pub fn start_flush(&mut self, decided_at: Micros) -> FlushBuilder {
        let rows_max = match self.segments {
            SegmentRule::Rows => SEGMENT_ROWS_MAX,
            SegmentRule::Flush => 1,
        };
        if self.next_row.row >= rows_max {
            self.next_row = RowRef {
                segment: self.next_row.segment + 1,
                row: 0,
                ..self.next_row
            };
        }
        let flush = Flush {
            run: self.run.clone(),
            first_row: self.next_row,
            decided_at,
            contexts: Vec::new(),
            appends: Vec::new(),
            rows: self.spare.rows.pop().unwrap_or_default(),
            arena: self.spare.arena(),
        };
        FlushBuilder {
            flush,
            last_context: None,
            line_tail: format!(",\"published_at_utc\":\"{}\"}}\n", decided_at.format_off())
                .into_bytes(),
        }
    }

    /// Takes the memory of a committed flush back.
    pub fn recycle(&mut self, mut flush: Flush) {
        if self.spare.rows.len() < FLUSHES_UNDER_WAY {
            flush.rows.clear();
            self.spare.rows.push(flush.rows);
        }
        for append in flush.appends {
            self.spare.keep(append.bytes.into_memory());
        }
        self.spare.keep(flush.arena);
    }

    /// One shared copy of equal contexts, so that a journal segment stores each once.
    fn intern(&mut self, context: &Arc<ReceiptContext>) -> Arc<ReceiptContext> {
        let mut known = self.contexts.iter();
        if let Some((_, shared)) = known.find(|(given, _)| Arc::ptr_eq(given, context)) {
            return shared.clone();
        }
        let mut known = self.contexts.iter();
        let equal = known.find(|(_, shared)| shared == context);
        let shared = equal.map_or(context, |(_, shared)| shared).clone();
        if self.contexts.len() == CONTEXTS_KEPT {
            self.contexts.remove(0);
        }
        self.contexts.push((context.clone(), shared.clone()));
        shared
    }
}

/// A flush that is still being filled.
#[derive(Debug)]
pub struct FlushBuilder {
    flush: Flush,
    /// The context of the last item and its place: the items of a batch follow each other.
    last_context: Option<(Arc<ReceiptContext>, u16)>,
    /// What ends every bus line of this flush.
    line_tail: Vec<u8>,
}

impl FlushBuilder {
    /// Publishes an item: appends its bus line and its ADMIT row.
    pub fn admit(
        &mut self,
        ends: &mut LogEnds,
        judged: &JudgedBatch,
        item: &JudgedItem,
    ) -> (RowRef, u64) {
        let context = self.context_index(ends, &judged.contexts[usize::from(item.context)]);
        let append = self.append_index(ends, context, item.partition);
        let part = &mut self.flush.appends[usize::from(append)];
        let offset = part.first_offset + u64::from(part.events);
        push_line(
            &mut part.bytes,
            item,
            judged.text(&item.text),
            &self.line_tail,
        );
        part.events += 1;
        (
            self.push_row(
                ends,
                context,
                judged,
                item,
                RowOutcome::Admit { append, offset },
            ),
            offset,
        )
    }

    /// Notes a copy of the event admitted in row `original`.
    pub fn duplicate(
        &mut self,
        ends: &mut LogEnds,
        judged: &JudgedBatch,
        item: &JudgedItem,
        original: RowRef,
    ) -> RowRef {
        let context = self.context_index(ends, &judged.contexts[usize::from(item.context)]);
        self.push_row(
            ends,
            context,
            judged,
            item,
            RowOutcome::Duplicate { original },
        )
    }

    /// Refuses an item and keeps its record.
    pub fn quarantine(
        &mut self,
        ends: &mut LogEnds,
        judged: &JudgedBatch,
        item: &JudgedItem,
        draft: &QuarantineDraft,
    ) -> RowRef {
        let shared = &judged.contexts[usize::from(item.context)];
        let record = draft.record(&RecordStamp {
            received_at: self.flush.decided_at,
            policy_rev: &shared.policy_rev,
            actor: &shared.actor,
            provenance: &shared.provenance,
        });
        let start = self.flush.arena.len();
        push_cj(&mut self.flush.arena, &record);
        let record = Span {
            start: start as u32,
            length: (self.flush.arena.len() - start) as u32,
        };
        let context = self.context_index(ends, shared);
        self.push_row(
            ends,
            context,
            judged,
            item,
            RowOutcome::Quarantine {
                code: draft.code,
                record,
            },
        )
    }

    /// When the decisions of this flush are dated.
    pub fn decided_at(&self) -> Micros {
        self.flush.decided_at
    }

    /// Bytes gathered so far: bus lines and texts.
    pub fn bytes(&self) -> usize {
        self.flush.arena.len()
            + self
                .flush
                .appends
                .iter()
                .map(|append| append.bytes.len())
                .sum::<usize>()
    }

    /// True when nothing has been decided yet.
    pub fn is_empty(&self) -> bool {
        self.flush.rows.is_empty()
    }

    /// The flush, ready to commit; the next one goes on behind it.
    pub fn finish(self, ends: &mut LogEnds) -> Flush {
        for append in &self.flush.appends {
            let partition = (append.topic.clone(), append.partition);
            let next = ends.partitions.entry(partition).or_default();
            next.offset = append.first_offset + u64::from(append.events);
            next.byte += append.bytes.len() as u64;
        }
        self.flush
    }

    // Inlined, an outcome is written where it stays. Handed over, it is written in small parts and copied in large ones,
    // and the copy waits until the parts have reached the cache.
    #[inline(always)]
    fn push_row(
        &mut self,
        ends: &mut LogEnds,
        context: u16,
        judged: &JudgedBatch,
        item: &JudgedItem,
        outcome: RowOutcome,
    ) -> RowRef {
        let row = DecisionRow {
            context,
            event_id: push_text(&mut self.flush.arena, judged.text(&item.event_id)),
            ts_utc: push_text(&mut self.flush.arena, judged.text(&item.ts_utc)),
            dedupe_key: item.dedupe_key,
            payload_hash: item.payload_hash,
            partition_key: item.partition_key,
            outcome,
        };
        self.flush.rows.push(row);
        let row_ref = ends.next_row;
        ends.next_row.row += 1;
        row_ref
    }

    fn context_index(&mut self, ends: &mut LogEnds, context: &Arc<ReceiptContext>) -> u16 {
        match &self.last_context {
            Some((last, index)) if Arc::ptr_eq(last, context) => return *index,
            _ => {}
        }
        let shared = ends.intern(context);
        let contexts = &mut self.flush.contexts;
        let known = contexts
            .iter()
            .position(|known| Arc::ptr_eq(known, &shared));
        let index = known.unwrap_or(contexts.len());
        if known.is_none() {
            contexts.push(shared);
        }
        self.last_context = Some((context.clone(), index as u16));
        index as u16
    }

    fn append_index(&mut self, ends: &mut LogEnds, context: u16, partition: u32) -> u16 {
        let topic = &self.flush.contexts[usize::from(context)].topic;
        let found = self
            .flush
            .appends
            .iter()
            .position(|append| append.partition == partition && *append.topic == **topic);
        if let Some(index) = found {
            return index as u16;
        }
        let topic: Arc<str> = Arc::from(topic.as_str());
        let next = ends.partitions.get(&(topic.clone(), partition));
        let next = next.copied().unwrap_or_default();
        self.flush.appends.push(PartitionAppend {
            topic,
            partition,
            first_offset: next.offset,
            events: 0,
            bytes: LineMemory::within(ends.spare.lines(), next.byte),
        });
        (self.flush.appends.len() - 1) as u16
    }
}

fn push_text(arena: &mut Vec<u8>, text: &[u8]) -> Span {
    let start = arena.len() as u32;
    arena.extend_from_slice(text);
    Span {
        start,
        length: text.len() as u32,
    }
}

/// One bus record: IJ of `{"partition_key","payload","published_at_utc"}` and a newline (contract 8).
fn push_line(out: &mut LineMemory, item: &JudgedItem, envelope: &[u8], tail: &[u8]) {
    const BEFORE_KEY: &[u8; 18] = b"{\"partition_key\":\"";
    const AFTER_KEY: &[u8; 12] = b"\",\"payload\":";
    const KEY_END: usize = BEFORE_KEY.len() + 64;
    let mut head = [0; KEY_END + AFTER_KEY.len()];
    head[..BEFORE_KEY.len()].copy_from_slice(BEFORE_KEY);
    head[BEFORE_KEY.len()..KEY_END].copy_from_slice(&item.partition_key.hex());
    head[KEY_END..].copy_from_slice(AFTER_KEY);
    out.push(&[&head, envelope, tail]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::intake::tests::{envelope_text, judge_texts};
    use crate::admission::line_memory::BLOCK;

    fn ends() -> LogEnds {
        let run = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        LogEnds::new(
            run,
            RowRef {
                shard: 1,
                segment: 2,
                row: 5,
            },
            SegmentRule::Rows,
            &[],
        )
    }

    #[test]
    fn offsets_and_rows_go_on_from_flush_to_flush() {
        let judged = judge_texts(&[envelope_text("e1", 1), envelope_text("e2", 1)]);
        let mut ends = ends();
        let mut first = ends.start_flush(Micros(1_000_000));
        assert_eq!(
            first.admit(&mut ends, &judged, &judged.items[0]),
            (
                RowRef {
                    shard: 1,
                    segment: 2,
                    row: 5
                },
                0
            )
        );
        first.duplicate(&mut ends, &judged, &judged.items[0], RowRef::default());
        let flush = first.finish(&mut ends);
        let mut second = ends.start_flush(Micros(2_000_000));
        assert_eq!(
            second.admit(&mut ends, &judged, &judged.items[1]),
            (
                RowRef {
                    shard: 1,
                    segment: 2,
                    row: 7
                },
                1
            )
        );
        assert_eq!(second.finish(&mut ends).appends[0].first_offset, 1);
        assert_eq!(
            (flush.rows.len(), flush.contexts.len(), flush.appends.len()),
            (2, 1, 1)
        );
        let line: serde_json::Value = serde_json::from_slice(&flush.appends[0].bytes).unwrap();
        assert_eq!(line["payload"]["event_id"], "e1");
        assert_eq!(line["published_at_utc"], "1970-01-01T00:00:01+00:00");
        assert_eq!(flush.rows[0].event_id.of(&flush.arena), b"e1");
    }

    #[test]
    fn the_memory_of_a_committed_flush_is_filled_again_and_nothing_of_it_shows() {
        let judged = judge_texts(&[envelope_text("e1", 1), envelope_text("e2", 1)]);
        let mut ends = ends();
        // What there is for the first flushes is not asked about.
        ends.spare.texts.clear();
        let build = |ends: &mut LogEnds, item: usize| {
            let mut builder = ends.start_flush(Micros(0));
            builder.admit(ends, &judged, &judged.items[item]);
            builder.finish(ends)
        };
        let first = build(&mut ends, 0);
        let memory = (first.appends[0].bytes.as_ptr(), first.arena.as_ptr());
        ends.recycle(first);
        let second = build(&mut ends, 1);
        let again = [second.appends[0].bytes.as_ptr(), second.arena.as_ptr()];
        // Lines begin less than a block behind the beginning of their memory.
        let is_again = |known: *const u8| {
            let mut distances = again.iter().map(|now| now.addr().abs_diff(known.addr()));
            distances.any(|distance| distance < BLOCK)
        };
        assert!(is_again(memory.0) && is_again(memory.1));
        let lines = second.appends[0].bytes.split(|byte| *byte == b'\n');
        assert_eq!(lines.filter(|line| !line.is_empty()).count(), 1);
        assert_eq!(second.rows.len(), 1);
        assert_eq!(second.rows[0].event_id.of(&second.arena), b"e2");
        let huge = Flush {
            arena: Vec::with_capacity(SPARE_BYTES_MAX + 1),
            ..second
        };
        ends.recycle(huge);
        let kept: usize = ends.spare.texts.iter().map(Vec::capacity).sum();
        assert!(kept <= SPARE_BYTES_MAX);
    }

    #[test]
    fn a_full_segment_is_followed_by_a_new_one() {
        let mut ends = ends();
        ends.next_row.row = SEGMENT_ROWS_MAX;
        assert_eq!(
            {
                let builder = ends.start_flush(Micros(0));
                builder.finish(&mut ends).first_row
            },
            RowRef {
                shard: 1,
                segment: 3,
                row: 0
            }
        );
    }

    #[test]
    fn every_flush_is_a_segment_of_its_own_when_the_rule_says_so() {
        let judged = judge_texts(&[envelope_text("e1", 1), envelope_text("e2", 1)]);
        let mut ends = ends();
        ends.segments = SegmentRule::Flush;
        ends.next_row.row = 0;
        for segment in [2, 3] {
            let mut builder = ends.start_flush(Micros(0));
            builder.admit(&mut ends, &judged, &judged.items[0]);
            builder.admit(&mut ends, &judged, &judged.items[1]);
            let first_row = builder.finish(&mut ends).first_row;
            assert_eq!((first_row.segment, first_row.row), (segment, 0));
        }
    }

    #[test]
    fn a_quarantine_keeps_its_record_and_publishes_nothing() {
        let judged =
            judge_texts(&[envelope_text("e1", 1).replace("\"seed\":42", "\"seed\":\"42\"")]);
        let mut ends = ends();
        let mut builder = ends.start_flush(Micros(0));
        let draft = judged.quarantine(&judged.items[0]).unwrap();
        builder.quarantine(&mut ends, &judged, &judged.items[0], draft);
        let flush = builder.finish(&mut ends);
        assert!(flush.appends.is_empty());
        let RowOutcome::Quarantine { code, record } = flush.rows[0].outcome else {
            panic!("not a quarantine")
        };
        let record: serde_json::Value = serde_json::from_slice(record.of(&flush.arena)).unwrap();
        assert_eq!(
            (code, &record["reason_codes"][0]),
            ("ENVELOPE_INVALID", &"ENVELOPE_INVALID".into())
        );
        assert_eq!(record["envelope"]["seed"], "42");
        assert!(record["envelope"].get("payload").is_none());
    }
}
