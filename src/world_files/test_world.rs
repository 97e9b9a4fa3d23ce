//! A copy of the fixture world for tests to damage.

use std::fs;
use std::path::{Path, PathBuf};

use wellspring_domain::ports::ObjectStore;
use wellspring_domain::time_text::Micros;
use wellspring_domain::world::catalogue::WorldTokens;
use wellspring_domain::world::seal::SealStatus;
use wellspring_domain::world::world_key::RunReceipt;

use super::contract_files::{ContractFiles, tests::shipped};
use super::pack_files::{PackRequest, pack_world, read_run_receipt};
use crate::object_store::LocalFiles;

/// The fixture world's scenario.
pub(crate) const SCENARIO: &str = "baseline_v1";

/// A temporary engine run root.
pub(crate) struct TestWorld {
    _folder: tempfile::TempDir,
    /// The root.
    pub root: PathBuf,
    /// The root as a store.
    pub store: LocalFiles,
    /// The shipped contract files.
    pub contract: ContractFiles,
}

impl TestWorld {
    /// Copies all files of the fixture world.
    pub fn copy() -> TestWorld {
        let fixture =
            LocalFiles::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/w40k"));
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("world");
        for file in fixture.list("").unwrap() {
            let target = root.join(&file.key);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(fixture.root().join(&file.key), target).unwrap();
        }
        TestWorld {
            store: LocalFiles::new(&root),
            _folder: folder,
            root,
            contract: shipped(),
        }
    }

    /// The root as text.
    pub fn name(&self) -> &str {
        self.root.to_str().unwrap()
    }

    /// The engine's run receipt.
    pub fn receipt(&self) -> RunReceipt {
        read_run_receipt(&self.store).unwrap()
    }

    /// Tokens of the world's scenario.
    pub fn tokens(&self) -> WorldTokens {
        self.receipt().tokens(SCENARIO)
    }

    /// Packs and seals the world.
    pub fn pack(&self, seal_status: SealStatus) {
        let request = PackRequest {
            scenario_id: SCENARIO,
            engine_release: "local",
            seal_status,
            digests: &self.contract.digests,
        };
        pack_world(&self.store, &self.store, &request, Micros(0)).unwrap();
    }

    /// Overwrites a file in place.
    pub fn write(&self, key: &str, bytes: &[u8]) {
        fs::write(self.root.join(key), bytes).unwrap();
    }

    /// Removes every file of an output.
    pub fn remove_output(&self, output_id: &str) {
        let entry = self.contract.catalogue.output(output_id).unwrap();
        let path = entry.render_path(&self.tokens()).unwrap();
        for file in super::evidence_digest::matched_files(&self.store, &path).unwrap() {
            fs::remove_file(self.root.join(file.key)).unwrap();
        }
    }
}
