//! What becomes of a READY, decided in the contract's order (contract 6.2, D4, D12).
//!
//! Only what was streamed, or belongs to another run, is done with for good. A failed READY may be
//! tried again, a deferred one is not even written down: the message stays where it is.

use super::required_packs::deferral_reason;
use serde::{Deserialize, Serialize};

/// How the handling of a READY ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReadyStatus {
    /// All outputs were streamed.
    Streamed,
    /// It was streamed, or skipped for good, before.
    SkippedDuplicate,
    /// It belongs to another platform run.
    SkippedOutOfScope,
    /// Packs downstream are not ready; try again later.
    DeferredDownstreamNotReady,
    /// Another process is streaming it; look again later.
    DeferredClaimedElsewhere,
    /// The stream was stopped before its end; it continues another time.
    Interrupted,
    /// It cannot be streamed, or an output failed.
    Failed,
    /// An operator cancelled the run; it is not tried again.
    Cancelled,
}

impl ReadyStatus {
    /// The name in records and results.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadyStatus::Streamed => "STREAMED",
            ReadyStatus::SkippedDuplicate => "SKIPPED_DUPLICATE",
            ReadyStatus::SkippedOutOfScope => "SKIPPED_OUT_OF_SCOPE",
            ReadyStatus::DeferredDownstreamNotReady => "DEFERRED_DOWNSTREAM_NOT_READY",
            ReadyStatus::DeferredClaimedElsewhere => "DEFERRED_CLAIMED_ELSEWHERE",
            ReadyStatus::Interrupted => "INTERRUPTED",
            ReadyStatus::Failed => "FAILED",
            ReadyStatus::Cancelled => "CANCELLED",
        }
    }

    /// The name in ready records, whose words other programs know: a cancelled run has failed there,
    /// with the reason `RUN_CANCELLED`.
    pub fn in_records(self) -> &'static str {
        match self {
            ReadyStatus::Cancelled => ReadyStatus::Failed.as_str(),
            other => other.as_str(),
        }
    }

    /// Whether the message need never be looked at again.
    pub fn settles(self) -> bool {
        matches!(
            self,
            ReadyStatus::Streamed
                | ReadyStatus::SkippedDuplicate
                | ReadyStatus::SkippedOutOfScope
                | ReadyStatus::Cancelled
        )
    }
}

/// One line of a ready record file, as far as decisions need it (contract 6.2).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PriorRecord {
    /// The status of that attempt; statuses of other programs are kept as text.
    pub status: String,
    /// Its reason code.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The reason of a run an operator cancelled.
pub const RUN_CANCELLED: &str = "RUN_CANCELLED";

/// What earlier attempts say about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorVerdict {
    /// Done with for good.
    Done,
    /// The next attempt has this number, counted from 1.
    Attempt(u32),
}

/// Reads the lines of earlier attempts (step 2).
pub fn prior_verdict(records: &[PriorRecord]) -> PriorVerdict {
    let done = [ReadyStatus::Streamed, ReadyStatus::SkippedOutOfScope].map(ReadyStatus::as_str);
    let is_done = |record: &PriorRecord| {
        done.contains(&record.status.as_str()) || record.reason.as_deref() == Some(RUN_CANCELLED)
    };
    if records.iter().any(is_done) {
        return PriorVerdict::Done;
    }
    let failed = records
        .iter()
        .filter(|record| record.status == ReadyStatus::Failed.as_str());
    PriorVerdict::Attempt(failed.count() as u32 + 1)
}

/// The run identities a document carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunIdentity {
    /// The platform run.
    pub platform_run_id: Option<String>,
    /// The Scenario Runner's run: for READY its `run_id` stands in, for facts top level, pins, `run_id`.
    pub scenario_run_id: Option<String>,
}

/// The facts view, as far as the decision needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactsSummary {
    /// Its run identities.
    pub identity: RunIdentity,
    /// Scenario of its pins.
    pub scenario_id: Option<String>,
    /// `traffic_delivery_mode`, when its notes say one (D4).
    pub delivery_mode: Option<String>,
}

/// Everything the decision looks at.
#[derive(Clone, Debug)]
pub struct ReadyInputs {
    /// Identities in the READY message.
    pub ready: RunIdentity,
    /// The facts view, or why it cannot be used.
    pub facts: Result<FactsSummary, String>,
    /// The active platform run.
    pub active_run: Option<String>,
    /// Why required packs are not ready; empty when they are.
    pub pack_problems: Vec<String>,
    /// The engine root in force.
    pub engine_run_root: Option<String>,
}

