//! State store adapters: admission index, checkpoints, leases.
pub mod embedded;
pub mod postgres;
