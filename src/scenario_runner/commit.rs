//! Commits READY and publishes it (contract 5.8).
//!
//! Facts view (write-once) -> status READY -> READY_COMMITTED -> governance facts -> ready signal
//! (write-once) -> control bus -> READY_PUBLISHED. Each step is harmless when done again, and READY
//! is published from the stored signal, so a run cut off anywhere is finished by submitting it again
//! with the same bytes (W19).

use serde_json::{Map, Value, json};
use wellspring_actors::telemetry::narrate;
use wellspring_domain::canonical_json::to_sj;
use wellspring_domain::ids;
use wellspring_domain::ports::{Clock, ControlBus, PutOutcome};
use wellspring_domain::provenance::Provenance;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::evidence::{EvidenceBundle, bundle_hash};
use wellspring_domain::scenario::facts_view::{
    DELIVERY_NOTE_STREAM, FactsPins, OraclePackRef, OutputRole, RunFactsView,
    WORLD_DIGEST_NOTE_PREFIX,
};
use wellspring_domain::scenario::plan::RunPlan;
use wellspring_domain::scenario::ready::{ControlEnvelope, ReadySignal};
use wellspring_domain::scenario::request::CanonicalIntent;
use wellspring_domain::scenario::run_record::RecordKind;
use wellspring_domain::scenario::settings::ScenarioPolicy;
use wellspring_domain::scenario::state_machine::RunState;

use super::error::RunError;
use super::ledger::RunLedger;

/// Characters kept of a publish error (contract 5.4).
const ERROR_CHARS_MAX: usize = 512;

/// Everything a facts view is made of.
pub struct FactsInput<'a> {
    /// What the run is about.
    pub intent: &'a CanonicalIntent,
    /// The platform run.
    pub platform_run_id: &'a PlatformRunId,
    /// The plan.
    pub plan: &'a RunPlan,
    /// The policy, for the roles.
    pub policy: &'a ScenarioPolicy,
    /// The evidence.
    pub bundle: EvidenceBundle,
    /// Where the world lies.
    pub pack_ref: OraclePackRef,
    /// The digest over the world's files.
    pub world_digest: Option<String>,
    /// Who proved it.
    pub provenance: &'a Provenance,
}

/// The facts view of complete evidence (contract 5.6).
pub fn facts_view(input: FactsInput<'_>, ledger: &RunLedger<'_>) -> RunFactsView {
    let keys = ledger.keys();
    let intent = input.intent;
    let role = |output_id: &String| match input.policy.traffic_output_ids.contains(output_id) {
        true => OutputRole::BusinessTraffic,
        false => OutputRole::NonTraffic,
    };
    let outputs = &input.plan.intended_outputs;
    let mut pack_ref = input.pack_ref;
    pack_ref.stream_view_output_refs = pack_ref.stream_view_root.as_ref().map(|root| {
        let root = root.trim_end_matches('/');
        outputs
            .iter()
            .map(|id| (id.clone(), format!("{root}/output_id={id}")))
            .collect()
    });
    let mut notes = vec![DELIVERY_NOTE_STREAM.to_owned()];
    notes.extend(
        input
            .world_digest
            .map(|hex| format!("{WORLD_DIGEST_NOTE_PREFIX}{hex}")),
    );
    RunFactsView {
        run_id: intent.run_id.clone(),
        platform_run_id: input.platform_run_id.to_string(),
        scenario_run_id: intent.run_id.clone(),
        pins: FactsPins {
            manifest_fingerprint: intent.manifest_fingerprint.clone(),
            parameter_hash: intent.parameter_hash.clone(),
            seed: intent.seed,
            scenario_id: intent.scenario_id.clone(),
            run_id: intent.run_id.clone(),
            platform_run_id: input.platform_run_id.to_string(),
            scenario_run_id: intent.run_id.clone(),
        },
        output_roles: Some(outputs.iter().map(|id| (id.clone(), role(id))).collect()),
        intended_outputs: Some(outputs.clone()),
        locators: input.bundle.locators,
        gate_receipts: input.bundle.gate_receipts,
        instance_receipts: Some(input.bundle.instance_receipts).filter(|all| !all.is_empty()),
        policy_rev: input.plan.policy_rev.clone(),
        bundle_hash: input.bundle.bundle_hash,
        plan_ref: keys.plan(),
        record_ref: keys.record(),
        status_ref: keys.status(),
        run_config_digest: input.plan.policy_rev.content_digest.clone(),
        service_release_id: Some(input.provenance.service_release_id.clone()),
        environment: Some(input.provenance.environment.clone()),
        provenance: Some(input.provenance.clone()),
        oracle_pack_ref: Some(pack_ref),
        evidence_notes: Some(notes),
    }
}

