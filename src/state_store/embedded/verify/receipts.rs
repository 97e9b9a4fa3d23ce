//! `receipts verify`: every row renders to a receipt that keeps the contract's rules, duplicates lead
//! to the admitted row they repeat, and the objects of the projections are what their rows say.
//!
//! What many receipts share is checked once per context and decision, by rendering the whole receipt;
//! every other row is checked for the fields it has of its own.

use super::admitted_keys::AdmittedKeys;
use super::report::ReceiptsReport;
use crate::event_bus::embedded_log::JournalReader;
use crate::state_store::embedded::journal_source::{JournalSource, RowSpan};
use crate::state_store::embedded::projections::ProjectionCursor;
use crate::state_store::embedded::receipts::ReceiptLookup;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use wellspring_domain::admission::decision::{Decision, IndexEntry, ReceiptContext, RowRef};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{ReceiptsLayout, receipt_bytes, segment_receipt_ref};
use wellspring_domain::admission::receipt_check::check_receipt;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::run_paths::RunPaths;

/// Contexts remembered as checked; more are only checked again.
const CONTEXTS_MAX: usize = 4096;

/// Verifies the receipts of a run. `store` is rooted at the runs root. Reads only.
pub fn verify_receipts(
    paths: &RunPaths,
    layout: ReceiptsLayout,
    store: &dyn ObjectStore,
) -> Result<ReceiptsReport, StoreError> {
    let journal = JournalReader::new(paths);
    let mut check = ReceiptsCheck {
        paths,
        store,
        layout,
        lookup: ReceiptLookup::new(paths, layout, &journal),
        keys: AdmittedKeys::gather(paths, &journal)?,
        rendered: HashMap::new(),
        quarantines: Objects::open(paths, store, "quarantine", "quarantine_records")?,
        objects: Objects::open(paths, store, "receipts", "receipt_objects")?,
        report: ReceiptsReport::default(),
    };
    for shard in journal.shards()? {
        journal.visit_rows(&RowSpan::shard(shard), &mut |row| check.row(row))?;
    }
    check.settle_doubts(&journal)?;
    check.report.verified = check.report.differences.count == 0;
    Ok(check.report)
}

struct ReceiptsCheck<'a> {
    paths: &'a RunPaths,
    store: &'a dyn ObjectStore,
    layout: ReceiptsLayout,
    lookup: ReceiptLookup<'a>,
    keys: AdmittedKeys,
    /// Contexts whose receipts were rendered; holding them keeps their addresses theirs.
    rendered: HashMap<(*const ReceiptContext, Decision), Arc<ReceiptContext>>,
    quarantines: Objects,
    objects: Objects,
    report: ReceiptsReport,
}

