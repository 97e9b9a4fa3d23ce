//! Putting a gate together from settings: policy files, proofs, health, durable state.

pub mod facts_proofs;
pub mod health_probe;
pub mod policy_activation;
pub mod policy_files;
