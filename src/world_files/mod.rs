//! Parquet reading, stream-view sort, pack and seal files, world generator.

pub mod evidence_digest;
pub mod gate_verification;
pub mod generator;
pub mod parquet_reader;
pub mod staging;
