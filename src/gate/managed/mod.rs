//! The managed gate: claims in PostgreSQL, events on Kinesis, receipts in the object store.

pub mod receipt_segment;
