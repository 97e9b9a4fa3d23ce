//! The targets of the bounded tests, shared by every fuzzer; each uses one of them.
#![allow(dead_code, reason = "each fuzzer uses one target")]

#[path = "../tests/hostile_inputs/slow_json.rs"]
pub mod slow_json;
#[path = "../tests/hostile_inputs/targets.rs"]
pub mod targets;
