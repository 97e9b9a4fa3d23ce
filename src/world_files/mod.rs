//! Parquet reading, stream-view sort, pack and seal files, world generator.

pub mod contract_files;
pub mod evidence_digest;
pub mod gate_verification;
pub mod generator;
pub mod pack_files;
pub mod parquet_reader;
pub mod staging;
