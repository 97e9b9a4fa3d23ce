//! Runs the independent recomputation script over a run.

use std::process::Command;

use serde_json::Value;

use super::Finished;
use super::run::{KEY, ReadyRun};
use super::site::finish;
use super::world::repository;

/// What the script found.
pub struct Recomputed {
    /// Its summary.
    pub summary: Value,
}

impl Recomputed {
    /// Events of one output on the bus.
    pub fn rows(&self, output_id: &str) -> u64 {
        self.summary["rows"][output_id].as_u64().unwrap_or(0)
    }

    /// Receipts with one decision.
    pub fn receipts(&self, decision: &str) -> u64 {
        self.summary["receipts"][decision].as_u64().unwrap_or(0)
    }

    /// How often one recipe was compared.
    pub fn checked(&self, what: &str) -> u64 {
        self.summary["checked"][what].as_u64().unwrap_or(0)
    }
}

/// Exports the receipts, recomputes everything, and asserts that nothing differs.
#[track_caller]
pub fn recompute(run: &ReadyRun<'_>, more: &[&str]) -> Recomputed {
    let summary = judged(run, more).ok().json();
    Recomputed { summary }
}

/// Exports the receipts and lets the script judge.
#[track_caller]
pub fn judged(run: &ReadyRun<'_>, more: &[&str]) -> Finished {
    let site = &run.site;
    site.run(&["receipts", "export", "--sqlite", "receipts.db"])
        .ok();
    let shipped = repository().join("config/platform/oracle");
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/recompute/recompute.py"));
    command.arg("--run-root").arg(run.root());
    command.arg("--engine-run-root").arg(&run.world.root);
    command
        .arg("--receipts-db")
        .arg(site.path().join("receipts.db"));
    command
        .arg("--catalogue")
        .arg(shipped.join("outputs_catalogue_v0.yaml"));
    command
        .arg("--gate-map")
        .arg(shipped.join("gate_map_v0.yaml"));
    command.args(["--equivalence-key", KEY]).args(more);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    finish(command, site.path())
}
