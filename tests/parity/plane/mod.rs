//! The whole plane on shared backends, driven as a user drives it: worlds in S3, READY and events on Kinesis,
//! claims and checkpoints in PostgreSQL; and what ends, freezes or slows down while it runs.
//!
//! Every test has a runs root, streams and a database of its own ([`site::Site`]) and is proven twice: by the
//! program's own verification, and by a look at tables and streams that shares no code with the gate ([`truth`]).

#[expect(
    dead_code,
    reason = "shared with the black-box tests, which use all of it"
)]
#[path = "../../support/daemon.rs"]
mod daemon;
mod failpoints;
mod faulty_kinesis;
#[expect(
    dead_code,
    reason = "shared with the black-box tests, which use all of it"
)]
#[path = "../../support/finished.rs"]
mod finished;
#[expect(
    dead_code,
    reason = "shared with the black-box tests, which use all of it"
)]
#[path = "../../support/gate_client.rs"]
mod gate_client;
mod gate_http;
mod kills;
mod progress;
#[path = "../../support/push_cases.rs"]
mod push_cases;
mod ready;
mod servers;
mod site;
mod slow_store;
mod truth;
mod two_nodes;
mod whole_run;
mod world;

use site::Site;
