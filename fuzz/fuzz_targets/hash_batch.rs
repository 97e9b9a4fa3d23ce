//! Feeds `targets::hash_batch`.
#![no_main]

#[path = "../readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::targets::hash_batch(bytes));