/// What to do with a READY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyVerdict {
    /// Stream it.
    Stream {
        /// The scenario of the facts.
        scenario_id: String,
        /// The Scenario Runner's run.
        scenario_run_id: String,
        /// The world.
        engine_run_root: String,
    },
    /// It ends here.
    End {
        /// How.
        status: ReadyStatus,
        /// Reason code.
        reason: String,
        /// The reason in words.
        detail: String,
        /// Whether governance is told that the run was cancelled.
        cancelled: Option<CancelCause>,
    },
}

/// Why governance is told `RUN_CANCELLED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelCause {
    /// Another platform run is active.
    ScopeMismatch,
    /// The facts name no scenario.
    ScenarioMissing,
    /// Nobody knows where the world is.
    EngineRootMissing,
}

impl CancelCause {
    /// The tail of the dedupe key `cancelled:<message id>:<cause>`.
    pub fn as_str(self) -> &'static str {
        match self {
            CancelCause::ScopeMismatch => "scope_mismatch",
            CancelCause::ScenarioMissing => "scenario_missing",
            CancelCause::EngineRootMissing => "engine_root_missing",
        }
    }
}

impl ReadyVerdict {
    /// Whether the end is written into the ready record.
    pub fn writes_record(&self) -> bool {
        !matches!(
            self,
            ReadyVerdict::End {
                status: ReadyStatus::DeferredDownstreamNotReady,
                ..
            } | ReadyVerdict::End {
                status: ReadyStatus::SkippedDuplicate,
                ..
            }
        )
    }
}

fn failed(reason: &str, detail: impl Into<String>) -> ReadyVerdict {
    ReadyVerdict::End {
        status: ReadyStatus::Failed,
        reason: reason.to_owned(),
        detail: detail.into(),
        cancelled: None,
    }
}

fn cancelled(
    status: ReadyStatus,
    reason: &str,
    detail: impl Into<String>,
    cause: CancelCause,
) -> ReadyVerdict {
    let (reason, detail) = (reason.to_owned(), detail.into());
    ReadyVerdict::End {
        status,
        reason,
        detail,
        cancelled: Some(cause),
    }
}

/// Steps 3 to 9 of contract 6.2. Step 2 is [`prior_verdict`], step 10 the stream itself.
pub fn decide(inputs: &ReadyInputs) -> ReadyVerdict {
    let facts = match &inputs.facts {
        Ok(facts) => facts,
        Err(why) => return failed("RUN_FACTS_INVALID", why),
    };
    let platform_run_id = match same(
        &inputs.ready.platform_run_id,
        &facts.identity.platform_run_id,
        ["PLATFORM_RUN_ID_MISSING", "PLATFORM_RUN_ID_MISMATCH"],
    ) {
        Ok(id) => id,
        Err(verdict) => return verdict,
    };
    let scenario_run_id = match same(
        &inputs.ready.scenario_run_id,
        &facts.identity.scenario_run_id,
        ["SCENARIO_RUN_ID_MISSING", "SCENARIO_RUN_ID_MISMATCH"],
    ) {
        Ok(id) => id,
        Err(verdict) => return verdict,
    };
    if let Some(mode) = facts
        .delivery_mode
        .as_ref()
        .filter(|mode| *mode != "STREAM")
    {
        let detail = format!("the run's traffic is delivered by {mode}, not by this stream");
        return failed("TRAFFIC_DELIVERY_MODE_UNSUPPORTED", detail);
    }
    if let Some(active) = inputs
        .active_run
        .as_ref()
        .filter(|active| **active != platform_run_id)
    {
        return cancelled(
            ReadyStatus::SkippedOutOfScope,
            "PLATFORM_RUN_SCOPE_MISMATCH",
            format!("{platform_run_id} is ready, {active} is active"),
            CancelCause::ScopeMismatch,
        );
    }
    if !inputs.pack_problems.is_empty() {
        return ReadyVerdict::End {
            status: ReadyStatus::DeferredDownstreamNotReady,
            reason: deferral_reason(&inputs.pack_problems),
            detail: "packs downstream are not ready".to_owned(),
            cancelled: None,
        };
    }
    stream_or_cancel(facts, inputs, scenario_run_id)
}

