//! How the memory of the index is divided.

use super::resident_pool::ResidentPool;
use super::table_pool::TablePool;
use std::sync::Arc;

/// The most memory the index may take, over all shards of all runs that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexMemoryCap {
    /// Bytes (`wiring.gate.index_memory_bytes_max`).
    pub bytes: usize,
    /// Most index shards that are open at once, over all runs.
    pub shards_max: usize,
}

/// The memory of the index, shared by all runs that are open.
#[derive(Clone, Debug)]
pub struct IndexMemory {
    /// For tables of recent keys, and buffers: three quarters.
    pub tables: Arc<TablePool>,
    /// For what lookups need of written keys: a quarter.
    pub resident: Arc<ResidentPool>,
}

impl IndexMemory {
    /// Memory within a cap.
    pub fn of(cap: IndexMemoryCap) -> IndexMemory {
        let resident = cap.bytes / 4;
        IndexMemory {
            tables: TablePool::of(cap.bytes - resident, cap.shards_max),
            resident: ResidentPool::of(resident),
        }
    }
}
