//! Scenario runs with a wiring, a policy and a catalogue of their own.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use super::world::{World, repository, small};
use super::{Finished, Site};

/// The scenario run id of an equivalence key (contract 1.2).
pub fn run_id_of(key: &str) -> String {
    let digest = Sha256::digest(format!("sr_run|{key}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..32].to_owned()
}

/// The kinds of the facts a run recorded, in order.
pub fn record_of(runner: &Runner<'_>, key: &str) -> Vec<String> {
    let path = runner
        .sr()
        .join(format!("run_record/{}.jsonl", run_id_of(key)));
    let text = fs::read_to_string(path).unwrap_or_default();
    let kinds = text.lines().map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["event_kind"].as_str().unwrap().to_owned()
    });
    kinds.collect()
}

/// Submits runs of one world under one key.
pub struct Runner<'a> {
    site: &'a Site,
    world: &'a World,
    key: String,
    run: String,
    flags: Vec<String>,
}

impl<'a> Runner<'a> {
    /// A runner in a new platform run, with copies of the shipped wiring and policy.
    pub fn new(site: &'a Site, world: &'a World, key: &str) -> Self {
        for name in ["wiring_local.yaml", "policy_v0.yaml"] {
            let shipped = repository().join("config/platform/sr").join(name);
            fs::copy(shipped, site.path().join(name)).unwrap();
        }
        let run = site.new_run();
        Runner {
            site,
            world,
            key: key.to_owned(),
            run,
            flags: Vec::new(),
        }
    }

    /// Changes the wiring.
    pub fn wire(&mut self, from: &str, to: &str) {
        replace_in(&self.site.path().join("wiring_local.yaml"), from, to);
    }

    /// Changes the policy.
    pub fn policy(&mut self, from: &str, to: &str) {
        replace_in(&self.site.path().join("policy_v0.yaml"), from, to);
    }

    /// Changes a copy of the catalogue and uses it.
    pub fn catalogue(&mut self, from: &str, to: &str) {
        let name = "config/platform/oracle/outputs_catalogue_v0.yaml";
        let copy = self.site.path().join("catalogue.yaml");
        fs::copy(repository().join(name), &copy).unwrap();
        replace_in(&copy, from, to);
        self.wire(name, &copy.display().to_string());
    }

    /// Runs this engine command first.
    pub fn engine(&mut self, command: &str) {
        self.wire(
            "auth_mode: disabled",
            &format!("auth_mode: disabled\nengine_command: {command}"),
        );
        self.flag("--strategy", "FORCE_INVOKE");
    }

    /// One more flag.
    pub fn flag(&mut self, name: &str, value: &str) {
        self.flags.extend([name.to_owned(), value.to_owned()]);
    }

    /// Removes the world.
    pub fn move_the_world_away(&mut self) {
        fs::remove_dir_all(&self.world.root).unwrap();
    }

    /// `scenario run`.
    pub fn submit(&self, more: &[&str]) -> Finished {
        let mut args = vec!["scenario", "run", "--wiring", "wiring_local.yaml"];
        args.extend(["--policy", "policy_v0.yaml"]);
        if !more.contains(&"--run-equivalence-key") {
            args.extend(["--run-equivalence-key", &self.key]);
        }
        let (world, identity) = (self.world.args(), identity_of_small());
        args.extend(world.iter().map(String::as_str));
        args.extend(identity.iter().map(String::as_str));
        args.extend(self.flags.iter().map(String::as_str));
        args.extend(more);
        self.site.run(&args)
    }

    /// `scenario reemit` of this run.
    pub fn reemit(&self, more: &[&str]) -> Finished {
        let run_id = run_id_of(&self.key);
        let args = [
            "scenario",
            "reemit",
            "--wiring",
            "wiring_local.yaml",
            "--run-id",
            &run_id,
        ];
        self.site.run(&[&args[..], more].concat())
    }

    /// The platform run's root.
    pub fn run_root(&self) -> PathBuf {
        self.site.run_root(&self.run)
    }

    /// The Scenario Runner's folder.
    pub fn sr(&self) -> PathBuf {
        self.run_root().join("sr")
    }

    /// The status file of a key.
    pub fn status(&self, key: &str) -> PathBuf {
        self.sr()
            .join(format!("run_status/{}.json", run_id_of(key)))
    }

    /// Lets somebody else hold a lease for a long time.
    pub fn lease(&self, lease_key: &str) {
        let database = Connection::open(self.sr().join("index/sr_authority.db")).unwrap();
        let far = "2999-01-01T00:00:00+00:00";
        database
            .execute(
                "insert or replace into sr_run_leases(run_id, owner_id, lease_token, expires_at, updated_at) \
                 values (?1, 'somebody', 'else', ?2, ?2)",
                [lease_key, far],
            )
            .unwrap();
    }
}

/// Replaces a text in a file that must contain it.
#[track_caller]
pub fn replace_in(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

/// The worlds submitted are copies of the small one; a copy that lost its receipt must still be named.
fn identity_of_small() -> Vec<String> {
    let receipt = small().receipt();
    let named = [
        ("--manifest-fingerprint", "manifest_fingerprint"),
        ("--parameter-hash", "parameter_hash"),
        ("--seed", "seed"),
    ];
    let flags = named.into_iter().flat_map(|(flag, name)| {
        let value = receipt[name].to_string();
        [flag.to_owned(), value.trim_matches('"').to_owned()]
    });
    flags.collect()
}
