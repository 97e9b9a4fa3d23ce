//! Packing and sealing a world (contract 3.6, 0.3 D3).
//!
//! Order: read what is there, decide, then write the manifest and last the seal. Both are created once and
//! read back; a packer that loses a race compares instead of writing.

use serde::Serialize;
use wellspring_domain::canonical_json::{CanonicalError, to_cj};
use wellspring_domain::ports::{ObjectStore, PutOutcome, StoreError};
use wellspring_domain::time_text::Micros;
use wellspring_domain::world::pack::{
    ContractDigests, PACK_MANIFEST_FILE, PackError, PackManifest, plan_pack,
};
use wellspring_domain::world::seal::{SEAL_FILE, SEAL_FLAG_FILE, Seal, SealState, SealStatus};
use wellspring_domain::world::world_key::{RUN_RECEIPT_FILE, RunReceipt, RunReceiptError};

/// Why a world was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackWorldError {
    /// No scenario was named.
    #[error("a pack is of one scenario, and none was given")]
    ScenarioMissing,
    /// The engine run root has no usable run receipt.
    #[error(transparent)]
    RunReceipt(#[from] RunReceiptError),
    /// The pack root holds something else, or something broken.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Files could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document cannot be written as canonical JSON.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl PackWorldError {
    /// The stable reason code (contract 3.6).
    pub fn code(&self) -> &'static str {
        match self {
            PackWorldError::ScenarioMissing => "SCENARIO_ID_MISSING",
            PackWorldError::RunReceipt(error) => error.world_key_code(),
            PackWorldError::Pack(error) => error.code(),
            PackWorldError::Store(error) => error.code(),
            PackWorldError::Canonical(_) => "CANONICAL_JSON_INVALID",
        }
    }
}

/// What to pack a world as.
#[derive(Clone, Debug)]
pub struct PackRequest<'a> {
    /// The scenario of the world.
    pub scenario_id: &'a str,
    /// The engine release that wrote it.
    pub engine_release: &'a str,
    /// What the seal will say.
    pub seal_status: SealStatus,
    /// The files that say how it is read.
    pub digests: &'a ContractDigests,
}

/// A packed world and what had to be written for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackOutcome {
    /// The pack's identity.
    pub manifest: PackManifest,
    /// False when the manifest was there already.
    pub manifest_written: bool,
    /// False when the seal was there already.
    pub seal_written: bool,
}

impl PackOutcome {
    /// True when the root was packed and sealed alike before: nothing was written.
    pub fn unchanged(&self) -> bool {
        !self.manifest_written && !self.seal_written
    }
}

/// Packs and seals the world in `world`; manifest and seal go into `pack`, usually the same root.
pub fn pack_world(
    world: &dyn ObjectStore,
    pack: &dyn ObjectStore,
    request: &PackRequest<'_>,
    now: Micros,
) -> Result<PackOutcome, PackWorldError> {
    let scenario_id = request.scenario_id.trim();
    if scenario_id.is_empty() {
        return Err(PackWorldError::ScenarioMissing);
    }
    let world_key = read_run_receipt(world)?.world_key(scenario_id);
    let manifest = PackManifest::new(world_key, request.engine_release, request.digests, now);
    let found = read_pack_manifest(pack)?;
    let plan = plan_pack(
        &manifest,
        request.seal_status,
        found.as_ref(),
        &read_seal(pack)?,
    )?;
    let manifest_written = plan.write_manifest && create(pack, PACK_MANIFEST_FILE, &manifest)?;
    let seal = Seal::new(&manifest.oracle_pack_id, request.seal_status, now);
    let seal_written = plan.write_seal && create(pack, SEAL_FILE, &seal)?;
    if plan.write_manifest || plan.write_seal {
        let found = read_pack_manifest(pack)?;
        plan_pack(
            &manifest,
            request.seal_status,
            found.as_ref(),
            &read_seal(pack)?,
        )?;
    }
    Ok(PackOutcome {
        manifest: found.unwrap_or(manifest),
        manifest_written,
        seal_written,
    })
}

/// The run receipt of an engine run root; an absent one is unreadable.
pub fn read_run_receipt(world: &dyn ObjectStore) -> Result<RunReceipt, RunReceiptError> {
    let unreadable = |reason: String| RunReceiptError::Unreadable { reason };
    let bytes = world
        .get(RUN_RECEIPT_FILE)
        .map_err(|error| unreadable(error.to_string()))?;
    let path = world.absolute(RUN_RECEIPT_FILE);
    RunReceipt::parse(&bytes.ok_or_else(|| unreadable(format!("{path} does not exist")))?)
}

/// Why a pack manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestReadError {
    /// It is there and is no manifest.
    #[error(transparent)]
    Invalid(#[from] PackError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ManifestReadError> for PackWorldError {
    fn from(error: ManifestReadError) -> PackWorldError {
        match error {
            ManifestReadError::Invalid(error) => PackWorldError::Pack(error),
            ManifestReadError::Store(error) => PackWorldError::Store(error),
        }
    }
}

/// The manifest at a pack root, `None` when the root is not packed.
pub fn read_pack_manifest(
    pack: &dyn ObjectStore,
) -> Result<Option<PackManifest>, ManifestReadError> {
    match pack.get(PACK_MANIFEST_FILE)? {
        Some(bytes) => Ok(Some(PackManifest::parse(&bytes)?)),
        None => Ok(None),
    }
}

/// The seal at a pack root.
pub fn read_seal(pack: &dyn ObjectStore) -> Result<SealState, StoreError> {
    let seal_file = pack.get(SEAL_FILE)?;
    let flag_exists = pack.head(SEAL_FLAG_FILE)?.is_some();
    Ok(SealState::read(seal_file.as_deref(), flag_exists))
}

