//! Reads decision journals: rows in order from any row on, or one row by its reference.
//!
//! Works on a live run without the lock and sees only complete frames whose checksum matches.
//! Memory is bounded by one frame per iterator and a small cache for lookups.

use super::disk::entry_names;
use super::frame_decode::Frame;
use super::layout;
use super::row_lookup::RowLookup;
use super::segment::{FrameCursor, FrameHead};
use super::segment_walk::{SegmentWalk, segments_of};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// The journals of one run.
pub struct JournalReader {
    run: RunPaths,
    lookup: Mutex<RowLookup>,
}

impl JournalReader {
    /// A reader of the run's journals. Nothing is opened yet; a run without journals has no rows.
    pub fn new(run: &RunPaths) -> JournalReader {
        JournalReader {
            run: run.clone(),
            lookup: Mutex::new(RowLookup::new(run)),
        }
    }

    /// The run whose journals are read.
    pub fn run(&self) -> &RunPaths {
        &self.run
    }

    /// Shards that have a journal, in order.
    pub fn shards(&self) -> Result<Vec<u16>, StoreError> {
        let folder = layout::journal_folder(&self.run);
        let names = entry_names(Path::new(&folder))?;
        let mut shards: Vec<u16> = names
            .iter()
            .filter_map(|name| layout::parse_shard_name(name))
            .collect();
        shards.sort_unstable();
        Ok(shards)
    }

    /// Segments of a shard, in order. A gap is damage.
    pub fn segments(&self, shard: u16) -> Result<Vec<u32>, StoreError> {
        segments_of(&self.run, shard)
    }

    /// Frames from the one that holds `from` on; that frame may begin before `from`.
    pub fn frames_from(&self, from: RowRef) -> Result<JournalFrames, StoreError> {
        Ok(JournalFrames {
            walk: SegmentWalk::new(&self.run, from)?,
            failed: false,
        })
    }

    /// Rows from `from` on, in order.
    pub fn rows_from(&self, from: RowRef) -> Result<JournalRows, StoreError> {
        Ok(JournalRows {
            frames: self.frames_from(from)?,
            from,
            current: None,
        })
    }

    /// The row `at`, `None` when the journal does not have it.
    pub fn row(&self, at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        self.lookup().row(at)
    }

    fn lookup(&self) -> MutexGuard<'_, RowLookup> {
        self.lookup
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The row the next decision of `shard` would follow: segment and row behind the last complete
    /// frame. Row 0 of segment 0 when the shard has no rows.
    pub fn end(&self, shard: u16) -> Result<RowRef, StoreError> {
        let mut end = RowRef {
            shard,
            ..RowRef::default()
        };
        let mut lookup = self.lookup();
        for segment in self.segments(shard)?.into_iter().rev() {
            let rows = lookup.rows_in(shard, segment)?;
            end.segment = segment;
            end.row = rows;
            if rows > 0 {
                break;
            }
        }
        Ok(end)
    }

    /// Visits the head of every frame of every shard: what the journal says about bus partitions.
    pub fn visit_heads(&self, mut visit: impl FnMut(&FrameHead)) -> Result<(), StoreError> {
        for shard in self.shards()? {
            let start = RowRef {
                shard,
                ..RowRef::default()
            };
            let mut walk = SegmentWalk::new(&self.run, start)?;
            while let Some(head) = walk.advance(FrameCursor::next_head)? {
                visit(&head);
            }
        }
        Ok(())
    }
}

/// Frames of one shard in order.
pub struct JournalFrames {
    walk: SegmentWalk,
    failed: bool,
}

impl Iterator for JournalFrames {
    type Item = Result<Frame, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let frame = self.walk.advance(FrameCursor::next_frame);
        self.failed = frame.is_err();
        frame.transpose()
    }
}

/// Rows of one shard in order.
pub struct JournalRows {
    frames: JournalFrames,
    from: RowRef,
    current: Option<(Frame, u32)>,
}

impl JournalRows {
    fn next_row(&mut self) -> Result<Option<JournalRow>, StoreError> {
        loop {
            if let Some((frame, index)) = &mut self.current
                && *index < frame.row_count()
            {
                let row = frame.row(*index);
                *index += 1;
                return row.to_row().map(Some);
            }
            let Some(frame) = self.frames.next().transpose()? else {
                return Ok(None);
            };
            let first = frame.first_row();
            let skipped = if first < self.from && first.segment == self.from.segment {
                self.from.row - first.row
            } else {
                0
            };
            self.current = Some((frame, skipped));
        }
    }
}

impl Iterator for JournalRows {
    type Item = Result<JournalRow, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}
