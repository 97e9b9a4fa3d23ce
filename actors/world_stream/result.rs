//! What a stream came to (contract 6.8, end; per-output status by D9).

use super::progress::ProgressView;
use serde::Serialize;
use wellspring_domain::stream::ready_decision::RUN_CANCELLED;

/// How an output or a whole run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StreamStatus {
    /// Everything asked for was accepted by the gate. A capped run is streamed too.
    Streamed,
    /// An output failed for good.
    Failed,
    /// Stopped on request before the end; it continues from its checkpoints.
    Stopped,
}

impl StreamStatus {
    /// The status's name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamStatus::Streamed => "STREAMED",
            StreamStatus::Failed => "FAILED",
            StreamStatus::Stopped => "STOPPED",
        }
    }
}

/// What one output came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputResult {
    /// The output.
    pub output_id: String,
    /// Events the gate took responsibility for, in this process.
    pub rows: u64,
    /// Of these, admitted.
    pub admitted: u64,
    /// Of these, admitted before.
    pub duplicate: u64,
    /// Of these, quarantined with a record.
    pub quarantined: u64,
    /// Rows over the time from the first submit to the last answer.
    pub events_per_second: f64,
    /// Median time from submit to answer.
    pub admit_p50_ms: f64,
    /// 99th percentile of the time from submit to answer.
    pub admit_p99_ms: f64,
    /// 99th percentile of the time events were sent after they were due.
    pub lateness_p99_ms: f64,
    /// From the first submit to the last answer.
    pub elapsed_seconds: f64,
    /// How the output ended.
    pub status: StreamStatus,
    /// The reason code when it did not stream to its end.
    pub reason: Option<String>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamResult {
    /// The world.
    pub engine_run_root: Option<String>,
    /// The scenario.
    pub scenario_id: Option<String>,
    /// FAILED when any output failed (D9).
    pub status: StreamStatus,
    /// Events the gate took responsibility for, all outputs together.
    pub emitted: u64,
    /// Reason code of the first failed output, in streaming order.
    pub reason: Option<String>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Outputs in streaming order.
    pub output_ids: Vec<String>,
    /// What each output came to, in the same order.
    pub outputs: Vec<OutputResult>,
}

impl OutputResult {
    /// The result of an output that ended like this.
    pub fn new(output_id: &str, view: &ProgressView, end: OutputEnd) -> Self {
        let rows = view.tally.accepted();
        let elapsed_seconds = view.elapsed.as_secs_f64();
        let (status, reason, detail) = match end {
            OutputEnd::Streamed => (StreamStatus::Streamed, None, None),
            OutputEnd::Stopped => (StreamStatus::Stopped, None, None),
            OutputEnd::Failed { code, detail } => (StreamStatus::Failed, Some(code), Some(detail)),
        };
        OutputResult {
            output_id: output_id.to_owned(),
            rows,
            admitted: view.tally.admitted,
            duplicate: view.tally.duplicate,
            quarantined: view.tally.quarantined,
            events_per_second: if elapsed_seconds > 0.0 {
                rows as f64 / elapsed_seconds
            } else {
                0.0
            },
            admit_p50_ms: view.admit_p50_ms,
            admit_p99_ms: view.admit_p99_ms,
            lateness_p99_ms: view.lateness_p99_ms,
            elapsed_seconds,
            status,
            reason,
            detail,
        }
    }
}

/// How one output ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEnd {
    /// To its end or its cap.
    Streamed,
    /// On request.
    Stopped,
    /// For good.
    Failed {
        /// Reason code.
        code: String,
        /// The reason in words.
        detail: String,
    },
}

impl StreamResult {
    /// The result of a run from those of its outputs; any failed output fails it (D9).
    pub fn of_outputs(
        engine_run_root: &str,
        scenario_id: &str,
        outputs: Vec<OutputResult>,
    ) -> Self {
        let failed = outputs
            .iter()
            .find(|output| output.status == StreamStatus::Failed);
        let stopped = outputs
            .iter()
            .any(|output| output.status == StreamStatus::Stopped);
        let status = match (failed, stopped) {
            (Some(_), _) => StreamStatus::Failed,
            (None, true) => StreamStatus::Stopped,
            (None, false) => StreamStatus::Streamed,
        };
        StreamResult {
            engine_run_root: Some(engine_run_root.to_owned()),
            scenario_id: Some(scenario_id.to_owned()),
            status,
            emitted: outputs.iter().map(|output| output.rows).sum(),
            reason: failed.and_then(|output| output.reason.clone()),
            detail: failed.and_then(|output| output.detail.clone()),
            output_ids: outputs
                .iter()
                .map(|output| output.output_id.clone())
                .collect(),
            outputs,
        }
    }

    /// The result of a run that an operator cancelled: what was stopped is over. A run that got to its
    /// end before the order did is left as it is.
    pub fn cancelled(mut self) -> Self {
        let detail = "an operator cancelled the run";
        let over =
            |status: &mut StreamStatus, reason: &mut Option<String>, why: &mut Option<String>| {
                if *status == StreamStatus::Stopped {
                    *status = StreamStatus::Failed;
                    *reason = Some(RUN_CANCELLED.to_owned());
                    *why = Some(detail.to_owned());
                }
            };
        over(&mut self.status, &mut self.reason, &mut self.detail);
        for output in &mut self.outputs {
            over(&mut output.status, &mut output.reason, &mut output.detail);
        }
        self
    }

    /// A run that was refused before any output started.
    pub fn refused(
        engine_run_root: Option<String>,
        scenario_id: Option<String>,
        code: &str,
        detail: String,
    ) -> Self {
        StreamResult {
            engine_run_root,
            scenario_id,
            status: StreamStatus::Failed,
            emitted: 0,
            reason: Some(code.to_owned()),
            detail: Some(detail),
            output_ids: Vec::new(),
            outputs: Vec::new(),
        }
    }
}
