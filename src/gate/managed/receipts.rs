//! Receipts of runs whose decisions are in the ledger (contract 7.1, 7.7).

use super::ledger_journal::LedgerJournal;
use crate::http::state::{LookupKey, Lookups};
use crate::state_store::embedded::receipts::{LookupError, ReceiptAnswer};
use crate::state_store::postgres::admissions::AdmissionLedger;
use serde_json::{Value, json};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{
    ReceiptPlaces, ReceiptsLayout, receipt_ids_of_event, render_receipt,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// Looks receipts up in the ledger.
#[derive(Clone)]
pub struct LedgerReceipts {
    /// The ledger.
    pub ledger: AdmissionLedger,
    /// The runs root.
    pub runs_root: String,
    /// Where receipts are kept.
    pub layout: ReceiptsLayout,
    /// The run that is looked in first; then every run is.
    pub own_run: Option<PlatformRunId>,
}

impl LedgerReceipts {
    /// The decision a key names, in one run or in all of them.
    pub fn find(
        &self,
        run: Option<&PlatformRunId>,
        key: &LookupKey,
    ) -> Result<Option<JournalRow>, StoreError> {
        let place = |row: &JournalRow| (row.decided_at, row.row_ref);
        match key {
            LookupKey::EventId(id) => {
                let mut found = Vec::new();
                for receipt in receipt_ids_of_event(id) {
                    found.extend(self.ledger.decisions_of_receipt(run, &receipt)?);
                }
                let of_event = found.into_iter().filter(|row| row.event_id == *id);
                Ok(of_event.min_by_key(place))
            }
            LookupKey::ReceiptId(id) => {
                let found = self.ledger.decisions_of_receipt(run, id)?;
                Ok(found.into_iter().max_by_key(place))
            }
            LookupKey::DedupeKey(key) => {
                let Some(key) = Hash32::from_hex(key.as_bytes()) else {
                    return Ok(None);
                };
                let found = self.ledger.decisions_of_keys(&[key])?;
                let wanted = |row: &JournalRow| {
                    run.is_none_or(|run| row.context.platform_run_id == run.as_str())
                };
                Ok(found.into_iter().filter(wanted).min_by_key(place))
            }
        }
    }

    /// What a lookup answers for a row.
    pub fn answer(&self, row: &JournalRow) -> ReceiptAnswer {
        let receipt_id = row.receipt_id();
        let paths = self.paths_of(row);
        ReceiptAnswer {
            receipt_ref: self
                .places(&paths)
                .receipt_ref(row.row_ref, || receipt_id.clone()),
            receipt_id,
            event_id: row.event_id.clone(),
            event_type: row.context.event_type.clone(),
            decision: row.decision(),
        }
    }

    /// The whole receipt of a row.
    pub fn render(&self, row: &JournalRow) -> Result<Value, LookupError> {
        let paths = self.paths_of(row);
        let original = match row.outcome {
            JournalOutcome::Duplicate { original } => {
                self.ledger.decision_at(paths.run_id(), original)?
            }
            _ => None,
        };
        Ok(render_receipt(
            row,
            original.as_ref(),
            &self.places(&paths),
        )?)
    }

    /// The decisions of a run as a journal.
    pub fn journal(&self, run: &PlatformRunId) -> LedgerJournal {
        LedgerJournal::new(self.ledger.clone(), run.clone())
    }

    fn paths_of(&self, row: &JournalRow) -> RunPaths {
        let run = PlatformRunId::parse(&row.context.platform_run_id);
        let run = run.expect("a decided row is of a run whose id was checked");
        RunPaths::new(&self.runs_root, &run)
    }

    fn places<'a>(&self, paths: &'a RunPaths) -> ReceiptPlaces<'a> {
        ReceiptPlaces {
            paths,
            layout: self.layout,
        }
    }
}

impl Lookups for LedgerReceipts {
    fn look_up(&self, key: &LookupKey) -> Result<Value, StoreError> {
        let own = match &self.own_run {
            Some(run) => self.find(Some(run), key)?,
            None => None,
        };
        let found = match own {
            Some(row) => Some(row),
            None => self.find(None, key)?,
        };
        Ok(found.map_or_else(|| json!({}), |row| json!(self.answer(&row))))
    }

    fn row(&self, run: &PlatformRunId, at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        self.ledger.decision_at(run, at)
    }
}
