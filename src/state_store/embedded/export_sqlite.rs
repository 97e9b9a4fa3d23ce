//! The contract's index tables as a SQLite file, made from the journals (contract 7.9).
//!
//! One transaction: a reader sees the whole export or the file as it was. Inserts are
//! insert-or-ignore in the order decisions were made within a shard, so the first of an id stays.

use super::journal_source::{JournalSource, RowSpan};
use super::receipts::{LookupError, ReceiptLookup};
use rusqlite::{CachedStatement, Connection, params};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{
    ReceiptPlaces, ReceiptsLayout, dedupe_text, quarantine_object,
};
use wellspring_domain::canonical_json::push_cj;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS admissions (
  dedupe_key TEXT PRIMARY KEY, state TEXT, platform_run_id TEXT, event_class TEXT, event_id TEXT,
  payload_hash TEXT, receipt_ref TEXT, receipt_write_failed INTEGER, admitted_at_utc TEXT,
  eb_topic TEXT, eb_partition INTEGER, eb_offset TEXT, eb_offset_kind TEXT, eb_published_at_utc TEXT);
CREATE TABLE IF NOT EXISTS receipts (
  receipt_id TEXT, platform_run_id TEXT NOT NULL DEFAULT '', event_id TEXT, event_type TEXT,
  dedupe_key TEXT, decision TEXT, eb_topic TEXT, eb_partition INTEGER, eb_offset TEXT,
  eb_offset_kind TEXT, policy_id TEXT, policy_revision TEXT, policy_digest TEXT, created_at_utc TEXT,
  receipt_ref TEXT, pins_json TEXT, reason_codes_json TEXT, evidence_refs_json TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS ux_receipts_platform_run_receipt_id
  ON receipts (platform_run_id, receipt_id);
CREATE TABLE IF NOT EXISTS quarantines (
  quarantine_id TEXT PRIMARY KEY, event_id TEXT, decision TEXT, reason_codes_json TEXT,
  policy_id TEXT, policy_revision TEXT, policy_digest TEXT, created_at_utc TEXT, evidence_ref TEXT,
  pins_json TEXT);
";

const ADMISSION: &str = "INSERT OR IGNORE INTO admissions VALUES
  (?1, 'ADMITTED', ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11, ?7)";
const RECEIPT: &str = "INSERT OR IGNORE INTO receipts VALUES
  (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
const QUARANTINE: &str = "INSERT OR IGNORE INTO quarantines VALUES
  (?1, ?2, 'QUARANTINE', ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Rows the export added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Rows of `admissions`.
    pub admissions: u64,
    /// Rows of `receipts`.
    pub receipts: u64,
    /// Rows of `quarantines`.
    pub quarantines: u64,
}

/// Why an export failed; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// SQLite refused.
    #[error("sqlite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The journal could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row has no receipt.
    #[error(transparent)]
    Receipt(#[from] LookupError),
}

impl ExportError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            ExportError::Sqlite(_) => "SQLITE_EXPORT_FAILED",
            ExportError::Store(error) => error.code(),
            ExportError::Receipt(error) => error.code(),
        }
    }
}

/// Exports a run's tables into `file`, adding to what is there.
pub fn export_sqlite(
    paths: &RunPaths,
    layout: ReceiptsLayout,
    journal: &dyn JournalSource,
    file: &Path,
) -> Result<ExportReport, ExportError> {
    let mut connection = Connection::open(file)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    let mut report = ExportReport::default();
    {
        let mut export = Export {
            places: ReceiptPlaces { paths, layout },
            lookup: ReceiptLookup::new(paths, layout, journal),
            admission: transaction.prepare_cached(ADMISSION)?,
            receipt: transaction.prepare_cached(RECEIPT)?,
            quarantine: transaction.prepare_cached(QUARANTINE)?,
            report: ExportReport::default(),
        };
        let mut refused = None;
        for shard in journal.shards()? {
            journal.visit_rows(&RowSpan::shard(shard), &mut |row| {
                if refused.is_none() {
                    refused = export.row(row).err();
                }
                Ok(())
            })?;
        }
        if let Some(error) = refused {
            return Err(error);
        }
        report.clone_from(&export.report);
    }
    transaction.commit()?;
    Ok(report)
}

struct Export<'a> {
    places: ReceiptPlaces<'a>,
    lookup: ReceiptLookup<'a>,
    admission: CachedStatement<'a>,
    receipt: CachedStatement<'a>,
    quarantine: CachedStatement<'a>,
    report: ExportReport,
}

