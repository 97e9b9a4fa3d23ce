//! Platform run ids, run roots and store prefixes (contract 1.4).

use crate::time_text::Micros;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The folder below the runs root that holds every platform run.
pub const PLATFORM_FOLDER: &str = "fraud-platform";

/// `platform_YYYYMMDDTHHMMSSZ`: one run of the platform (contract 1.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlatformRunId(String);

/// A text that is not a platform run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a platform run id (expected platform_YYYYMMDDTHHMMSSZ): {0:?}")]
pub struct PlatformRunIdError(pub String);

impl PlatformRunId {
    /// Checks the pattern of contract 1.1.
    pub fn parse(text: &str) -> Result<PlatformRunId, PlatformRunIdError> {
        if is_platform_run_id(text.as_bytes()) {
            Ok(PlatformRunId(text.to_owned()))
        } else {
            Err(PlatformRunIdError(text.chars().take(64).collect()))
        }
    }

    /// The id of a run that starts at `now` (one-second resolution).
    pub fn generate(now: Micros) -> PlatformRunId {
        PlatformRunId(format!("platform_{}", now.format_compact()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// True for `^platform_[0-9]{8}T[0-9]{6}Z$` (contract 1.1).
pub fn is_platform_run_id(text: &[u8]) -> bool {
    const SHAPE: &[u8] = b"platform_ddddddddTddddddZ";
    text.len() == SHAPE.len()
        && text[..9] == SHAPE[..9]
        && SHAPE[9..]
            .iter()
            .zip(&text[9..])
            .all(|(want, have)| match want {
                b'd' => have.is_ascii_digit(),
                literal => literal == have,
            })
}

impl TryFrom<String> for PlatformRunId {
    type Error = PlatformRunIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        PlatformRunId::parse(&text)
    }
}

impl From<PlatformRunId> for String {
    fn from(id: PlatformRunId) -> String {
        id.0
    }
}

impl fmt::Display for PlatformRunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where one platform run keeps its artefacts (contract 1.4, last row).
///
/// `runs_root` is the object-store root, normally `runs`; the run lies in
/// `<runs_root>/fraud-platform/<platform_run_id>`, or directly in `<runs_root>/<platform_run_id>`
/// when the root's last component already is `fraud-platform` or the root is an S3 bucket (T4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPaths {
    runs_root: String,
    run_id: PlatformRunId,
}

impl RunPaths {
    /// Paths of `run_id` below `runs_root`.
    pub fn new(runs_root: &str, run_id: &PlatformRunId) -> RunPaths {
        RunPaths {
            runs_root: runs_root.trim_end_matches('/').to_owned(),
            run_id: run_id.clone(),
        }
    }

    /// The run these paths belong to.
    pub fn run_id(&self) -> &PlatformRunId {
        &self.run_id
    }

    /// The root the prefix is relative to.
    pub fn runs_root(&self) -> &str {
        &self.runs_root
    }

    /// The object-store key prefix of this run: `<id>` on S3, else `fraud-platform/<id>`.
    pub fn store_prefix(&self) -> String {
        format!("{}{}", platform_prefix(&self.runs_root), self.run_id)
    }

    /// `<runs root>/<store prefix>`.
    pub fn run_root(&self) -> String {
        format!("{}/{}", self.runs_root, self.store_prefix())
    }

    /// The event bus folder.
    pub fn eb(&self) -> String {
        self.below("eb")
    }

    /// The file control bus folder.
    pub fn control_bus(&self) -> String {
        self.below("control_bus")
    }

    /// The World Streamer's folder.
    pub fn wsp(&self) -> String {
        self.below("wsp")
    }

    /// The stream checkpoint folder.
    pub fn checkpoints(&self) -> String {
        self.below("wsp/checkpoints")
    }

    /// The Ingestion Gate's folder.
    pub fn ig(&self) -> String {
        self.below("ig")
    }

    /// The Scenario Runner's folder.
    pub fn sr(&self) -> String {
        self.below("sr")
    }

    /// The session ledger.
    pub fn session_jsonl(&self) -> String {
        self.below("session.jsonl")
    }

    /// The narrative log.
    pub fn platform_log(&self) -> String {
        self.below("platform.log")
    }

    fn below(&self, suffix: &str) -> String {
        format!("{}/{suffix}", self.run_root())
    }
}

/// What stands before the run id in a store key: nothing on S3 and below a root that already ends
/// in `fraud-platform` (T4), else `fraud-platform/`.
pub fn platform_prefix(store_root: &str) -> &'static str {
    let root = store_root.trim_end_matches('/');
    let already_inside = root.rsplit('/').next() == Some(PLATFORM_FOLDER);
    if root.starts_with("s3://") || already_inside {
        ""
    } else {
        "fraud-platform/"
    }
}

/// The file that names the active platform run (contract 1.4).
pub fn active_run_id_path(runs_root: &str) -> String {
    format!(
        "{}/{}ACTIVE_RUN_ID",
        runs_root.trim_end_matches('/'),
        platform_prefix(runs_root)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PlatformRunId {
        PlatformRunId::parse("platform_20260101T000000Z").unwrap()
    }

    #[test]
    fn ids_follow_the_pattern() {
        assert_eq!(PlatformRunId::generate(Micros(1_767_225_600_000_000)), id());
        for bad in [
            "",
            "platform_20260101T000000",
            "platform_2026010aT000000Z",
            "Platform_20260101T000000Z",
            "platform_20260101T000000Z/..",
        ] {
            assert!(PlatformRunId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_platform_folder_is_never_doubled() {
        for (root, run_root) in [
            ("runs", "runs/fraud-platform/platform_20260101T000000Z"),
            (
                "/data/runs/",
                "/data/runs/fraud-platform/platform_20260101T000000Z",
            ),
            (
                "runs/fraud-platform",
                "runs/fraud-platform/platform_20260101T000000Z",
            ),
            (
                "s3://fraud-platform",
                "s3://fraud-platform/platform_20260101T000000Z",
            ),
            (
                "s3://other-bucket",
                "s3://other-bucket/platform_20260101T000000Z",
            ),
        ] {
            assert_eq!(RunPaths::new(root, &id()).run_root(), run_root);
        }
        assert_eq!(
            RunPaths::new("runs", &id()).eb(),
            "runs/fraud-platform/platform_20260101T000000Z/eb"
        );
        assert_eq!(
            active_run_id_path("runs"),
            "runs/fraud-platform/ACTIVE_RUN_ID"
        );
    }
}
