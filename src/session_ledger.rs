//! The session ledger: what happened to a platform run, one line per event (contract 1.4).
//!
//! `<run root>/session.jsonl` holds one SJ object per line. Each line is one append, so lines of
//! several processes never mix. It never holds secrets.

use serde_json::{Value, json};
use std::sync::Arc;
use wellspring_actors::telemetry::SessionEvents;
use wellspring_domain::canonical_json::{CanonicalError, to_sj};
use wellspring_domain::ports::{Clock, ObjectStore, StoreError};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

/// Why an event could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The store did not take it.
    #[error("session ledger: {0}")]
    Store(#[from] StoreError),
    /// The details have no canonical form.
    #[error("session ledger: {0}")]
    Canonical(#[from] CanonicalError),
}

impl SessionError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            SessionError::Store(error) => error.code(),
            SessionError::Canonical(_) => "SESSION_EVENT_INVALID",
        }
    }
}

/// The ledger of one platform run. Clones write the same ledger.
#[derive(Clone)]
pub struct SessionLedger {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    run_id: PlatformRunId,
    key: String,
}

impl SessionLedger {
    /// The ledger of the run at `paths`, in the store that holds all runs.
    pub fn new(store: Arc<dyn ObjectStore>, paths: &RunPaths, clock: Arc<dyn Clock>) -> Self {
        let key = format!("{}/session.jsonl", paths.store_prefix());
        SessionLedger {
            store,
            clock,
            run_id: paths.run_id().clone(),
            key,
        }
    }

    /// Appends one event.
    pub fn append(
        &self,
        component: &str,
        event_kind: &str,
        details: Value,
    ) -> Result<(), SessionError> {
        let line = to_sj(&json!({
            "platform_run_id": self.run_id.as_str(),
            "component": component,
            "event_kind": event_kind,
            "ts_utc": self.clock.now().format_off(),
            "details": details,
        }))?;
        self.store.append_line(&self.key, line.as_bytes())?;
        Ok(())
    }

    /// The newest `max` events, oldest first; lines of other programs are passed on as they are.
    pub fn newest(&self, max: usize) -> Result<Vec<Value>, SessionError> {
        let bytes = self.store.get(&self.key)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let from = lines.len().saturating_sub(max);
        Ok(lines[from..]
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}

impl SessionEvents for SessionLedger {
    fn session_event(&self, component: &str, event_kind: &str, details: Value) {
        if let Err(error) = self.append(component, event_kind, details) {
            // The ledger tells the story; the story must not stop the work.
            tracing::warn!(code = error.code(), %error, event_kind, "a session event was not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::local_files::LocalFiles;
    use wellspring_domain::time_text::Micros;

    struct StoppedClock;

    impl Clock for StoppedClock {
        fn now(&self) -> Micros {
            Micros(1_767_225_600_250_000)
        }
        fn monotonic_micros(&self) -> u64 {
            0
        }
    }

    #[test]
    fn an_event_is_one_spaced_canonical_line() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_string_lossy().into_owned();
        let id = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        let paths = RunPaths::new(&root, &id);
        let store = Arc::new(LocalFiles::new(folder.path()));
        let ledger = SessionLedger::new(store, &paths, Arc::new(StoppedClock));
        ledger
            .append(
                "wsp",
                "ready_received",
                json!({"run_id": "r", "message_id": "é"}),
            )
            .unwrap();
        ledger.session_event("wsp", "stream_complete", json!({}));
        let text = std::fs::read_to_string(paths.session_jsonl()).unwrap();
        let first = concat!(
            r#"{"component": "wsp", "details": {"message_id": "\u00e9", "run_id": "r"}, "#,
            r#""event_kind": "ready_received", "platform_run_id": "platform_20260101T000000Z", "#,
            r#""ts_utc": "2026-01-01T00:00:00.250000+00:00"}"#,
        );
        assert_eq!(text.lines().next(), Some(first));
        assert_eq!(text.lines().count(), 2);
        let newest = ledger.newest(1).unwrap();
        assert_eq!(newest[0]["event_kind"], "stream_complete");
    }
}
