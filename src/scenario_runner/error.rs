//! Why the Scenario Runner could not work on a run to an answer.

use wellspring_domain::canonical_json::CanonicalError;
use wellspring_domain::ports::StoreError;
use wellspring_domain::scenario::control::{Refusal, RefusalClass};
use wellspring_domain::scenario::document::DocumentError;

/// An error that leaves the run as it was; the same request may be sent again once it is settled.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The request is malformed.
    #[error("{0}")]
    Request(#[from] DocumentError),
    /// The equivalence key stands for another intent.
    #[error("run_equivalence_key is taken by another request (intent {stored}, this one {asked})")]
    EquivalenceCollision {
        /// The intent it stands for.
        stored: String,
        /// The intent of this request.
        asked: String,
    },
    /// The equivalence key was taken and its row is gone.
    #[error("run_equivalence_key could not be resolved")]
    EquivalenceUnresolved,
    /// The lease has no token.
    #[error("the lease on {key} has no token")]
    LeaseTokenMissing {
        /// The lease's key.
        key: String,
    },
    /// The lease went to somebody else or ran out.
    #[error("the lease on {key} was lost; nothing more was written")]
    LeaseLost {
        /// The lease's key.
        key: String,
    },
    /// A stored document contradicts what would be written now.
    #[error("{detail}")]
    Drift {
        /// `PLAN_DRIFT`, `FACTS_VIEW_DRIFT` or `READY_SIGNAL_DRIFT`.
        code: &'static str,
        /// What differs.
        detail: String,
    },
    /// A document has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// Store, bus or authority.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            RunError::Request(_) => "RUN_REQUEST_INVALID",
            RunError::EquivalenceCollision { .. } => "EQUIV_KEY_COLLISION",
            RunError::EquivalenceUnresolved => "EQUIV_KEY_RESOLUTION_FAILED",
            RunError::LeaseTokenMissing { .. } => "LEASE_TOKEN_MISSING",
            RunError::LeaseLost { .. } => "LEASE_LOST",
            RunError::Drift { code, .. } => code,
            RunError::Canonical(_) => "CANONICAL_JSON_INVALID",
            RunError::Store(error) => error.code(),
        }
    }

    fn class(&self) -> RefusalClass {
        match self {
            RunError::Request(_) => RefusalClass::Invalid,
            RunError::EquivalenceCollision { .. } | RunError::Drift { .. } => {
                RefusalClass::Conflict
            }
            RunError::EquivalenceUnresolved
            | RunError::LeaseTokenMissing { .. }
            | RunError::LeaseLost { .. }
            | RunError::Canonical(_)
            | RunError::Store(_) => RefusalClass::Unavailable,
        }
    }
}

impl From<RunError> for Refusal {
    fn from(error: RunError) -> Refusal {
        Refusal {
            code: error.code().to_owned(),
            message: error.to_string(),
            class: error.class(),
        }
    }
}
