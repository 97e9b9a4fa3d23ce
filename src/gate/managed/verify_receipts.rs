//! `receipts verify` on shared backends: every decided flush has its segment object with the same rows,
//! every row renders to a receipt that keeps the contract's rules, and quarantine records are there.

use super::receipt_segment;
use super::substrate::Substrate;
use crate::state_store::embedded::verify::ReceiptsReport;
use crate::state_store::postgres::admissions::{FlushInfo, FlushKey, FlushState};
use std::collections::HashSet;
use wellspring_domain::admission::decision::{Decision, RowRef};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{
    ReceiptsLayout, receipt_bytes, segment_object, segment_receipt_ref,
};
use wellspring_domain::admission::receipt_check::check_receipt;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// Flushes listed at once.
const PAGE: u32 = 200;

/// Verifies the receipts of a run. Reads only.
pub fn verify_receipts(
    substrate: &Substrate,
    run: &PlatformRunId,
) -> Result<ReceiptsReport, StoreError> {
    let mut check = Check {
        substrate,
        paths: substrate.paths(run),
        rendered: HashSet::new(),
        report: ReceiptsReport::default(),
    };
    let mut after: Option<FlushKey> = None;
    loop {
        let page = substrate.ledger.flushes_after(run, after.as_ref(), PAGE)?;
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.key.clone());
        for flush in &page {
            check.flush(flush)?;
        }
    }
    check.report.verified = check.report.differences.count == 0;
    Ok(check.report)
}

struct Check<'a> {
    substrate: &'a Substrate,
    paths: RunPaths,
    /// Kinds of receipts that were rendered as a whole: context digest stands in by its text.
    rendered: HashSet<(String, Decision)>,
    report: ReceiptsReport,
}

impl Check<'_> {
    fn flush(&mut self, flush: &FlushInfo) -> Result<(), StoreError> {
        if !matches!(flush.state, FlushState::Marked | FlushState::Stored) {
            return Ok(());
        }
        let rows = self.substrate.ledger.flush_rows(&flush.key)?;
        let Some(first) = rows.first() else {
            return Ok(());
        };
        let key = segment_object(&self.paths.store_prefix(), first.row_ref);
        match self.substrate.objects.get(&key)? {
            Some(bytes) => self.segment(&key, &bytes, &rows),
            None if flush.state == FlushState::Marked => {
                self.report.pending_objects += rows.len() as u64;
            }
            None => self.differ(
                first.row_ref,
                "SEGMENT_MISSING",
                "the segment object is missing",
            ),
        }
        rows.iter().try_for_each(|row| self.row(row))
    }

    fn segment(&mut self, key: &str, bytes: &[u8], rows: &[JournalRow]) {
        match receipt_segment::decode(key, bytes) {
            Err(error) => self.differ(rows[0].row_ref, "SEGMENT_UNREADABLE", &error.to_string()),
            Ok(stored) if stored.len() != rows.len() => {
                let detail = format!("{} rows, the ledger has {}", stored.len(), rows.len());
                self.differ(rows[0].row_ref, "SEGMENT_DIFFERS", &detail);
            }
            Ok(stored) => {
                for (stored, row) in stored.iter().zip(rows) {
                    if stored != row {
                        self.differ(row.row_ref, "SEGMENT_DIFFERS", "the segment's row differs");
                    }
                }
            }
        }
    }

    fn row(&mut self, row: &JournalRow) -> Result<(), StoreError> {
        self.report.receipts += 1;
        match &row.outcome {
            JournalOutcome::Admit { .. } => self.report.admitted += 1,
            JournalOutcome::Duplicate { original } => {
                self.report.duplicates += 1;
                self.duplicate(row, *original)?;
            }
            JournalOutcome::Quarantine { record, .. } => {
                self.report.quarantined += 1;
                self.quarantine_record(row, record)?;
            }
        }
        self.receipt(row)
    }

    fn duplicate(&mut self, row: &JournalRow, original: RowRef) -> Result<(), StoreError> {
        let run = self.paths.run_id();
        match self.substrate.ledger.decision_at(run, original)? {
            None => self.differ(row.row_ref, "ORIGINAL_MISSING", "there is no such row"),
            Some(admitted)
                if admitted.decision() != Decision::Admit
                    || admitted.dedupe_key != row.dedupe_key
                    || admitted.payload_hash != row.payload_hash =>
            {
                self.differ(
                    row.row_ref,
                    "ORIGINAL_DIFFERS",
                    "it is not a copy of that row",
                );
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Records are written once per id: the first one of an id stays, so only its presence is checked.
    fn quarantine_record(&mut self, row: &JournalRow, record: &[u8]) -> Result<(), StoreError> {
        let id = row.receipt_id();
        let key = format!("{}/ig/quarantine/{id}.json", self.paths.store_prefix());
        match self.substrate.objects.get(&key)? {
            None => self.differ(row.row_ref, "QUARANTINE_RECORD", "the object is missing"),
            Some(found) if found.trim_ascii_end() != record && !names(&found, &id) => {
                self.differ(row.row_ref, "OBJECT_DIFFERS", "the record is of another id");
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn receipt(&mut self, row: &JournalRow) -> Result<(), StoreError> {
        let objects = self.substrate.layout == ReceiptsLayout::Objects;
        let kind = (
            format!("{:?}", std::sync::Arc::as_ptr(&row.context)),
            row.decision(),
        );
        if !self.rendered.insert(kind) && !objects {
            return Ok(());
        }
        let receipts = self.substrate.receipts(None);
        let receipt = match receipts.render(row) {
            Ok(receipt) => receipt,
            Err(error) => {
                self.differ(row.row_ref, "RECEIPT_UNREADABLE", &error.to_string());
                return Ok(());
            }
        };
        if let Err(violation) = check_receipt(&receipt) {
            self.differ(row.row_ref, "RECEIPT_INVALID", &violation.to_string());
        }
        if objects {
            let id = row.receipt_id();
            let key = format!("{}/ig/receipts/{id}.json", self.paths.store_prefix());
            let found = self.substrate.objects.get(&key)?;
            let same =
                found.is_some_and(|found| found == receipt_bytes(&receipt) || names(&found, &id));
            if !same {
                self.differ(
                    row.row_ref,
                    "RECEIPT_OBJECT",
                    "the object is missing or of another id",
                );
            }
        }
        Ok(())
    }

    fn differ(&mut self, at: RowRef, code: &'static str, detail: &str) {
        let location = segment_receipt_ref(&self.paths, at);
        self.report.differences.add(code, location, detail);
    }
}

/// The document carries this id.
fn names(document: &[u8], id: &str) -> bool {
    let document: serde_json::Value = serde_json::from_slice(document).unwrap_or_default();
    document["quarantine_id"] == id || document["receipt_id"] == id
}
