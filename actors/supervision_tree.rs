//! The whole supervision tree on one screen, as `GET /v1/ops/tree` and `wellspring ps` show it.
//!
//! ```text
//! process                            src/daemon: starts the parts, stops them source first
//! ├─ gate                            gate_supervisor     opens runs; what it cannot mend ends the process
//! │  ├─ admission shard 0..n         admission_shard     pipeline: restarts with backoff, recovers its journal
//! │  │  └─ decide                    stage               + its writer thread, joined before the next generation
//! │  ├─ index shard 0..m             index_shard         its end ends the gate: the next start rebuilds
//! │  ├─ projector NAME               projector           retried every tick, never holds an answer back
//! │  └─ reporter                     gate_reporter       its end ends the gate; durable: nothing
//! ├─ http listener                   http_listener       supervised by the gate: ends with it, ends it
//! ├─ scenario runner                 scenario_runner     one run at a time; a panic is an answer
//! ├─ control bus reader              reader              keeps a READY until its run has ended
//! ├─ runs                            supervisor          keeps no queue: no room means the message stays
//! │  └─ ready run N ID               run                 its end is written down, whatever it is
//! │     └─ output OUTPUT_ID          pipeline            restarts alone from its checkpoint, gives up alone
//! │        └─ stream                 stage               + its framing thread
//! └─ telemetry exporter              telemetry_exporter  its failure changes nothing but metrics
//! ```
//!
//! `gate serve` has no scenario runner, reader and runs; `stream ready` has only reader and runs.
//! A pipeline is a supervisor of generations ([`crate::runtime::generation`]): stages that work together start
//! and end together, and the next generation starts from the last durable state.

/// Every kind of node the tree shows, with the parent kinds it may have; none for the roots.
pub const NODE_KINDS: [(&str, &[&str]); 13] = [
    ("gate_supervisor", &[]),
    ("admission_shard", &["gate_supervisor"]),
    ("index_shard", &["gate_supervisor"]),
    ("projector", &["gate_supervisor"]),
    ("gate_reporter", &["gate_supervisor"]),
    ("http_listener", &[]),
    ("scenario_runner", &[]),
    ("reader", &[]),
    ("supervisor", &[]),
    ("run", &["supervisor"]),
    ("pipeline", &["run"]),
    ("stage", &["admission_shard", "pipeline"]),
    ("telemetry_exporter", &[]),
];
