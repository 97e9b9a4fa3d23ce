//! What a shard's journal holds after a crash, and how it is made good again.
//!
//! Everything before the sync mark is trusted. What lies after it is read frame by frame, its
//! checksums are proven, and it is written and synced once more: after a failed sync old pages may look
//! right in memory and be wrong on the disk. A last frame that is incomplete is cut; anything else that
//! is wrong is refused with its offset, and nothing is changed.

use super::disk::{Faults, LogFile, damaged, failed, sync_folder};
use super::format::SEGMENT_HEADER_BYTES;
use super::frame_decode::{Frame, PartitionEntry};
use super::journal_writer::JournalEnd;
use super::layout;
use super::run_state::EndMap;
use super::segment::{FrameCursor, SegmentFile, Step, Verdict, header_is_unwritten};
use super::segment_walk::{open_segment, segments_of};
use super::synced_mark::SyncedMark;
use crate::failpoints::{self, Artefact, Operation, around};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// Bytes copied at once when a tail is written again.
const COPY_BYTES: usize = 1 << 20;

/// What was found in one shard's journal. Nothing has been changed yet.
#[derive(Debug)]
pub struct InspectedJournal {
    shard: u16,
    /// Where the journal ends once it is repaired.
    pub end: JournalEnd,
    /// Partition ends the journal confirms.
    pub ends: EndMap,
    /// Bus lines confirmed after the sync mark: to be proven and written again.
    pub tail: Vec<PartitionEntry>,
    rewrites: Vec<Rewrite>,
    cut: Option<Cut>,
    remove: Option<PathBuf>,
}

/// Bytes of a segment that are written and synced again.
#[derive(Debug)]
struct Rewrite {
    path: PathBuf,
    start: u64,
    end: u64,
}

/// An incomplete frame at the end.
#[derive(Debug)]
struct Cut {
    path: PathBuf,
    offset: u64,
    bytes: u64,
    cause: String,
}

impl InspectedJournal {
    /// Reads the journal of `shard` without changing it.
    pub fn inspect(run: &RunPaths, shard: u16) -> Result<InspectedJournal, StoreError> {
        let mut found = InspectedJournal {
            shard,
            end: JournalEnd::empty(shard),
            ends: EndMap::default(),
            tail: Vec::new(),
            rewrites: Vec::new(),
            cut: None,
            remove: None,
        };
        let mark = SyncedMark::read(run, shard)?;
        let mut segments = segments_of(run, shard)?;
        if let Some(last) = segments.last() {
            let path = PathBuf::from(layout::segment_path(run, shard, *last));
            if header_is_unwritten(&path)? {
                found.remove = Some(path);
                segments.pop();
            }
        }
        check_lengths(run, shard, &segments)?;
        check_mark(run, shard, mark.as_ref(), &segments)?;
        found.read_from(run, &segments, mark.as_ref())?;
        Ok(found)
    }

    /// Cuts the torn tail, writes and syncs what was not proven to be on the disk.
    pub fn repair(&self, faults: &Faults) -> Result<(), StoreError> {
        if let Some(cut) = &self.cut {
            tracing::warn!(
                path = %cut.path.display(),
                offset = cut.offset,
                bytes = cut.bytes,
                cause = %cut.cause,
                "cut an incomplete frame from the journal; it was never answered for"
            );
            let file = LogFile::open(&cut.path, faults)?;
            let step = failpoints::Step(Artefact::JournalFrame, Operation::Cut);
            around(step, || {
                file.truncate(cut.offset).and_then(|()| file.sync_all())
            })?;
        }
        for rewrite in &self.rewrites {
            let file = LogFile::open(&rewrite.path, faults)?;
            let step = failpoints::Step(Artefact::JournalFrame, Operation::Rewrite);
            around(step, || rewrite_range(&file, rewrite.start, rewrite.end))?;
        }
        if let Some(path) = &self.remove {
            let step = failpoints::Step(Artefact::JournalSegment, Operation::Remove);
            around(step, || {
                fs::remove_file(path).map_err(failed("remove", path))
            })?;
        }
        match self
            .rewrites
            .first()
            .map(|rewrite| &rewrite.path)
            .or(self.remove.as_ref())
        {
            Some(path) => path.parent().map_or(Ok(()), sync_folder),
            None => Ok(()),
        }
    }

