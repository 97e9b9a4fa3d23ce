//! Embedded state: admission index, receipts, checkpoints, authority.
