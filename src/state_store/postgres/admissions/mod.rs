//! The admission ledger: who claimed a dedupe key, where the admitted record lies, what else was decided
//! (contract 7.9, design 3.7).
//!
//! A flush goes CLAIMED (its keys are ours, nothing is on the bus that counts) -> MARKED (admitted with
//! their places, all decisions stored) -> STORED (its receipt segment is an object). A flush whose writer
//! died before the mark is settled by anyone: what is on the bus is admitted there, the other claims are
//! given up. A flush that claims nothing has no row before its mark. All of it is fenced: a writer that was fenced claims and marks nothing any more.
//!
//! Statements that take many keys take them sorted, so that no two of them wait for each other in turn.

mod bus_order;
mod claim;
mod contexts;
mod flush_row;
mod flushes;
mod lookups;
mod mark;
mod rows;
mod settle;
mod types;
mod writers;

pub use types::*;

use std::sync::Arc;

use super::database::Database;
use contexts::ContextIds;

/// Rows one statement takes at most.
const CHUNK_ROWS: usize = 2_000;

/// The ledger of all runs in one database. Clones share connections and caches.
#[derive(Clone)]
pub struct AdmissionLedger {
    database: Database,
    contexts: Arc<ContextIds>,
}

impl AdmissionLedger {
    /// The ledger in `database`.
    pub fn new(database: Database) -> AdmissionLedger {
        AdmissionLedger {
            database,
            contexts: Arc::default(),
        }
    }

    /// The database behind it.
    pub fn database(&self) -> &Database {
        &self.database
    }
}
