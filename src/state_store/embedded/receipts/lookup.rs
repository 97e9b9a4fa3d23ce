//! Finds receipts by event id, receipt id or dedupe key (contract 7.1).
//!
//! Sealed segments are searched through their sidecars, the live tail of each shard row by row, all
//! shards side by side. Memory is bounded by one frame per shard and, when a sidecar must be made, by
//! one segment's ids.

use super::sidecar::{Id16, Section, Sidecar, head16, id16_of, receipt_id16};
use crate::state_store::embedded::journal_source::{JournalSource, RowSpan};
use serde::Serialize;
use serde_json::Value;
use std::thread;
use wellspring_domain::admission::decision::{Decision, RowRef};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{
    ReceiptError, ReceiptPlaces, ReceiptsLayout, render_receipt,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// What a lookup answers (contract 7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptAnswer {
    /// Receipt id (V13).
    pub receipt_id: String,
    /// Event.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// What was decided.
    pub decision: Decision,
    /// Where the receipt is.
    pub receipt_ref: String,
}

/// Why a receipt could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The journal or a sidecar could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The row has no receipt.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

impl LookupError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            LookupError::Store(error) => error.code(),
            LookupError::Receipt(error) => error.code(),
        }
    }
}

/// Receipts of one run, read from its journal.
pub struct ReceiptLookup<'a> {
    journal: &'a dyn JournalSource,
    places: ReceiptPlaces<'a>,
}

/// What is searched for, in the order of preference of its section.
struct Wanted {
    section: Section,
    ids: Vec<Id16>,
    order: Order,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Earliest,
    Newest,
}

impl<'a> ReceiptLookup<'a> {
    /// A lookup over a run's journal; references are made for `layout`.
    pub fn new(
        paths: &'a RunPaths,
        layout: ReceiptsLayout,
        journal: &'a dyn JournalSource,
    ) -> ReceiptLookup<'a> {
        ReceiptLookup {
            journal,
            places: ReceiptPlaces { paths, layout },
        }
    }

    /// The earliest row of an event.
    pub fn by_event_id(&self, event_id: &str) -> Result<Option<JournalRow>, StoreError> {
        let decisions = [Decision::Admit, Decision::Duplicate, Decision::Quarantine];
        let wanted = Wanted {
            section: Section::Receipts,
            ids: decisions
                .map(|decision| id16_of(decision.as_str(), event_id))
                .to_vec(),
            order: Order::Earliest,
        };
        self.find(&wanted, &|row| row.event_id == event_id)
    }

    /// The newest row with a receipt id.
    pub fn by_receipt_id(&self, receipt_id: &str) -> Result<Option<JournalRow>, StoreError> {
        let padded = format!("{receipt_id:0<64}");
        let Some(id) = Hash32::from_hex(padded.as_bytes()).filter(|_| receipt_id.len() == 32)
        else {
            return Ok(None);
        };
        let id = head16(&id);
        let wanted = Wanted {
            section: Section::Receipts,
            ids: vec![id],
            order: Order::Newest,
        };
        self.find(&wanted, &|row| receipt_id16(row) == id)
    }

    /// The earliest row with a dedupe key.
    pub fn by_dedupe_key(&self, dedupe_key: &str) -> Result<Option<JournalRow>, StoreError> {
        let Some(key) = Hash32::from_hex(dedupe_key.as_bytes()) else {
            return Ok(None);
        };
        let wanted = Wanted {
            section: Section::Keys,
            ids: vec![head16(&key)],
            order: Order::Earliest,
        };
        self.find(&wanted, &|row| row.dedupe_key == key)
    }

    /// The answer for a row.
    pub fn answer(&self, row: &JournalRow) -> ReceiptAnswer {
        let receipt_id = row.receipt_id();
        ReceiptAnswer {
            receipt_ref: self.places.receipt_ref(row.row_ref, || receipt_id.clone()),
            receipt_id,
            event_id: row.event_id.clone(),
            event_type: row.context.event_type.clone(),
            decision: row.decision(),
        }
    }

    /// The whole receipt of a row (contract 7.7).
    pub fn render(&self, row: &JournalRow) -> Result<Value, LookupError> {
        let original = match row.outcome {
            JournalOutcome::Duplicate { original } => self.journal.row(original)?,
            _ => None,
        };
        Ok(render_receipt(row, original.as_ref(), &self.places)?)
    }

    /// The wanted row of all shards. Times decide between shards; within one, the row does.
    fn find(
        &self,
        wanted: &Wanted,
        is_it: &(dyn Fn(&JournalRow) -> bool + Sync),
    ) -> Result<Option<JournalRow>, StoreError> {
        let shards = self.journal.shards()?;
        let found = thread::scope(|scope| {
            let searches: Vec<_> = shards
                .iter()
                .map(|shard| scope.spawn(|| self.find_in_shard(*shard, wanted, is_it)))
                .collect();
            let joined = searches.into_iter().map(|search| search.join());
            joined
                .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let rows = found.into_iter().flatten();
        let place = |row: &JournalRow| (row.decided_at, row.row_ref);
        Ok(match wanted.order {
            Order::Earliest => rows.min_by_key(place),
            Order::Newest => rows.max_by_key(place),
        })
    }

    fn find_in_shard(
        &self,
        shard: u16,
        wanted: &Wanted,
        is_it: &dyn Fn(&JournalRow) -> bool,
    ) -> Result<Option<JournalRow>, StoreError> {
        let mut segments = self.journal.segments(shard)?;
        let live = segments.pop();
        match wanted.order {
            Order::Earliest => {
                for segment in segments {
                    if let Some(row) = self.find_sealed(shard, segment, wanted, is_it)? {
                        return Ok(Some(row));
                    }
                }
                live.map_or(Ok(None), |live| self.find_live(shard, live, wanted, is_it))
            }
            Order::Newest => {
                if let Some(live) = live
                    && let Some(row) = self.find_live(shard, live, wanted, is_it)?
                {
                    return Ok(Some(row));
                }
                for segment in segments.into_iter().rev() {
                    if let Some(row) = self.find_sealed(shard, segment, wanted, is_it)? {
                        return Ok(Some(row));
                    }
                }
                Ok(None)
            }
        }
    }

    fn find_sealed(
        &self,
        shard: u16,
        segment: u32,
        wanted: &Wanted,
        is_it: &dyn Fn(&JournalRow) -> bool,
    ) -> Result<Option<JournalRow>, StoreError> {
        let sidecar = Sidecar::open_or_make(self.places.paths, self.journal, shard, segment)?;
        let mut places: Vec<RowRef> = Vec::new();
        for id in &wanted.ids {
            places.extend(sidecar.rows_of(wanted.section, id)?);
        }
        places.sort_unstable();
        if wanted.order == Order::Newest {
            places.reverse();
        }
        for place in places {
            let row = self.journal.row(place)?;
            if let Some(row) = row.filter(|row| is_it(row)) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn find_live(
        &self,
        shard: u16,
        segment: u32,
        wanted: &Wanted,
        is_it: &dyn Fn(&JournalRow) -> bool,
    ) -> Result<Option<JournalRow>, StoreError> {
        let from = RowRef {
            shard,
            segment,
            row: 0,
        };
        let mut found: Option<JournalRow> = None;
        self.journal.visit_rows(&RowSpan::from(from), &mut |row| {
            if wanted.order == Order::Earliest && found.is_some() {
                return Ok(());
            }
            if is_it(row) {
                found = Some(row.clone());
            }
            Ok(())
        })?;
        Ok(found)
    }
}
