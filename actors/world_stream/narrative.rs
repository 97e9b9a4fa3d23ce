//! The story of a stream for `platform.log` (contract 6.9); the run id in it is the engine's.

use super::output_stream::OutputSpec;
use super::pump::PumpEnd;
use super::result::OutputEnd;
use super::run_streams::StreamRequest;
use crate::telemetry::{NARRATIVE, narrate};

const LOGGER: &str = "world_streamer_producer";

/// An output begins.
pub(super) fn narrate_start(request: &StreamRequest, spec: &OutputSpec, concurrency: usize) {
    let (run_id, output_id) = (&request.engine_run_id, &spec.context.output_id);
    let (max_events, speedup) = (spec.events_max.unwrap_or(0), request.speedup);
    let line = format!(
        "WSP stream start run_id={run_id} output_id={output_id} max_events={max_events} \
         speedup={speedup} concurrency={concurrency} lane=0/1"
    );
    narrate(LOGGER, &line);
}

/// An output has ended.
pub(super) fn narrate_end(request: &StreamRequest, spec: &OutputSpec, end: &OutputEnd) {
    let (run_id, output_id) = (&request.engine_run_id, &spec.context.output_id);
    let emitted = spec.progress.accepted();
    let told = |what: &str| {
        format!("WSP stream {what} run_id={run_id} output_id={output_id} emitted={emitted}")
    };
    match (end, spec.ended()) {
        (OutputEnd::Failed { code, .. }, _) => {
            let line = told("stop");
            tracing::warn!(target: NARRATIVE, logger = LOGGER, "{line} reason={code}");
        }
        (OutputEnd::Stopped, _) => narrate(LOGGER, &format!("{} reason=stopped", told("stop"))),
        (OutputEnd::Streamed, Some(PumpEnd::CapReached)) => {
            narrate(LOGGER, &format!("{} reason=max_events", told("stop")));
        }
        (OutputEnd::Streamed, _) => narrate(LOGGER, &told("complete")),
    }
}
