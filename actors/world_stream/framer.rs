//! The framing thread of one output: rows in, batches out. Blocking.
//!
//! A batch never crosses a part, so that a checkpoint names one part. The last batch of a block waits
//! for the next block, because only then it is known whether the part goes on.

use super::batch::{FrameEnd, Framed, PartEnd, StreamBatch};
use crate::runtime::blocking::{Emit, NobodyReceives};
use crate::runtime::{Heartbeat, StageFailure};
use std::ops::Range;
use std::sync::Arc;
use wellspring_domain::lent_buffers::LentBuffers;
use wellspring_domain::ports::{Cursor, EnvelopeBatch};
use wellspring_domain::stream::batch_cut::{BatchFill, BatchLimits, Paced};
use wellspring_domain::stream::framing::{
    FrameContext, FrameError, FrameMemo, FramePlan, RowFramer,
};
use wellspring_domain::stream::pacing::Schedule;
use wellspring_domain::stream::source::{
    BlockReader, PartName, RowBlock, SourceError, SourceFault, WorldSource,
};
use wellspring_domain::time_text::Micros;

/// An output whose next row is known.
pub struct OpenedOutput {
    /// Identity of the stream view.
    pub stream_view_id: String,
    /// Rows of the whole view, when known.
    pub rows_total: Option<u64>,
    /// Time of the next event; `None` when nothing is left.
    pub first_ts: Option<Micros>,
    context: Arc<FrameContext>,
    plan: Option<FramePlan>,
    first_block: Option<Box<dyn RowBlock>>,
    reader: Box<dyn BlockReader>,
}

/// Opens a view behind its cursor and looks at the first event. Blocking.
pub fn open_output(
    source: &dyn WorldSource,
    context: Arc<FrameContext>,
    after: Option<&Cursor>,
) -> Result<OpenedOutput, StageFailure> {
    let mut view = source
        .open(&context.output_id, after)
        .map_err(source_failure)?;
    let first_block = view.reader.next_block().map_err(source_failure)?;
    let mut opened = OpenedOutput {
        stream_view_id: view.stream_view_id,
        rows_total: view.rows_total,
        first_ts: None,
        context,
        plan: None,
        first_block: None,
        reader: view.reader,
    };
    if let Some(block) = first_block {
        let plan = plan_for(None, &opened.context, block.as_ref()).map_err(frame_failure)?;
        let mut memo = FrameMemo::default();
        let columns = block.columns();
        let first = plan
            .bind(&columns, &mut memo)
            .and_then(|framer| framer.time(0));
        opened.first_ts = Some(first.map_err(frame_failure)?);
        drop(columns);
        opened.plan = Some(plan);
        opened.first_block = Some(block);
    }
    Ok(opened)
}

/// What bounds the framing of one output.
#[derive(Clone, Copy, Debug)]
pub struct FrameBounds {
    /// When a batch is full.
    pub limits: BatchLimits,
    /// When events are due; decides the schedule span of a batch.
    pub schedule: Schedule,
    /// Most events to frame; none for all.
    pub events_max: Option<u64>,
}

/// Frames a whole view into `out`. Returns when the view ends, the cap is reached, a row fails, or
/// nobody receives any more. Blocking.
pub fn frame_view(
    opened: OpenedOutput,
    bounds: FrameBounds,
    heartbeat: &Heartbeat,
    out: &mut Emit<'_, Framed>,
) {
    let mut framer = Framer {
        bounds,
        open: None,
        framed: 0,
        bytes_hint: 0,
        buffers: LentBuffers::default(),
        heartbeat,
        out,
    };
    let end = match framer.run(opened) {
        Ok(end) => end,
        Err(Halt::Failed(failure)) => FrameEnd::Failed(failure),
        Err(Halt::NobodyReceives) => return,
    };
    // The receiver may be gone by now; then nobody needs to know.
    let _ = out(Framed::End(end));
}

/// Why framing stops early.
enum Halt {
    Failed(StageFailure),
    NobodyReceives,
}

struct Framer<'a, 'e> {
    bounds: FrameBounds,
    open: Option<OpenBatch>,
    framed: u64,
    bytes_hint: usize,
    buffers: LentBuffers,
    heartbeat: &'a Heartbeat,
    out: &'a mut Emit<'e, Framed>,
}

/// The batch being filled.
struct OpenBatch {
    bytes: Vec<u8>,
    ranges: Vec<Range<u32>>,
    part: Arc<PartName>,
    last_row: u64,
    last_ts: Micros,
    first_due_micros: u64,
}

impl Framer<'_, '_> {
    fn run(&mut self, opened: OpenedOutput) -> Result<FrameEnd, Halt> {
        let OpenedOutput {
            context,
            mut plan,
            first_block,
            mut reader,
            ..
        } = opened;
        let mut memo = FrameMemo::default();
        let mut next = first_block;
        while let Some(block) = next {
            if let FrameEnd::CapReached = self.frame_block(block, &context, &mut plan, &mut memo)? {
                self.close(PartEnd::No)?;
                return Ok(FrameEnd::CapReached);
            }
            let busy = self.heartbeat.busy();
            let read = reader.next_block();
            drop(busy);
            next = match read {
                Ok(block) => block,
                Err(error) => {
                    self.close(PartEnd::No)?;
                    return Err(Halt::Failed(source_failure(error)));
                }
            };
        }
        self.close(PartEnd::Yes)?;
        Ok(FrameEnd::ViewComplete)
    }

