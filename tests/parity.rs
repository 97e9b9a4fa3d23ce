//! Promises of the managed substrate, kept against real servers: S3, Kinesis and PostgreSQL.
//!
//! `make parity-test` starts the servers by `infra/parity/up` and runs this binary; `make test` goes through
//! it. The binary is left out of a plain `cargo test`, which needs nothing installed. A test that does not
//! find its server fails and says how to start it: nothing here is skipped.

#![expect(
    clippy::disallowed_methods,
    reason = "a test that waits for another process waits in real time"
)]

#[path = "parity/bootstrap.rs"]
mod bootstrap;
#[path = "parity/compose.rs"]
mod compose;
#[path = "fault_proxy/mod.rs"]
mod fault_proxy;
#[path = "parity/kinesis.rs"]
mod kinesis;
#[path = "parity/kinesis_control_bus.rs"]
mod kinesis_control_bus;
#[path = "parity/kinesis_faults.rs"]
mod kinesis_faults;
#[path = "parity/kinesis_producer.rs"]
mod kinesis_producer;
#[path = "parity/kinesis_reader.rs"]
mod kinesis_reader;
#[path = "parity/memory_positions.rs"]
mod memory_positions;
#[path = "parity/plane/mod.rs"]
mod plane;
#[path = "parity/postgres/mod.rs"]
mod postgres;
#[path = "parity/s3/mod.rs"]
mod s3;
#[path = "parity/servers.rs"]
mod servers;
#[path = "parity/support.rs"]
mod support;
