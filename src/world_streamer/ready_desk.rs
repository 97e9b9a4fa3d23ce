//! Takes READY messages up: reads facts, decides, claims, prepares the stream and writes the end down
//! (contract 6.1, 6.2).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use wellspring_actors::telemetry::SessionEvents;
use wellspring_actors::world_stream::ready_desk::{PreparedRun, ReadyDesk, ReadyOutcome, TakeUp};
use wellspring_actors::world_stream::result::{StreamResult, StreamStatus};
use wellspring_domain::ports::{ControlRecord, StoreError};
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::facts_view::RunFactsView;
use wellspring_domain::scenario::ready::{ControlEnvelope, ReadySignal};
use wellspring_domain::stream::preflight::PreflightRefusal;
use wellspring_domain::stream::ready_decision::{
    FactsSummary, PriorVerdict, RUN_CANCELLED, ReadyInputs, ReadyStatus, ReadyVerdict, RunIdentity,
    decide, first_given, prior_verdict,
};

use super::claims::{ClaimOutcome, claim};
use super::pack_probe::RequiredPacks;
use super::ready_records::ReadyRecords;
use super::ready_story::ReadyStory;
use super::setup::{SESSION_COMPONENT, StreamOptions, StreamTarget, WorldStreamer, tell_complete};
use crate::governance_store::GovernanceStore;

/// Messages whose arrival was told; more are told again.
const RECEIVED_MAX: usize = 10_000;

/// The desk over the stores of this machine.
pub struct FileReadyDesk {
    streamer: Arc<WorldStreamer>,
    options: StreamOptions,
    topic: String,
    packs: RequiredPacks,
    received: Mutex<BTreeSet<String>>,
}

/// One message being handled.
struct Case {
    ready: ReadySignal,
    attempt: u32,
    records: ReadyRecords,
    story: ReadyStory,
    session: crate::session_ledger::SessionLedger,
}

impl FileReadyDesk {
    /// A desk that streams with these options.
    pub fn new(streamer: Arc<WorldStreamer>, options: StreamOptions) -> Self {
        let settings = &streamer.settings;
        FileReadyDesk {
            topic: settings.wiring.control_bus.topic.clone(),
            packs: RequiredPacks::of_settings(settings),
            options,
            streamer,
            received: Mutex::default(),
        }
    }

    /// The message in a record, or why it is no READY (contract 6.1).
    fn read(&self, record: &ControlRecord) -> Result<ReadySignal, String> {
        let envelope: ControlEnvelope =
            serde_json::from_slice(&record.bytes).map_err(|error| error.to_string())?;
        if envelope.topic != self.topic {
            return Err(format!("it is on topic {}", envelope.topic));
        }
        let ready = ReadySignal::from_value(envelope.payload).map_err(|error| error.to_string())?;
        if ready.message_id != envelope.message_id {
            return Err(format!(
                "envelope {} carries READY {}",
                envelope.message_id, ready.message_id
            ));
        }
        Ok(ready)
    }

