//! The managed gate: claims in PostgreSQL, events on Kinesis, receipts in the object store.

pub mod assembly;
pub mod decision_log;
pub mod ledger_journal;
pub mod read_bus;
pub mod receipt_segment;
pub mod receipts;
pub mod reconcile;
pub mod store;
pub mod substrate;
pub mod verify_bus;
pub mod verify_receipts;
pub mod writer_leases;
