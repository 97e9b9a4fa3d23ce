//! Gate summary: what the gate has done since it last said so, and quarantine spikes (contract 7.11).
//!
//! Counting happens where batches end, once per batch or portion, in the [`GateTally`] that shards and
//! senders share. The actor only flushes it and sends the event that tells of a spike; that event goes
//! through the gate like any other, and no answer ever waits for it. Durable: nothing.

use super::handle::GateHandle;
use crate::runtime::failure::StageFailure;
use crate::runtime::tree::{NodeState, TreeNode};
use crate::telemetry::narrate;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wellspring_domain::admission::bus_failures::BusFailures;
use wellspring_domain::admission::decision::{Flush, PolicyRev};
use wellspring_domain::admission::gate_summary::{DecisionCounts, GateSummary};
use wellspring_domain::admission::quarantine_spike::{
    Spike, SpikePins, SpikeRule, SpikeWindow, countable, gate_actor,
};
use wellspring_domain::ports::{Clock, EnvelopeBatch, ItemOutcome};

/// The narrative's name for the gate.
const LOGGER: &str = "ingestion_gate";

/// How the gate reports on itself.
#[derive(Clone)]
pub struct Reporting {
    /// How often counters and latencies are logged.
    pub flush_every: Duration,
    /// When quarantines are a spike.
    pub spike: SpikeRule,
    /// Commits that failed in a row.
    pub bus_failures: BusFailures,
}

/// What shards and senders count into. Locks are held for a few additions, once per batch.
pub struct GateTally {
    summary: Mutex<GateSummary>,
    spike: Mutex<(SpikeWindow, Option<SpikePins>)>,
    reporting: Reporting,
    policy_rev: PolicyRev,
    clock: Arc<dyn Clock>,
    reporter: ActorRef<SummaryMsg>,
}

impl GateTally {
    /// A batch was judged.
    pub fn judged(&self, took: Duration) {
        self.with(|summary| summary.validate.add(took.as_micros() as u64));
    }

    /// A batch has its last answer.
    pub fn answered(&self, took: Duration) {
        self.with(|summary| summary.admission.add(took.as_micros() as u64));
    }