/// A stored facts view that is whole and of this run, else why not.
pub fn check_stored_facts(facts: &RunFactsView, run_id: &str) -> Result<(), RunError> {
    let drift = |detail: String| {
        Err(RunError::Drift {
            code: "FACTS_VIEW_DRIFT",
            detail,
        })
    };
    if facts.run_id != run_id || facts.scenario_run_id != run_id {
        return drift(format!("the stored facts view is of run {}", facts.run_id));
    }
    let receipts = facts.instance_receipts.as_deref().unwrap_or_default();
    let hash = bundle_hash(
        &facts.locators,
        &facts.gate_receipts,
        receipts,
        &facts.policy_rev,
    )?;
    match hash == facts.bundle_hash {
        true => Ok(()),
        false => drift(format!(
            "the stored facts view says bundle_hash {}, its evidence hashes to {hash}",
            facts.bundle_hash
        )),
    }
}

/// Whether READY is on the control bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Put there now.
    Published,
    /// It was there already.
    Known,
    /// The bus did not take it.
    Failed {
        /// The bus's text.
        error: String,
    },
}

/// The commit of one run.
pub struct ReadyCommit<'a> {
    /// Takes READY.
    pub control_bus: &'a dyn ControlBus,
    /// The topic.
    pub topic: &'a str,
    /// Time.
    pub clock: &'a dyn Clock,
}

impl ReadyCommit<'_> {
    /// Stores the facts view once. An equal one that is stored already is used instead.
    pub fn store_facts(
        &self,
        ledger: &mut RunLedger<'_>,
        facts: RunFactsView,
    ) -> Result<RunFactsView, RunError> {
        let key = ledger.keys().facts_view();
        if ledger.create(&key, &facts)? == PutOutcome::Created {
            return Ok(facts);
        }
        let stored: RunFactsView = read_write_once(ledger, &key, "FACTS_VIEW_DRIFT")?;
        check_stored_facts(&stored, &facts.run_id)?;
        if stored.bundle_hash != facts.bundle_hash {
            let detail = format!(
                "the stored facts view has bundle_hash {}, the evidence now hashes to {}",
                stored.bundle_hash, facts.bundle_hash
            );
            return Err(RunError::Drift {
                code: "FACTS_VIEW_DRIFT",
                detail,
            });
        }
        Ok(stored)
    }

    /// Everything after the facts view; may be done any number of times.
    pub fn finish(
        &self,
        ledger: &mut RunLedger<'_>,
        facts: &RunFactsView,
        plan_hash: &str,
    ) -> Result<Publication, RunError> {
        let facts_ref = ledger.keys().facts_view();
        ledger.set_state(RunState::Ready, None, Some(facts_ref))?;
        let bundle = || json!({"bundle_hash": facts.bundle_hash});
        ledger.fact(RecordKind::ReadyCommitted, details(bundle()))?;
        ledger.fact(RecordKind::GovBundleHash, details(bundle()))?;
        ledger.fact(
            RecordKind::GovRunIdentitySources,
            details(identity_sources(facts)),
        )?;
        let signal = self.store_signal(ledger, facts, plan_hash)?;
        self.publish(ledger, &signal)
    }

    fn store_signal(
        &self,
        ledger: &mut RunLedger<'_>,
        facts: &RunFactsView,
        plan_hash: &str,
    ) -> Result<ReadySignal, RunError> {
        let signal = ready_signal(facts, Some(plan_hash.to_owned()), ledger, self.clock);
        signal.validate()?;
        let key = ledger.keys().ready_signal();
        if ledger.create(&key, &signal)? == PutOutcome::Created {
            return Ok(signal);
        }
        let stored: ReadySignal = read_write_once(ledger, &key, "READY_SIGNAL_DRIFT")?;
        let timeless = |signal: &ReadySignal| {
            (
                signal.message_id.clone(),
                signal.bundle_hash.clone(),
                signal.facts_view_ref.clone(),
            )
        };
        match timeless(&stored) == timeless(&signal) {
            true => Ok(stored),
            false => Err(RunError::Drift {
                code: "READY_SIGNAL_DRIFT",
                detail: format!(
                    "the stored ready signal has message_id {} and bundle_hash {}, the facts view \
                     gives {} and {}",
                    stored.message_id, stored.bundle_hash, signal.message_id, signal.bundle_hash
                ),
            }),
        }
    }

    fn publish(
        &self,
        ledger: &mut RunLedger<'_>,
        signal: &ReadySignal,
    ) -> Result<Publication, RunError> {
        let message_id = signal.message_id.as_str();
        let said = ledger.record().iter().any(|event| {
            event.is(RecordKind::ReadyPublished) && event.detail("message_id") == Some(message_id)
        });
        if said {
            return Ok(Publication::Known);
        }
        ledger.keep_lease()?;
        let outcome = publish_signal(
            self.control_bus,
            self.topic,
            message_id,
            &signal.run_id,
            [("kind", "READY"), ("run_id", &signal.run_id)],
            signal,
            self.clock,
        )?;
        match outcome {
            Ok(outcome) => {
                ledger.fact(
                    RecordKind::ReadyPublished,
                    details(json!({"message_id": message_id})),
                )?;
                narrate(
                    "scenario_runner",
                    &format!(
                        "SR READY published run_id={} bundle_hash={} message_id={message_id}",
                        signal.run_id, signal.bundle_hash
                    ),
                );
                Ok(match outcome {
                    PutOutcome::Created => Publication::Published,
                    PutOutcome::AlreadyExists => Publication::Known,
                })
            }
            Err(error) => {
                let failed = json!({"message_id": message_id, "error": error});
                ledger.fact(RecordKind::ReadyPublishFailed, details(failed))?;
                Ok(Publication::Failed { error })
            }
        }
    }
}

