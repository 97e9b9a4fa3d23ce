//! Re-emit: say READY or a terminal state once more (contract 5.10).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::{Document, DocumentError, FieldCheck};
use super::run_record::{RecordEvent, RecordKind};
use super::settings::ScenarioWiring;
use super::state_machine::RunState;
use crate::time_text::Micros;

/// What to say again; exactly these three names are accepted (regression T3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReemitKind {
    /// READY of a READY run.
    ReadyOnly,
    /// The end of a FAILED or QUARANTINED run.
    TerminalOnly,
    /// Whichever applies.
    #[default]
    Both,
}

impl ReemitKind {
    /// The name in requests and records.
    pub fn as_str(self) -> &'static str {
        match self {
            ReemitKind::ReadyOnly => "READY_ONLY",
            ReemitKind::TerminalOnly => "TERMINAL_ONLY",
            ReemitKind::Both => "BOTH",
        }
    }
}

impl std::str::FromStr for ReemitKind {
    type Err = DocumentError;

    fn from_str(text: &str) -> Result<ReemitKind, DocumentError> {
        match text {
            "READY_ONLY" => Ok(ReemitKind::ReadyOnly),
            "TERMINAL_ONLY" => Ok(ReemitKind::TerminalOnly),
            "BOTH" => Ok(ReemitKind::Both),
            _ => Err(DocumentError::new(
                ReemitRequest::KIND,
                "reemit_kind",
                "must be READY_ONLY, TERMINAL_ONLY or BOTH",
            )),
        }
    }
}

/// Somebody's approval to say READY in another platform run (contract 5.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossRunOverride {
    /// Identity of the approval.
    pub override_id: String,
    /// Why; compared upper case with the allowlist.
    pub reason_code: String,
    /// Where the evidence for it lies.
    pub evidence_ref: String,
    /// Who approved.
    pub approved_by: String,
    /// When.
    pub approved_at_utc: String,
    /// A ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket_ref: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// A re-emit request (contract 5.10); closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReemitRequest {
    /// The run.
    pub run_id: String,
    /// What to say.
    #[serde(default)]
    pub reemit_kind: ReemitKind,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// True only says what would be published.
    #[serde(default)]
    pub dry_run: bool,
    /// The platform run to say it in; default is the run of the facts view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emit_platform_run_id: Option<String>,
    /// Approval for another platform run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_run_override: Option<CrossRunOverride>,
    /// When it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at_utc: Option<String>,
}

impl Document for ReemitRequest {
    const KIND: &'static str = "reemit_request";

    fn validate(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(Self::KIND);
        check.hex32("run_id", &self.run_id)?;
        check.optional_text("reason", self.reason.as_deref(), 2048)?;
        check.optional_text("requested_by", self.requested_by.as_deref(), 128)?;
        if let Some(target) = &self.emit_platform_run_id {
            check.platform_run_id("emit_platform_run_id", target)?;
        }
        let Some(approval) = &self.cross_run_override else {
            return Ok(());
        };
        for (field, text) in [
            ("cross_run_override.override_id", &approval.override_id),
            ("cross_run_override.reason_code", &approval.reason_code),
            ("cross_run_override.evidence_ref", &approval.evidence_ref),
            ("cross_run_override.approved_by", &approval.approved_by),
        ] {
            check.text(field, text, 2048)?;
        }
        let stamped = Micros::parse_any(&approval.approved_at_utc).is_ok();
        check.rule(
            "cross_run_override.approved_at_utc",
            stamped,
            "must be a timestamp",
        )
    }
}

/// Why a re-emit says nothing (contract 5.10); each is a stable reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReemitRefusal {
    /// Another platform run needs an approval.
    CrossRunOverrideRequired,
    /// The approval's reason is not allowed.
    CrossRunOverrideReasonNotAllowed,
    /// A READY run without a readable facts view.
    FactsViewMissing,
    /// Too many re-emits in the window.
    RateLimit,
    /// The run has not ended.
    NotApplicable,
    /// Only a terminal signal was asked for and the run is READY.
    TerminalOnlyMismatch,
    /// Only READY was asked for and the run ended otherwise.
    ReadyOnlyMismatch,
}

