//! What governance is told about a READY (contract 6.2, 7.12, W13).

use std::sync::Arc;

use serde_json::{Value, json};
use wellspring_actors::world_stream::ready_desk::ReadyOutcome;
use wellspring_domain::governance::{
    ActorSource, GovernanceActor, GovernanceEvent, GovernanceFamily, GovernancePins,
};
use wellspring_domain::ports::Clock;
use wellspring_domain::provenance::Provenance;
use wellspring_domain::scenario::ready::ReadySignal;

use crate::governance_store::GovernanceStore;

const COMPONENT: &str = "wsp_ready_consumer";

/// Tells governance about one message. Failures are logged, never fatal (contract 6.2).
#[derive(Clone)]
pub struct ReadyStory {
    store: GovernanceStore,
    clock: Arc<dyn Clock>,
    provenance: Provenance,
    pins: GovernancePins,
    message_id: String,
    run_id: String,
}

impl ReadyStory {
    /// The story of a READY.
    pub fn new(
        store: GovernanceStore,
        clock: Arc<dyn Clock>,
        provenance: Provenance,
        ready: &ReadySignal,
    ) -> Self {
        ReadyStory {
            store,
            clock,
            provenance,
            pins: GovernancePins {
                platform_run_id: ready.platform_run_id.clone(),
                scenario_run_id: Some(ready.scenario_run_id.clone()),
                manifest_fingerprint: Some(ready.manifest_fingerprint.clone()),
                parameter_hash: Some(ready.parameter_hash.clone()),
                seed: None,
                scenario_id: Some(ready.scenario_id.clone()),
            },
            message_id: ready.message_id.clone(),
            run_id: ready.run_id.clone(),
        }
    }

    /// Adds the world's seed, which only the facts know.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.pins.seed = Some(seed.to_string());
        self
    }

    /// `RUN_CANCELLED`: the run will not be streamed.
    pub fn cancelled(&self, cause: &str, reason: &str) {
        let key = format!("cancelled:{}:{cause}", self.message_id);
        self.tell(
            GovernanceFamily::RunCancelled,
            key,
            json!({"reason": reason}),
        );
    }

    /// `RUN_READY_SEEN` and `RUN_STARTED`: once a message, whatever the attempt.
    pub fn started(&self, engine_run_root: &str) {
        let details = json!({"engine_run_root": engine_run_root});
        let seen = format!("ready_seen:{}", self.message_id);
        self.tell(GovernanceFamily::RunReadySeen, seen, details.clone());
        let started = format!("started:{}", self.message_id);
        self.tell(GovernanceFamily::RunStarted, started, details);
    }

    /// `RUN_ENDED`: later attempts are facts of their own, so that a success after a failure is seen.
    pub fn ended(&self, outcome: &ReadyOutcome) {
        let key = match outcome.attempt {
            0 | 1 => format!("ended:{}", self.message_id),
            attempt => format!("ended:{}:attempt:{attempt}", self.message_id),
        };
        let details = json!({
            "status": outcome.status.in_records(),
            "reason": outcome.reason,
            "emitted": outcome.emitted,
            "attempt": outcome.attempt,
        });
        self.tell(GovernanceFamily::RunEnded, key, details);
    }

    fn tell(&self, family: GovernanceFamily, dedupe_key: String, mut details: Value) {
        details["message_id"] = json!(self.message_id);
        details["run_id"] = json!(self.run_id);
        let event = GovernanceEvent {
            family,
            actor: GovernanceActor {
                actor_id: format!("svc:{COMPONENT}"),
                source_type: ActorSource::System,
                source_component: COMPONENT.to_owned(),
            },
            pins: self.pins.clone(),
            provenance: self.provenance.clone(),
            details,
            dedupe_key: Some(dedupe_key),
            at: self.clock.now(),
        };
        if let Err(error) = self.store.emit(&event) {
            tracing::warn!(code = error.code(), %error, ?family, "governance was not told");
        }
    }
}
