//! Codes of supervision: why a stage or a generation ended.

use super::{Chapter, CodeClass::*, Speaker::*, row};

/// Supervision.
pub const CHAPTER: Chapter = Chapter {
    title: "Supervision",
    codes: &[
        row(
            "COMMIT_FAILED",
            &[Gate, Supervision],
            WaitAndRetry,
            "a flush could not be written; the shard starts again and recovers",
            "check disk and permissions; nothing unwritten was answered as admitted",
        ),
        row(
            "FSYNC_FAILED",
            &[Gate, Supervision],
            FixTheCause,
            "the disk refused to make data durable; the process ends",
            "check the disk before starting again: the start rewrites what is in doubt",
        ),
        row(
            "GENERATION_START_PANICKED",
            &[Supervision],
            WaitAndRetry,
            "a start, recovery included, panicked; it is tried again",
            "`wellspring doctor`; report it when it comes back",
        ),
        row(
            "GENERATION_START_TIMEOUT",
            &[Supervision],
            WaitAndRetry,
            "a start, recovery included, took too long; it is tried again",
            "`wellspring doctor`; check the disk",
        ),
        row(
            "HEARTBEAT_LOST",
            &[Supervision],
            WaitAndRetry,
            "a stage was busy without a sign of life and was started again",
            "look for a stuck disk or network",
        ),
        row(
            "HTTP_LISTENER_ENDED",
            &[Supervision],
            WaitAndRetry,
            "the HTTP server ended unasked",
            "read the log, start again",
        ),
        row(
            "INDEX_SHARD_GONE",
            &[Supervision],
            WaitAndRetry,
            "an index shard ended; the gate ends with it",
            "read the log, start again: the index is rebuilt from the journal",
        ),
        row(
            "INTERRUPTED",
            &[WorldStreamer],
            Information,
            "the stream was stopped before its end; its checkpoint is kept",
            "start again: it goes on there",
        ),
        row(
            "RECOVERY_PANICKED",
            &[Supervision],
            WaitAndRetry,
            "recovering a shard panicked; it is tried again",
            "report it with the log when it comes back",
        ),
        row(
            "RUNS_SUPERVISOR_LOST",
            &[WorldStreamer, Supervision],
            WaitAndRetry,
            "the supervisor of the ready runs ended unasked",
            "read the log, start again: streams go on from their checkpoints",
        ),
        row(
            "STAGE_ENDED",
            &[Supervision],
            WaitAndRetry,
            "a stage ended without being asked to and was started again",
            "read the sentence; report it when it comes back",
        ),
        row(
            "STAGE_FAILED",
            &[Supervision],
            WaitAndRetry,
            "a panic or an error without a code of its own; the stage was started again",
            "read the sentence; report it when it comes back",
        ),
        row(
            "STAGE_NOT_STARTED",
            &[Supervision],
            WaitAndRetry,
            "a stage could not be started",
            "read the sentence; it is tried again",
        ),
        row(
            "STAGE_NOT_STOPPABLE",
            &[Supervision],
            FixTheCause,
            "a stage does not end, so nothing may start beside it",
            "restart the process",
        ),
        row(
            "SUPERVISOR_LOST",
            &[Supervision],
            FixTheCause,
            "a supervisor was ended from outside",
            "restart the process",
        ),
        row(
            "THREAD_NOT_STARTED",
            &[Supervision],
            FixTheCause,
            "a thread the gate needs could not be started",
            "raise the limit of threads for this user, then start again",
        ),
    ],
};
