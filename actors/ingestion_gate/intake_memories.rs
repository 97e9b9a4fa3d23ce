//! What judging has learnt, kept between batches.
//!
//! Batches of one sender are judged on whichever thread has time, several at once, so there are as many memories
//! as batches are judged at a time.

use std::sync::{Mutex, PoisonError};
use wellspring_domain::admission::intake::IntakeMemory;

/// Most memories kept; each holds an envelope and room for some hashes.
const KEPT_MAX: usize = 16;

/// Memories nobody uses now. The lock is held for one push or pop per batch.
#[derive(Default)]
pub struct IntakeMemories(Mutex<Vec<IntakeMemory>>);

impl IntakeMemories {
    /// The memory used last, or a new one.
    pub fn take(&self) -> IntakeMemory {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    /// Gives a memory back.
    pub fn give_back(&self, memory: IntakeMemory) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < KEPT_MAX {
            spare.push(memory);
        }
    }
}