impl ReemitRefusal {
    /// The stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            ReemitRefusal::CrossRunOverrideRequired => "CROSS_RUN_OVERRIDE_REQUIRED",
            ReemitRefusal::CrossRunOverrideReasonNotAllowed => {
                "CROSS_RUN_OVERRIDE_REASON_NOT_ALLOWED"
            }
            ReemitRefusal::FactsViewMissing => "FACTS_VIEW_MISSING",
            ReemitRefusal::RateLimit => "REEMIT_RATE_LIMIT",
            ReemitRefusal::NotApplicable => "REEMIT_NOT_APPLICABLE",
            ReemitRefusal::TerminalOnlyMismatch => "REEMIT_TERMINAL_ONLY_MISMATCH",
            ReemitRefusal::ReadyOnlyMismatch => "REEMIT_READY_ONLY_MISMATCH",
        }
    }
}

/// What a re-emit publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReemitSignal {
    /// READY again.
    Ready,
    /// The terminal signal.
    Terminal,
}

impl ReemitSignal {
    /// The name in records and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            ReemitSignal::Ready => "READY",
            ReemitSignal::Terminal => "TERMINAL",
        }
    }
}

/// What applies to a run in this state.
pub fn applicable(kind: ReemitKind, state: RunState) -> Result<ReemitSignal, ReemitRefusal> {
    match (kind, state) {
        (ReemitKind::ReadyOnly | ReemitKind::Both, RunState::Ready) => Ok(ReemitSignal::Ready),
        (ReemitKind::TerminalOnly | ReemitKind::Both, RunState::Failed | RunState::Quarantined) => {
            Ok(ReemitSignal::Terminal)
        }
        (ReemitKind::TerminalOnly, RunState::Ready) => Err(ReemitRefusal::TerminalOnlyMismatch),
        (ReemitKind::ReadyOnly, RunState::Failed | RunState::Quarantined) => {
            Err(ReemitRefusal::ReadyOnlyMismatch)
        }
        _run_has_not_ended => Err(ReemitRefusal::NotApplicable),
    }
}

/// Checks a re-emit whose target is another platform run than the facts view's. `Ok(true)` means an
/// approval was needed and given.
pub fn authorise_cross_run(
    wiring: &ScenarioWiring,
    approval: Option<&CrossRunOverride>,
) -> Result<bool, ReemitRefusal> {
    if !(wiring.reemit_same_platform_run_only && wiring.reemit_cross_run_override_required) {
        return Ok(false);
    }
    let Some(approval) = approval else {
        return Err(ReemitRefusal::CrossRunOverrideRequired);
    };
    let reason = approval.reason_code.to_ascii_uppercase();
    let allowed = wiring
        .reemit_cross_run_reason_allowlist
        .iter()
        .any(|entry| entry.to_ascii_uppercase() == reason);
    if allowed {
        Ok(true)
    } else {
        Err(ReemitRefusal::CrossRunOverrideReasonNotAllowed)
    }
}

/// Number of this attempt: one more than the requests in the record. Carried in the details, so that
/// equal re-emits stay distinct facts and the rate limit counts every one of them.
pub fn next_attempt_no(record: &[RecordEvent]) -> u64 {
    1 + record
        .iter()
        .filter(|event| event.is(RecordKind::ReemitRequested))
        .count() as u64
}

/// True when another publish would exceed the wiring's limit (contract 5.10).
pub fn rate_limited(wiring: &ScenarioWiring, record: &[RecordEvent], now: Micros) -> bool {
    let Some(limit) = wiring.reemit_rate_limit_max else {
        return false;
    };
    let seconds = i64::try_from(wiring.reemit_rate_limit_window_seconds).unwrap_or(i64::MAX);
    let window_start = now.0.saturating_sub(seconds.saturating_mul(1_000_000));
    let recent = record
        .iter()
        .filter(|event| event.is(RecordKind::ReemitPublished))
        .filter(|event| Micros::parse_any(&event.ts_utc).is_ok_and(|at| at.0 > window_start));
    recent.count() as u64 >= limit
}

