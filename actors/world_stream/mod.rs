//! The World Streamer: reads READY, streams the outputs of a run, checkpoints what the gate took over.
//!
//! Data flows one way: a framing thread reads and frames batches into a short channel, the pump
//! releases each batch when it is due and hands it to the gate, answers come back in order, and only
//! the contiguous answered prefix is checkpointed.

pub mod batch;
pub mod checkpointer;
pub mod control_bus_reader;
pub mod framer;
pub mod gate_sender;
mod narrative;
pub mod output_stream;
pub mod pace;
pub mod progress;
pub mod pump;
pub mod ready_desk;
pub mod ready_run;
pub mod result;
pub mod run_orders;
pub mod run_streams;
pub mod runs_supervisor;

#[cfg(test)]
mod fake_world;
#[cfg(test)]
mod testing;
