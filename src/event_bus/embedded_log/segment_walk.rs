//! Walks through the segments of one shard's journal, also while a gate is writing it.

use super::disk::{damaged, entry_names};
use super::layout;
use super::segment::{FrameCursor, SegmentFile, Step, Verdict, header_is_unwritten};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// Segments of a shard, in order. A gap is damage.
pub fn segments_of(run: &RunPaths, shard: u16) -> Result<Vec<u32>, StoreError> {
    let folder = PathBuf::from(layout::shard_folder(run, shard));
    let names = entry_names(&folder)?;
    let mut segments: Vec<u32> = names
        .iter()
        .filter_map(|name| layout::parse_segment_name(name))
        .collect();
    segments.sort_unstable();
    for (expected, found) in (0u32..).zip(&segments) {
        if *found != expected {
            let missing = folder.join(layout::segment_file_name(expected));
            return Err(damaged(&missing, 0, "journal segment is missing"));
        }
    }
    Ok(segments)
}

/// Opens a segment and checks that it is what its name says. `None` when it does not exist or its
/// creation was interrupted before its header was on the disk.
pub fn open_segment(
    run: &RunPaths,
    shard: u16,
    segment: u32,
) -> Result<Option<Arc<SegmentFile>>, StoreError> {
    let path = PathBuf::from(layout::segment_path(run, shard, segment));
    if !path.exists() || header_is_unwritten(&path)? {
        return Ok(None);
    }
    let file = SegmentFile::open(&path)?;
    let header = file.header();
    let named = (header.shard, header.segment, header.run_id.as_str());
    if named != (shard, segment, run.run_id().as_str()) {
        let cause = format!(
            "header names run {}, shard {}, segment {}",
            header.run_id, header.shard, header.segment
        );
        return Err(damaged(&path, 0, cause));
    }
    Ok(Some(Arc::new(file)))
}

/// Steps through one shard's segments.
pub struct SegmentWalk {
    run: RunPaths,
    from: RowRef,
    next_segment: u32,
    cursor: Option<FrameCursor>,
}

impl SegmentWalk {
    /// Starts at the frame that holds `from`, or at the first frame behind it.
    pub fn new(run: &RunPaths, from: RowRef) -> Result<SegmentWalk, StoreError> {
        segments_of(run, from.shard)?;
        Ok(SegmentWalk {
            run: run.clone(),
            from,
            next_segment: from.segment,
            cursor: None,
        })
    }

    /// The next frame as `step` reads it; `None` at the journal's present end.
    pub fn advance<T>(
        &mut self,
        step: impl Fn(&mut FrameCursor) -> Result<Step<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        loop {
            if self.cursor.is_none() && !self.enter_next_segment()? {
                return Ok(None);
            }
            // Asked before the step: a segment that had a successor then has not grown since.
            let grows = !self.next_segment_exists();
            let Some(cursor) = &mut self.cursor else {
                return Ok(None);
            };
            let taken = step(cursor)?;
            if let Step::Frame(frame) = taken {
                return Ok(Some(frame));
            }
            if grows {
                return match taken {
                    Step::Bad { offset, cause } => {
                        end_or_damage(cursor.segment(), offset, cause).map(|()| None)
                    }
                    _ => Ok(None),
                };
            }
            if let Step::Bad { offset, cause } = taken {
                return Err(damaged(cursor.segment().path(), offset, cause));
            }
            self.cursor = None;
        }
    }

    fn enter_next_segment(&mut self) -> Result<bool, StoreError> {
        let segment = self.next_segment;
        let Some(file) = open_segment(&self.run, self.from.shard, segment)? else {
            return Ok(false);
        };
        let mut cursor = FrameCursor::new(file);
        if segment == self.from.segment && self.from.row > 0 {
            cursor.skip_to_row(self.from.row)?;
        }
        self.cursor = Some(cursor);
        self.next_segment += 1;
        Ok(true)
    }

    fn next_segment_exists(&self) -> bool {
        let path = layout::segment_path(&self.run, self.from.shard, self.next_segment);
        Path::new(&path).exists()
    }
}

/// For readers: a bad frame is the present end of a journal that is being written or was torn, else it
/// is damage.
pub fn end_or_damage(segment: &SegmentFile, offset: u64, cause: String) -> Result<(), StoreError> {
    match segment.judge(offset)? {
        Verdict::Torn | Verdict::Whole => Ok(()),
        Verdict::Damaged => Err(damaged(segment.path(), offset, cause)),
    }
}
