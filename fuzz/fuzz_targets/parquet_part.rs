//! Feeds `targets::parquet_part`.
#![no_main]

#[path = "../readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::targets::parquet_part(bytes));