    /// The shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    fn read_from(
        &mut self,
        run: &RunPaths,
        segments: &[u32],
        mark: Option<&SyncedMark>,
    ) -> Result<(), StoreError> {
        let (first, start) = match mark {
            Some(mark) => (mark.segment, mark.bytes),
            None => {
                let newest = newest_with_frame(run, self.shard, segments)?;
                (newest, SEGMENT_HEADER_BYTES as u64)
            }
        };
        for end in mark.iter().flat_map(|mark| mark.confirmed_ends()) {
            self.ends.advance(&end);
        }
        for segment in segments.iter().filter(|segment| **segment >= first) {
            let file = require_segment(run, self.shard, *segment)?;
            let start = if *segment == first { start } else { 0 };
            self.read_segment(&file, start, Some(segment) == segments.last())?;
        }
        Ok(())
    }

    fn read_segment(
        &mut self,
        file: &Arc<SegmentFile>,
        start: u64,
        newest: bool,
    ) -> Result<(), StoreError> {
        let mut cursor = FrameCursor::new(file.clone());
        cursor.skip_to(start.max(SEGMENT_HEADER_BYTES as u64))?;
        loop {
            match cursor.next_frame()? {
                Step::Frame(frame) => self.learn(&frame),
                Step::End => break,
                Step::Bad { offset, cause } if newest => {
                    if file.judge(offset)? != Verdict::Torn {
                        return Err(damaged(file.path(), offset, cause));
                    }
                    self.cut = Some(Cut {
                        path: file.path().to_owned(),
                        offset,
                        bytes: file.length()? - offset,
                        cause,
                    });
                    break;
                }
                Step::Bad { offset, cause } => return Err(damaged(file.path(), offset, cause)),
            }
        }
        self.end_segment(file, start, &cursor);
        Ok(())
    }

    fn learn(&mut self, frame: &Frame) {
        for end in frame.ends() {
            self.ends.advance(end);
        }
        for entry in frame.partitions() {
            self.ends.advance(&entry.end());
            self.tail.push(entry.clone());
        }
    }

    fn end_segment(&mut self, file: &SegmentFile, start: u64, cursor: &FrameCursor) {
        let header = file.header();
        if cursor.next_row() == 0 && cursor.position() == SEGMENT_HEADER_BYTES as u64 {
            // A segment without a frame: its number is used again.
            self.cut = None;
            self.remove = Some(file.path().to_owned());
            self.end.next_row.segment = header.segment;
            return;
        }
        self.end = JournalEnd {
            next_row: RowRef {
                shard: self.shard,
                segment: header.segment + 1,
                row: 0,
            },
            rows: header.rows_before + u64::from(cursor.next_row()),
            segment: header.segment,
            bytes: cursor.position(),
        };
        if cursor.position() > start {
            self.rewrites.push(Rewrite {
                path: file.path().to_owned(),
                start,
                end: cursor.position(),
            });
        }
    }
}

/// Every segment must be as long as its successor says. One file is open at a time.
fn check_lengths(run: &RunPaths, shard: u16, segments: &[u32]) -> Result<(), StoreError> {
    let mut previous: Option<Arc<SegmentFile>> = None;
    for segment in segments {
        let file = require_segment(run, shard, *segment)?;
        let expected = file.header().previous_bytes;
        if let Some(previous) = previous {
            let length = previous.length()?;
            if length != expected {
                let cause = format!("segment has {length} bytes, its successor says {expected}");
                return Err(damaged(previous.path(), length.min(expected), cause));
            }
        }
        previous = Some(file);
    }
    Ok(())
}

fn require_segment(
    run: &RunPaths,
    shard: u16,
    segment: u32,
) -> Result<Arc<SegmentFile>, StoreError> {
    let path = PathBuf::from(layout::segment_path(run, shard, segment));
    open_segment(run, shard, segment)?
        .ok_or_else(|| damaged(&path, 0, "segment header is not written"))
}

fn check_mark(
    run: &RunPaths,
    shard: u16,
    mark: Option<&SyncedMark>,
    segments: &[u32],
) -> Result<(), StoreError> {
    let Some(mark) = mark.filter(|mark| mark.bytes > 0) else {
        return Ok(());
    };
    if !segments.contains(&mark.segment) {
        let path = layout::segment_path(run, shard, mark.segment);
        return Err(damaged(Path::new(&path), 0, "journal segment is missing"));
    }
    let file = require_segment(run, shard, mark.segment)?;
    let length = file.length()?;
    if length < mark.bytes {
        let cause = format!("journal ends here, but was synced up to {}", mark.bytes);
        return Err(damaged(file.path(), length, cause));
    }
    Ok(())
}

/// The newest segment whose first frame is good; its first frame tells all partition ends.
fn newest_with_frame(run: &RunPaths, shard: u16, segments: &[u32]) -> Result<u32, StoreError> {
    for segment in segments.iter().rev() {
        let mut cursor = FrameCursor::new(require_segment(run, shard, *segment)?);
        if matches!(cursor.next_frame()?, Step::Frame(_)) {
            return Ok(*segment);
        }
    }
    Ok(0)
}

/// Reads a range, writes the same bytes again and syncs them.
pub fn rewrite_range(file: &LogFile, start: u64, end: u64) -> Result<(), StoreError> {
    let mut buffer = vec![0u8; COPY_BYTES];
    let mut at = start;
    while at < end {
        let count = (end - at).min(COPY_BYTES as u64) as usize;
        file.read_at(&mut buffer[..count], at)?;
        file.write_at(&buffer[..count], at)?;
        at += count as u64;
    }
    file.sync_all()
}
