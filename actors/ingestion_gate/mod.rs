//! Ingestion Gate actors: gate supervisor, admission shards, index shards, projectors.

pub mod admission_shard;
mod claiming;
mod flush_turns;
mod gate_children;
pub mod gate_supervisor;
#[cfg(test)]
mod gate_tests;
pub mod handle;
pub mod http_listener;
mod in_flight;
pub mod in_process_gate;
pub mod index_shard;
mod intake_memories;
pub mod messages;
pub mod projector;
pub mod running_gate;
pub mod sender_order;
mod settlement;
pub mod shard_generation;
pub mod shard_state;
pub mod summary;
mod turns;
pub mod writer_thread;
