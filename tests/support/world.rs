//! Sealed worlds for tests: the fixture written by another program, and generated ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use super::Site;
use super::site::{copy_folder, read_json};

/// What the default profile streams, context first.
pub const STREAMED: [&str; 4] = [
    "arrival_events_5B",
    "s1_arrival_entities_6B",
    "s3_flow_anchor_with_fraud_6B",
    "s3_event_stream_with_fraud_6B",
];

/// The traffic output of the default profile.
pub const TRAFFIC: &str = "s3_event_stream_with_fraud_6B";

/// A world on disk; the folder lives as long as the value.
pub struct World {
    site: Site,
    /// Its engine run root, as given to every command.
    pub root: PathBuf,
}

/// The shipped fixture world, packed and sorted once per test process. Never write to it.
pub fn fixture() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World::copied_to(Site::of_the_process(), &fixture_folder());
        world.pack();
        world.sort();
        world
    })
}

/// A small generated world, packed and sorted once per test process. Never write to it.
pub fn small() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World::generated_in(Site::of_the_process(), 400, 11, 2);
        world.pack();
        world.sort();
        world
    })
}

/// The fixture as it lies in the repository.
pub fn fixture_folder() -> PathBuf {
    repository().join("tests/fixtures/w40k")
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl World {
    /// A copy of an engine run root.
    pub fn copy_of(folder: &Path) -> Self {
        World::copied_to(Site::new(), folder)
    }

    fn copied_to(site: Site, folder: &Path) -> Self {
        let root = site.path().join("world");
        copy_folder(folder, &root);
        World { site, root }
    }

    /// A generated world, neither packed nor sorted.
    pub fn generate(events: u64, seed: u64, parts: u32) -> Self {
        World::generated_in(Site::new(), events, seed, parts)
    }

    fn generated_in(site: Site, events: u64, seed: u64, parts: u32) -> Self {
        let root = site.path().join("world");
        let numbers = [events, seed, u64::from(parts)].map(|number| number.to_string());
        let out = root.display().to_string();
        let args = ["world", "generate", "--out", &out, "--events", &numbers[0]];
        let more = ["--seed", &numbers[1], "--parts", &numbers[2]];
        site.run(&[&args[..], &more[..]].concat()).ok();
        World { site, root }
    }

    /// The engine run root as text.
    pub fn root_text(&self) -> String {
        self.root.display().to_string()
    }

    /// Arguments that name this world.
    pub fn args(&self) -> Vec<String> {
        let scenario = self.scenario_id();
        [
            "--engine-run-root",
            &self.root_text(),
            "--scenario-id",
            &scenario,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// `oracle <verb>` on this world with more arguments.
    pub fn oracle(&self, verb: &str, more: &[&str]) -> super::Finished {
        let mut args = vec!["oracle".to_owned(), verb.to_owned()];
        args.extend(self.args());
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        self.site.run(&args)
    }

    /// Packs and seals it.
    pub fn pack(&self) {
        self.oracle("pack", &["--engine-release", "local"]).ok();
    }

    /// Builds the views of all streamed outputs.
    pub fn sort(&self) {
        let ids: Vec<&str> = STREAMED.iter().flat_map(|id| ["--output-id", id]).collect();
        self.oracle("sort", &ids).ok();
    }

    /// The run receipt.
    pub fn receipt(&self) -> Value {
        read_json(self.root.join("run_receipt.json"))
    }

    /// The scenario all worlds of the tests have.
    pub fn scenario_id(&self) -> String {
        "baseline_v1".to_owned()
    }

    /// The view of one output.
    pub fn view(&self, output_id: &str) -> PathBuf {
        self.root
            .join("stream_view/ts_utc")
            .join(format!("output_id={output_id}"))
    }

    /// The folder of an output's raw parts.
    pub fn raw_parts(&self, output_id: &str) -> PathBuf {
        let mut found = Vec::new();
        find_folder(&self.root.join("data"), output_id, &mut found);
        let mut folder = found
            .pop()
            .unwrap_or_else(|| panic!("{output_id} is not there"));
        while !fs::read_dir(&folder)
            .unwrap()
            .any(|entry| entry.unwrap().path().is_file())
        {
            folder = fs::read_dir(&folder)
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
        }
        folder
    }

    /// The `_passed.flag` of a segment such as `6B`.
    pub fn passed_flag(&self, layer: &str, segment: &str) -> PathBuf {
        let fingerprint = self.receipt()["manifest_fingerprint"]
            .as_str()
            .unwrap()
            .to_owned();
        let folder =
            format!("data/{layer}/{segment}/validation/manifest_fingerprint={fingerprint}");
        self.root.join(folder).join("_passed.flag")
    }

    /// A copy of this world to be damaged, views included.
    pub fn to_damage(&self) -> World {
        World::copy_of(&self.root)
    }
}

fn find_folder(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            match path.file_name().is_some_and(|own| own == name) {
                true => found.push(path),
                false => find_folder(&path, name, found),
            }
        }
    }
}