    fn active_run(&self) -> Option<PlatformRunId> {
        let settings = &self.streamer.settings;
        let active = settings.active_run();
        match active.find() {
            Ok(found) => found.map(|(run_id, _)| run_id),
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "the active run cannot be told");
                None
            }
        }
    }

    /// Where a message is written down: in the active run, else in its own.
    fn case(&self, ready: ReadySignal, active: &Option<PlatformRunId>) -> Result<Case, StoreError> {
        let streamer = &self.streamer;
        let own = PlatformRunId::parse(&ready.platform_run_id);
        let own = own.map_err(|error| StoreError::InvalidKey {
            key: error.to_string(),
        })?;
        let run_id = active.clone().unwrap_or(own);
        let prefix = streamer.paths(&run_id).store_prefix();
        let governance = GovernanceStore::new(streamer.store.clone(), &prefix);
        let provenance = streamer
            .settings
            .provenance("world_streamer_producer", None);
        let records = ReadyRecords::new(streamer.store.clone(), &prefix);
        let clock = streamer.clock.clone();
        Ok(Case {
            story: ReadyStory::new(governance, clock, provenance, &ready),
            session: streamer.session(&run_id),
            records,
            attempt: 1,
            ready,
        })
    }

    fn tell_received(&self, case: &Case) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if received.len() >= RECEIVED_MAX {
            received.clear();
        }
        if received.insert(case.ready.message_id.clone()) {
            let details = json!({"message_id": case.ready.message_id, "run_id": case.ready.run_id});
            case.session
                .session_event(SESSION_COMPONENT, "ready_received", details);
        }
    }

    /// The facts view, or why it cannot be used (step 3).
    fn facts(&self, ready: &ReadySignal) -> Result<Result<RunFactsView, String>, StoreError> {
        let bytes = match self.streamer.store.get(&ready.facts_view_ref) {
            Err(StoreError::InvalidKey { key }) => {
                return Ok(Err(format!("{key} is no store key")));
            }
            read => read?,
        };
        Ok(match bytes {
            None => Err(format!(
                "there is no facts view at {}",
                ready.facts_view_ref
            )),
            Some(bytes) => RunFactsView::from_json(&bytes).map_err(|error| error.to_string()),
        })
    }

    fn inputs(
        &self,
        ready: &ReadySignal,
        facts: &Result<RunFactsView, String>,
        active: &Option<PlatformRunId>,
    ) -> ReadyInputs {
        let wired = self
            .streamer
            .settings
            .wiring
            .oracle_engine_run_root
            .as_deref();
        let of_ready = ready.oracle_pack_ref.as_ref();
        let of_ready = of_ready.and_then(|pack| pack.engine_run_root.as_deref());
        let of_facts = facts
            .as_ref()
            .ok()
            .and_then(|facts| facts.oracle_pack_ref.as_ref());
        let of_facts = of_facts.and_then(|pack| pack.engine_run_root.as_deref());
        let active = active.as_ref().map(PlatformRunId::to_string);
        ReadyInputs {
            ready: RunIdentity {
                platform_run_id: Some(ready.platform_run_id.clone()),
                scenario_run_id: first_given([Some(&ready.scenario_run_id), Some(&ready.run_id)]),
            },
            facts: facts.as_ref().map(summary).map_err(String::clone),
            pack_problems: self.packs.problems(active.as_deref()),
            active_run: active,
            engine_run_root: first_given([wired, of_ready, of_facts]),
        }
    }

    /// Step 10: from here on the message is ours, and its end is written down.
    fn stream(
        &self,
        case: Case,
        facts: &RunFactsView,
        scenario_id: String,
        scenario_run_id: String,
        engine_run_root: String,
    ) -> Result<TakeUp, StoreError> {
        let stem = case.records.stem(&case.ready.message_id);
        let now = self.streamer.clock.now().format_off();
        if let ClaimOutcome::Held(holder) = claim(self.streamer.store.as_ref(), &stem, &now)? {
            let detail = format!("process {} is streaming it", holder.pid);
            let status = ReadyStatus::DeferredClaimedElsewhere;
            return Ok(TakeUp::Ended(Box::new(case.outcome(
                status,
                "READY_CLAIMED",
                detail,
            ))));
        }
        case.story.started(&engine_run_root);
        let target = StreamTarget {
            engine_run_root: Some(engine_run_root.clone()),
            scenario_id: Some(scenario_id.clone()),
            scenario_run_id: Some(scenario_run_id),
            platform_run_id: PlatformRunId::parse(&case.ready.platform_run_id).ok(),
            stream_view_root: stream_view_root(&case.ready, facts, &engine_run_root),
            lease: None,
        };
        match self.streamer.prepare(&target, &self.options) {
            Ok(prepared) => {
                prepared.announce();
                let clock = self.streamer.clock.clone();
                let (closing, message_id) = (prepared.closing(), case.ready.message_id.clone());
                Ok(TakeUp::Stream(Box::new(PreparedRun {
                    message_id,
                    platform_run_id: prepared.cleared.platform_run_id.clone(),
                    request: prepared.request,
                    tuning: prepared.tuning,
                    source: prepared.source,
                    checkpoints: prepared.checkpoints,
                    on_saved: prepared.on_saved,
                    finish: Box::new(move |result| {
                        closing(result);
                        case.finish(result, clock.now())
                    }),
                })))
            }
            Err(refusal) => {
                let result = refused(refusal, engine_run_root, scenario_id);
                tell_complete(&case.session, &result);
                let outcome = case.finish(&result, self.streamer.clock.now());
                Ok(TakeUp::Ended(Box::new(outcome)))
            }
        }
    }

    /// Steps 3 to 9 ended it: write down what must be.
    fn end(&self, case: &Case, verdict: &ReadyVerdict) -> Result<TakeUp, StoreError> {
        let ReadyVerdict::End {
            status,
            reason,
            detail,
            cancelled,
        } = verdict
        else {
            unreachable!("a verdict to stream does not end here");
        };
        if let Some(cause) = cancelled {
            case.story.cancelled(cause.as_str(), reason);
        }
        let outcome = case.outcome(*status, reason, detail.clone());
        if verdict.writes_record() {
            case.records.append(&outcome, self.streamer.clock.now())?;
        }
        Ok(TakeUp::Ended(Box::new(outcome)))
    }
}

