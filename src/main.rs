//! The `wellspring` program.
fn main() {}