    /// Frames one block; says `CapReached` when it was cut short by the cap.
    fn frame_block(
        &mut self,
        block: Box<dyn RowBlock>,
        context: &FrameContext,
        plan: &mut Option<FramePlan>,
        memo: &mut FrameMemo,
    ) -> Result<FrameEnd, Halt> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.part != *block.part())
        {
            self.close(PartEnd::Yes)?;
        }
        let fitting = plan_for(plan.take(), context, block.as_ref());
        let fitting = fitting.map_err(|error| Halt::Failed(frame_failure(error)));
        let plan = plan.insert(self.or_close(fitting)?);
        let columns = block.columns();
        let bound = plan.bind(&columns, memo);
        let mut rows = self.or_close(bound.map_err(|error| Halt::Failed(frame_failure(error))))?;
        for row in 0..block.rows() {
            if self.bounds.events_max.is_some_and(|max| self.framed >= max) {
                return Ok(FrameEnd::CapReached);
            }
            self.frame_row(block.as_ref(), row, &mut rows)?;
        }
        let reached = self.bounds.events_max.is_some_and(|max| self.framed >= max);
        Ok(if reached {
            FrameEnd::CapReached
        } else {
            FrameEnd::ViewComplete
        })
    }

    fn frame_row(
        &mut self,
        block: &dyn RowBlock,
        row: usize,
        rows: &mut RowFramer<'_>,
    ) -> Result<(), Halt> {
        let due = self.due_micros(row, rows)?;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.is_full(&self.bounds.limits, due))
        {
            self.close(PartEnd::No)?;
        }
        let (buffers, bytes_hint) = (&mut self.buffers, self.bytes_hint);
        let open = self.open.get_or_insert_with(|| {
            let mut bytes = buffers.take();
            bytes.clear();
            bytes.reserve(bytes_hint);
            OpenBatch::new(block.part(), due, bytes)
        });
        let start = open.bytes.len() as u32;
        match rows.frame(row, &mut open.bytes) {
            Ok(at) => {
                open.ranges.push(start..open.bytes.len() as u32);
                // One envelope a line: the buffer is a ready NDJSON body.
                open.bytes.push(b'\n');
                open.last_row = block.first_row() + row as u64;
                open.last_ts = at;
                self.framed += 1;
                Ok(())
            }
            Err(error) => self.or_close(Err(Halt::Failed(frame_failure(error)))),
        }
    }

    /// When the row is due; without a schedule its time need not be read twice.
    fn due_micros(&mut self, row: usize, rows: &RowFramer<'_>) -> Result<u64, Halt> {
        if self.bounds.schedule.paced() == Paced::No {
            return Ok(0);
        }
        let at = rows
            .time(row)
            .map_err(|error| Halt::Failed(frame_failure(error)));
        let at = self.or_close(at)?;
        Ok(self.bounds.schedule.due_micros(at.0))
    }

    /// Sends what was framed before a failure, so that good rows are not held back by a bad one.
    fn or_close<T>(&mut self, result: Result<T, Halt>) -> Result<T, Halt> {
        if result.is_err() {
            self.close(PartEnd::No)?;
        }
        result
    }

    fn close(&mut self, ends_part: PartEnd) -> Result<(), Halt> {
        let Some(open) = self.open.take().filter(|open| !open.ranges.is_empty()) else {
            return Ok(());
        };
        self.bytes_hint = open.bytes.len() + open.bytes.len() / 16;
        let batch = StreamBatch {
            envelopes: EnvelopeBatch {
                bytes: self.buffers.lend(open.bytes),
                ranges: open.ranges,
            },
            part: open.part,
            last_row: open.last_row,
            last_ts: open.last_ts,
            ends_part,
        };
        (self.out)(Framed::Batch(batch)).map_err(|NobodyReceives| Halt::NobodyReceives)
    }
}

impl OpenBatch {
    fn new(part: &Arc<PartName>, first_due_micros: u64, bytes: Vec<u8>) -> Self {
        OpenBatch {
            bytes,
            ranges: Vec::new(),
            part: part.clone(),
            last_row: 0,
            last_ts: Micros(0),
            first_due_micros,
        }
    }

    fn is_full(&self, limits: &BatchLimits, next_due_micros: u64) -> bool {
        let fill = BatchFill {
            events: self.ranges.len() as u32,
            bytes: self.bytes.len() as u32,
            first_due_micros: self.first_due_micros,
        };
        fill.closes_before(limits, next_due_micros)
    }
}

/// The given plan if it fits the block, else a new one.
fn plan_for(
    plan: Option<FramePlan>,
    context: &FrameContext,
    block: &dyn RowBlock,
) -> Result<FramePlan, FrameError> {
    let columns = block.columns();
    match plan {
        Some(plan) if plan.fits(&columns) => Ok(plan),
        _ => {
            let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
            FramePlan::new(context, &names)
        }
    }
}

fn frame_failure(error: FrameError) -> StageFailure {
    StageFailure::terminal(error.code(), error.to_string())
}

fn source_failure(error: SourceError) -> StageFailure {
    match error.fault {
        SourceFault::Transient => StageFailure::transient(error.code, error.detail),
        SourceFault::Lasting => StageFailure::terminal(error.code, error.detail),
    }
}
