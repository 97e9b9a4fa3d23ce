//! Policy activation: the policy a run is decided under is written down when the run is opened
//! (contract 7.11). A changed policy is a new fact, so receipts of one run can be told apart (W26).

use crate::governance_store::GovernanceStore;
use serde_json::{Value, json};
use std::sync::Arc;
use wellspring_domain::admission::decision::{PolicyRev, RowRef};
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::governance::{
    ActorSource, GovernanceActor, GovernanceEvent, GovernanceFamily, GovernancePins,
};
use wellspring_domain::ports::{
    Clock, GateStore, ObjectStore, OpenRun, OpenShard, PartitionEnd, RunLayout, StoreError,
};
use wellspring_domain::provenance::Provenance;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// A gate store that also activates the policy in every run it opens.
pub struct PolicyActivation {
    /// The store that opens runs.
    pub inner: Arc<dyn GateStore>,
    /// Objects below the runs root.
    pub objects: Arc<dyn ObjectStore>,
    /// The runs root.
    pub runs_root: String,
    /// The policy in force.
    pub policy_rev: PolicyRev,
    /// Who says so.
    pub provenance: Provenance,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl GateStore for PolicyActivation {
    fn open_run(&self, run: &PlatformRunId, layout: &RunLayout) -> Result<OpenRun, StoreError> {
        let open = self.inner.open_run(run, layout)?;
        self.activate(run)?;
        Ok(open)
    }

    fn reopen_shard(
        &self,
        run: &PlatformRunId,
        shard: u16,
        from: RowRef,
    ) -> Result<(OpenShard, Vec<PartitionEnd>), StoreError> {
        self.inner.reopen_shard(run, shard, from)
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        self.inner.free_bytes()
    }
}

impl PolicyActivation {
    fn activate(&self, run: &PlatformRunId) -> Result<(), StoreError> {
        let prefix = RunPaths::new(&self.runs_root, run).store_prefix();
        let key = format!("{prefix}/ig/policy/active.json");
        if self.active_digest(&key)?.as_deref() == Some(self.policy_rev.content_digest.as_str()) {
            return Ok(());
        }
        let now = self.clock.now();
        let active = json!({
            "policy_id": self.policy_rev.policy_id,
            "revision": self.policy_rev.revision,
            "content_digest": self.policy_rev.content_digest,
            "activated_at_utc": now.format_off(),
        });
        let event = GovernanceEvent {
            family: GovernanceFamily::PolicyRevChanged,
            actor: GovernanceActor {
                actor_id: "SYSTEM::ingestion_gate".to_owned(),
                source_type: ActorSource::System,
                source_component: "ingestion_gate".to_owned(),
            },
            pins: GovernancePins {
                platform_run_id: run.to_string(),
                ..GovernancePins::default()
            },
            provenance: self.provenance.clone(),
            details: self.details(&active),
            dedupe_key: Some(format!(
                "ig_policy_activation:{}",
                self.policy_rev.content_digest
            )),
            at: now,
        };
        // Telling is best effort; the activation itself must be there before the first decision.
        if let Err(error) = GovernanceStore::new(self.objects.clone(), &prefix).emit(&event) {
            tracing::warn!(code = error.code(), %error, "policy activation could not be told");
        }
        let text = to_cj(&active).map_err(|error| damaged(&key, &error.to_string()))?;
        self.objects.put(&key, format!("{text}\n").as_bytes())
    }

    fn active_digest(&self, key: &str) -> Result<Option<String>, StoreError> {
        let Some(bytes) = self.objects.get(key)? else {
            return Ok(None);
        };
        let active: Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged(key, &error.to_string()))?;
        Ok(active
            .get("content_digest")
            .and_then(Value::as_str)
            .map(str::to_owned))
    }

    fn details(&self, active: &Value) -> Value {
        let mut details = active.clone();
        details["run_config_digest"] = json!(self.policy_rev.content_digest);
        details["provenance"] = json!(self.provenance);
        details
    }
}

fn damaged(key: &str, cause: &str) -> StoreError {
    StoreError::Damaged {
        key: key.to_owned(),
        offset: 0,
        cause: cause.to_owned(),
    }
}
