//! Metric names, and the exporter that samples the live tree into gauges.

pub mod names {
    //! Every metric of the actors, in one place.

    /// Events a stage took in; label `stage`.
    pub const STAGE_EVENTS_IN: &str = "wellspring_stage_events_in_total";
    /// Events that left a stage, durable or sent on; label `stage`.
    pub const STAGE_EVENTS_OUT: &str = "wellspring_stage_events_out_total";
    /// Bytes a stage took in; label `stage`.
    pub const STAGE_BYTES_IN: &str = "wellspring_stage_bytes_in_total";
    /// Events a stage refused with an answer; label `stage`.
    pub const STAGE_REFUSED: &str = "wellspring_stage_refused_total";
    /// Events a stage dropped; labels `stage`, `reason`.
    pub const STAGE_DROPPED: &str = "wellspring_stage_dropped_total";
    /// Time a stage waited for room downstream; label `stage`.
    pub const STAGE_BLOCKED_MICROS: &str = "wellspring_stage_blocked_micros_total";
    /// Age of the oldest event taken and not acknowledged; label `stage`.
    pub const STAGE_OLDEST_UNACKNOWLEDGED_SECONDS: &str =
        "wellspring_stage_oldest_unacknowledged_seconds";
    /// Whether an actor is running (1) or not (0); label `actor`.
    pub const ACTOR_RUNNING: &str = "wellspring_actor_running";
    /// Restarts of an actor; label `actor`.
    pub const ACTOR_RESTARTS: &str = "wellspring_actor_restarts";
    /// Messages waiting in front of an actor; label `actor`.
    pub const ACTOR_QUEUE_DEPTH: &str = "wellspring_actor_queue_depth";
    /// Events in flight towards an actor; label `actor`.
    pub const CREDIT_EVENTS_IN_USE: &str = "wellspring_credit_events_in_use";
    /// Bytes in flight towards an actor; label `actor`.
    pub const CREDIT_BYTES_IN_USE: &str = "wellspring_credit_bytes_in_use";
    /// Time senders waited for room in front of an actor; label `actor`.
    pub const CREDIT_BLOCKED_MICROS: &str = "wellspring_credit_blocked_micros";
}

use crate::runtime::{NodeState, NodeView, TreeHandle, TreeNode};
use metrics::gauge;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::time::Duration;

/// The target of narrative lines: the story of a run, for `platform.log` (contract 1.4, 6.9).
pub const NARRATIVE: &str = "narrative";

/// Writes one narrative line. `logger` is the component's name, e.g. `world_streamer_producer`.
pub fn narrate(logger: &str, line: &str) {
    tracing::info!(target: NARRATIVE, logger, "{line}");
}

/// Where actors write session events (contract 6.9). A failure to write is logged, never raised.
pub trait SessionEvents: Send + Sync {
    /// Appends one event of a component, e.g. `wsp`, `checkpoint_saved`.
    fn session_event(&self, component: &str, event_kind: &str, details: serde_json::Value);
}

/// Messages of the [`TelemetryExporter`].
pub enum TelemetryMsg {
    /// Copy the live tree into gauges.
    Sample,
}

/// What the exporter needs.
pub struct TelemetryArgs {
    /// The tree to sample.
    pub tree: TreeHandle,
    /// How often.
    pub every: Duration,
}

/// Starts the exporter and shows it in the tree. Dropping the handle leaves it running; stop it with
/// [`ExporterHandle::stop`].
pub async fn spawn_exporter(tree: TreeHandle, every: Duration) -> Option<ExporterHandle> {
    let node = tree.node("telemetry exporter", "telemetry_exporter");
    let args = TelemetryArgs { tree, every };
    match Actor::spawn(None, TelemetryExporter, args).await {
        Ok((actor, _join)) => {
            node.set_state(NodeState::Running);
            Some(ExporterHandle { actor, node })
        }
        Err(error) => {
            // Metrics are not worth a start that fails.
            node.set_last_error(format!("STAGE_NOT_STARTED: {error}"));
            node.set_state(NodeState::Failed);
            None
        }
    }
}

/// A running exporter.
pub struct ExporterHandle {
    actor: ActorRef<TelemetryMsg>,
    node: TreeNode,
}

impl ExporterHandle {
    /// Stops it.
    pub fn stop(self) {
        self.actor.stop(None);
        self.node.set_state(NodeState::Stopped);
    }
}

/// Copies the live tree into gauges, so that one place decides how it looks to Prometheus.
pub struct TelemetryExporter;

impl Actor for TelemetryExporter {
    type Msg = TelemetryMsg;
    type State = TreeHandle;
    type Arguments = TelemetryArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: TelemetryArgs,
    ) -> Result<TreeHandle, ActorProcessingErr> {
        myself.send_interval(args.every, || TelemetryMsg::Sample);
        Ok(args.tree)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: TelemetryMsg,
        tree: &mut TreeHandle,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TelemetryMsg::Sample => sample(&tree.snapshot()),
        }
        Ok(())
    }
}

/// Sets the gauges of every actor in the snapshot.
pub fn sample(views: &[NodeView]) {
    for view in views {
        let actor = || view.path.clone();
        let running = if view.state == NodeState::Running {
            1.0
        } else {
            0.0
        };
        gauge!(names::ACTOR_RUNNING, "actor" => actor()).set(running);
        gauge!(names::ACTOR_RESTARTS, "actor" => actor()).set(view.restarts as f64);
        if let Some(depth) = view.queue_depth {
            gauge!(names::ACTOR_QUEUE_DEPTH, "actor" => actor()).set(depth as f64);
        }
        if let Some(credits) = view.credits {
            gauge!(names::CREDIT_EVENTS_IN_USE, "actor" => actor()).set(credits.events_in_use);
            gauge!(names::CREDIT_BYTES_IN_USE, "actor" => actor()).set(credits.bytes_in_use);
            gauge!(names::CREDIT_BLOCKED_MICROS, "actor" => actor())
                .set(credits.blocked_micros as f64);
        }
    }
}
