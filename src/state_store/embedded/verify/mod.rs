//! Verifiers: the bus against the journals, the receipts against the contract, the projections against
//! what they are made from. All read in streams; memory does not grow with the run.

mod admitted_keys;
mod bus;
mod fingerprint;
mod lines;
mod receipts;
mod report;
#[cfg(test)]
mod tests;

pub use bus::verify_bus;
pub use fingerprint::{
    DigestSum, KEYS_MAX, KeyChains, TopicFingerprint, fingerprint_bus, fingerprint_files,
    record_digest,
};
pub use receipts::verify_receipts;
pub use report::{BusReport, Difference, Differences, PartitionReport, ReceiptsReport};
