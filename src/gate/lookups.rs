//! Receipt lookups over the runs a gate has open (contract 7.1).

use crate::event_bus::embedded_log::JournalReader;
use crate::http::state::{LookupKey, Lookups};
use crate::state_store::embedded::receipts::ReceiptLookup;
use serde_json::{Value, json};
use wellspring_actors::ingestion_gate::handle::GateHandle;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// Looks in the gate's own run first, then in every other open run.
pub struct OpenRunLookups {
    /// The gate.
    pub gate: GateHandle,
    /// The run the gate was started for.
    pub own_run: Option<PlatformRunId>,
    /// The runs root.
    pub runs_root: String,
    /// Where receipts are kept.
    pub layout: ReceiptsLayout,
}

impl Lookups for OpenRunLookups {
    fn look_up(&self, key: &LookupKey) -> Result<Value, StoreError> {
        let mut runs = self.gate.open_runs();
        if let Some(own) = &self.own_run {
            runs.retain(|run| run != own);
            runs.insert(0, own.clone());
        }
        for run in runs {
            let found = self.look_in(&run, key)?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(json!({}))
    }

    fn row(&self, run: &PlatformRunId, at: RowRef) -> Result<Option<JournalRow>, StoreError> {
        JournalReader::new(&RunPaths::new(&self.runs_root, run)).row(at)
    }
}

impl OpenRunLookups {
    fn look_in(&self, run: &PlatformRunId, key: &LookupKey) -> Result<Option<Value>, StoreError> {
        let paths = RunPaths::new(&self.runs_root, run);
        let journal = JournalReader::new(&paths);
        let lookup = ReceiptLookup::new(&paths, self.layout, &journal);
        let row = match key {
            LookupKey::EventId(id) => lookup.by_event_id(id)?,
            LookupKey::ReceiptId(id) => lookup.by_receipt_id(id)?,
            LookupKey::DedupeKey(key) => lookup.by_dedupe_key(key)?,
        };
        Ok(row.map(|row| json!(lookup.answer(&row))))
    }
}
