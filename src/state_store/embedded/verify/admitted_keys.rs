//! Every admitted key with its row, in a scratch index: proves that no event was admitted twice, in
//! bounded memory.

use super::report::Differences;
use crate::state_store::embedded::index::{self, IndexMemory, IndexMemoryCap};
use crate::state_store::embedded::journal_source::JournalSource;
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::receipt::segment_receipt_ref;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{AdmissionIndex, RunLayout, StoreError};
use wellspring_domain::run_paths::RunPaths;

/// Memory the scratch index may take; the rest goes to a temporary folder.
const MEMORY: IndexMemoryCap = IndexMemoryCap {
    bytes: 96 << 20,
    shards_max: 1,
};
/// Keys looked up at once.
const BATCH: usize = 1024;

/// Admitted keys of a run, made from its journals.
pub struct AdmittedKeys {
    shards: Vec<Box<dyn AdmissionIndex>>,
    // Removed after the index above has let go of its files.
    _scratch: tempfile::TempDir,
}

impl AdmittedKeys {
    /// Reads all ADMIT rows.
    pub fn gather(
        paths: &RunPaths,
        journal: &dyn JournalSource,
    ) -> Result<AdmittedKeys, StoreError> {
        let scratch = tempfile::tempdir().map_err(|error| StoreError::Unavailable {
            operation: "create scratch folder",
            key: std::env::temp_dir().display().to_string(),
            cause: error.to_string(),
        })?;
        let layout = RunLayout {
            admission_shards: 1,
            index_shards: 1,
        };
        let places = RunPaths::new(&scratch.path().to_string_lossy(), paths.run_id());
        Ok(AdmittedKeys {
            shards: index::open(&places, &layout, journal, &IndexMemory::of(MEMORY))?,
            _scratch: scratch,
        })
    }

    /// What is known of these keys, in order.
    pub fn look_up(
        &mut self,
        keys: &[Hash32],
        found: &mut Vec<Option<IndexEntry>>,
    ) -> Result<(), StoreError> {
        match self.shards.first_mut() {
            Some(shard) => shard.lookup(keys, found),
            None => Ok(()),
        }
    }

    /// Adds every ADMIT row whose key was admitted in another row too.
    pub fn find_double_admissions(
        &mut self,
        paths: &RunPaths,
        journal: &dyn JournalSource,
        differences: &mut Differences,
    ) -> Result<(), StoreError> {
        let (mut keys, mut rows) = (Vec::new(), Vec::new());
        for shard in journal.shards()? {
            let from = RowRef {
                shard,
                ..RowRef::default()
            };
            journal.visit_admitted(from, &mut |(row, key, _)| {
                keys.push(key);
                rows.push(row);
                if keys.len() == BATCH {
                    self.compare(paths, &mut keys, &mut rows, differences)?;
                }
                Ok(())
            })?;
        }
        self.compare(paths, &mut keys, &mut rows, differences)
    }

    fn compare(
        &mut self,
        paths: &RunPaths,
        keys: &mut Vec<Hash32>,
        rows: &mut Vec<RowRef>,
        differences: &mut Differences,
    ) -> Result<(), StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        self.look_up(keys, &mut found)?;
        for ((key, row), entry) in keys.drain(..).zip(rows.drain(..)).zip(found) {
            let other = entry.map(|entry| entry.row).filter(|other| *other != row);
            if let Some(other) = other {
                let detail = format!(
                    "{key} was also admitted in {}",
                    segment_receipt_ref(paths, other)
                );
                differences.add("ADMITTED_TWICE", segment_receipt_ref(paths, row), detail);
            }
        }
        Ok(())
    }
}
