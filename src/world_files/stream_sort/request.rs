//! What to sort, and within which bounds.

use std::path::PathBuf;
use std::time::Duration;

use crate::object_store::ObjectStores;
use wellspring_domain::world::catalogue::{CatalogueError, OutputEntry};
use wellspring_domain::world::stream_view::{self, GRANULARITY_FLAT, SortKeyOverrides};
use wellspring_domain::world::world_key::{RunReceipt, WorldKey};

/// Memory limit when nobody names one: 1 GiB.
pub const MEMORY_LIMIT_DEFAULT: u64 = 1 << 30;

/// One output to sort.
#[derive(Debug, Clone)]
pub struct SortRequest {
    /// Engine run root exactly as resolved (contract 3.1); it is part of the view's identity.
    pub engine_run_root: String,
    /// `run_id` of the engine's run receipt.
    pub engine_run_id: String,
    /// Identity of the world; its scenario is the view's scenario.
    pub world_key: WorldKey,
    /// The output.
    pub output_id: String,
    /// Rendered path of its parts under the root, with its glob.
    pub source_pattern: String,
    /// Base of all views; `<engine_run_root>/stream_view/ts_utc` when none.
    pub stream_view_base: Option<String>,
    /// `flat`, or its other spelling `none`.
    pub partition_granularity: String,
    /// Operator's replacements for the sort keys.
    pub key_overrides: SortKeyOverrides,
    /// Bound for the rows in memory, in bytes.
    pub memory_limit: u64,
    /// Days per part; 0 writes a single part.
    pub chunk_days: u32,
    /// Reading threads; 0 means one per processor.
    pub threads: usize,
    /// Opens the world and the views.
    pub stores: ObjectStores,
    /// Where spill files live, always on this machine; the staging folder when none, or the system's
    /// folder for temporary files when the view goes into a bucket.
    pub temp_dir: Option<PathBuf>,
    /// How often the written parts are read back before giving up.
    pub stats_attempts: u32,
    /// Wait before attempt n+1: n times this.
    pub stats_retry_delay: Duration,
}

impl SortRequest {
    /// A request with the contract's defaults.
    pub fn new(
        engine_run_root: impl Into<String>,
        engine_run_id: impl Into<String>,
        world_key: WorldKey,
        output_id: impl Into<String>,
        source_pattern: impl Into<String>,
    ) -> Self {
        Self {
            engine_run_root: engine_run_root.into(),
            engine_run_id: engine_run_id.into(),
            world_key,
            output_id: output_id.into(),
            source_pattern: source_pattern.into(),
            stream_view_base: None,
            partition_granularity: GRANULARITY_FLAT.to_owned(),
            key_overrides: SortKeyOverrides::default(),
            memory_limit: MEMORY_LIMIT_DEFAULT,
            chunk_days: 0,
            threads: 0,
            stores: ObjectStores::folders(),
            temp_dir: None,
            stats_attempts: 3,
            stats_retry_delay: Duration::from_secs(2),
        }
    }

    /// The request for one output of the catalogue, with the contract's defaults.
    pub fn for_output(
        engine_run_root: &str,
        receipt: &RunReceipt,
        scenario_id: &str,
        entry: &OutputEntry,
    ) -> Result<Self, CatalogueError> {
        let pattern = entry.render_path(&receipt.tokens(scenario_id))?;
        let (run_id, world_key) = (&receipt.run_id, receipt.world_key(scenario_id));
        Ok(Self::new(
            engine_run_root,
            run_id,
            world_key,
            &entry.output_id,
            pattern,
        ))
    }

    /// Base of all views (contract 3.7).
    pub fn view_base(&self) -> String {
        match &self.stream_view_base {
            Some(base) => base.clone(),
            None => stream_view::default_base(&self.engine_run_root),
        }
    }

    /// Folder of the view (contract 3.7).
    pub fn view_dir(&self) -> String {
        stream_view::view_dir(&self.view_base(), &self.output_id)
    }

    /// Bytes of a row group in a bucket that one thread may fetch at once; decoding has its share of the
    /// memory limit.
    pub(super) fn group_bytes_max(&self) -> u64 {
        let threads = self.thread_count().max(1) as u64;
        (self.memory_limit / 10 / threads).min(64 << 20)
    }

    pub(super) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}