impl ReceiptsCheck<'_> {
    fn row(&mut self, row: &JournalRow) -> Result<(), StoreError> {
        self.report.receipts += 1;
        let own = own_fields(row);
        if let Some(rule) = own {
            self.differ(row, "RECEIPT_INVALID", rule);
        }
        match &row.outcome {
            JournalOutcome::Admit { .. } => self.report.admitted += 1,
            JournalOutcome::Duplicate { original } => {
                self.report.duplicates += 1;
                self.duplicate(row, *original)?;
            }
            JournalOutcome::Quarantine { record, .. } => {
                self.report.quarantined += 1;
                let seen = self
                    .quarantines
                    .compare(self.store, row, &record_bytes(record))?;
                self.object_outcome(row, "QUARANTINE_RECORD", seen);
            }
        }
        self.rendered(row)
    }

    fn duplicate(&mut self, row: &JournalRow, original: RowRef) -> Result<(), StoreError> {
        let mut found = Vec::new();
        self.keys.look_up(&[row.dedupe_key], &mut found)?;
        let expected = IndexEntry {
            payload_hash: row.payload_hash,
            row: original,
        };
        match found.first().copied().flatten() {
            None => self.differ(row, "ORIGINAL_MISSING", "no admitted row has this key"),
            Some(entry) if entry.row != original => {
                self.differ(row, "ORIGINAL_DIFFERS", "another row admitted this key");
            }
            Some(entry) if entry != expected => {
                self.differ(row, "ORIGINAL_DIFFERS", "the admitted payload differs");
            }
            Some(_same) => {}
        }
        Ok(())
    }

    /// Renders the receipt when nothing like it was rendered yet, or when objects must be compared.
    fn rendered(&mut self, row: &JournalRow) -> Result<(), StoreError> {
        let key = (Arc::as_ptr(&row.context), row.decision());
        let first = !self.rendered.contains_key(&key);
        if !first && self.layout == ReceiptsLayout::Segments {
            return Ok(());
        }
        if self.rendered.len() >= CONTEXTS_MAX {
            self.rendered.clear();
        }
        self.rendered.insert(key, Arc::clone(&row.context));
        let receipt = match self.lookup.render(row) {
            Ok(receipt) => receipt,
            Err(error) => {
                self.differ(row, "RECEIPT_UNREADABLE", &error.to_string());
                return Ok(());
            }
        };
        if let Err(violation) = check_receipt(&receipt) {
            self.differ(row, "RECEIPT_INVALID", &violation.to_string());
        }
        if self.layout == ReceiptsLayout::Objects {
            let seen = self
                .objects
                .compare(self.store, row, &receipt_bytes(&receipt))?;
            self.object_outcome(row, "RECEIPT_OBJECT", seen);
        }
        Ok(())
    }

    fn object_outcome(&mut self, row: &JournalRow, what: &'static str, seen: Seen) {
        match seen {
            Seen::Same | Seen::Doubtful => {}
            Seen::Pending => self.report.pending_objects += 1,
            Seen::Missing => self.differ(row, what, "the object is missing"),
        }
    }

    fn differ(&mut self, row: &JournalRow, code: &'static str, detail: &str) {
        let location = segment_receipt_ref(self.paths, row.row_ref);
        self.report.differences.add(code, location, detail);
    }

    /// Objects unlike the row that was looked at: write-once keeps the first row of an id, so one of
    /// the other rows of the id must render to it.
    fn settle_doubts(&mut self, journal: &JournalReader) -> Result<(), StoreError> {
        if self.quarantines.doubtful.is_empty() && self.objects.doubtful.is_empty() {
            return Ok(());
        }
        for shard in journal.shards()? {
            journal.visit_rows(&RowSpan::shard(shard), &mut |row| {
                let id = row.receipt_id();
                if let JournalOutcome::Quarantine { record, .. } = &row.outcome {
                    self.quarantines.settle(&id, || Some(record_bytes(record)));
                }
                let rendered = || Some(receipt_bytes(&self.lookup.render(row).ok()?));
                self.objects.settle(&id, rendered);
                Ok(())
            })?;
        }
        for objects in [&self.quarantines, &self.objects] {
            for id in objects.doubtful.keys() {
                let location = format!("{}/{id}.json", objects.folder);
                let detail = "no row renders to this object";
                self.report
                    .differences
                    .add("OBJECT_DIFFERS", location, detail);
            }
        }
        Ok(())
    }
}

/// A quarantine record as its object holds it.
fn record_bytes(record: &[u8]) -> Vec<u8> {
    [record, b"\n"].concat()
}

/// The rule a field breaks that the row has of its own.
fn own_fields(row: &JournalRow) -> Option<&'static str> {
    let admitted = row.decision() != Decision::Quarantine;
    if row.event_id.is_empty() || row.ts_utc.is_empty() {
        return Some("event_id and ts_utc must not be empty");
    }
    if admitted && (row.dedupe_key == Hash32::default() || row.payload_hash == Hash32::default()) {
        return Some("dedupe_key and payload_hash must be known");
    }
    let published = row.decision() == Decision::Admit;
    (published && row.partition_key == Hash32::default()).then_some("partition_key must be known")
}

/// What was found of a row's object.
enum Seen {
    Same,
    /// Unlike this row; perhaps another row of the same id wrote it first.
    Doubtful,
    Pending,
    Missing,
}

/// The objects of one projection.
struct Objects {
    folder: String,
    cursor: ProjectionCursor,
    /// Ids whose object was not like a row that was looked at, with the object's digest.
    doubtful: BTreeMap<String, Hash32>,
}

impl Objects {
    fn open(
        paths: &RunPaths,
        store: &dyn ObjectStore,
        folder: &str,
        projection: &str,
    ) -> Result<Objects, StoreError> {
        Ok(Objects {
            folder: format!("{}/ig/{folder}", paths.store_prefix()),
            cursor: ProjectionCursor::of_run(store, paths, projection)?,
            doubtful: BTreeMap::new(),
        })
    }

    fn compare(
        &mut self,
        store: &dyn ObjectStore,
        row: &JournalRow,
        expected: &[u8],
    ) -> Result<Seen, StoreError> {
        let id = row.receipt_id();
        let key = format!("{}/{id}.json", self.folder);
        let Some(found) = store.get(&key)? else {
            let pending = row.row_ref >= self.cursor.next_row(row.row_ref.shard);
            return Ok(if pending {
                Seen::Pending
            } else {
                Seen::Missing
            });
        };
        if found == expected {
            return Ok(Seen::Same);
        }
        self.doubtful.insert(id, Hash32::of(&found));
        Ok(Seen::Doubtful)
    }

    fn settle(&mut self, id: &str, expected: impl FnOnce() -> Option<Vec<u8>>) {
        let Some(found) = self.doubtful.get(id) else {
            return;
        };
        if expected().is_some_and(|bytes| Hash32::of(&bytes) == *found) {
            self.doubtful.remove(id);
        }
    }
}
