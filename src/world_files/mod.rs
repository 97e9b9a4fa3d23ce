//! Parquet reading, stream-view sort, pack and seal files, world generator.

pub mod parquet_reader;
