//! READY and terminal signals and the control bus envelope around them (contract 5.7, 5.9).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentError, FieldCheck};
use super::facts_view::OraclePackRef;
use crate::provenance::Provenance;

/// The control bus topic of READY and terminal signals (contract 5.9).
pub const CONTROL_TOPIC: &str = "fp.bus.control.v1";

/// `run_ready_signal`: the run is proven and may be streamed (contract 5.7); closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadySignal {
    /// The Scenario Runner's run id.
    pub run_id: String,
    /// The platform run.
    pub platform_run_id: String,
    /// The same as `run_id`.
    pub scenario_run_id: String,
    /// Store key of the facts view.
    pub facts_view_ref: String,
    /// The hash over all evidence.
    pub bundle_hash: String,
    /// Identity of this message; the same for a re-emit of the same run and bundle.
    pub message_id: String,
    /// The Scenario Runner policy's content digest.
    pub run_config_digest: String,
    /// The sealed world.
    pub manifest_fingerprint: String,
    /// The parameter bundle.
    pub parameter_hash: String,
    /// The scenario.
    pub scenario_id: String,
    /// The hash of the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// The release that proved the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_release_id: Option<String>,
    /// The environment it ran in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The provenance block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// When it was made (T-off).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emitted_at_utc: Option<String>,
    /// Where the world lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle_pack_ref: Option<OraclePackRef>,
}

impl Document for ReadySignal {
    const KIND: &'static str = "run_ready_signal";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.hex32("run_id", &self.run_id)?;
        check.platform_run_id("platform_run_id", &self.platform_run_id)?;
        check.hex32("scenario_run_id", &self.scenario_run_id)?;
        check.text("facts_view_ref", &self.facts_view_ref, 2048)?;
        check.hex64("bundle_hash", &self.bundle_hash)?;
        check.hex64("message_id", &self.message_id)?;
        check.hex64("run_config_digest", &self.run_config_digest)?;
        check.hex64("manifest_fingerprint", &self.manifest_fingerprint)?;
        check.hex64("parameter_hash", &self.parameter_hash)?;
        check.text("scenario_id", &self.scenario_id, 512)?;
        if let Some(hex) = &self.plan_hash {
            check.hex64("plan_hash", hex)?;
        }
        match &self.oracle_pack_ref {
            Some(pack) => pack.validate(Self::KIND),
            None => Ok(()),
        }
    }
}

/// The end states a terminal signal may carry (contract 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TerminalState {
    /// The run failed.
    Failed,
    /// The evidence contradicts itself.
    Quarantined,
}

/// `run_terminal_signal`: a run ended without READY; only a re-emit sends it (contract 5.7); closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSignal {
    /// The Scenario Runner's run id.
    pub run_id: String,
    /// How the run ended.
    pub status_state: TerminalState,
    /// Store key of the status.
    pub status_ref: String,
    /// Store key of the record.
    pub record_ref: String,
    /// Identity of this message (contract 1.2).
    pub reemit_key: String,
    /// Why it ended; left out when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// When it was made (T-off).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emitted_at_utc: Option<String>,
}

impl Document for TerminalSignal {
    const KIND: &'static str = "run_terminal_signal";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.hex32("run_id", &self.run_id)?;
        check.text("status_ref", &self.status_ref, 2048)?;
        check.text("record_ref", &self.record_ref, 2048)?;
        check.hex64("reemit_key", &self.reemit_key)?;
        check.optional_text("reason_code", self.reason_code.as_deref(), 256)
    }
}

/// The envelope around every control bus message (contract 5.9); its bytes are SJ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlEnvelope {
    /// The topic it was published to.
    pub topic: String,
    /// Identity: one message per id is kept.
    pub message_id: String,
    /// When it was published (T-off).
    pub published_at_utc: String,
    /// Flat attributes, for example `kind`.
    pub attributes: BTreeMap<String, String>,
    /// Order key; READY uses the run id.
    pub partition_key: String,
    /// READY, terminal signal or anything else the topic carries.
    pub payload: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> serde_json::Value {
        serde_json::json!({
            "run_id": "1".repeat(32), "platform_run_id": "platform_20260101T000000Z",
            "scenario_run_id": "1".repeat(32), "facts_view_ref": "p/sr/run_facts_view/1.json",
            "bundle_hash": "a".repeat(64), "message_id": "b".repeat(64),
            "run_config_digest": "c".repeat(64), "manifest_fingerprint": "d".repeat(64),
            "parameter_hash": "e".repeat(64), "scenario_id": "baseline_v1"
        })
    }

    #[test]
    fn a_ready_with_only_the_required_members_is_valid() {
        ReadySignal::from_value(ready()).unwrap();
    }

    #[test]
    fn every_required_member_of_ready_is_required() {
        for name in ready().as_object().unwrap().keys() {
            let mut cut = ready();
            cut.as_object_mut().unwrap().shift_remove(name);
            assert!(
                ReadySignal::from_value(cut).is_err(),
                "{name} may be left out"
            );
        }
    }

    #[test]
    fn an_unknown_member_makes_a_ready_invalid() {
        let mut extra = ready();
        extra["seed"] = 7.into();
        let error = ReadySignal::from_value(extra).unwrap_err();
        assert!(error.problem.contains("seed"), "{error}");
    }

    #[test]
    fn a_terminal_signal_is_not_a_ready_and_a_null_reason_is_refused_by_no_reader_of_ours() {
        let terminal = TerminalSignal {
            run_id: "1".repeat(32),
            status_state: TerminalState::Failed,
            status_ref: "s".into(),
            record_ref: "r".into(),
            reemit_key: "f".repeat(64),
            reason_code: None,
            emitted_at_utc: None,
        };
        let value = serde_json::to_value(&terminal).unwrap();
        assert!(value.get("reason_code").is_none(), "null is left out");
        assert!(ReadySignal::from_value(value).is_err());
    }
}