fn stream_or_cancel(
    facts: &FactsSummary,
    inputs: &ReadyInputs,
    scenario_run_id: String,
) -> ReadyVerdict {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some(scenario_id) = given(&facts.scenario_id) else {
        let detail = "the facts view names no scenario";
        let cause = CancelCause::ScenarioMissing;
        return cancelled(ReadyStatus::Failed, "SCENARIO_ID_MISSING", detail, cause);
    };
    let Some(engine_run_root) = given(&inputs.engine_run_root) else {
        let detail = "neither wiring, READY nor facts say where the world is";
        let cause = CancelCause::EngineRootMissing;
        return cancelled(ReadyStatus::Failed, "ENGINE_ROOT_MISSING", detail, cause);
    };
    ReadyVerdict::Stream {
        scenario_id,
        scenario_run_id,
        engine_run_root,
    }
}

/// The identity READY and facts share, or the verdict when they do not.
fn same(
    ready: &Option<String>,
    facts: &Option<String>,
    [missing, mismatch]: [&str; 2],
) -> Result<String, ReadyVerdict> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (given(ready), given(facts)) {
        (Some(ready), Some(facts)) if ready == facts => Ok(ready),
        (Some(ready), Some(facts)) => Err(failed(
            mismatch,
            format!("READY says {ready}, the facts view says {facts}"),
        )),
        (None, _) => Err(failed(missing, "READY does not name it")),
        (Some(_), None) => Err(failed(missing, "the facts view does not name it")),
    }
}

/// Where a value comes from when wiring, READY and facts may each name it: wiring is authoritative
/// when set (contract 6.2, T10).
pub fn first_given<const N: usize>(candidates: [Option<&str>; N]) -> Option<String> {
    candidates
        .into_iter()
        .flatten()
        .map(str::trim)
        .find(|text| !text.is_empty())
        .map(str::to_owned)
}

