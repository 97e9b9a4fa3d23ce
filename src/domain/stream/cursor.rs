//! Where an output stream continues, and when its checkpoint is saved (contract 6.7, W27, design 3.10).
//!
//! A cursor only ever names a row that the gate took over together with all rows before it. A cursor
//! that does not fit the view is refused: resuming elsewhere would repeat or skip rows silently.

use super::source::PartName;
use crate::ports::Cursor;

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Index into the sorted parts; equal to their number when nothing is left.
    pub part: usize,
    /// First row to read in that part.
    pub row: u64,
}

/// Why a cursor cannot be used with a view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// The cursor was taken in another stream view.
    #[error("the checkpoint was taken in stream view {found}, this one is {expected}")]
    ViewChanged {
        /// Identity of the view at hand.
        expected: String,
        /// Identity in the cursor.
        found: String,
    },
    /// The view has no part of that name.
    #[error("the checkpoint names part {part}, which the stream view does not have")]
    PartUnknown {
        /// The part in the cursor.
        part: String,
    },
    /// The part has fewer rows than the cursor says were sent.
    #[error("the checkpoint names row {row} of part {part}, which has {rows} rows")]
    RowUnknown {
        /// The part in the cursor.
        part: String,
        /// The row in the cursor.
        row: u64,
        /// Rows the part has.
        rows: u64,
    },
}

impl CursorError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ViewChanged { .. } => "CHECKPOINT_VIEW_MISMATCH",
            Self::PartUnknown { .. } | Self::RowUnknown { .. } => "CHECKPOINT_POSITION_UNKNOWN",
        }
    }
}

/// Finds where to continue. `parts` are sorted by full path; the part is found by its file name when
/// the cursor has one, else by its full path (a cursor written by another program).
pub fn resume_point(
    parts: &[PartName],
    stream_view_id: &str,
    cursor: Option<&Cursor>,
) -> Result<ResumePoint, CursorError> {
    let Some(cursor) = cursor else {
        return Ok(ResumePoint { part: 0, row: 0 });
    };
    if let Some(found) = cursor
        .stream_view_id
        .as_ref()
        .filter(|id| *id != stream_view_id)
    {
        let (expected, found) = (stream_view_id.to_owned(), found.clone());
        return Err(CursorError::ViewChanged { expected, found });
    }
    let is_last = |part: &PartName| match &cursor.part_name {
        Some(name) => part.name == *name,
        None => part.file == cursor.last_file,
    };
    let found = parts.iter().position(is_last);
    let part = found.ok_or_else(|| CursorError::PartUnknown {
        part: last_part(cursor),
    })?;
    Ok(ResumePoint {
        part,
        // A row no part has is refused below, however large it is.
        row: cursor.last_row_index.saturating_add(1),
    })
}

/// Checks the row of a resume point against the rows its part has.
pub fn check_row(point: &ResumePoint, part: &PartName, rows: u64) -> Result<(), CursorError> {
    if point.row <= rows {
        return Ok(());
    }
    Err(CursorError::RowUnknown {
        part: part.name.clone(),
        row: point.row - 1,
        rows,
    })
}

fn last_part(cursor: &Cursor) -> String {
    cursor
        .part_name
        .clone()
        .unwrap_or_else(|| cursor.last_file.clone())
}

/// Why a checkpoint is saved (contract 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SaveReason {
    /// Enough events or enough time since the last save.
    PeriodicFlush,
    /// The last row of a part was accepted.
    FileComplete,
    /// The stream was asked to stop.
    Stop,
    /// The cap was reached.
    MaxEvents,
    /// The last row of the output was accepted.
    OutputComplete,
}

impl SaveReason {
    /// The reason's name in session events.
    pub fn as_str(self) -> &'static str {
        match self {
            SaveReason::PeriodicFlush => "periodic_flush",
            SaveReason::FileComplete => "file_complete",
            SaveReason::Stop => "stop",
            SaveReason::MaxEvents => "max_events",
            SaveReason::OutputComplete => "output_complete",
        }
    }
}

/// When a periodic save is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Fewest accepted events between two periodic saves, rounded up to a batch.
    pub events_min: u64,
    /// Fewest microseconds between two periodic saves: a save costs a sync, and at full speed
    /// hundreds of batches are accepted in a second.
    pub interval_min_micros: u64,
    /// Longest an accepted event waits for a save, whatever the other two say.
    pub interval_max_micros: u64,
}

