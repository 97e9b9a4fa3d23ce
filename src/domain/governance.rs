//! Governance facts: what happened to a run, written once per fact (contract 7.12).
//!
//! An event's id covers family, run, component and its dedupe key, so that saying the same fact again
//! changes nothing (V21).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical_json::{CanonicalError, to_cj};
use crate::ids;
use crate::provenance::Provenance;
use crate::time_text::Micros;

/// The kinds of governance facts (contract 7.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GovernanceFamily {
    /// A READY was taken up.
    RunReadySeen,
    /// Streaming began.
    RunStarted,
    /// Streaming ended.
    RunEnded,
    /// The run was refused before it began.
    RunCancelled,
    /// Another policy came into force.
    PolicyRevChanged,
    /// Something at the border was not as it should be.
    CorridorAnomaly,
    /// A reference was read.
    EvidenceRefResolved,
    /// A run report was written.
    RunReportGenerated,
}

impl GovernanceFamily {
    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            GovernanceFamily::RunReadySeen => "RUN_READY_SEEN",
            GovernanceFamily::RunStarted => "RUN_STARTED",
            GovernanceFamily::RunEnded => "RUN_ENDED",
            GovernanceFamily::RunCancelled => "RUN_CANCELLED",
            GovernanceFamily::PolicyRevChanged => "POLICY_REV_CHANGED",
            GovernanceFamily::CorridorAnomaly => "CORRIDOR_ANOMALY",
            GovernanceFamily::EvidenceRefResolved => "EVIDENCE_REF_RESOLVED",
            GovernanceFamily::RunReportGenerated => "RUN_REPORT_GENERATED",
        }
    }
}

/// Whether a person or the platform acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ActorSource {
    /// A component.
    System,
    /// A person.
    Human,
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GovernanceActor {
    /// For example `svc:wsp_ready_consumer`.
    pub actor_id: String,
    /// Person or platform.
    pub source_type: ActorSource,
    /// The component that wrote the fact.
    pub source_component: String,
}

/// What the fact is about; the seed is text here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GovernancePins {
    /// The platform run.
    pub platform_run_id: String,
    /// The Scenario Runner's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario_run_id: Option<String>,
    /// The sealed world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_fingerprint: Option<String>,
    /// The parameter bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter_hash: Option<String>,
    /// The world's seed as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// The scenario.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario_id: Option<String>,
}

/// A fact to be told.
#[derive(Clone, Debug)]
pub struct GovernanceEvent {
    /// What kind of fact.
    pub family: GovernanceFamily,
    /// Who acted.
    pub actor: GovernanceActor,
    /// What it is about.
    pub pins: GovernancePins,
    /// Which release, environment and configuration told it.
    pub provenance: Provenance,
    /// The fact itself.
    pub details: Value,
    /// Identity within family, run and component; without one the details are the identity.
    pub dedupe_key: Option<String>,
    /// When.
    pub at: Micros,
}

/// A fact as it is stored (contract 7.12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GovernanceRecord {
    /// Identity (V21).
    pub event_id: String,
    /// What kind of fact.
    pub event_family: GovernanceFamily,
    /// When (T-off).
    pub ts_utc: String,
    /// Who acted.
    pub actor: GovernanceActor,
    /// What it is about.
    pub pins: GovernancePins,
    /// Which release, environment and configuration told it.
    pub provenance: Provenance,
    /// The fact itself.
    pub details: Value,
}

/// The marker beside a stored fact (contract 7.12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GovernanceMarker {
    /// Identity (V21).
    pub event_id: String,
    /// What kind of fact.
    pub event_family: GovernanceFamily,
    /// When (T-off).
    pub ts_utc: String,
}

impl GovernanceEvent {
    /// The fact as it is stored, with its id.
    pub fn record(&self) -> Result<GovernanceRecord, CanonicalError> {
        let identity = match &self.dedupe_key {
            Some(key) => key.clone(),
            None => to_cj(&self.details)?,
        };
        let event_id = ids::governance_event_id(
            self.family.as_str(),
            &self.pins.platform_run_id,
            self.pins.scenario_run_id.as_deref(),
            &self.actor.source_component,
            &identity,
        );
        Ok(GovernanceRecord {
            event_id,
            event_family: self.family,
            ts_utc: self.at.format_off(),
            actor: self.actor.clone(),
            pins: self.pins.clone(),
            provenance: self.provenance.clone(),
            details: self.details.clone(),
        })
    }
}

impl GovernanceRecord {
    /// The marker beside this fact.
    pub fn marker(&self) -> GovernanceMarker {
        GovernanceMarker {
            event_id: self.event_id.clone(),
            event_family: self.event_family,
            ts_utc: self.ts_utc.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(dedupe_key: Option<&str>, details: Value) -> GovernanceEvent {
        GovernanceEvent {
            family: GovernanceFamily::RunStarted,
            actor: GovernanceActor {
                actor_id: "svc:wsp_ready_consumer".to_owned(),
                source_type: ActorSource::System,
                source_component: "wsp_ready_consumer".to_owned(),
            },
            pins: GovernancePins {
                platform_run_id: "platform_20260101T000000Z".to_owned(),
                scenario_run_id: Some("e4f2285913cc771d0d8dd1ad475f7a01".to_owned()),
                ..GovernancePins::default()
            },
            provenance: Provenance::default(),
            details,
            dedupe_key: dedupe_key.map(str::to_owned),
            at: Micros(0),
        }
    }

    #[test]
    fn the_id_equals_vector_v21_whatever_the_details() {
        let key = format!("started:{}", "1".repeat(64));
        for details in [json!({}), json!({"outputs": 4})] {
            assert_eq!(
                event(Some(&key), details).record().unwrap().event_id,
                "d17e6f6ae6121a092cef3781fc673b47d43bdbe8f40a8f5e988d6816b66aacc7"
            );
        }
    }

    #[test]
    fn without_a_key_the_details_are_the_identity_in_any_key_order() {
        let one = event(None, json!({"a": 1, "b": 2})).record().unwrap();
        let two = event(None, json!({"b": 2, "a": 1})).record().unwrap();
        let other = event(None, json!({"a": 1, "b": 3})).record().unwrap();
        assert_eq!(one.event_id, two.event_id);
        assert_ne!(one.event_id, other.event_id);
    }
}
