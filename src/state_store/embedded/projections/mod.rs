//! Projections of the decision journal into objects: quarantine records, receipt objects.
//!
//! A projection reads rows in order, writes what they stand for write-once, and then moves its own
//! durable cursor (`ig/projections/<name>.json`). A crash in between repeats a little work with the
//! same result. It never holds an answer back: the journal already is the truth.

mod cursor;
mod quarantine_records;
mod receipt_objects;
#[cfg(test)]
mod tests;

pub use cursor::ProjectionCursor;
pub use quarantine_records::QuarantineRecords;
pub use receipt_objects::ReceiptObjects;

use crate::event_bus::embedded_log::{JournalFrames, JournalReader};
use crate::state_store::embedded::journal_source::JournalSource;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use wellspring_actors::ingestion_gate::projector::Projection;
use wellspring_domain::admission::decision::{Decision, RowRef};
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// Rows read after which the cursor is saved in between. Reading so many again takes some hundredths of a second.
const SAVE_EVERY: u64 = 100_000;
/// An object written counts as so many rows read.
const OBJECT_ROWS: u64 = 100;
/// Runs whose open files are kept; beyond that all are closed and opened again when needed.
const RUNS_KEPT: usize = 16;

/// What a projection does with one row.
pub trait RowWriter: Send + Sync {
    /// Name of the projection and of its cursor.
    fn name(&self) -> &'static str;

    /// Decisions it wants to see.
    fn decisions(&self) -> &'static [Decision];

    /// Writes what the row stands for. Doing it again changes nothing.
    fn write(&self, target: &ProjectionTarget<'_>, row: &JournalRow) -> Result<(), StoreError>;
}

/// Where a row is projected to.
pub struct ProjectionTarget<'a> {
    /// The run.
    pub paths: &'a RunPaths,
    /// Store rooted at the runs root.
    pub store: &'a Arc<dyn ObjectStore>,
    /// The run's journal, for rows that refer to others.
    pub journal: &'a dyn JournalSource,
}

/// Keeps one projection of every run up to date.
pub struct JournalProjection<W> {
    store: Arc<dyn ObjectStore>,
    runs_root: String,
    writer: W,
    open: Mutex<BTreeMap<PlatformRunId, OpenProjection>>,
}

/// A run that is being followed: its files stay open and read on where they stopped.
struct OpenProjection {
    journal: JournalReader,
    cursor: ProjectionCursor,
    frames: BTreeMap<u16, JournalFrames>,
}

impl<W: RowWriter> JournalProjection<W> {
    /// A projection of runs below `runs_root`; `store` is rooted there too.
    pub fn new(store: Arc<dyn ObjectStore>, runs_root: &str, writer: W) -> JournalProjection<W> {
        JournalProjection {
            store,
            runs_root: runs_root.to_owned(),
            writer,
            open: Mutex::default(),
        }
    }

    /// Closes what is open of a run; the next call starts from the saved cursor.
    pub fn forget(&self, run: &PlatformRunId) {
        let mut runs = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        runs.remove(run);
    }

    fn open_run(&self, paths: &RunPaths) -> Result<OpenProjection, StoreError> {
        let journal = JournalReader::new(paths);
        let key = cursor::key(paths, self.writer.name());
        let mut cursor = ProjectionCursor::load(&*self.store, &key)?;
        for shard in journal.shards()? {
            cursor.clamp(journal.end(shard)?);
        }
        Ok(OpenProjection {
            journal,
            cursor,
            frames: BTreeMap::new(),
        })
    }

    fn follow(&self, paths: &RunPaths, open: &mut OpenProjection) -> Result<u64, StoreError> {
        let key = cursor::key(paths, self.writer.name());
        let (mut rows, mut unsaved) = (0, 0);
        for shard in open.journal.shards()? {
            let from = open.cursor.next_row(shard);
            let frames = match open.frames.entry(shard) {
                std::collections::btree_map::Entry::Occupied(frames) => frames.into_mut(),
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(open.journal.frames_from(from)?)
                }
            };
            let target = ProjectionTarget {
                paths,
                store: &self.store,
                journal: &open.journal,
            };
            while let Some(frame) = frames.next().transpose()? {
                for row in frame.rows() {
                    let at = row.row_ref();
                    if at >= from && self.writer.decisions().contains(&row.decision()) {
                        self.writer.write(&target, &row.to_row()?)?;
                        unsaved += OBJECT_ROWS;
                    }
                    rows += u64::from(at >= from);
                }
                let last = frame.first_row();
                open.cursor.advance(RowRef {
                    row: last.row + frame.row_count(),
                    ..last
                });
                unsaved += u64::from(frame.row_count());
                if unsaved >= SAVE_EVERY {
                    open.cursor.save(&*self.store, &key)?;
                    unsaved = 0;
                }
            }
        }
        if unsaved > 0 {
            open.cursor.save(&*self.store, &key)?;
        }
        Ok(rows)
    }
}

impl<W: RowWriter> Projection for JournalProjection<W> {
    fn catch_up(&self, run: &PlatformRunId) -> Result<u64, StoreError> {
        let paths = RunPaths::new(&self.runs_root, run);
        let mut runs = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match runs.remove(run) {
            Some(open) => open,
            None => self.open_run(&paths)?,
        };
        // A run that failed is opened anew by the next call, from the saved cursor.
        let rows = self.follow(&paths, &mut open)?;
        if runs.len() >= RUNS_KEPT {
            runs.clear();
        }
        runs.insert(run.clone(), open);
        Ok(rows)
    }
}
