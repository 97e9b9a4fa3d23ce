//! The run's record, status, attempts and quarantine files (contract 5.2).
//!
//! The record is a log of facts. An event's id covers its kind, run and details but no time, so the
//! same fact said twice is stored once (V6): redoing a step is harmless.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::{Document, DocumentError, FieldCheck};
use super::request::ScenarioBinding;
use super::state_machine::RunState;
use crate::canonical_json::CanonicalError;
use crate::ids;
use crate::time_text::Micros;

/// The facts a run record may hold (contract 5.4, 5.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RecordKind {
    /// The caller is not on the allowlist.
    AuthDenied,
    /// The request was accepted: `{intent_fingerprint}`.
    RunAccepted,
    /// The plan is written: `{plan_hash}`.
    PlanCommitted,
    /// Policy in force: `{policy_rev}`.
    GovPolicyRev,
    /// Plan in force: `{plan_hash}`.
    GovPlanHash,
    /// Evidence is missing: `{missing}`.
    EvidenceWaiting,
    /// Evidence failed: `{reason, missing}`.
    EvidenceFail,
    /// Evidence contradicts itself: `{reason, missing}`.
    EvidenceConflict,
    /// The engine is about to be started.
    EngineAttemptLaunchRequested,
    /// The engine ended: the attempt record.
    EngineAttemptFinished,
    /// The run ended without READY for another reason: `{reason, detail}`.
    RunFailed,
    /// Status READY is written: `{bundle_hash}`.
    ReadyCommitted,
    /// Evidence in force: `{bundle_hash}`.
    GovBundleHash,
    /// Where the run's identities come from.
    GovRunIdentitySources,
    /// READY is on the control bus: `{message_id}`.
    ReadyPublished,
    /// READY could not be published: `{message_id, error}`.
    ReadyPublishFailed,
    /// An operator asked for a re-emit.
    ReemitRequested,
    /// What a re-emit would have published.
    ReemitDryRun,
    /// A re-emit was published: `{kind, message_id, attempt_no}`.
    ReemitPublished,
    /// A re-emit was refused or failed: `{reason}` or `{kind, message_id, error}`.
    ReemitFailed,
    /// Key of a re-emit: `{kind, reemit_key}`.
    GovReemitKey,
    /// A re-emit into another platform run was approved.
    GovReemitOverrideApproved,
}

impl RecordKind {
    /// The name in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordKind::AuthDenied => "AUTH_DENIED",
            RecordKind::RunAccepted => "RUN_ACCEPTED",
            RecordKind::PlanCommitted => "PLAN_COMMITTED",
            RecordKind::GovPolicyRev => "GOV_POLICY_REV",
            RecordKind::GovPlanHash => "GOV_PLAN_HASH",
            RecordKind::EvidenceWaiting => "EVIDENCE_WAITING",
            RecordKind::EvidenceFail => "EVIDENCE_FAIL",
            RecordKind::EvidenceConflict => "EVIDENCE_CONFLICT",
            RecordKind::EngineAttemptLaunchRequested => "ENGINE_ATTEMPT_LAUNCH_REQUESTED",
            RecordKind::EngineAttemptFinished => "ENGINE_ATTEMPT_FINISHED",
            RecordKind::RunFailed => "RUN_FAILED",
            RecordKind::ReadyCommitted => "READY_COMMITTED",
            RecordKind::GovBundleHash => "GOV_BUNDLE_HASH",
            RecordKind::GovRunIdentitySources => "GOV_RUN_IDENTITY_SOURCES",
            RecordKind::ReadyPublished => "READY_PUBLISHED",
            RecordKind::ReadyPublishFailed => "READY_PUBLISH_FAILED",
            RecordKind::ReemitRequested => "REEMIT_REQUESTED",
            RecordKind::ReemitDryRun => "REEMIT_DRY_RUN",
            RecordKind::ReemitPublished => "REEMIT_PUBLISHED",
            RecordKind::ReemitFailed => "REEMIT_FAILED",
            RecordKind::GovReemitKey => "GOV_REEMIT_KEY",
            RecordKind::GovReemitOverrideApproved => "GOV_REEMIT_OVERRIDE_APPROVED",
        }
    }
}

