//! Finds one row by its reference: a frame index per segment, filled as far as needed, and a few
//! frames kept in memory.

use super::frame_decode::Frame;
use super::segment::{FrameCursor, Step};
use super::segment_walk::{end_or_damage, open_segment};
use std::collections::VecDeque;
use std::sync::Arc;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// Segments whose frame index is kept.
const SEGMENTS_MAX: usize = 64;
/// Frames kept in memory.
const FRAMES_MAX: usize = 16;

/// Looks rows up in the journals of one run.
pub struct RowLookup {
    run: RunPaths,
    segments: VecDeque<SegmentRows>,
    frames: VecDeque<Arc<Frame>>,
}

struct SegmentRows {
    shard: u16,
    segment: u32,
    cursor: FrameCursor,
    frames: Vec<FrameSpot>,
}

#[derive(Clone, Copy)]
struct FrameSpot {
    first_row: u32,
    offset: u64,
}

impl RowLookup {
    /// Nothing is opened yet.
    pub fn new(run: &RunPaths) -> RowLookup {
        RowLookup {
            run: run.clone(),
            segments: VecDeque::new(),
            frames: VecDeque::new(),
        }
    }

    /// The row, `None` when the journal does not have it.
    pub fn row(&mut self, at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        let Some(frame) = self.frame_of(at)? else {
            return Ok(None);
        };
        let index = at.row - frame.first_row().row;
        frame.row(index).to_row().map(Some)
    }

    /// Rows in the complete frames of a segment.
    pub fn rows_in(&mut self, shard: u16, segment: u32) -> Result<u32, StoreError> {
        let Some(rows) = self.segment_rows(shard, segment)? else {
            return Ok(0);
        };
        rows.read_to(u32::MAX)?;
        Ok(rows.cursor.next_row())
    }

    fn frame_of(&mut self, at: RowRef) -> Result<Option<Arc<Frame>>, StoreError> {
        let kept = self.frames.iter().position(|frame| holds(frame, at));
        if let Some(frame) = kept.and_then(|place| self.frames.remove(place)) {
            self.frames.push_front(frame.clone());
            return Ok(Some(frame));
        }
        let Some(rows) = self.segment_rows(at.shard, at.segment)? else {
            return Ok(None);
        };
        rows.read_to(at.row)?;
        let Some(spot) = rows.spot_of(at.row) else {
            return Ok(None);
        };
        let file = rows.cursor.segment();
        let frame = Arc::new(file.frame_at(spot.offset, rows.cursor.dictionary())?);
        self.frames.truncate(FRAMES_MAX - 1);
        self.frames.push_front(frame.clone());
        Ok(holds(&frame, at).then_some(frame))
    }

    fn segment_rows(
        &mut self,
        shard: u16,
        segment: u32,
    ) -> Result<Option<&mut SegmentRows>, StoreError> {
        let is_it = |rows: &SegmentRows| (rows.shard, rows.segment) == (shard, segment);
        let rows = match self.segments.iter().position(is_it) {
            Some(place) => self.segments.remove(place),
            None => open_segment(&self.run, shard, segment)?.map(|file| SegmentRows {
                shard,
                segment,
                cursor: FrameCursor::new(file),
                frames: Vec::new(),
            }),
        };
        let Some(rows) = rows else {
            return Ok(None);
        };
        self.segments.truncate(SEGMENTS_MAX - 1);
        self.segments.push_front(rows);
        Ok(self.segments.front_mut())
    }
}

fn holds(frame: &Frame, at: RowRef) -> bool {
    let first = frame.first_row();
    (first.shard, first.segment) == (at.shard, at.segment)
        && (first.row..first.row + frame.row_count()).contains(&at.row)
}

impl SegmentRows {
    /// Reads heads until `row` is covered or no more frames are there.
    fn read_to(&mut self, row: u32) -> Result<(), StoreError> {
        while self.cursor.next_row() <= row {
            match self.cursor.next_head()? {
                Step::Frame(head) => self.frames.push(FrameSpot {
                    first_row: head.first_row,
                    offset: head.offset,
                }),
                Step::End => return Ok(()),
                Step::Bad { offset, cause } => {
                    return end_or_damage(self.cursor.segment(), offset, cause);
                }
            }
        }
        Ok(())
    }

    fn spot_of(&self, row: u32) -> Option<FrameSpot> {
        let after = self.frames.partition_point(|spot| spot.first_row <= row);
        (row < self.cursor.next_row())
            .then(|| self.frames.get(after.checked_sub(1)?).copied())
            .flatten()
    }
}
