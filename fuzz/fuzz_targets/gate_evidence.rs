//! Feeds `targets::gate_evidence`.
#![no_main]

#[path = "../readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::targets::gate_evidence(bytes));
