//! The state store of the managed substrate: admission, leases, checkpoints, nodes and control positions
//! in PostgreSQL (contract 5.3, 6.7, 7.9).
//!
//! Everything goes through one [`Database`]: a bounded pool, the schema brought up to date, one place
//! where errors become stable codes. Calls block and may come from any thread but an actor's handler.

pub mod admissions;
pub mod authority;
pub mod checkpoints;
pub mod control_positions;
mod database;
mod dsn;
mod faults;
pub mod leases;
mod migrations;
pub mod nodes;
mod tls;
mod values;

pub use database::{Database, DatabaseSettings};