impl Export<'_> {
    fn row(&mut self, row: &JournalRow) -> Result<(), ExportError> {
        let receipt = self.lookup.render(row)?;
        self.receipt(row, &receipt)?;
        match &row.outcome {
            JournalOutcome::Admit { .. } => self.admission(row, &receipt),
            JournalOutcome::Duplicate { .. } => Ok(()),
            JournalOutcome::Quarantine { .. } => self.quarantine(row, &receipt),
        }
    }

    fn admission(&mut self, row: &JournalRow, receipt: &Value) -> Result<(), ExportError> {
        let JournalOutcome::Admit {
            topic,
            partition,
            offset,
        } = &row.outcome
        else {
            return Ok(());
        };
        let added = self.admission.execute(params![
            row.dedupe_key.to_string(),
            row.context.platform_run_id,
            row.context.event_class,
            row.event_id,
            row.payload_hash.to_string(),
            self.places
                .receipt_ref(row.row_ref, || text(receipt, "receipt_id").to_owned()),
            row.decided_at.format_off(),
            &**topic,
            partition,
            offset.to_string(),
            offset.kind(),
        ])?;
        self.report.admissions += added as u64;
        Ok(())
    }

    fn receipt(&mut self, row: &JournalRow, receipt: &Value) -> Result<(), ExportError> {
        let place = &receipt["eb_ref"];
        let id = text(receipt, "receipt_id");
        let policy = &row.context.policy_rev;
        let added = self.receipt.execute(params![
            id,
            row.context.platform_run_id,
            row.event_id,
            row.context.event_type,
            dedupe_text(&row.dedupe_key),
            row.decision().as_str(),
            place["topic"].as_str(),
            place["partition"].as_u64().map(|number| number as i64),
            place["offset"].as_str(),
            place["offset_kind"].as_str(),
            policy.policy_id,
            policy.revision,
            policy.content_digest,
            row.decided_at.format_off(),
            self.places.receipt_ref(row.row_ref, || id.to_owned()),
            cj(&receipt["pins"]),
            cj_or_empty(receipt, "reason_codes"),
            cj_or_empty(receipt, "evidence_refs"),
        ])?;
        self.report.receipts += added as u64;
        Ok(())
    }

    fn quarantine(&mut self, row: &JournalRow, receipt: &Value) -> Result<(), ExportError> {
        let id = text(receipt, "receipt_id");
        let policy = &row.context.policy_rev;
        let added = self.quarantine.execute(params![
            id,
            row.event_id,
            cj_or_empty(receipt, "reason_codes"),
            policy.policy_id,
            policy.revision,
            policy.content_digest,
            row.decided_at.format_off(),
            quarantine_object(self.places.paths, id),
            cj(&receipt["pins"]),
        ])?;
        self.report.quarantines += added as u64;
        Ok(())
    }
}

fn text<'a>(receipt: &'a Value, name: &str) -> &'a str {
    receipt[name].as_str().unwrap_or_default()
}

/// The list of that name as CJ, `[]` when the receipt has none.
fn cj_or_empty(receipt: &Value, name: &str) -> String {
    receipt.get(name).map_or_else(|| "[]".to_owned(), cj)
}

fn cj(value: &Value) -> String {
    let mut bytes = Vec::new();
    push_cj(&mut bytes, value);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_store::embedded::test_run::{Decided, RUN, TestRun, event_id, key_of};
    use wellspring_domain::ids::receipt_id;

    #[test]
    fn the_tables_hold_every_decision_once_and_exporting_again_adds_nothing() {
        let mut run = TestRun::new();
        let rows = run.commit(
            0,
            &[Decided::Admit(1), Decided::Admit(2), Decided::Quarantine(3)],
        );
        run.commit(
            0,
            &[
                Decided::Duplicate(1, rows[0]),
                Decided::Duplicate(1, rows[0]),
            ],
        );
        let journal = run.journal();
        let file = run.folder.path().join("tables.db");
        let export =
            || export_sqlite(&run.paths, ReceiptsLayout::Segments, &journal, &file).unwrap();
        assert_eq!(
            export(),
            ExportReport {
                admissions: 2,
                receipts: 4,
                quarantines: 1
            }
        );
        assert_eq!(export(), ExportReport::default());
        let tables = Connection::open(&file).unwrap();
        let admission = tables
            .query_row(
                "SELECT state, receipt_ref, eb_offset, eb_partition, admitted_at_utc, eb_published_at_utc
                 FROM admissions WHERE dedupe_key = ?1",
                [key_of(2).to_string()],
                |row| {
                    let texts: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
                    let times: (i64, String, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
                    Ok((texts, times))
                },
            )
            .unwrap();
        assert_eq!(admission.0[0], "ADMITTED");
        assert!(admission.0[1].ends_with("segment-00000000.wsj#1"));
        assert_eq!((&*admission.0[2], admission.1.0), ("1", 0));
        assert_eq!(admission.1.1, "2026-01-01T00:00:01+00:00");
        assert_eq!(admission.1.1, admission.1.2);
        let receipt: (String, String, String, String) = tables
            .query_row(
                "SELECT platform_run_id, reason_codes_json, pins_json, eb_offset FROM receipts WHERE receipt_id = ?1",
                [receipt_id("DUPLICATE", &event_id(1))],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .unwrap();
        assert_eq!(receipt.0, RUN);
        assert_eq!(receipt.1, "[\"DUPLICATE\"]");
        assert_eq!(
            receipt.2,
            format!("{{\"platform_run_id\":\"{RUN}\",\"seed\":42}}")
        );
        assert_eq!(receipt.3, "0");
        let event: String = tables
            .query_row("SELECT event_id FROM quarantines", [], |row| row.get(0))
            .unwrap();
        assert_eq!(event, event_id(3));
    }

    #[test]
    fn a_failed_export_leaves_the_file_as_it_was() {
        let mut run = TestRun::new();
        let rows = run.commit(0, &[Decided::Admit(1)]);
        let file = run.folder.path().join("tables.db");
        let journal = run.journal();
        export_sqlite(&run.paths, ReceiptsLayout::Segments, &journal, &file).unwrap();
        run.commit(0, &[Decided::Admit(2), Decided::Duplicate(9, rows[0])]);
        let error =
            export_sqlite(&run.paths, ReceiptsLayout::Segments, &journal, &file).unwrap_err();
        assert_eq!(error.code(), "RECEIPT_ORIGINAL_DIFFERS");
        let tables = Connection::open(&file).unwrap();
        let count: i64 = tables
            .query_row("SELECT count(*) FROM admissions", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 1);
    }
}
