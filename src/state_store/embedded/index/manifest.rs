//! The manifest of an index shard: which runs are valid and how much of each journal they hold.

use super::files::{damaged, read_file, replace_file};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ports::StoreError;

/// The manifest's file name in a shard's folder.
pub const FILE_NAME: &str = "MANIFEST.json";
const FORMAT: &str = "wellspring.index.manifest";
const VERSION: u32 = 1;

/// By admission shard: the last journal row whose keys are all in runs.
pub type Coverage = BTreeMap<u16, RowRef>;

/// What a shard's runs hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    version: u32,
    /// Index shards the keys were divided into.
    pub index_shards: u16,
    /// This shard.
    pub shard: u16,
    /// Run numbers, oldest first.
    pub runs: Vec<u64>,
    /// Number the next run gets.
    pub next_run: u64,
    /// Journal rows the runs hold, as a list of last rows.
    coverage: Vec<RowRef>,
}

/// Only the two fields every version has.
#[derive(Deserialize)]
struct AnyVersion {
    format: String,
    version: u32,
}

impl Manifest {
    /// The manifest of these runs.
    pub fn new(
        index_shards: u16,
        shard: u16,
        runs: Vec<u64>,
        next_run: u64,
        coverage: &Coverage,
    ) -> Manifest {
        Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            index_shards,
            shard,
            runs,
            next_run,
            coverage: coverage.values().copied().collect(),
        }
    }

    /// Journal rows the runs hold.
    pub fn coverage(&self) -> Coverage {
        self.coverage.iter().map(|row| (row.shard, *row)).collect()
    }

    /// Reads a shard's manifest; `None` when there is none.
    pub fn load(folder: &Path) -> Result<Option<Manifest>, StoreError> {
        let path = folder.join(FILE_NAME);
        let Some(bytes) = read_file(&path)? else {
            return Ok(None);
        };
        let refuse = |error: serde_json::Error| damaged(&path, 0, error.to_string());
        let any: AnyVersion = serde_json::from_slice(&bytes).map_err(refuse)?;
        if any.format != FORMAT {
            return Err(damaged(&path, 0, "not an index manifest"));
        }
        if any.version != VERSION {
            return Err(StoreError::UnknownVersion {
                key: path.display().to_string(),
                found: any.version,
                known: VERSION,
            });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(refuse)
    }

    /// Replaces the manifest; durable when this returns.
    pub fn save(&self, folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(FILE_NAME);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| damaged(&path, 0, error.to_string()))?;
        replace_file(&path, &bytes)
    }
}

/// The file of a run.
pub fn run_path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("run-{id:08}.wsx"))
}
