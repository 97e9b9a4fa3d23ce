//! Pack manifest and seal: which world a root holds, and that it will not change (contract 3.6).
//!
//! A seal is never rewritten. Sealing again under the same identity succeeds without a write; any
//! difference is refused before anything is written (contract 0.3, D3).

use serde::{Deserialize, Serialize};

use super::seal::{SealState, SealStatus};
use super::world_key::WorldKey;
use crate::ids::{PackIdentity, is_hex, oracle_pack_id};
use crate::time_text::Micros;

/// The pack manifest's file name under the pack root.
pub const PACK_MANIFEST_FILE: &str = "_oracle_pack_manifest.json";
/// Version of both documents.
pub const PACK_VERSION: &str = "v0";

/// Why a pack cannot be made or trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The manifest's bytes are not a pack manifest.
    #[error("the pack manifest is not valid: {reason}")]
    ManifestInvalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The root is packed as something else.
    #[error("the pack root already holds another pack: {difference}")]
    ManifestMismatch {
        /// The first member that differs.
        difference: String,
    },
    /// The root is sealed as something else.
    #[error("the pack root is already sealed otherwise: {difference}")]
    SealMismatch {
        /// What differs.
        difference: String,
    },
}

impl PackError {
    /// The stable reason code (contract 3.6, 4.1).
    pub fn code(&self) -> &'static str {
        match self {
            PackError::ManifestInvalid { .. } => "PACK_MANIFEST_INVALID",
            PackError::ManifestMismatch { .. } => "MANIFEST_MISMATCH",
            PackError::SealMismatch { .. } => "SEAL_MISMATCH",
        }
    }
}

/// The files that decide how a world is read, as digests of their raw bytes (contract 1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractDigests {
    /// The output catalogue's.
    pub catalogue: String,
    /// The gate map's.
    pub gate_map: String,
}

/// `_oracle_pack_manifest.json` (contract 3.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackManifest {
    /// Document version.
    pub version: String,
    /// Identity of world, engine release and contract files.
    pub oracle_pack_id: String,
    /// The world.
    pub world_key: WorldKey,
    /// The engine release that wrote it.
    pub engine_release: String,
    /// SHA-256 of the catalogue file.
    pub catalogue_digest: String,
    /// SHA-256 of the gate map file.
    pub gate_map_digest: String,
    /// When it was packed, T-off.
    pub created_at_utc: String,
}

impl PackManifest {
    /// The manifest of a world.
    pub fn new(
        world_key: WorldKey,
        engine_release: &str,
        digests: &ContractDigests,
        now: Micros,
    ) -> PackManifest {
        let oracle_pack_id = oracle_pack_id(&PackIdentity {
            manifest_fingerprint: &world_key.manifest_fingerprint,
            parameter_hash: &world_key.parameter_hash,
            scenario_id: &world_key.scenario_id,
            seed: world_key.seed,
            engine_release,
            catalogue_digest: &digests.catalogue,
            gate_map_digest: &digests.gate_map,
        });
        PackManifest {
            version: PACK_VERSION.to_owned(),
            oracle_pack_id,
            world_key,
            engine_release: engine_release.to_owned(),
            catalogue_digest: digests.catalogue.clone(),
            gate_map_digest: digests.gate_map.clone(),
            created_at_utc: now.format_off(),
        }
    }

    /// Reads and checks a manifest.
    pub fn parse(bytes: &[u8]) -> Result<PackManifest, PackError> {
        let invalid = |reason: String| PackError::ManifestInvalid { reason };
        let manifest: PackManifest =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let digests = [
            ("oracle_pack_id", &manifest.oracle_pack_id),
            ("catalogue_digest", &manifest.catalogue_digest),
            ("gate_map_digest", &manifest.gate_map_digest),
            (
                "world_key.manifest_fingerprint",
                &manifest.world_key.manifest_fingerprint,
            ),
            (
                "world_key.parameter_hash",
                &manifest.world_key.parameter_hash,
            ),
        ];
        for (field, hex) in digests {
            if !is_hex(hex, 64) {
                return Err(invalid(format!("{field} is not 64 hex digits")));
            }
        }
        if manifest.version != PACK_VERSION {
            return Err(invalid(format!(
                "version {} is not known",
                manifest.version
            )));
        }
        if manifest.engine_release.is_empty() || manifest.world_key.scenario_id.is_empty() {
            return Err(invalid("engine_release or scenario_id is empty".to_owned()));
        }
        Ok(manifest)
    }

    /// The first member in which two manifests differ; when each was made does not count.
    pub fn difference(&self, other: &PackManifest) -> Option<&'static str> {
        let members = [
            ("version", self.version == other.version),
            ("world_key", self.world_key == other.world_key),
            (
                "engine_release",
                self.engine_release == other.engine_release,
            ),
            (
                "catalogue_digest",
                self.catalogue_digest == other.catalogue_digest,
            ),
            (
                "gate_map_digest",
                self.gate_map_digest == other.gate_map_digest,
            ),
            (
                "oracle_pack_id",
                self.oracle_pack_id == other.oracle_pack_id,
            ),
        ];
        members
            .into_iter()
            .find(|(_, same)| !same)
            .map(|(member, _)| member)
    }
}

/// What the packer still has to write; nothing when the root is already packed and sealed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackPlan {
    /// Write the manifest first.
    pub write_manifest: bool,
    /// Then the seal.
    pub write_seal: bool,
}

