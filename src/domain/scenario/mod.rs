//! The Scenario Runner's rules: request, plan, evidence, state machine, facts view, READY.
//!
//! The Scenario Runner is the only readiness authority (contract 5): it proves a sealed world and says
//! so once, in a READY message that points at a facts view. It never streams.

pub mod control;
pub mod document;
pub mod engine;
pub mod evidence;
pub mod facts_view;
pub mod instance_proof;
pub mod plan;
pub mod proof;
pub mod ready;
pub mod reemit;
pub mod request;
pub mod run_record;
pub mod settings;
pub mod state_machine;