impl ReadyDesk for FileReadyDesk {
    fn take_up(&self, record: &ControlRecord) -> Result<TakeUp, StoreError> {
        let ready = match self.read(record) {
            Ok(ready) => ready,
            Err(why) => {
                return Ok(TakeUp::NotReady {
                    why: format!("{}: {why}", record.position),
                });
            }
        };
        let active = self.active_run();
        let mut case = self.case(ready, &active)?;
        self.tell_received(&case);
        match prior_verdict(&case.records.prior(&case.ready.message_id)?) {
            PriorVerdict::Attempt(attempt) => case.attempt = attempt,
            PriorVerdict::Done => {
                let detail = "it was streamed, or skipped for good, before".to_owned();
                let outcome =
                    case.outcome(ReadyStatus::SkippedDuplicate, "SKIPPED_DUPLICATE", detail);
                return Ok(TakeUp::Ended(Box::new(outcome)));
            }
        }
        let facts = self.facts(&case.ready)?;
        let verdict = decide(&self.inputs(&case.ready, &facts, &active));
        match (verdict, facts) {
            (
                ReadyVerdict::Stream {
                    scenario_id,
                    scenario_run_id,
                    engine_run_root,
                },
                Ok(facts),
            ) => {
                case.story = case.story.with_seed(facts.pins.seed);
                self.stream(case, &facts, scenario_id, scenario_run_id, engine_run_root)
            }
            (verdict, _) => self.end(&case, &verdict),
        }
    }
}

impl Case {
    fn outcome(&self, status: ReadyStatus, reason: &str, detail: String) -> ReadyOutcome {
        ReadyOutcome {
            message_id: self.ready.message_id.clone(),
            run_id: self.ready.run_id.clone(),
            status,
            reason: Some(reason.to_owned()),
            detail: Some(detail),
            emitted: 0,
            engine_run_root: None,
            scenario_id: None,
            attempt: self.attempt,
            outputs: Vec::new(),
        }
    }

    /// Writes the end of a stream down. What was only stopped has not ended and is not written.
    fn finish(
        &self,
        result: &StreamResult,
        now: wellspring_domain::time_text::Micros,
    ) -> ReadyOutcome {
        let status = match (result.status, result.reason.as_deref()) {
            (StreamStatus::Streamed, _) => ReadyStatus::Streamed,
            (StreamStatus::Stopped, _) => ReadyStatus::Interrupted,
            (StreamStatus::Failed, Some(RUN_CANCELLED)) => ReadyStatus::Cancelled,
            (StreamStatus::Failed, _) => ReadyStatus::Failed,
        };
        let outcome = ReadyOutcome {
            message_id: self.ready.message_id.clone(),
            run_id: self.ready.run_id.clone(),
            status,
            reason: result.reason.clone(),
            detail: result.detail.clone(),
            emitted: result.emitted,
            engine_run_root: result.engine_run_root.clone(),
            scenario_id: result.scenario_id.clone(),
            attempt: self.attempt,
            outputs: result.outputs.clone(),
        };
        if status == ReadyStatus::Interrupted {
            return outcome;
        }
        if let Err(error) = self.records.append(&outcome, now) {
            // The message comes again; what it streamed is then skipped by its checkpoints.
            tracing::error!(code = error.code(), %error, "the end of a run was not written down");
        }
        if status == ReadyStatus::Cancelled {
            self.story.cancelled("operator", RUN_CANCELLED);
        }
        self.story.ended(&outcome);
        outcome
    }
}

fn summary(facts: &RunFactsView) -> FactsSummary {
    FactsSummary {
        identity: RunIdentity {
            platform_run_id: first_given([
                Some(&facts.platform_run_id),
                Some(&facts.pins.platform_run_id),
            ]),
            scenario_run_id: first_given([
                Some(&facts.scenario_run_id),
                Some(&facts.pins.scenario_run_id),
                Some(&facts.run_id),
            ]),
        },
        scenario_id: Some(facts.pins.scenario_id.clone()),
        delivery_mode: facts.delivery_mode(),
    }
}

/// READY's or the facts' stream views, when they speak of the world that is used (T10).
fn stream_view_root(
    ready: &ReadySignal,
    facts: &RunFactsView,
    engine_run_root: &str,
) -> Option<String> {
    let packs = [&ready.oracle_pack_ref, &facts.oracle_pack_ref];
    let same_world = |pack: &&wellspring_domain::scenario::facts_view::OraclePackRef| {
        pack.engine_run_root.as_deref() == Some(engine_run_root)
    };
    let packs = packs
        .into_iter()
        .filter_map(Option::as_ref)
        .filter(same_world);
    packs
        .filter_map(|pack| pack.stream_view_root.clone())
        .find(|root| !root.trim().is_empty())
}

fn refused(
    refusal: PreflightRefusal,
    engine_run_root: String,
    scenario_id: String,
) -> StreamResult {
    StreamResult::refused(
        Some(engine_run_root),
        Some(scenario_id),
        refusal.code,
        refusal.detail,
    )
}
