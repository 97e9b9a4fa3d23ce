//! The decision journal as its projections read it: rows in order, or one row by its reference.

use crate::event_bus::embedded_log::JournalReader;
use wellspring_domain::admission::decision::{Decision, RowRef};
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

/// An admitted key as the index takes it: where it was admitted, key, payload hash.
pub type AdmittedKey = (RowRef, Hash32, Hash32);

/// Takes one row; an error ends the visit.
pub type VisitRow<'a> = dyn FnMut(&JournalRow) -> Result<(), StoreError> + 'a;

/// The decision journal of one run. It is the only truth about decisions: everything that reads it
/// through this trait can be dropped and made again.
pub trait JournalSource: Send + Sync {
    /// Admission shards that have a journal, in order.
    fn shards(&self) -> Result<Vec<u16>, StoreError>;

    /// Segments of a shard, in order. All but the last are complete.
    fn segments(&self, shard: u16) -> Result<Vec<u32>, StoreError>;

    /// The place behind the last row of a shard: segment and row the next decision would get.
    fn end(&self, shard: u16) -> Result<RowRef, StoreError>;

    /// One row, `None` when the journal does not have it.
    fn row(&self, at: RowRef) -> Result<Option<JournalRow>, StoreError>;

    /// Visits the rows of `span.from.shard` in order whose decision is wanted. Returns the last row
    /// seen, of whatever decision.
    fn visit_rows(
        &self,
        span: &RowSpan<'_>,
        visit: &mut VisitRow<'_>,
    ) -> Result<Option<RowRef>, StoreError>;

    /// Visits the admitted keys of `from.shard` from `from` on. Returns the last row seen, of
    /// whatever decision.
    fn visit_admitted(
        &self,
        from: RowRef,
        visit: &mut dyn FnMut(AdmittedKey) -> Result<(), StoreError>,
    ) -> Result<Option<RowRef>, StoreError> {
        let span = RowSpan::from(from).only(&[Decision::Admit]);
        self.visit_rows(&span, &mut |row| {
            visit((row.row_ref, row.dedupe_key, row.payload_hash))
        })
    }
}

/// Which rows of a shard are visited.
#[derive(Clone, Copy, Debug)]
pub struct RowSpan<'a> {
    /// First row.
    pub from: RowRef,
    /// The first row that is not visited any more, if any.
    pub until: Option<RowRef>,
    /// Decisions wanted.
    pub decisions: &'a [Decision],
}

impl<'a> RowSpan<'a> {
    /// All rows from `from` on.
    pub fn from(from: RowRef) -> RowSpan<'a> {
        RowSpan {
            from,
            until: None,
            decisions: &[Decision::Admit, Decision::Duplicate, Decision::Quarantine],
        }
    }

    /// All rows of a shard.
    pub fn shard(shard: u16) -> RowSpan<'a> {
        RowSpan::from(RowRef {
            shard,
            ..RowRef::default()
        })
    }

    /// All rows of one segment.
    pub fn segment(shard: u16, segment: u32) -> RowSpan<'a> {
        let from = RowRef {
            shard,
            segment,
            row: 0,
        };
        RowSpan {
            until: Some(RowRef {
                segment: segment + 1,
                ..from
            }),
            ..RowSpan::from(from)
        }
    }

    /// The same rows, but of these decisions only.
    pub fn only(self, decisions: &'a [Decision]) -> RowSpan<'a> {
        RowSpan { decisions, ..self }
    }

    fn is_past(&self, row: RowRef) -> bool {
        self.until.is_some_and(|until| row >= until)
    }
}

impl JournalSource for JournalReader {
    fn shards(&self) -> Result<Vec<u16>, StoreError> {
        JournalReader::shards(self)
    }

    fn segments(&self, shard: u16) -> Result<Vec<u32>, StoreError> {
        JournalReader::segments(self, shard)
    }

    fn end(&self, shard: u16) -> Result<RowRef, StoreError> {
        JournalReader::end(self, shard)
    }

    fn row(&self, at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        JournalReader::row(self, at)
    }

    fn visit_rows(
        &self,
        span: &RowSpan<'_>,
        visit: &mut VisitRow<'_>,
    ) -> Result<Option<RowRef>, StoreError> {
        let mut last = None;
        for frame in self.frames_from(span.from)? {
            let frame = frame?;
            if span.is_past(frame.first_row()) {
                break;
            }
            for row in frame.rows().filter(|row| row.row_ref() >= span.from) {
                last = Some(row.row_ref());
                if span.decisions.contains(&row.decision()) {
                    visit(&row.to_row()?)?;
                }
            }
        }
        Ok(last)
    }

    fn visit_admitted(
        &self,
        from: RowRef,
        visit: &mut dyn FnMut(AdmittedKey) -> Result<(), StoreError>,
    ) -> Result<Option<RowRef>, StoreError> {
        let mut last = None;
        for frame in self.frames_from(from)? {
            let frame = frame?;
            for row in frame.rows().filter(|row| row.row_ref() >= from) {
                last = Some(row.row_ref());
                if row.decision() == Decision::Admit {
                    visit((row.row_ref(), row.dedupe_key(), row.payload_hash()))?;
                }
            }
        }
        Ok(last)
    }
}

/// A journal in memory: what a gate would have written, for tests of the projections.
#[cfg(test)]
#[derive(Default)]
pub struct MemoryJournal {
    /// Rows of all shards, each shard's in order.
    pub rows: Vec<JournalRow>,
    /// Starts of all visits.
    pub visited_from: std::sync::Mutex<Vec<RowRef>>,
}

#[cfg(test)]
impl JournalSource for MemoryJournal {
    fn shards(&self) -> Result<Vec<u16>, StoreError> {
        let mut shards: Vec<u16> = self.rows.iter().map(|row| row.row_ref.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        Ok(shards)
    }

    fn segments(&self, shard: u16) -> Result<Vec<u32>, StoreError> {
        let mine = self.rows.iter().filter(|row| row.row_ref.shard == shard);
        let mut segments: Vec<u32> = mine.map(|row| row.row_ref.segment).collect();
        segments.dedup();
        Ok(segments)
    }

    fn end(&self, shard: u16) -> Result<RowRef, StoreError> {
        let mut mine = self.rows.iter().filter(|row| row.row_ref.shard == shard);
        let start = RowRef {
            shard,
            ..RowRef::default()
        };
        Ok(mine.next_back().map_or(start, |row| RowRef {
            row: row.row_ref.row + 1,
            ..row.row_ref
        }))
    }

    fn row(&self, at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        Ok(self.rows.iter().find(|row| row.row_ref == at).cloned())
    }

    fn visit_rows(
        &self,
        span: &RowSpan<'_>,
        visit: &mut VisitRow<'_>,
    ) -> Result<Option<RowRef>, StoreError> {
        if let Ok(mut visited) = self.visited_from.lock() {
            visited.push(span.from);
        }
        let mut last = None;
        for row in &self.rows {
            let at = row.row_ref;
            if at.shard != span.from.shard || at < span.from || span.is_past(at) {
                continue;
            }
            last = Some(at);
            if span.decisions.contains(&row.decision()) {
                visit(row)?;
            }
        }
        Ok(last)
    }
}
