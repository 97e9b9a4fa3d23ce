//! Receipts read from the decision journal: by id, by event, by key; exported as tables.

mod lookup;
mod sidecar;
#[cfg(test)]
mod tests;

pub use lookup::{LookupError, ReceiptAnswer, ReceiptLookup};
pub use sidecar::{lookup_folder, make_sidecars};
