//! The Scenario Runner: proves a sealed world, commits READY, and says it once (contract 5).
//!
//! The rules are in `wellspring_domain::scenario`; here they meet the store, the control bus, the
//! leases and the engine. Every step may be cut off and done again: documents are write-once, facts
//! are stored by content, states never move backwards, and READY is published from its stored file.

mod commit;
mod config;
mod endings;
mod engine_invocation;
mod error;
mod evidence;
mod lease;
mod ledger;
mod observation;
mod planning;
mod proving;
mod reemit;
mod runner;
mod setup;

pub use config::{
    AuthorityError, ScenarioPorts, ScenarioRunnerConfig, ScenarioRunnerSetup, WorldOpener,
    world_opener,
};
pub use error::RunError;
pub use ledger::{LedgerKeys, list_quarantined, read_quarantine, read_status};
pub use runner::ScenarioRunner;
pub use setup::{SetupError, SetupFiles};

#[cfg(test)]
mod tests;
