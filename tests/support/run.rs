//! A platform run of one world: from READY to a verified bus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::bus::{Record, records};
use super::daemon::Daemon;
use super::recompute::{Recomputed, recompute};
use super::world::World;
use super::{Finished, Site};

/// The equivalence key of every run made here.
pub const KEY: &str = "black-box";

/// A run whose scenario is READY.
pub struct ReadyRun<'a> {
    /// Its installation.
    pub site: Site,
    /// Its world.
    pub world: &'a World,
    /// Its platform run id.
    pub id: String,
}

impl<'a> ReadyRun<'a> {
    /// A new run in a new installation, proven to READY.
    pub fn new(world: &'a World) -> Self {
        ReadyRun::on(Site::new(), world)
    }

    /// A new run in this installation.
    pub fn on(site: Site, world: &'a World) -> Self {
        let id = site.new_run();
        let run = ReadyRun { site, world, id };
        run.submit().ok();
        run
    }

    /// `scenario run` of the world.
    pub fn submit(&self) -> Finished {
        let mut args = vec!["scenario", "run", "--run-equivalence-key", KEY];
        let world = self.world.args();
        args.extend(world.iter().map(String::as_str));
        self.site.run(&args)
    }

    /// The run root.
    pub fn root(&self) -> PathBuf {
        self.site.run_root(&self.id)
    }

    /// Streams in one process, as fast as possible unless told otherwise.
    pub fn up_once(&self, more: &[&str]) -> Finished {
        let args = ["up", "--once", "--port", "0", "--speedup", "0"];
        self.site.run(&[&args[..], more].concat())
    }

    /// Streams in two processes over HTTP; the gate is stopped by SIGTERM.
    pub fn over_http(&self, more: &[&str]) -> Finished {
        let gate = Daemon::gate(&self.site);
        let url = format!("wiring.ig_ingest_url={}", gate.url);
        let args = ["--set", &url, "stream", "ready", "--once", "--speedup", "0"];
        let finished = self.site.run(&[&args[..], more].concat());
        assert_eq!(gate.terminate().code, Some(0), "the gate drains");
        finished
    }

    /// `bus verify` and `receipts verify`, both without a difference.
    #[track_caller]
    pub fn verify(&self) {
        let bus = self
            .site
            .run(&["--format", "json", "bus", "verify"])
            .ok()
            .json();
        assert_eq!(bus["verified"], true, "{bus}");
        let receipts = self
            .site
            .run(&["--format", "json", "receipts", "verify"])
            .ok()
            .json();
        assert_eq!(receipts["verified"], true, "{receipts}");
    }

    /// The independent recomputation, which must agree.
    #[track_caller]
    pub fn recompute(&self, more: &[&str]) -> Recomputed {
        recompute(self, more)
    }

    /// Every record of the bus.
    pub fn records(&self) -> Vec<Record> {
        records(&self.root())
    }
}

/// The results a stream printed: one object per READY message.
pub fn outcomes(finished: &Finished) -> Vec<Value> {
    let json = finished.json();
    json.as_array()
        .unwrap_or_else(|| panic!("{}", finished.everything()))
        .clone()
}

/// What two buses must have in common: the events of each partition, and their order per key.
pub fn contents(records: &[Record]) -> BTreeMap<(String, u32, String), Vec<String>> {
    let mut contents: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for record in records {
        let key = (
            record.topic.clone(),
            record.partition,
            record.partition_key.clone(),
        );
        let mut payload = record.envelope.clone();
        // Two runs differ in their own ids and in nothing else.
        for own in ["platform_run_id", "scenario_run_id"] {
            payload.as_object_mut().unwrap().shift_remove(own);
        }
        contents.entry(key).or_default().push(payload.to_string());
    }
    contents
}

/// Rows acknowledged by the checkpoint of each output.
pub fn checkpointed_rows(run_root: &Path) -> BTreeMap<String, u64> {
    let mut rows = BTreeMap::new();
    let Ok(packs) = std::fs::read_dir(run_root.join("wsp/checkpoints")) else {
        return rows;
    };
    for pack in packs {
        for output in std::fs::read_dir(pack.unwrap().path()).unwrap() {
            let cursor = output.unwrap().path().join("cursor.json");
            if cursor.is_file() {
                let cursor = super::site::read_json(cursor);
                let id = cursor["output_id"].as_str().unwrap().to_owned();
                rows.insert(id, cursor["last_row_index"].as_u64().unwrap() + 1);
            }
        }
    }
    rows
}
