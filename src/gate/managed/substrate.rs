//! What every part of the managed gate works with.

use crate::event_bus::kinesis::{Producer, Scan, StreamNames};
use crate::state_store::embedded::projections::{
    ProjectionTarget, QuarantineRecords, ReceiptObjects, RowWriter,
};
use crate::state_store::postgres::admissions::AdmissionLedger;
use std::sync::Arc;
use std::time::Duration;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::admission::receipt::{ReceiptsLayout, segment_object};
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

use super::ledger_journal::LedgerJournal;

/// Objects written beside each other when a flush holds quarantines or receipts are objects.
const OBJECT_WRITERS: usize = 16;

/// Claims in PostgreSQL, events on Kinesis, receipts as objects. Clones share all of it.
#[derive(Clone)]
pub struct Substrate {
    /// Claims and decisions.
    pub ledger: AdmissionLedger,
    /// Puts records.
    pub producer: Arc<Producer>,
    /// Reads streams.
    pub scan: Scan,
    /// Which stream a topic is on.
    pub streams: StreamNames,
    /// Objects below the runs root.
    pub objects: Arc<dyn ObjectStore>,
    /// The runs root.
    pub runs_root: String,
    /// Where receipts are kept.
    pub layout: ReceiptsLayout,
    /// Topics the policy publishes to.
    pub topics: Vec<String>,
    /// This node, as other nodes see it.
    pub node: String,
    /// How long a writer lives without a sign of life.
    pub lease: Duration,
    /// How long a commit tries to reach a backend that is away.
    pub patience: Duration,
}

impl Substrate {
    /// Paths of a run.
    pub fn paths(&self, run: &PlatformRunId) -> RunPaths {
        RunPaths::new(&self.runs_root, run)
    }

    /// The streams of all topics, each once.
    pub fn stream_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .topics
            .iter()
            .map(|topic| self.streams.stream_of(topic))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Writes the objects decisions stand for, write-once: quarantine records always, receipts when the
    /// layout says so. Done before the segment that refers to them.
    pub fn write_objects(
        &self,
        run: &PlatformRunId,
        rows: &[JournalRow],
    ) -> Result<(), StoreError> {
        let layout = self.layout;
        self.write_rows(run, rows, &QuarantineRecords { layout })?;
        match layout {
            ReceiptsLayout::Segments => Ok(()),
            ReceiptsLayout::Objects => self.write_rows(run, rows, &ReceiptObjects),
        }
    }

    fn write_rows(
        &self,
        run: &PlatformRunId,
        rows: &[JournalRow],
        writer: &dyn RowWriter,
    ) -> Result<(), StoreError> {
        let wanted: Vec<&JournalRow> = rows
            .iter()
            .filter(|row| writer.decisions().contains(&row.decision()))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let paths = self.paths(run);
        let journal = LedgerJournal::new(self.ledger.clone(), run.clone());
        let target = ProjectionTarget {
            paths: &paths,
            store: &self.objects,
            journal: &journal,
        };
        let share = wanted.len().div_ceil(OBJECT_WRITERS);
        std::thread::scope(|scope| {
            let writes: Vec<_> = wanted
                .chunks(share)
                .map(|part| {
                    scope.spawn(|| part.iter().try_for_each(|row| writer.write(&target, row)))
                })
                .collect();
            writes.into_iter().try_for_each(|write| {
                write
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    /// Writes a flush's receipt segment. One that is there already has the same rows: its number belongs
    /// to one flush, and whoever writes it renders the same decisions.
    pub fn write_segment(
        &self,
        run: &PlatformRunId,
        rows: &[JournalRow],
    ) -> Result<(), StoreError> {
        let Some(first) = rows.first() else {
            return Ok(());
        };
        let paths = self.paths(run);
        let key = segment_object(&paths.store_prefix(), first.row_ref);
        let bytes = super::receipt_segment::encode(rows)?;
        self.objects.put_if_absent(&key, &bytes).map(|_| ())
    }
}