/// Creates a document once; false when another packer was first. The caller reads back and compares.
fn create<T: Serialize>(
    pack: &dyn ObjectStore,
    key: &str,
    document: &T,
) -> Result<bool, PackWorldError> {
    let mut text = to_cj(document)?;
    text.push('\n');
    Ok(pack.put_if_absent(key, text.as_bytes())? == PutOutcome::Created)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::LocalFiles;
    use std::fs;

    fn digests() -> ContractDigests {
        ContractDigests {
            catalogue: "d".repeat(64),
            gate_map: "e".repeat(64),
        }
    }

    fn world(folder: &tempfile::TempDir) -> LocalFiles {
        let store = LocalFiles::new(folder.path());
        let receipt = format!(
            r#"{{"run_id":"{}","manifest_fingerprint":"{}","parameter_hash":"{}","seed":42}}"#,
            "c".repeat(32),
            "a".repeat(64),
            "b".repeat(64)
        );
        fs::write(folder.path().join(RUN_RECEIPT_FILE), receipt).unwrap();
        store
    }

    fn pack(
        store: &LocalFiles,
        release: &str,
        seal_status: SealStatus,
        now: i64,
    ) -> Result<PackOutcome, PackWorldError> {
        let request = PackRequest {
            scenario_id: "baseline_v1",
            engine_release: release,
            seal_status,
            digests: &digests(),
        };
        pack_world(store, store, &request, Micros(now))
    }

    /// Every file of the root with its bytes and time of change.
    fn snapshot(store: &LocalFiles) -> Vec<(wellspring_domain::ports::ObjectMeta, Vec<u8>)> {
        let files = store.list("").unwrap().into_iter();
        files
            .map(|file| (file.clone(), store.get(&file.key).unwrap().unwrap()))
            .collect()
    }

    #[test]
    fn a_pack_is_two_canonical_files_and_packing_again_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = world(&folder);
        let first = pack(&store, "local", SealStatus::Ok, 1_000_000).unwrap();
        assert!(first.manifest_written && first.seal_written);
        let text = fs::read_to_string(folder.path().join(PACK_MANIFEST_FILE)).unwrap();
        assert!(text.starts_with(r#"{"catalogue_digest":"ddd"#), "{text}");
        assert!(
            text.contains(r#""created_at_utc":"1970-01-01T00:00:01+00:00""#),
            "{text}"
        );
        assert!(text.ends_with("}\n"));
        assert_eq!(
            fs::read_to_string(folder.path().join(SEAL_FILE)).unwrap(),
            format!(
                "{{\"oracle_pack_id\":\"{}\",\"seal_status\":\"SEALED_OK\",\"sealed_at_utc\":\"1970-01-01T00:00:01+00:00\",\"version\":\"v0\"}}\n",
                first.manifest.oracle_pack_id
            )
        );
        let before = snapshot(&store);
        let again = pack(&store, "local", SealStatus::Ok, 9_000_000).unwrap();
        assert!(again.unchanged());
        assert_eq!(again.manifest, first.manifest);
        assert_eq!(snapshot(&store), before);
    }

    #[test]
    fn any_difference_is_refused_and_leaves_the_root_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = world(&folder);
        pack(&store, "local", SealStatus::Ok, 0).unwrap();
        let before = snapshot(&store);
        assert_eq!(
            pack(&store, "r2", SealStatus::Ok, 0).unwrap_err().code(),
            "MANIFEST_MISMATCH"
        );
        assert_eq!(
            pack(&store, "local", SealStatus::Failed, 0)
                .unwrap_err()
                .code(),
            "SEAL_MISMATCH"
        );
        assert_eq!(snapshot(&store), before);
    }

    #[test]
    fn a_sealed_root_without_a_manifest_is_never_completed() {
        let folder = tempfile::tempdir().unwrap();
        let store = world(&folder);
        fs::write(folder.path().join(SEAL_FLAG_FILE), b"").unwrap();
        let before = snapshot(&store);
        assert_eq!(
            pack(&store, "local", SealStatus::Ok, 0).unwrap_err().code(),
            "MANIFEST_MISMATCH"
        );
        assert_eq!(snapshot(&store), before);
    }

    #[test]
    fn a_pack_interrupted_before_the_seal_is_finished_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let store = world(&folder);
        pack(&store, "local", SealStatus::Ok, 0).unwrap();
        fs::remove_file(folder.path().join(SEAL_FILE)).unwrap();
        let outcome = pack(&store, "local", SealStatus::Ok, 5).unwrap();
        assert!(!outcome.manifest_written && outcome.seal_written);
        assert_eq!(read_seal(&store).unwrap().refusal(true), None);
    }

    #[test]
    fn a_world_that_cannot_be_named_is_refused_by_its_code() {
        let folder = tempfile::tempdir().unwrap();
        let store = world(&folder);
        let request = PackRequest {
            scenario_id: "  ",
            engine_release: "local",
            seal_status: SealStatus::Ok,
            digests: &digests(),
        };
        let code = |request: &PackRequest<'_>| {
            pack_world(&store, &store, request, Micros(0))
                .unwrap_err()
                .code()
        };
        assert_eq!(code(&request), "SCENARIO_ID_MISSING");
        let request = PackRequest {
            scenario_id: "s",
            ..request
        };
        fs::write(folder.path().join(RUN_RECEIPT_FILE), b"{}").unwrap();
        assert_eq!(code(&request), "WORLD_KEY_MISSING");
        fs::remove_file(folder.path().join(RUN_RECEIPT_FILE)).unwrap();
        assert_eq!(code(&request), "RUN_RECEIPT_UNREADABLE");
        assert_eq!(store.list("").unwrap(), []);
    }
}