/// Decides what to write, before anything is written. `found_manifest` and `seal` are what lies at the
/// root now.
pub fn plan_pack(
    wanted: &PackManifest,
    wanted_status: SealStatus,
    found_manifest: Option<&PackManifest>,
    seal: &SealState,
) -> Result<PackPlan, PackError> {
    if let Some(difference) = found_manifest.and_then(|found| wanted.difference(found)) {
        return Err(PackError::ManifestMismatch {
            difference: format!("{difference} differs"),
        });
    }
    let sealed = *seal != SealState::Absent;
    if sealed && found_manifest.is_none() {
        return Err(PackError::ManifestMismatch {
            difference: "a sealed root without a manifest cannot be completed".to_owned(),
        });
    }
    seal_difference(wanted, wanted_status, seal)?;
    Ok(PackPlan {
        write_manifest: found_manifest.is_none(),
        write_seal: !sealed,
    })
}

fn seal_difference(
    wanted: &PackManifest,
    wanted_status: SealStatus,
    seal: &SealState,
) -> Result<(), PackError> {
    let difference = match seal {
        SealState::Sealed(seal) if seal.oracle_pack_id != wanted.oracle_pack_id => {
            "oracle_pack_id differs"
        }
        SealState::Sealed(seal) if seal.seal_status != wanted_status => "seal_status differs",
        SealState::Sealed(seal) if seal.version != PACK_VERSION => "version differs",
        SealState::Flag if wanted_status == SealStatus::Failed => "seal_status differs",
        SealState::Unreadable { .. } => "the seal cannot be read",
        SealState::Absent | SealState::Flag | SealState::Sealed(_) => return Ok(()),
    };
    Err(PackError::SealMismatch {
        difference: difference.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::seal::Seal;

    fn manifest(release: &str, now: i64) -> PackManifest {
        let key = WorldKey {
            manifest_fingerprint: "a".repeat(64),
            parameter_hash: "b".repeat(64),
            scenario_id: "baseline_v1".to_owned(),
            seed: 42,
        };
        let digests = ContractDigests {
            catalogue: "d".repeat(64),
            gate_map: "e".repeat(64),
        };
        PackManifest::new(key, release, &digests, Micros(now))
    }

    fn seal(manifest: &PackManifest, status: SealStatus) -> SealState {
        SealState::Sealed(Seal {
            version: PACK_VERSION.to_owned(),
            oracle_pack_id: manifest.oracle_pack_id.clone(),
            seal_status: status,
            sealed_at_utc: "x".to_owned(),
        })
    }

    #[test]
    fn the_pack_id_is_the_golden_vector_and_does_not_depend_on_time() {
        assert_eq!(
            manifest("local", 0).oracle_pack_id,
            "d2a78e4a6b863ceff6a92870ccd30512b0e1db0db13caadf411e5fb195e5e230"
        );
        assert_eq!(manifest("local", 0).difference(&manifest("local", 9)), None);
    }

    #[test]
    fn an_empty_root_gets_both_files_and_an_unsealed_one_only_the_seal() {
        let wanted = manifest("local", 0);
        let fresh = plan_pack(&wanted, SealStatus::Ok, None, &SealState::Absent).unwrap();
        assert_eq!((fresh.write_manifest, fresh.write_seal), (true, true));
        let half = plan_pack(&wanted, SealStatus::Ok, Some(&wanted), &SealState::Absent).unwrap();
        assert_eq!((half.write_manifest, half.write_seal), (false, true));
    }

    #[test]
    fn sealing_again_alike_plans_no_write() {
        let wanted = manifest("local", 5);
        let found = manifest("local", 0);
        let plan = plan_pack(
            &wanted,
            SealStatus::Ok,
            Some(&found),
            &seal(&found, SealStatus::Ok),
        )
        .unwrap();
        assert_eq!((plan.write_manifest, plan.write_seal), (false, false));
    }

    #[test]
    fn any_difference_is_refused_by_its_code() {
        let wanted = manifest("local", 0);
        let other = manifest("r2", 0);
        let code = |found: Option<&PackManifest>, seal: &SealState| {
            plan_pack(&wanted, SealStatus::Ok, found, seal)
                .unwrap_err()
                .code()
        };
        assert_eq!(code(Some(&other), &SealState::Absent), "MANIFEST_MISMATCH");
        assert_eq!(
            code(None, &seal(&wanted, SealStatus::Ok)),
            "MANIFEST_MISMATCH"
        );
        assert_eq!(
            code(Some(&wanted), &seal(&other, SealStatus::Ok)),
            "SEAL_MISMATCH"
        );
        assert_eq!(
            code(Some(&wanted), &seal(&wanted, SealStatus::Failed)),
            "SEAL_MISMATCH"
        );
        let broken = SealState::read(Some(b"{}"), false);
        assert_eq!(code(Some(&wanted), &broken), "SEAL_MISMATCH");
    }

    #[test]
    fn a_manifest_with_a_bad_digest_or_an_extra_member_is_invalid() {
        let text = serde_json::to_string(&manifest("local", 0)).unwrap();
        assert!(PackManifest::parse(text.as_bytes()).is_ok());
        let short = text.replace(&"d".repeat(64), "d");
        assert_eq!(
            PackManifest::parse(short.as_bytes()).unwrap_err().code(),
            "PACK_MANIFEST_INVALID"
        );
        let extra = text.replacen('{', "{\"x\":1,", 1);
        assert!(PackManifest::parse(extra.as_bytes()).is_err());
    }
}