/// How long a failed READY rests before attempt `attempt + 1`: 2 s doubling to 5 minutes (W12).
pub fn retry_delay_ms(attempt: u32) -> u64 {
    let doublings = attempt.saturating_sub(1).min(16);
    (2_000_u64 << doublings).min(300_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(platform: &str, scenario: &str) -> RunIdentity {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        RunIdentity {
            platform_run_id: given(platform),
            scenario_run_id: given(scenario),
        }
    }

    fn inputs() -> ReadyInputs {
        ReadyInputs {
            ready: identity("p1", "s1"),
            facts: Ok(FactsSummary {
                identity: identity("p1", "s1"),
                scenario_id: Some("baseline".to_owned()),
                delivery_mode: Some("STREAM".to_owned()),
            }),
            active_run: Some("p1".to_owned()),
            pack_problems: Vec::new(),
            engine_run_root: Some("/world".to_owned()),
        }
    }

    fn with_facts(change: impl FnOnce(&mut FactsSummary)) -> ReadyInputs {
        let mut inputs = inputs();
        change(inputs.facts.as_mut().unwrap());
        inputs
    }

    fn end(inputs: &ReadyInputs) -> (ReadyStatus, String, Option<CancelCause>) {
        match decide(inputs) {
            ReadyVerdict::End {
                status,
                reason,
                cancelled,
                ..
            } => (status, reason, cancelled),
            ReadyVerdict::Stream { .. } => panic!("it would be streamed"),
        }
    }

    #[test]
    fn a_ready_with_nothing_against_it_is_streamed() {
        let expected = ReadyVerdict::Stream {
            scenario_id: "baseline".to_owned(),
            scenario_run_id: "s1".to_owned(),
            engine_run_root: "/world".to_owned(),
        };
        assert_eq!(decide(&inputs()), expected);
        assert_eq!(
            decide(&ReadyInputs {
                active_run: None,
                ..inputs()
            }),
            expected
        );
    }

    #[test]
    fn every_row_of_the_table_is_reachable() {
        use CancelCause::{EngineRootMissing, ScenarioMissing, ScopeMismatch};
        use ReadyStatus::{DeferredDownstreamNotReady, Failed, SkippedOutOfScope};
        let base = inputs;
        let table = [
            (
                ReadyInputs {
                    facts: Err("gone".into()),
                    ..base()
                },
                Failed,
                "RUN_FACTS_INVALID",
                None,
            ),
            (
                ReadyInputs {
                    ready: identity("", "s1"),
                    ..base()
                },
                Failed,
                "PLATFORM_RUN_ID_MISSING",
                None,
            ),
            (
                with_facts(|f| f.identity = identity("", "s1")),
                Failed,
                "PLATFORM_RUN_ID_MISSING",
                None,
            ),
            (
                with_facts(|f| f.identity = identity("p2", "s1")),
                Failed,
                "PLATFORM_RUN_ID_MISMATCH",
                None,
            ),
            (
                with_facts(|f| f.identity = identity("p1", "")),
                Failed,
                "SCENARIO_RUN_ID_MISSING",
                None,
            ),
            (
                with_facts(|f| f.identity = identity("p1", "s2")),
                Failed,
                "SCENARIO_RUN_ID_MISMATCH",
                None,
            ),
            (
                with_facts(|f| f.delivery_mode = Some("PULL".into())),
                Failed,
                "TRAFFIC_DELIVERY_MODE_UNSUPPORTED",
                None,
            ),
            (
                ReadyInputs {
                    active_run: Some("p9".into()),
                    ..base()
                },
                SkippedOutOfScope,
                "PLATFORM_RUN_SCOPE_MISMATCH",
                Some(ScopeMismatch),
            ),
            (
                ReadyInputs {
                    pack_problems: vec!["A".into(), "B".into()],
                    ..base()
                },
                DeferredDownstreamNotReady,
                "A;B",
                None,
            ),
            (
                with_facts(|f| f.scenario_id = None),
                Failed,
                "SCENARIO_ID_MISSING",
                Some(ScenarioMissing),
            ),
            (
                ReadyInputs {
                    engine_run_root: Some(String::new()),
                    ..base()
                },
                Failed,
                "ENGINE_ROOT_MISSING",
                Some(EngineRootMissing),
            ),
        ];
        for (inputs, status, reason, cause) in table {
            assert_eq!(end(&inputs), (status, reason.to_owned(), cause));
        }
    }

    #[test]
    fn the_scope_is_looked_at_before_the_packs_and_the_packs_before_the_scenario() {
        let mut all = with_facts(|f| f.scenario_id = None);
        all.active_run = Some("p9".to_owned());
        all.pack_problems = vec!["A".to_owned()];
        assert_eq!(end(&all).0, ReadyStatus::SkippedOutOfScope);
        all.active_run = None;
        assert_eq!(end(&all).0, ReadyStatus::DeferredDownstreamNotReady);
    }

    #[test]
    fn only_streamed_and_out_of_scope_are_done_with_and_failures_count_attempts() {
        let records = |statuses: &[&str]| -> Vec<PriorRecord> {
            statuses
                .iter()
                .map(|status| PriorRecord {
                    status: (*status).to_owned(),
                    reason: None,
                })
                .collect()
        };
        assert_eq!(prior_verdict(&[]), PriorVerdict::Attempt(1));
        assert_eq!(
            prior_verdict(&records(&["FAILED", "FAILED"])),
            PriorVerdict::Attempt(3)
        );
        assert_eq!(
            prior_verdict(&records(&["FAILED", "STREAMED"])),
            PriorVerdict::Done
        );
        assert_eq!(
            prior_verdict(&records(&["SKIPPED_OUT_OF_SCOPE"])),
            PriorVerdict::Done
        );
        let mut cancelled = records(&[ReadyStatus::Cancelled.in_records()]);
        cancelled[0].reason = Some(RUN_CANCELLED.to_owned());
        assert_eq!(prior_verdict(&cancelled), PriorVerdict::Done);
    }

    #[test]
    fn a_deferral_is_not_written_down_and_everything_else_is() {
        let deferred = ReadyInputs {
            pack_problems: vec!["A".to_owned()],
            ..inputs()
        };
        assert!(!decide(&deferred).writes_record());
        let failed = ReadyInputs {
            facts: Err("gone".to_owned()),
            ..inputs()
        };
        assert!(decide(&failed).writes_record());
        assert!(!ReadyStatus::DeferredDownstreamNotReady.settles());
        assert!(!ReadyStatus::Failed.settles());
        assert!(ReadyStatus::SkippedOutOfScope.settles());
    }

    #[test]
    fn the_wiring_wins_over_ready_and_ready_over_facts() {
        let root = |candidates| first_given::<3>(candidates);
        assert_eq!(
            root([Some("w"), Some("r"), Some("f")]).as_deref(),
            Some("w")
        );
        assert_eq!(
            root([Some(" "), Some("r"), Some("f")]).as_deref(),
            Some("r")
        );
        assert_eq!(root([None, None, Some("f")]).as_deref(), Some("f"));
        assert_eq!(root([None, None, None]), None);
    }

    #[test]
    fn a_failed_ready_rests_longer_each_time() {
        let delays: Vec<u64> = [1, 2, 3, 8, 9, 99].map(retry_delay_ms).into();
        assert_eq!(delays, [2_000, 4_000, 8_000, 256_000, 300_000, 300_000]);
    }
}
