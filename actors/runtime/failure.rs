//! Why a stage failed, and whether starting it again can help.

use ractor::{ActorProcessingErr, SpawnErr};
use serde::{Deserialize, Serialize};

/// The stop reason of a stage that has done all its work: `myself.stop(Some(STAGE_COMPLETE.into()))`.
///
/// Any other end of a stage counts as a failure of its generation.
pub const STAGE_COMPLETE: &str = "complete";

/// Whether a new generation can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The next generation may succeed: restart with backoff.
    Transient,
    /// It would fail the same way again: give up now.
    Terminal,
}

/// A typed failure. Stages return it from their handlers (`Err(failure.into())`); the supervisor
/// finds it again behind the actor framework's error, and it reaches the run record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{code}: {detail}")]
pub struct StageFailure {
    /// Stable reason code.
    pub code: String,
    /// A sentence for a person; never holds a secret.
    pub detail: String,
    /// Whether a new generation can help.
    pub kind: FailureKind,
}

impl StageFailure {
    /// A failure the next generation may not have.
    pub fn transient(code: impl Into<String>, detail: impl Into<String>) -> Self {
        StageFailure {
            code: code.into(),
            detail: detail.into(),
            kind: FailureKind::Transient,
        }
    }

    /// A failure that would come back.
    pub fn terminal(code: impl Into<String>, detail: impl Into<String>) -> Self {
        StageFailure {
            code: code.into(),
            detail: detail.into(),
            kind: FailureKind::Terminal,
        }
    }

    /// What ended an actor: its own typed failure, or else a panic or plain error, which is
    /// transient under the code `STAGE_FAILED`.
    pub fn of_actor(error: &ActorProcessingErr) -> Self {
        match error.downcast_ref::<StageFailure>() {
            Some(failure) => failure.clone(),
            None => StageFailure::transient("STAGE_FAILED", error.to_string()),
        }
    }
}

impl From<SpawnErr> for StageFailure {
    fn from(error: SpawnErr) -> Self {
        match error {
            SpawnErr::StartupFailed(cause) => StageFailure::of_actor(&cause),
            other => StageFailure::transient("STAGE_NOT_STARTED", other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_failure_survives_the_actor_framework() {
        let failure = StageFailure::terminal("CHECKPOINT_INVALID", "cursor is beyond the file");
        let error: ActorProcessingErr = failure.clone().into();
        assert_eq!(StageFailure::of_actor(&error), failure);
        assert_eq!(StageFailure::from(SpawnErr::StartupFailed(error)), failure);
    }

    #[test]
    fn a_panic_or_plain_error_is_transient() {
        let error: ActorProcessingErr = "index out of bounds".into();
        let failure = StageFailure::of_actor(&error);
        assert_eq!(
            (failure.code.as_str(), failure.kind),
            ("STAGE_FAILED", FailureKind::Transient)
        );
    }
}
