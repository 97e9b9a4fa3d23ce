//! Quarantine records as write-once objects (contract 7.8), each told as a governance fact
//! (contract 7.11).

use super::{ProjectionTarget, RowWriter};
use crate::failpoints::{Artefact, Operation, Step, around};
use crate::governance_store::GovernanceStore;
use serde_json::{Value, json};
use std::sync::Arc;
use wellspring_domain::admission::anomaly::anomaly_category;
use wellspring_domain::admission::decision::Decision;
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{ReceiptPlaces, ReceiptsLayout, quarantine_object};
use wellspring_domain::governance::{
    ActorSource, GovernanceActor, GovernanceEvent, GovernanceFamily, GovernancePins,
};
use wellspring_domain::ports::StoreError;

/// The component that tells the facts.
const COMPONENT: &str = "ingestion_gate";

/// Writes `ig/quarantine/<quarantine_id>.json` and a `CORRIDOR_ANOMALY` fact per quarantined row.
pub struct QuarantineRecords {
    /// Layout in force, for the receipt reference of the fact.
    pub layout: ReceiptsLayout,
}

impl RowWriter for QuarantineRecords {
    fn name(&self) -> &'static str {
        "quarantine_records"
    }

    fn decisions(&self) -> &'static [Decision] {
        &[Decision::Quarantine]
    }

    fn write(&self, target: &ProjectionTarget<'_>, row: &JournalRow) -> Result<(), StoreError> {
        let JournalOutcome::Quarantine { code, record } = &row.outcome else {
            return Ok(());
        };
        let id = row.receipt_id();
        let key = format!("{}/ig/quarantine/{id}.json", target.paths.store_prefix());
        let mut bytes = record.clone();
        bytes.push(b'\n');
        let step = Step(Artefact::QuarantineRecord, Operation::Put);
        around(step, || target.store.put_if_absent(&key, &bytes))?;
        let places = ReceiptPlaces {
            paths: target.paths,
            layout: self.layout,
        };
        let governance =
            GovernanceStore::new(Arc::clone(target.store), &target.paths.store_prefix());
        // A fact that cannot be told never holds the records back (contract 7.11).
        if let Err(error) = governance.emit(&anomaly(row, code, &places)) {
            tracing::warn!(quarantine_id = id, %error, "quarantine was not told as a governance fact");
        }
        Ok(())
    }
}

/// The fact of one quarantined event (contract 7.11).
fn anomaly(row: &JournalRow, code: &str, places: &ReceiptPlaces<'_>) -> GovernanceEvent {
    let context = &*row.context;
    let id = row.receipt_id();
    let pin = |name: &str| match context.pins.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let provenance = serde_json::from_value(context.provenance.clone());
    GovernanceEvent {
        family: GovernanceFamily::CorridorAnomaly,
        actor: GovernanceActor {
            actor_id: context.actor.actor_id.clone(),
            source_type: ActorSource::System,
            source_component: COMPONENT.to_owned(),
        },
        pins: GovernancePins {
            platform_run_id: context.platform_run_id.clone(),
            scenario_run_id: context.scenario_run_id.clone(),
            manifest_fingerprint: Some(context.manifest_fingerprint.clone()),
            parameter_hash: pin("parameter_hash"),
            seed: pin("seed"),
            scenario_id: pin("scenario_id"),
        },
        provenance: provenance.unwrap_or_default(),
        details: json!({
            "boundary": COMPONENT,
            "reason_code": code,
            "anomaly_category": anomaly_category(code),
            "event_id": row.event_id,
            "event_type": context.event_type,
            "quarantine_ref": quarantine_object(places.paths, &id),
            "receipt_ref": places.receipt_ref(row.row_ref, || id.clone()),
            "policy_rev": context.policy_rev,
            "run_config_digest": context.policy_rev.content_digest,
        }),
        dedupe_key: Some(format!("ig_quarantine:{}:{code}", row.event_id)),
        at: row.decided_at,
    }
}
