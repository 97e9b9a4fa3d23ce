//! Ready records: one file a message, one line an attempt (contract 6.2).

use std::sync::Arc;

use crate::failpoints::{Artefact, Operation, Step, around};
use serde_json::json;
use wellspring_actors::world_stream::ready_desk::ReadyOutcome;
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::stream::ready_decision::PriorRecord;
use wellspring_domain::time_text::Micros;

/// The ready records of one platform run.
#[derive(Clone)]
pub struct ReadyRecords {
    store: Arc<dyn ObjectStore>,
    folder: String,
}

impl ReadyRecords {
    /// Records below `<run prefix>/wsp/ready_runs`.
    pub fn new(store: Arc<dyn ObjectStore>, run_prefix: &str) -> Self {
        ReadyRecords {
            store,
            folder: format!("{run_prefix}/wsp/ready_runs"),
        }
    }

    /// The key of a message's files without their endings.
    pub fn stem(&self, message_id: &str) -> String {
        format!("{}/{message_id}", self.folder)
    }

    /// What earlier attempts came to. A line that cannot be read is one of a process that died while
    /// writing: it says nothing.
    pub fn prior(&self, message_id: &str) -> Result<Vec<PriorRecord>, StoreError> {
        let bytes = self
            .store
            .get(&format!("{}.jsonl", self.stem(message_id)))?;
        let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Adds what an attempt came to.
    pub fn append(&self, outcome: &ReadyOutcome, now: Micros) -> Result<(), StoreError> {
        let key = format!("{}.jsonl", self.stem(&outcome.message_id));
        let line = to_cj(&json!({
            "message_id": outcome.message_id,
            "run_id": outcome.run_id,
            "status": outcome.status.in_records(),
            "reason": outcome.reason,
            "emitted": outcome.emitted,
            "engine_run_root": outcome.engine_run_root,
            "scenario_id": outcome.scenario_id,
            "ts_utc": now.format_off(),
        }));
        let line = line.expect("texts and numbers have a canonical form");
        let step = Step(Artefact::ReadyRecord, Operation::Put);
        around(step, || self.store.append_line(&key, line.as_bytes()))
    }
}
