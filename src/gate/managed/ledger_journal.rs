//! The admission ledger read as a decision journal: rows by shard, segment and row.

use crate::state_store::embedded::journal_source::{JournalSource, RowSpan, VisitRow};
use crate::state_store::postgres::admissions::{AdmissionLedger, FlushKey, FlushState};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

/// Flushes listed at once.
const PAGE: u32 = 500;

/// One run's decisions in the ledger.
pub struct LedgerJournal {
    ledger: AdmissionLedger,
    run: PlatformRunId,
}

impl LedgerJournal {
    /// The decisions of `run`.
    pub fn new(ledger: AdmissionLedger, run: PlatformRunId) -> LedgerJournal {
        LedgerJournal { ledger, run }
    }

    /// Visits the decided flushes behind `after`, in order, until the visitor says false.
    pub fn visit_flushes(
        &self,
        after: Option<FlushKey>,
        visit: &mut dyn FnMut(&FlushKey) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut after = after;
        loop {
            let page = self.ledger.flushes_after(&self.run, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.key.clone());
            for flush in &page {
                let decided = matches!(flush.state, FlushState::Marked | FlushState::Stored);
                if decided && !visit(&flush.key)? {
                    return Ok(());
                }
            }
        }
    }

    /// The place in front of a shard's flush `segment`.
    fn before(&self, shard: u16, segment: u32) -> Option<FlushKey> {
        let (shard, segment) = match (shard, segment) {
            (0, 0) => return None,
            (shard, 0) => (shard - 1, u32::MAX),
            (shard, segment) => (shard, segment - 1),
        };
        Some(FlushKey {
            run: self.run.clone(),
            shard,
            segment,
        })
    }
}

impl JournalSource for LedgerJournal {
    fn shards(&self) -> Result<Vec<u16>, StoreError> {
        let mut shards: Vec<u16> = Vec::new();
        let mut after = None;
        loop {
            let page = self.ledger.flushes_after(&self.run, after.as_ref(), 1)?;
            let Some(flush) = page.first() else {
                return Ok(shards);
            };
            shards.push(flush.key.shard);
            after = Some(FlushKey {
                segment: u32::MAX,
                ..flush.key.clone()
            });
        }
    }

    fn segments(&self, shard: u16) -> Result<Vec<u32>, StoreError> {
        let mut segments = Vec::new();
        self.visit_flushes(self.before(shard, 0), &mut |flush| {
            if flush.shard == shard {
                segments.push(flush.segment);
            }
            Ok(flush.shard == shard)
        })?;
        Ok(segments)
    }

    fn end(&self, shard: u16) -> Result<RowRef, StoreError> {
        let last = self.segments(shard)?.last().copied();
        Ok(RowRef {
            shard,
            segment: last.map_or(0, |segment| segment + 1),
            row: 0,
        })
    }

    fn row(&self, at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        self.ledger.decision_at(&self.run, at)
    }

    fn visit_rows(
        &self,
        span: &RowSpan<'_>,
        visit: &mut VisitRow<'_>,
    ) -> Result<Option<RowRef>, StoreError> {
        let mut last = None;
        let from = span.from;
        self.visit_flushes(self.before(from.shard, from.segment), &mut |flush| {
            let first = RowRef {
                shard: flush.shard,
                segment: flush.segment,
                row: 0,
            };
            if flush.shard != from.shard || span.until.is_some_and(|until| first >= until) {
                return Ok(false);
            }
            for row in self.ledger.flush_rows(flush)? {
                let at = row.row_ref;
                if at < from || span.until.is_some_and(|until| at >= until) {
                    continue;
                }
                last = Some(at);
                if span.decisions.contains(&row.decision()) {
                    visit(&row)?;
                }
            }
            Ok(true)
        })?;
        Ok(last)
    }
}