    /// Answers of one portion; `codes` are those of its quarantines.
    pub fn decided(&self, counts: DecisionCounts, codes: &[&'static str]) {
        self.with(|summary| {
            summary.decided(counts);
            for code in codes {
                *summary.reasons.entry(code).or_default() += 1;
            }
        });
    }

    /// A flush is durable.
    pub fn committed(&self, flush: &Flush, quarantined: u64) {
        self.reporting.bus_failures.succeeded();
        if quarantined > 0 {
            self.look_for_spike(flush);
        }
    }

    /// A flush could not be made durable.
    pub fn commit_failed(&self) {
        self.reporting.bus_failures.failed(self.clock.now());
    }

    /// Logs what was counted since the last time, and starts anew.
    pub fn flush(&self) {
        let mut summary = GateSummary::default();
        self.with(|counted| std::mem::swap(counted, &mut summary));
        if summary.is_empty() {
            return;
        }
        let metrics = summary.metrics(&self.policy_rev);
        tracing::info!(logger = LOGGER, "IG metrics {metrics}");
        narrate(LOGGER, &summary.line());
    }

    fn with(&self, change: impl FnOnce(&mut GateSummary)) {
        change(&mut self.summary.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn look_for_spike(&self, flush: &Flush) {
        let (count, pins) = countable(flush);
        if count == 0 {
            return;
        }
        let mut held = self.spike.lock().unwrap_or_else(PoisonError::into_inner);
        let (window, last_pins) = &mut *held;
        if pins.is_some() {
            *last_pins = pins;
        }
        let Some(count) = window.quarantined(count, self.clock.monotonic_micros()) else {
            return;
        };
        let Some(pins) = last_pins.clone() else {
            tracing::warn!(count, "quarantine spike of events without valid pins");
            return;
        };
        let spike = Spike {
            count,
            window_seconds: self.reporting.spike.window_seconds,
            detected_at: self.clock.now(),
            pins,
        };
        // At most one per window; a gate that is stopping does not tell of it.
        let _ = self.reporter.cast(SummaryMsg::Spike(spike));
    }
}

/// Messages of the [`GateReporter`].
pub enum SummaryMsg {
    /// Time to flush.
    Flush,
    /// The gate takes events.
    Serving(Arc<GateTally>, GateHandle),
    /// A quarantine spike was seen.
    Spike(Spike),
}

/// What the reporter is started with.
pub struct ReporterArgs {
    every: Duration,
    policy_rev: PolicyRev,
    node: TreeNode,
}

/// The actor.
pub struct GateReporter;

/// State of the reporter.
pub struct ReporterState {
    policy_rev: PolicyRev,
    serving: Option<(Arc<GateTally>, GateHandle)>,
}

/// Starts the reporter below the gate supervisor; the tally is what the rest of the gate counts into.
pub async fn spawn_reporter(
    supervisor: ActorCell,
    reporting: Reporting,
    policy_rev: PolicyRev,
    clock: Arc<dyn Clock>,
    gate: &TreeNode,
) -> Result<Arc<GateTally>, StageFailure> {
    let args = ReporterArgs {
        every: reporting.flush_every,
        policy_rev: policy_rev.clone(),
        node: gate.child("reporter", "gate_reporter"),
    };
    let (reporter, _join) = Actor::spawn_linked(None, GateReporter, args, supervisor).await?;
    Ok(Arc::new(GateTally {
        summary: Mutex::default(),
        spike: Mutex::new((SpikeWindow::new(reporting.spike), None)),
        reporting,
        policy_rev,
        clock,
        reporter,
    }))
}

impl GateTally {
    /// From now on the gate takes events: flushes and spikes begin.
    pub fn serving(self: &Arc<Self>, gate: GateHandle) {
        // A reporter that is gone ends the gate by itself.
        let _ = self.reporter.cast(SummaryMsg::Serving(self.clone(), gate));
    }
}

impl Actor for GateReporter {
    type Msg = SummaryMsg;
    type State = ReporterState;
    type Arguments = ReporterArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: ReporterArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.send_interval(args.every, || SummaryMsg::Flush);
        args.node.set_state(NodeState::Running);
        Ok(ReporterState {
            policy_rev: args.policy_rev,
            serving: None,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match (message, &state.serving) {
            (SummaryMsg::Flush, Some((tally, _))) => tally.flush(),
            (SummaryMsg::Spike(spike), Some((_, gate))) => tell(spike, gate, &state.policy_rev),
            (SummaryMsg::Serving(tally, gate), _) => state.serving = Some((tally, gate)),
            // Nothing was taken yet.
            (SummaryMsg::Flush | SummaryMsg::Spike(_), None) => {}
        }
        Ok(())
    }
}

/// Sends the event of a spike, if the gate has room for it now.
fn tell(spike: Spike, gate: &GateHandle, policy_rev: &PolicyRev) {
    let run = spike.pins.platform_run_id.clone();
    tracing::warn!(
        count = spike.count,
        window_seconds = spike.window_seconds,
        platform_run_id = run,
        "quarantine spike"
    );
    let untold = |why: &str| tracing::warn!(platform_run_id = run, why, "spike event not sent");
    if let Some(reasons) = gate.refusal() {
        return untold(&reasons);
    }
    let bytes = match spike.envelope(policy_rev) {
        Ok(bytes) => bytes,
        Err(error) => return untold(&error.to_string()),
    };
    let Some(credit) = gate.credits().try_take(1, bytes.len() as u32) else {
        return untold("no room");
    };
    let batch = EnvelopeBatch {
        ranges: std::iter::once(0..bytes.len() as u32).collect(),
        bytes: Arc::new(bytes),
    };
    let gate = gate.clone();
    tokio::spawn(async move {
        let ticket = gate.accept(batch, &gate_actor(), credit).await;
        let outcomes = ticket.answered().await.outcomes();
        if outcomes != [ItemOutcome::Admitted] {
            tracing::warn!(?outcomes, "spike event not admitted");
        }
    });
}