/// Details of `REEMIT_REQUESTED`; absent members stay absent.
pub fn requested_details(request: &ReemitRequest, attempt_no: u64) -> Map<String, Value> {
    let mut details = Map::new();
    details.insert(
        "reemit_kind".to_owned(),
        request.reemit_kind.as_str().into(),
    );
    for (name, value) in [
        ("reason", &request.reason),
        ("requested_by", &request.requested_by),
        ("emit_platform_run_id", &request.emit_platform_run_id),
    ] {
        if let Some(value) = value {
            details.insert(name.to_owned(), value.clone().into());
        }
    }
    details.insert("attempt_no".to_owned(), attempt_no.into());
    details
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exactly_three_kinds_are_accepted_and_both_is_the_default() {
        for kind in ["READY_ONLY", "TERMINAL_ONLY", "BOTH"] {
            assert_eq!(kind.parse::<ReemitKind>().unwrap().as_str(), kind);
        }
        for bad in ["ready", "Ready_Only", "", "READY"] {
            assert!(bad.parse::<ReemitKind>().is_err(), "{bad}");
            let request = json!({"run_id": "a".repeat(32), "reemit_kind": bad});
            assert!(ReemitRequest::from_value(request).is_err(), "{bad}");
        }
        let request = ReemitRequest::from_value(json!({"run_id": "a".repeat(32)})).unwrap();
        assert_eq!(request.reemit_kind, ReemitKind::Both);
    }

    #[test]
    fn what_applies_follows_the_state_and_a_mismatch_has_its_own_code() {
        use ReemitKind::*;
        let cases = [
            (Both, RunState::Ready, Ok(ReemitSignal::Ready)),
            (ReadyOnly, RunState::Ready, Ok(ReemitSignal::Ready)),
            (Both, RunState::Failed, Ok(ReemitSignal::Terminal)),
            (
                TerminalOnly,
                RunState::Quarantined,
                Ok(ReemitSignal::Terminal),
            ),
            (
                TerminalOnly,
                RunState::Ready,
                Err(ReemitRefusal::TerminalOnlyMismatch),
            ),
            (
                ReadyOnly,
                RunState::Failed,
                Err(ReemitRefusal::ReadyOnlyMismatch),
            ),
            (
                Both,
                RunState::WaitingEvidence,
                Err(ReemitRefusal::NotApplicable),
            ),
            (ReadyOnly, RunState::Open, Err(ReemitRefusal::NotApplicable)),
        ];
        for (kind, state, expected) in cases {
            assert_eq!(applicable(kind, state), expected, "{kind:?} {state:?}");
        }
    }

    fn published(at: &str, attempt: u64) -> RecordEvent {
        let details = json!({"attempt_no": attempt}).as_object().unwrap().clone();
        let now = Micros::parse_any(at).unwrap();
        RecordEvent::new(RecordKind::ReemitPublished, &"a".repeat(32), details, now).unwrap()
    }

    #[test]
    fn the_rate_limit_counts_every_publish_inside_the_window_only() {
        let wiring = ScenarioWiring {
            reemit_rate_limit_max: Some(2),
            reemit_rate_limit_window_seconds: 60,
            ..ScenarioWiring::default()
        };
        let record = vec![
            published("2026-01-01T00:00:00Z", 1),
            published("2026-01-01T00:00:30Z", 2),
        ];
        assert_ne!(
            record[0].event_id, record[1].event_id,
            "equal re-emits are distinct facts"
        );
        let at = |text: &str| Micros::parse_any(text).unwrap();
        assert!(rate_limited(&wiring, &record, at("2026-01-01T00:00:59Z")));
        assert!(!rate_limited(&wiring, &record, at("2026-01-01T00:01:00Z")));
        assert!(!rate_limited(
            &ScenarioWiring::default(),
            &record,
            at("2026-01-01T00:00:59Z")
        ));
    }

    #[test]
    fn an_override_is_needed_only_when_wiring_says_so_and_its_reason_must_be_listed() {
        let open = ScenarioWiring::default();
        assert_eq!(authorise_cross_run(&open, None), Ok(false));
        let closed = ScenarioWiring {
            reemit_same_platform_run_only: true,
            reemit_cross_run_reason_allowlist: vec!["Replay".to_owned()],
            ..ScenarioWiring::default()
        };
        let refused = authorise_cross_run(&closed, None);
        assert_eq!(refused, Err(ReemitRefusal::CrossRunOverrideRequired));
        let mut approval = CrossRunOverride {
            override_id: "o".into(),
            reason_code: "replay".into(),
            evidence_ref: "e".into(),
            approved_by: "x".into(),
            approved_at_utc: "2026-01-01T00:00:00Z".into(),
            ticket_ref: None,
            notes: None,
        };
        assert_eq!(authorise_cross_run(&closed, Some(&approval)), Ok(true));
        approval.reason_code = "other".into();
        let refused = authorise_cross_run(&closed, Some(&approval));
        assert_eq!(
            refused,
            Err(ReemitRefusal::CrossRunOverrideReasonNotAllowed)
        );
    }
}