impl FlushPolicy {
    /// The policy for a profile's `flush_every`.
    pub fn of_flush_every(flush_every: u64) -> Self {
        Self {
            events_min: flush_every.max(1),
            interval_min_micros: 50_000,
            interval_max_micros: 250_000,
        }
    }

    /// Whether a periodic save is due, `since_save_micros` after the last one began.
    pub fn is_due(&self, accepted_since_save: u64, since_save_micros: u64) -> bool {
        let enough =
            accepted_since_save >= self.events_min && since_save_micros >= self.interval_min_micros;
        accepted_since_save > 0 && (enough || since_save_micros >= self.interval_max_micros)
    }

    /// When to look again, `since_save_micros` after the last save began.
    pub fn next_look_micros(
        &self,
        accepted_since_save: u64,
        since_save_micros: u64,
    ) -> Option<u64> {
        let at = match accepted_since_save {
            0 => return None,
            events if events >= self.events_min => self.interval_min_micros,
            _ => self.interval_max_micros,
        };
        Some(at.saturating_sub(since_save_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<PartName> {
        let part = |n: u32| PartName {
            file: format!("/new/output_id=x/part-{n:06}.parquet"),
            name: format!("part-{n:06}.parquet"),
        };
        vec![part(0), part(1), part(2)]
    }

    fn cursor(last_file: &str, part_name: Option<&str>, row: u64) -> Cursor {
        Cursor {
            pack_key: "k".to_owned(),
            output_id: "x".to_owned(),
            last_file: last_file.to_owned(),
            last_row_index: row,
            last_ts_utc: None,
            stream_view_id: Some("view".to_owned()),
            part_name: part_name.map(str::to_owned),
        }
    }

    #[test]
    fn without_a_cursor_reading_starts_at_the_first_row() {
        assert_eq!(
            resume_point(&parts(), "view", None),
            Ok(ResumePoint { part: 0, row: 0 })
        );
    }

    #[test]
    fn a_moved_view_resumes_by_part_name_and_a_foreign_cursor_by_full_path() {
        let moved = cursor(
            "/old/output_id=x/part-000001.parquet",
            Some("part-000001.parquet"),
            9,
        );
        let expected = Ok(ResumePoint { part: 1, row: 10 });
        assert_eq!(resume_point(&parts(), "view", Some(&moved)), expected);
        let mut foreign = cursor("/new/output_id=x/part-000001.parquet", None, 9);
        foreign.stream_view_id = None;
        assert_eq!(resume_point(&parts(), "view", Some(&foreign)), expected);
    }

    #[test]
    fn a_cursor_that_does_not_fit_the_view_is_refused_with_a_code() {
        let other_view = resume_point(&parts(), "new", Some(&cursor("f", None, 0))).unwrap_err();
        assert_eq!(other_view.code(), "CHECKPOINT_VIEW_MISMATCH");
        let no_part = cursor("/old/part-000001.parquet", None, 0);
        let no_part = resume_point(&parts(), "view", Some(&no_part)).unwrap_err();
        assert_eq!(no_part.code(), "CHECKPOINT_POSITION_UNKNOWN");
        let point = ResumePoint { part: 0, row: 11 };
        assert_eq!(check_row(&point, &parts()[0], 11), Ok(()));
        let beyond = check_row(&point, &parts()[0], 10).unwrap_err();
        assert!(
            beyond
                .to_string()
                .contains("row 10 of part part-000000.parquet"),
            "{beyond}"
        );
    }

    #[test]
    fn a_save_waits_for_enough_events_and_never_longer_than_the_upper_bound() {
        let policy = FlushPolicy::of_flush_every(100);
        assert!(!policy.is_due(0, 10_000_000));
        assert!(!policy.is_due(99, 249_999));
        assert!(policy.is_due(1, 250_000));
        assert!(!policy.is_due(100, 49_999));
        assert!(policy.is_due(100, 50_000));
        assert_eq!(policy.next_look_micros(0, 0), None);
        assert_eq!(policy.next_look_micros(1, 50_000), Some(200_000));
        assert_eq!(policy.next_look_micros(100, 60_000), Some(0));
    }
}
