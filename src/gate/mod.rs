//! Putting a gate together from settings: policy files, proofs, health, durable state, HTTP.

pub mod assembly;
mod backends;
pub mod facts_proofs;
pub mod health_probe;
pub mod lookups;
pub mod managed;
pub mod policy_activation;
pub mod policy_files;
pub mod projections;
