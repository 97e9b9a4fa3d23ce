//! Embedded state: admission index, receipts, checkpoints, authority.

pub mod authority;
#[cfg(test)]
mod authority_tests;
pub mod checkpoints;
pub mod export_sqlite;
pub mod index;
pub mod journal_source;
pub mod projections;
pub mod prune;
pub mod rebuild;
pub mod receipts;
#[cfg(test)]
pub(crate) mod test_run;
pub mod verify;
