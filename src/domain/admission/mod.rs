//! The Ingestion Gate's rules: class map, schema policy, validation, dedupe, partitioning, receipts.

pub mod decision;
pub mod payload_schema;
