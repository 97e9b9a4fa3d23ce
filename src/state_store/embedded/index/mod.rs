//! The embedded admission index: every admitted dedupe key of a run, its payload hash and its row.
//!
//! Per index shard: a memory table for recent keys, and immutable sorted runs on disk, merged in the
//! background. All of it is a projection of the decision journal: a manifest says up to which journal
//! row the runs hold everything, and opening inserts only what lies behind that row. What cannot be
//! trusted (a damaged file, another number of shards, rows the journal does not have) is dropped and
//! made again from the journal; a file of an unknown version is refused by name.

mod background;
mod files;
mod index_memory;
mod lookup;
mod manifest;
mod memory;
mod merge;
mod recovery;
mod resident_pool;
mod rests;
mod run_file;
mod run_writer;
mod shard;
mod shared;
mod shared_filter;
mod slot_store;
mod table_pool;
#[cfg(test)]
mod tests;

pub use index_memory::{IndexMemory, IndexMemoryCap};
pub use recovery::{digest, index_folder, open};
