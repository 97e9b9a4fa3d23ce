//! The World Streamer's surroundings: settings, world, ledgers and control bus behind its ports
//! (contract 6).

pub mod claims;
pub mod coordination;
pub mod fenced_store;
pub mod gate_proofs;
pub mod pack_probe;
pub mod preflight_inputs;
pub mod processes;
pub mod ready_claims;
pub mod ready_desk;
pub mod ready_records;
pub mod ready_story;
pub mod run_lease;
pub mod service;
pub mod setup;

#[cfg(test)]
mod ready_desk_tests;

pub use ready_desk::FileReadyDesk;
pub use service::{ConsumeUntil, ControlSide, ReadyConsumer};
pub use setup::{PreparedStream, StreamOptions, StreamTarget, WorldStreamer};
