//! How far a projection has come: the next row of each shard's journal.

use crate::failpoints::{Artefact, Operation, Step, around};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::run_paths::RunPaths;

const FORMAT: &str = "wellspring.projection.cursor";
const VERSION: u32 = 1;

/// The next row to project, by admission shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectionCursor {
    next: BTreeMap<u16, RowRef>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    version: u32,
    next: Vec<RowRef>,
}

/// The key of a projection's cursor.
pub fn key(paths: &RunPaths, name: &str) -> String {
    format!("{}/ig/projections/{name}.json", paths.store_prefix())
}

impl ProjectionCursor {
    /// The cursor of a run's projection.
    pub fn of_run(
        store: &dyn ObjectStore,
        paths: &RunPaths,
        name: &str,
    ) -> Result<ProjectionCursor, StoreError> {
        ProjectionCursor::load(store, &key(paths, name))
    }

    /// Reads a cursor; a missing or damaged one stands at the start, which only repeats work.
    pub fn load(store: &dyn ObjectStore, key: &str) -> Result<ProjectionCursor, StoreError> {
        let Some(bytes) = store.get(key)? else {
            return Ok(ProjectionCursor::default());
        };
        match serde_json::from_slice::<Stored>(&bytes) {
            Ok(stored) if stored.format == FORMAT && stored.version != VERSION => {
                Err(StoreError::UnknownVersion {
                    key: key.to_owned(),
                    found: stored.version,
                    known: VERSION,
                })
            }
            Ok(stored) if stored.format == FORMAT => Ok(ProjectionCursor {
                next: stored.next.iter().map(|row| (row.shard, *row)).collect(),
            }),
            _damaged => {
                tracing::warn!(
                    key,
                    "projection cursor cannot be read, the projection starts over"
                );
                Ok(ProjectionCursor::default())
            }
        }
    }

    /// Saves the cursor.
    pub fn save(&self, store: &dyn ObjectStore, key: &str) -> Result<(), StoreError> {
        let stored = Stored {
            format: FORMAT.to_owned(),
            version: VERSION,
            next: self.next.values().copied().collect(),
        };
        let bytes = serde_json::to_vec(&stored).map_err(|error| StoreError::Damaged {
            key: key.to_owned(),
            offset: 0,
            cause: error.to_string(),
        })?;
        let step = Step(Artefact::ProjectionCursor, Operation::Put);
        around(step, || store.put(key, &bytes))
    }

    /// The next row of a shard.
    pub fn next_row(&self, shard: u16) -> RowRef {
        let start = RowRef {
            shard,
            ..RowRef::default()
        };
        self.next.get(&shard).copied().unwrap_or(start)
    }

    /// Moves to `next`.
    pub fn advance(&mut self, next: RowRef) {
        self.next.insert(next.shard, next);
    }

    /// Steps back to the end of a journal that is shorter than the cursor: rows that were seen before
    /// their frame was durable and then lost will be decided again.
    pub fn clamp(&mut self, end: RowRef) {
        if self.next_row(end.shard) > end {
            self.next.insert(end.shard, end);
        }
    }
}
