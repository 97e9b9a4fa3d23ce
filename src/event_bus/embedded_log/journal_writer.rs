//! Appends frames to one shard's journal. Writing and syncing a frame is the commit.

use super::cache_window::CacheWindow;
use super::disk::{Faults, LogFile, create_folder, sync_folder};
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::frame_decode::ConfirmedEnd;
use super::frame_encode::{FrameEncoder, PlacedAppend};
use super::layout;
use super::run_state::LogOptions;
use crate::failpoints::{Artefact, Operation, Step, around, writing};
use std::path::PathBuf;
use wellspring_domain::admission::decision::{Flush, RowRef};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

const FRAME_WRITE: Step = Step(Artefact::JournalFrame, Operation::Write);
const FRAME_SYNC: Step = Step(Artefact::JournalFrame, Operation::Sync);
const SEGMENT_WRITE: Step = Step(Artefact::JournalSegment, Operation::Write);
const SEGMENT_SYNC: Step = Step(Artefact::JournalSegment, Operation::Sync);
const SEGMENT_FOLDER_SYNC: Step = Step(Artefact::JournalSegment, Operation::FolderSync);

/// Where a journal ends, on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEnd {
    /// Row the next decision gets.
    pub next_row: RowRef,
    /// Rows in all segments.
    pub rows: u64,
    /// Newest segment that has a frame; 0 with no bytes when there is none.
    pub segment: u32,
    /// Bytes of that segment.
    pub bytes: u64,
}

impl JournalEnd {
    /// The end of a journal without rows.
    pub fn empty(shard: u16) -> JournalEnd {
        JournalEnd {
            next_row: RowRef {
                shard,
                ..RowRef::default()
            },
            rows: 0,
            segment: 0,
            bytes: 0,
        }
    }
}

/// The journal of one shard, open for appending.
pub struct JournalWriter {
    run: RunPaths,
    faults: Faults,
    encoder: FrameEncoder,
    file: Option<(LogFile, CacheWindow)>,
    cached_bytes: u64,
    end: JournalEnd,
}

impl JournalWriter {
    /// Goes on behind `end`. A writer starts a new segment: `end.next_row` is row 0 of it, and its file
    /// is created by the first commit.
    pub fn new(run: &RunPaths, end: JournalEnd, options: &LogOptions) -> JournalWriter {
        assert_eq!(end.next_row.row, 0, "a writer starts a new segment");
        JournalWriter {
            run: run.clone(),
            faults: options.faults.clone(),
            encoder: FrameEncoder::default(),
            file: None,
            cached_bytes: options.journal_cached_bytes,
            end,
        }
    }

    /// Where the journal ends.
    pub fn end(&self) -> JournalEnd {
        self.end
    }

    /// Writes and syncs one frame. `ends` are the ends of all partitions before this flush.
    pub fn commit(
        &mut self,
        flush: &Flush,
        placed: &[PlacedAppend],
        ends: &[ConfirmedEnd],
    ) -> Result<(), StoreError> {
        let opens_segment = self.check_row(flush.first_row)?;
        if opens_segment {
            self.encoder.start_segment();
        }
        let ends = if opens_segment { ends } else { &[] };
        let frame = self
            .encoder
            .encode(flush, placed, ends)
            .map_err(|cause| refused(&self.run, flush.first_row, cause.to_string()))?;
        if opens_segment {
            let file = create_segment(&self.run, flush.first_row, &self.end, &self.faults)?;
            self.file = Some((file, CacheWindow::new(self.cached_bytes, 0)));
            self.end.segment = flush.first_row.segment;
            self.end.bytes = SEGMENT_HEADER_BYTES as u64;
        }
        let Some((file, cached)) = &mut self.file else {
            return Err(refused(&self.run, flush.first_row, "no segment is open"));
        };
        writing(FRAME_WRITE, frame, |frame| {
            file.write_at(frame, self.end.bytes)
        })?;
        around(FRAME_SYNC, || file.sync_data())?;
        self.end.bytes += frame.len() as u64;
        if let Some(behind) = cached.behind(self.end.bytes) {
            file.let_pages_go(behind);
        }
        self.end.rows += flush.rows.len() as u64;
        self.end.next_row = RowRef {
            row: flush.first_row.row + flush.rows.len() as u32,
            ..flush.first_row
        };
        Ok(())
    }

    /// True when the flush starts a new segment.
    fn check_row(&self, first: RowRef) -> Result<bool, StoreError> {
        let next = self.end.next_row;
        if first == next {
            return Ok(self.file.is_none());
        }
        let rolled = RowRef {
            segment: next.segment + 1,
            row: 0,
            ..next
        };
        if first == rolled && self.file.is_some() {
            return Ok(true);
        }
        let cause = format!(
            "flush starts at segment {} row {}, the journal goes on at segment {} row {}",
            first.segment, first.row, next.segment, next.row
        );
        Err(refused(&self.run, first, cause))
    }
}

fn create_segment(
    run: &RunPaths,
    first: RowRef,
    end: &JournalEnd,
    faults: &Faults,
) -> Result<LogFile, StoreError> {
    let folder = PathBuf::from(layout::shard_folder(run, first.shard));
    create_folder(&folder)?;
    let file = LogFile::open(
        &folder.join(layout::segment_file_name(first.segment)),
        faults,
    )?;
    let header = SegmentHeader {
        shard: first.shard,
        segment: first.segment,
        rows_before: end.rows,
        previous_bytes: end.bytes,
        run_id: run.run_id().as_str().to_owned(),
    };
    writing(SEGMENT_WRITE, &header.encode(), |header| {
        file.write_at(header, 0)
    })?;
    around(SEGMENT_SYNC, || file.sync_all())?;
    around(SEGMENT_FOLDER_SYNC, || sync_folder(&folder))?;
    Ok(file)
}

fn refused(run: &RunPaths, row: RowRef, cause: impl Into<String>) -> StoreError {
    StoreError::Unavailable {
        operation: "append",
        key: layout::segment_path(run, row.shard, row.segment),
        cause: cause.into(),
    }
}
