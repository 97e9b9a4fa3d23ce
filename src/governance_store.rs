//! Where governance facts are kept (contract 7.12).
//!
//! Per fact: the event object (write-once, which makes it idempotent), a marker beside it, and a line
//! in the projection `events.jsonl`. The event object is the truth. Telling a fact again writes what
//! a crash left out: the marker is written last, so an event without one still owes its line.

use std::sync::Arc;

use wellspring_domain::canonical_json::{CanonicalError, to_cj};
use wellspring_domain::governance::{GovernanceEvent, GovernanceRecord};
use wellspring_domain::ports::{ObjectStore, PutOutcome, StoreError};

/// What telling a fact came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emitted {
    /// The fact is new.
    New,
    /// The fact was told before; the stored one stays.
    Known,
}

/// Why a fact could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum GovernanceError {
    /// The store did not take it.
    #[error("governance store: {0}")]
    Store(#[from] StoreError),
    /// The fact has no canonical form.
    #[error("governance fact: {0}")]
    Canonical(#[from] CanonicalError),
}

impl GovernanceError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            GovernanceError::Store(error) => error.code(),
            GovernanceError::Canonical(_) => "GOVERNANCE_EVENT_INVALID",
        }
    }
}

/// Keeps governance facts under `<run prefix>/obs/governance`.
#[derive(Clone)]
pub struct GovernanceStore {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

impl GovernanceStore {
    /// Facts of the platform run with this store prefix.
    pub fn new(store: Arc<dyn ObjectStore>, run_prefix: &str) -> GovernanceStore {
        GovernanceStore {
            store,
            prefix: format!("{run_prefix}/obs/governance"),
        }
    }

    /// Keeps a fact once. A line of the projection that cannot be appended is left for later with a
    /// warning; the fact itself is kept.
    pub fn emit(&self, event: &GovernanceEvent) -> Result<Emitted, GovernanceError> {
        let record = event.record()?;
        let line = to_cj(&record)?;
        let event_key = format!("{}/events/{}.json", self.prefix, record.event_id);
        let outcome = self
            .store
            .put_if_absent(&event_key, with_newline(&line).as_bytes())?;
        match outcome {
            PutOutcome::Created => {
                self.project(&record, &line)?;
                Ok(Emitted::New)
            }
            PutOutcome::AlreadyExists => {
                self.complete(&event_key, &record.event_id)?;
                Ok(Emitted::Known)
            }
        }
    }

    /// Writes line and marker of a stored fact whose marker is missing.
    fn complete(&self, event_key: &str, event_id: &str) -> Result<(), GovernanceError> {
        if self.store.head(&self.marker_key(event_id))?.is_some() {
            return Ok(());
        }
        let Some(bytes) = self.store.get(event_key)? else {
            return Ok(());
        };
        let stored: Result<GovernanceRecord, _> = serde_json::from_slice(&bytes);
        match stored {
            Ok(record) => self.project(&record, &to_cj(&record)?),
            Err(error) => {
                tracing::warn!(event_key, %error, "stored governance fact cannot be read");
                Ok(())
            }
        }
    }

    fn project(&self, record: &GovernanceRecord, line: &str) -> Result<(), GovernanceError> {
        let projection = format!("{}/events.jsonl", self.prefix);
        if let Err(error) = self.store.append_line(&projection, line.as_bytes()) {
            tracing::warn!(event_id = %record.event_id, %error, "governance projection is behind");
            return Ok(());
        }
        let marker = with_newline(&to_cj(&record.marker())?);
        self.store
            .put_if_absent(&self.marker_key(&record.event_id), marker.as_bytes())?;
        Ok(())
    }

    fn marker_key(&self, event_id: &str) -> String {
        format!("{}/markers/{event_id}.json", self.prefix)
    }
}

fn with_newline(text: &str) -> String {
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::LocalFiles;
    use serde_json::json;
    use wellspring_domain::governance::{
        ActorSource, GovernanceActor, GovernanceFamily, GovernancePins,
    };
    use wellspring_domain::provenance::Provenance;
    use wellspring_domain::time_text::Micros;

    fn event(key: &str, at: i64) -> GovernanceEvent {
        GovernanceEvent {
            family: GovernanceFamily::RunStarted,
            actor: GovernanceActor {
                actor_id: "svc:wsp_ready_consumer".to_owned(),
                source_type: ActorSource::System,
                source_component: "wsp_ready_consumer".to_owned(),
            },
            pins: GovernancePins {
                platform_run_id: "platform_20260101T000000Z".to_owned(),
                seed: Some("7".to_owned()),
                ..GovernancePins::default()
            },
            provenance: Provenance::default(),
            details: json!({"outputs": 4}),
            dedupe_key: Some(key.to_owned()),
            at: Micros(at),
        }
    }

    fn lines(files: &LocalFiles) -> usize {
        let bytes = files
            .get("p/obs/governance/events.jsonl")
            .unwrap()
            .unwrap_or_default();
        bytes.iter().filter(|byte| **byte == b'\n').count()
    }

    #[test]
    fn a_fact_told_twice_is_kept_once_with_its_first_time() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(folder.path());
        let store = GovernanceStore::new(Arc::new(files.clone()), "p");
        assert_eq!(store.emit(&event("started:1", 0)).unwrap(), Emitted::New);
        assert_eq!(
            store.emit(&event("started:1", 5_000_000)).unwrap(),
            Emitted::Known
        );
        assert_eq!(store.emit(&event("started:2", 0)).unwrap(), Emitted::New);
        assert_eq!(lines(&files), 2);
        let id = event("started:1", 0).record().unwrap().event_id;
        let stored = files
            .get(&format!("p/obs/governance/events/{id}.json"))
            .unwrap()
            .unwrap();
        let stored: GovernanceRecord = serde_json::from_slice(&stored).unwrap();
        assert_eq!(stored.ts_utc, "1970-01-01T00:00:00+00:00");
        assert!(
            files
                .head(&format!("p/obs/governance/markers/{id}.json"))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_fact_cut_off_by_a_crash_gets_its_line_and_marker_when_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(folder.path());
        let store = GovernanceStore::new(Arc::new(files.clone()), "p");
        let record = event("started:1", 0).record().unwrap();
        let key = format!("p/obs/governance/events/{}.json", record.event_id);
        files
            .put_if_absent(&key, to_cj(&record).unwrap().as_bytes())
            .unwrap();
        assert_eq!(lines(&files), 0);
        assert_eq!(store.emit(&event("started:1", 9)).unwrap(), Emitted::Known);
        assert_eq!(store.emit(&event("started:1", 9)).unwrap(), Emitted::Known);
        assert_eq!(lines(&files), 1);
    }
}
