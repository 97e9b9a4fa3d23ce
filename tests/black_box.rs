//! The promises of the whole program, kept by driving the built binary as a user, a client or a crash would.
//!
//! One binary, because each test binary links everything. `contracts` provokes every code and answer,
//! `pipeline` streams whole worlds and recomputes them, `crash` kills the daemon.

#![expect(
    clippy::disallowed_methods,
    reason = "a test that waits for another process waits in real time"
)]

mod contracts;
mod crash;
mod hostile_inputs;
mod pipeline;
mod support;
