//! The Ingestion Gate's rules: class map, schema policy, validation, dedupe, partitioning, receipts.

pub mod anomaly;
pub mod auth;
pub mod bus_failures;
pub mod bus_line;
pub mod bus_offset;
pub mod claims;
pub mod decision;
mod decision_loop_guard;
pub mod envelope;
pub mod flush_builder;
pub mod gate_summary;
pub mod health;
pub mod index_format;
pub mod intake;
mod item_hashes;
pub mod journal_row;
pub mod judged;
pub mod payload_schema;
mod payload_schema_compiler;
pub mod policy;
pub mod quarantine;
pub mod quarantine_spike;
pub mod receipt;
pub mod receipt_check;
pub mod routing;
