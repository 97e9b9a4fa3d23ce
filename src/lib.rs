//! Wellspring: a sealed world becomes an exactly-once stream.
//!
//! This package is the program and the real world it touches: command line, HTTP, settings, files.
//! The rules live in `wellspring_domain`, the actors in `wellspring_actors`.

// Adapters are where clocks and randomness live; rules and actors get them through ports.
#![allow(clippy::disallowed_methods)]

pub mod active_run;
pub mod blocking_runtime;
pub mod bootstrap;
pub mod checksum;
pub mod cli;
pub mod clock;
pub mod control_bus;
pub mod daemon;
pub mod demo;
pub mod event_bus;
pub mod failpoints;
pub mod gate;
pub mod governance_store;
pub mod http;
pub mod http_client;
pub mod load;
pub mod long_digest;
pub mod machine;
pub mod object_store;
pub mod process;
pub mod scenario_runner;
pub mod session_ledger;
pub mod settings;
pub mod state_store;
pub mod telemetry;
pub mod world_files;
pub mod world_source;
pub mod world_streamer;

/// Which build this is: shown by `--version` and by the health route.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
