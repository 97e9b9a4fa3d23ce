//! Embedded state: admission index, receipts, checkpoints, authority.

pub mod authority;
