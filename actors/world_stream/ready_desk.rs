//! What handling a READY needs from the outside, and what it comes to (contract 6.2).

use super::checkpointer::SavedHook;
use super::result::{OutputResult, StreamResult};
use super::run_streams::{StreamRequest, StreamTuning};
use serde::Serialize;
use std::sync::Arc;
use wellspring_domain::ports::{CheckpointStore, ControlRecord, StoreError};
use wellspring_domain::stream::ready_decision::ReadyStatus;
use wellspring_domain::stream::source::WorldSource;

/// What became of one READY message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReadyOutcome {
    /// The message.
    pub message_id: String,
    /// The Scenario Runner's run.
    pub run_id: String,
    /// How it ended.
    pub status: ReadyStatus,
    /// Reason code.
    pub reason: Option<String>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Events the gate took responsibility for.
    pub emitted: u64,
    /// The world.
    pub engine_run_root: Option<String>,
    /// The scenario.
    pub scenario_id: Option<String>,
    /// Which attempt this was, counted from 1.
    pub attempt: u32,
    /// What each output came to.
    pub outputs: Vec<OutputResult>,
}

/// A READY that may be streamed.
pub struct PreparedRun {
    /// The message.
    pub message_id: String,
    /// The platform run it belongs to.
    pub platform_run_id: String,
    /// What to stream.
    pub request: StreamRequest,
    /// Limits.
    pub tuning: StreamTuning,
    /// The sealed world.
    pub source: Arc<dyn WorldSource>,
    /// Checkpoints.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Told of every saved checkpoint.
    pub on_saved: SavedHook,
    /// Writes the end down: record, governance, session. Blocking.
    pub finish: Box<dyn FnOnce(&StreamResult) -> ReadyOutcome + Send>,
}

/// What to do with a record of the control bus.
pub enum TakeUp {
    /// It is no READY: done with.
    NotReady {
        /// Why, for the log.
        why: String,
    },
    /// It ends without a stream.
    Ended(Box<ReadyOutcome>),
    /// Stream it, then finish it.
    Stream(Box<PreparedRun>),
}

/// Decides about READY messages and writes down what became of them. Blocking.
pub trait ReadyDesk: Send + Sync {
    /// Steps 1 to 9 of contract 6.2 and the preflight of 6.4. An error means that nothing was decided:
    /// the message is looked at again.
    fn take_up(&self, record: &ControlRecord) -> Result<TakeUp, StoreError>;
}
