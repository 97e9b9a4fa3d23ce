//! The rules of Wellspring as pure, synchronous code: no clock, no I/O, no randomness.
//!
//! Everything a hash, a file or an answer depends on is decided here, so it can be tested with plain
//! values. Actors move data between these rules; adapters connect them to files and networks.

pub mod admission;
pub mod canonical_json;
pub mod event_bus;
pub mod governance;
pub mod ids;
pub mod json_scan;
pub mod json_tree;
pub mod lent_buffers;
pub mod ports;
pub mod prefetch;
pub mod provenance;
pub mod reason_codes;
pub mod run_paths;
pub mod scenario;
pub mod sha256;
pub mod stream;
pub mod time_text;
pub mod world;

#[cfg(test)]
mod properties_tests;