/// One line of `run_record/<run_id>.jsonl` (contract 5.2). Kinds of other writers are kept as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordEvent {
    /// H(SJ({event_kind, run_id, details})) (V6).
    pub event_id: String,
    /// What happened.
    pub event_kind: String,
    /// The run.
    pub run_id: String,
    /// When (T-off); not part of the id.
    pub ts_utc: String,
    /// The fact itself.
    pub details: Map<String, Value>,
}

#[derive(Serialize)]
struct EventIdentity<'a> {
    event_kind: &'a str,
    run_id: &'a str,
    details: &'a Map<String, Value>,
}

impl RecordEvent {
    /// A fact about a run, with its content-derived id.
    pub fn new(
        kind: RecordKind,
        run_id: &str,
        details: Map<String, Value>,
        now: Micros,
    ) -> Result<RecordEvent, CanonicalError> {
        let event_kind = kind.as_str();
        let event_id = ids::hash_sj(&EventIdentity {
            event_kind,
            run_id,
            details: &details,
        })?;
        Ok(RecordEvent {
            event_id,
            event_kind: event_kind.to_owned(),
            run_id: run_id.to_owned(),
            ts_utc: now.format_off(),
            details,
        })
    }

    /// True for an event of this kind.
    pub fn is(&self, kind: RecordKind) -> bool {
        self.event_kind == kind.as_str()
    }

    /// A text member of the details.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.details.get(name).and_then(Value::as_str)
    }
}

/// `run_record_index/<run_id>.json`: the ids in the record, sorted (contract 5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordIndex {
    /// Sorted event ids.
    pub event_ids: Vec<String>,
}

/// `run_status/<run_id>.json` (contract 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStatus {
    /// The run.
    pub run_id: String,
    /// Where it stands.
    pub state: RunState,
    /// When it got there (T-mod).
    pub updated_at_utc: String,
    /// Why, for WAITING_EVIDENCE, FAILED and QUARANTINED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// Store key of the record.
    pub record_ref: String,
    /// Store key of the facts view, once READY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts_view_ref: Option<String>,
}

impl RunStatus {
    /// H(SJ(status)), the proof in a terminal re-emit key (V9).
    pub fn hash(&self) -> Result<String, CanonicalError> {
        ids::hash_sj(self)
    }
}

impl Document for RunStatus {
    const KIND: &'static str = "run_status";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.hex32("run_id", &self.run_id)?;
        check.text("record_ref", &self.record_ref, 2048)?;
        let stamped = Micros::parse_any(&self.updated_at_utc).is_ok();
        check.rule("updated_at_utc", stamped, "must be a timestamp")
    }
}

/// `quarantine/<run_id>.json`: why a run's evidence is not believed (contract 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineFile {
    /// The run.
    pub run_id: String,
    /// The reason code.
    pub reason: String,
    /// What contradicts itself or is missing.
    pub missing: Vec<String>,
    /// Store key of the record.
    pub record_ref: String,
    /// Store key of the status.
    pub status_ref: String,
    /// When (T-off).
    pub ts_utc: String,
}

/// What the engine is asked to do (contract 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineInvocation {
    /// The sealed world.
    pub manifest_fingerprint: String,
    /// The parameter bundle.
    pub parameter_hash: String,
    /// The world's seed.
    pub seed: u64,
    /// The run the engine writes.
    pub run_id: String,
    /// The scenario or set of scenarios.
    pub scenario_binding: ScenarioBinding,
    /// The caller's id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoker: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Where the engine writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_run_root: Option<String>,
}