/// Reads a write-once document that must be there; one that is not what we write has drifted.
fn read_write_once<T: Document>(
    ledger: &RunLedger<'_>,
    key: &str,
    code: &'static str,
) -> Result<T, RunError> {
    use wellspring_domain::ports::StoreError;
    match ledger.read(key) {
        Ok(Some(document)) => Ok(document),
        Ok(None) => Err(RunError::Drift {
            code,
            detail: format!("{key} vanished"),
        }),
        Err(RunError::Store(StoreError::Damaged { cause, .. })) => Err(RunError::Drift {
            code,
            detail: cause,
        }),
        Err(error) => Err(error),
    }
}

/// READY from a facts view; the message id depends on run and evidence only (V8).
pub fn ready_signal(
    facts: &RunFactsView,
    plan_hash: Option<String>,
    ledger: &RunLedger<'_>,
    clock: &dyn Clock,
) -> ReadySignal {
    ReadySignal {
        run_id: facts.run_id.clone(),
        platform_run_id: facts.platform_run_id.clone(),
        scenario_run_id: facts.scenario_run_id.clone(),
        facts_view_ref: ledger.keys().facts_view(),
        bundle_hash: facts.bundle_hash.clone(),
        message_id: ids::ready_message_id(
            &facts.platform_run_id,
            &facts.scenario_run_id,
            &facts.bundle_hash,
        ),
        run_config_digest: facts
            .run_config_digest
            .clone()
            .or_else(|| facts.policy_rev.content_digest.clone())
            .unwrap_or_default(),
        manifest_fingerprint: facts.pins.manifest_fingerprint.clone(),
        parameter_hash: facts.pins.parameter_hash.clone(),
        scenario_id: facts.pins.scenario_id.clone(),
        plan_hash,
        service_release_id: facts.service_release_id.clone(),
        environment: facts.environment.clone(),
        provenance: facts.provenance.clone(),
        emitted_at_utc: Some(clock.now().format_off()),
        oracle_pack_ref: facts.oracle_pack_ref.clone(),
    }
}

/// Puts a signal on the control bus in its envelope. The inner error is the bus's text, cut to what a
/// record keeps.
pub fn publish_signal<'a, T: serde::Serialize>(
    control_bus: &dyn ControlBus,
    topic: &str,
    message_id: &str,
    partition_key: &str,
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    payload: &T,
    clock: &dyn Clock,
) -> Result<Result<PutOutcome, String>, RunError> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let envelope = ControlEnvelope {
        topic: topic.to_owned(),
        message_id: message_id.to_owned(),
        published_at_utc: clock.now().format_off(),
        attributes: attributes.into_iter().map(owned).collect(),
        partition_key: partition_key.to_owned(),
        payload: serde_json::to_value(payload)
            .map_err(|error| RunError::Canonical(error.into()))?,
    };
    let bytes = to_sj(&envelope)?;
    let published = control_bus.publish(topic, message_id, partition_key, bytes.as_bytes());
    Ok(published.map_err(|error| error.to_string().chars().take(ERROR_CHARS_MAX).collect()))
}

/// Where each identity of the run comes from.
fn identity_sources(facts: &RunFactsView) -> Value {
    json!({
        "platform_run_id": facts.platform_run_id,
        "scenario_run_id": facts.scenario_run_id,
        "sources": {
            "platform_run_id": "active_platform_run",
            "scenario_run_id": "run_equivalence_key",
        },
    })
}

fn details(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}
