//! Parquet reading, stream-view sort, pack and seal files, world generator.

pub mod contract_files;
pub mod evidence_digest;
pub mod facts_check;
pub mod gate_verification;
pub mod generator;
pub mod pack_files;
pub mod parquet_reader;
pub mod part_location;
pub mod staging;
pub mod world_check;
pub mod world_root;
pub mod world_sync;

#[cfg(test)]
mod shipped_config_tests;
pub mod stream_sort;
#[cfg(test)]
pub(crate) mod test_world;