impl Document for EngineInvocation {
    const KIND: &'static str = "engine_invocation";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.hex64("manifest_fingerprint", &self.manifest_fingerprint)?;
        check.hex64("parameter_hash", &self.parameter_hash)?;
        check.hex32("run_id", &self.run_id)?;
        let binding = &self.scenario_binding;
        let one = binding.scenario_id.is_some() != binding.scenario_set.is_some();
        check.rule(
            "scenario_binding",
            one,
            "must have exactly one of id and set",
        )?;
        check.optional_text(
            "scenario_binding.scenario_id",
            binding.scenario_id.as_deref(),
            512,
        )?;
        check.optional_text("request_id", self.request_id.as_deref(), 2048)?;
        check.optional_text("invoker", self.invoker.as_deref(), 128)?;
        check.optional_text("engine_run_root", self.engine_run_root.as_deref(), 2048)
    }
}

/// How an engine attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AttemptOutcome {
    /// The engine ended well and its receipt matches.
    Succeeded,
    /// It did not.
    Failed,
}

/// Store keys of the engine's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptLogs {
    /// Standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_ref: Option<String>,
    /// Standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_ref: Option<String>,
}

/// One engine attempt, as `ENGINE_ATTEMPT_FINISHED` records it (contract 5.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineAttempt {
    /// The run.
    pub run_id: String,
    /// H32 of run and number (V2).
    pub attempt_id: String,
    /// Counts from 1.
    pub attempt_no: u32,
    /// Who asked; `sr-local` when nobody said.
    pub invoker: String,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// Where the engine wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_run_root: Option<String>,
    /// The engine's own receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_receipt_ref: Option<String>,
    /// Start (T-off).
    pub started_at_utc: String,
    /// End (T-off).
    pub ended_at_utc: String,
    /// How long it took.
    pub duration_ms: u64,
    /// What was asked.
    pub invocation: EngineInvocation,
    /// Where its output lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_ref: Option<AttemptLogs>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn details(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_event_id_equals_vector_v6_whatever_the_time() {
        let fact = details(json!({
            "intent_fingerprint": "0d345b7c225c5c9a419c613f4582277dda3ea51e2e898fb0a5a578e8901471c7"
        }));
        for now in [Micros(0), Micros(1_767_225_600_000_000)] {
            let event = RecordEvent::new(
                RecordKind::RunAccepted,
                "e4f2285913cc771d0d8dd1ad475f7a01",
                fact.clone(),
                now,
            );
            assert_eq!(
                event.unwrap().event_id,
                "f6a29fc4d6eac432e9f54c31f5f4e4f57206d5a368c470b69789f07635dfd964"
            );
        }
    }

    #[test]
    fn a_terminal_reemit_key_equals_vector_v9() {
        let run_id = "e4f2285913cc771d0d8dd1ad475f7a01";
        let status = RunStatus {
            run_id: run_id.to_owned(),
            state: RunState::Failed,
            updated_at_utc: "2026-01-01T00:00:00.123456Z".to_owned(),
            reason_code: Some("ENGINE_ROOT_MISSING".to_owned()),
            record_ref: format!(
                "fraud-platform/platform_20260101T000000Z/sr/run_record/{run_id}.jsonl"
            ),
            facts_view_ref: None,
        };
        let hash = status.hash().unwrap();
        assert!(hash.starts_with("f417c7f8") && hash.ends_with("af4e668"));
        assert_eq!(
            ids::terminal_reemit_key(run_id, "FAILED", &hash),
            "62aabd9160229f493097a1391b7fa34045826eddd43d34166e455fda92a8fd9a"
        );
    }

    #[test]
    fn an_invocation_with_both_or_no_scenario_is_invalid() {
        let base = json!({
            "manifest_fingerprint": "a".repeat(64), "parameter_hash": "b".repeat(64), "seed": 1,
            "run_id": "c".repeat(32), "scenario_binding": {"scenario_id": "s"}
        });
        EngineInvocation::from_value(base.clone()).unwrap();
        for binding in [
            json!({}),
            json!({"scenario_id": "s", "scenario_set": ["t"]}),
        ] {
            let mut bad = base.clone();
            bad["scenario_binding"] = binding;
            assert!(EngineInvocation::from_value(bad).is_err());
        }
    }
}
