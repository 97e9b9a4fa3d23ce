//! What callers of the Scenario Runner get: answers, refusals and the port they call (contract 5.1).

use serde::Serialize;

use super::reemit::ReemitRequest;
use super::request::RunRequest;
use super::state_machine::RunState;

/// What a submission came to, for exit codes and HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunVerdict {
    /// READY is on the control bus.
    Ready,
    /// READY is committed and not yet on the control bus: submit again or re-emit.
    ReadyUnpublished,
    /// Evidence is missing and may still come: submit again.
    Waiting,
    /// Somebody else works on this run: ask again.
    LeaseBusy,
    /// The run ended FAILED.
    Failed,
    /// The run ended QUARANTINED.
    Quarantined,
    /// The caller may not submit runs.
    Unauthorized,
}

/// The answer to a run request (contract 5.1); refs are store keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunResponse {
    /// The run.
    pub run_id: String,
    /// Where it stands.
    pub state: RunState,
    /// Store key of the status, null when the run has none.
    pub status_ref: Option<String>,
    /// Store key of the record, null when the run has none.
    pub record_ref: Option<String>,
    /// Store key of the facts view, once READY.
    pub facts_view_ref: Option<String>,
    /// A sentence for people.
    pub message: String,
    /// What it came to.
    #[serde(skip)]
    pub verdict: RunVerdict,
    /// The reason code of a run that is not READY.
    #[serde(skip)]
    pub reason_code: Option<String>,
}

/// What a re-emit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReemitVerdict {
    /// The signal is on the control bus.
    Published,
    /// Nothing was published, as asked.
    DryRun,
    /// The caller may not re-emit.
    Unauthorized,
    /// Another operator re-emits this run.
    Busy,
    /// There is no such run.
    NotFound,
    /// A rule says no.
    Refused,
    /// The control bus did not take it.
    PublishFailed,
}

/// The answer to a re-emit request (contract 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReemitResponse {
    /// The run.
    pub run_id: String,
    /// Where it stands, null when it does not exist or may not be asked about.
    pub status_state: Option<RunState>,
    /// What was published: `READY` or `TERMINAL`.
    pub published: Vec<String>,
    /// A sentence for people.
    pub message: String,
    /// What it came to.
    #[serde(skip)]
    pub verdict: ReemitVerdict,
    /// The reason code when nothing was published.
    #[serde(skip)]
    pub reason_code: Option<String>,
}

/// Who has to do something about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// The request is malformed: 400.
    Invalid,
    /// It contradicts what is stored: 409.
    Conflict,
    /// Not now: 503, the same request may succeed later.
    Unavailable,
    /// Too much waits already: 429.
    Busy,
}

/// A request that was not worked on to an answer; nothing of it was lost or overwritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable reason code.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Who has to act.
    pub class: RefusalClass,
}

/// The Scenario Runner as its callers see it. Both calls block; they are serialised per run by leases.
pub trait ScenarioControl: Send + Sync {
    /// Works on a run as far as its evidence allows.
    fn submit(&self, request: &RunRequest) -> Result<RunResponse, Refusal>;
    /// Says READY or a terminal state again.
    fn reemit(&self, request: &ReemitRequest) -> Result<ReemitResponse, Refusal>;
}
