//! Who acts: the supervised actors of Wellspring and the runtime they share.

pub mod ingestion_gate;
pub mod runtime;
pub mod scenario_runner;
pub mod supervision_tree;
pub mod telemetry;
pub mod world_stream;
