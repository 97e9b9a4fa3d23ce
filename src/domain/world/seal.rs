//! The seal of a pack: that a world will not change, and whether it may be read (contract 3.6).

use serde::{Deserialize, Serialize};

use super::pack::PACK_VERSION;
use crate::time_text::Micros;

/// The seal's file name under the pack root.
pub const SEAL_FILE: &str = "_SEALED.json";
/// The bare seal marker other packers write; either counts.
pub const SEAL_FLAG_FILE: &str = "_SEALED.flag";

/// What a seal says about the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealStatus {
    /// The pack may be read.
    #[serde(rename = "SEALED_OK")]
    Ok,
    /// The pack is closed as broken and must never be read.
    #[serde(rename = "SEALED_FAILED")]
    Failed,
}

/// `_SEALED.json` (contract 3.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Document version.
    pub version: String,
    /// The sealed pack.
    pub oracle_pack_id: String,
    /// Whether it may be read.
    pub seal_status: SealStatus,
    /// When it was sealed, T-off.
    pub sealed_at_utc: String,
}

impl Seal {
    /// The seal of a pack.
    pub fn new(oracle_pack_id: &str, seal_status: SealStatus, now: Micros) -> Seal {
        Seal {
            version: PACK_VERSION.to_owned(),
            oracle_pack_id: oracle_pack_id.to_owned(),
            seal_status,
            sealed_at_utc: now.format_off(),
        }
    }
}

/// The seal as found at a pack root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealState {
    /// No marker at all.
    Absent,
    /// Only the bare marker file, which names no pack.
    Flag,
    /// A readable seal.
    Sealed(Seal),
    /// A seal file whose content is not a seal.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
}

impl SealState {
    /// Reads what lies at a root: the seal file's bytes when it exists, and whether the bare marker does.
    pub fn read(seal_file: Option<&[u8]>, flag_exists: bool) -> SealState {
        match seal_file {
            Some(bytes) => match serde_json::from_slice(bytes) {
                Ok(seal) => SealState::Sealed(seal),
                Err(error) => SealState::Unreadable {
                    reason: error.to_string(),
                },
            },
            None if flag_exists => SealState::Flag,
            None => SealState::Absent,
        }
    }

    /// Why the world must not be read, if it must not: a missing seal counts only under strict rules, a
    /// failed or unreadable one always.
    pub fn refusal(&self, strict: bool) -> Option<SealRefusal> {
        match self {
            SealState::Absent if strict => Some(SealRefusal::NotSealed),
            SealState::Absent | SealState::Flag => None,
            SealState::Sealed(seal) if seal.seal_status == SealStatus::Failed => {
                Some(SealRefusal::SealedFailed)
            }
            SealState::Sealed(_) => None,
            SealState::Unreadable { .. } => Some(SealRefusal::Unreadable),
        }
    }
}

/// Why a seal forbids reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealRefusal {
    /// Strict rules and no seal.
    #[error("the pack is not sealed")]
    NotSealed,
    /// The pack was closed as broken.
    #[error("the pack is sealed as SEALED_FAILED and must not be read")]
    SealedFailed,
    /// The seal cannot be read, so nothing is known.
    #[error("the seal cannot be read")]
    Unreadable,
}

impl SealRefusal {
    /// The stable reason code (contract 4.1, 6.4).
    pub fn code(&self) -> &'static str {
        match self {
            SealRefusal::NotSealed => "PACK_NOT_SEALED",
            SealRefusal::SealedFailed => "PACK_SEALED_FAILED",
            SealRefusal::Unreadable => "PACK_SEAL_INVALID",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_or_unreadable_seal_forbids_reading_whatever_the_profile() {
        let failed = SealState::Sealed(Seal::new("0", SealStatus::Failed, Micros(0)));
        assert_eq!(failed.refusal(false), Some(SealRefusal::SealedFailed));
        assert_eq!(
            SealState::read(Some(b"x"), true).refusal(false),
            Some(SealRefusal::Unreadable)
        );
        assert_eq!(SealState::Absent.refusal(false), None);
        assert_eq!(
            SealState::Absent.refusal(true),
            Some(SealRefusal::NotSealed)
        );
        assert_eq!(SealState::read(None, true).refusal(true), None);
    }
}
