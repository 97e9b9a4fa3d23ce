//! What every handler of the HTTP surface shares.

use super::answer::Refusal;
use super::single_pushes::SinglePushes;
use crate::telemetry::metrics::Metrics;
use axum::http::HeaderMap;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wellspring_actors::ingestion_gate::handle::GateHandle;
use wellspring_actors::runtime::TreeHandle;
use wellspring_domain::admission::auth::{AuthPolicy, RateWindow};
use wellspring_domain::admission::decision::{Actor, RowRef};
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::ports::{Clock, StoreError};
use wellspring_domain::run_paths::PlatformRunId;

/// Which receipt is asked for (contract 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupKey {
    /// By event id: the earliest decision.
    EventId(String),
    /// By receipt id: the newest decision.
    ReceiptId(String),
    /// By dedupe key: the earliest decision.
    DedupeKey(String),
}

/// Answers receipt lookups. Blocks.
pub trait Lookups: Send + Sync {
    /// `{receipt_id, event_id, event_type, decision, receipt_ref}`, or `{}` when there is none.
    fn look_up(&self, key: &LookupKey) -> Result<Value, StoreError>;
    /// The decision that lies at `at` in a run; `None` when there is none.
    fn row(&self, run: &PlatformRunId, at: RowRef) -> Result<Option<JournalRow>, StoreError>;
}

/// What an operator can do with a run from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOrder {
    /// Ends its streams; what was accepted stays.
    Cancel,
    /// Holds its streams.
    Pause,
    /// Lets them go on.
    Resume,
}

/// Control over the runs this process streams.
pub trait RunControl: Send + Sync {
    /// Gives an order; false when this process does not stream that run.
    fn order(&self, platform_run_id: &str, order: RunOrder) -> bool;
}

/// Limits of the HTTP edge.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Largest body of a single push.
    pub body_bytes_max: usize,
    /// Largest body of a batch push.
    pub batch_body_bytes_max: usize,
    /// Most events of a batch push.
    pub batch_events_max: usize,
    /// Longest time one request may take.
    pub request_timeout: Duration,
}

/// Shared by all handlers.
pub struct HttpParts {
    /// The gate.
    pub gate: GateHandle,
    /// Where events that are pushed alone are handed over.
    pub single_pushes: SinglePushes,
    /// Who may come in.
    pub auth: AuthPolicy,
    /// Header that proves it.
    pub auth_header: String,
    /// Pushes in the last minute, if they are limited; held for a few instructions.
    pub rate: Option<Mutex<RateWindow>>,
    /// Limits.
    pub limits: HttpLimits,
    /// The runs root, for receipt references.
    pub runs_root: String,
    /// Where receipts are kept.
    pub layout: ReceiptsLayout,
    /// Receipt lookups.
    pub lookups: Arc<dyn Lookups>,
    /// The live tree.
    pub tree: TreeHandle,
    /// Prometheus recorder, when one was started.
    pub metrics: Option<Metrics>,
    /// Runs of this process, when it streams any.
    pub runs: Option<Arc<dyn RunControl>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Handle to the shared parts.
pub type HttpState = Arc<HttpParts>;

impl HttpParts {
    /// Names the caller, or refuses with 401.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Actor>, Refusal> {
        let value = headers
            .get(self.auth_header.as_str())
            .and_then(|value| value.to_str().ok());
        self.auth
            .authenticate(value)
            .map_err(|refusal| Refusal::new(401, refusal.code).detail(refusal.detail))
    }

    /// Counts a push; 429 when it is one too many.
    pub fn check_rate(&self) -> Result<(), Refusal> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        let second = self.clock.monotonic_micros() / 1_000_000;
        let admitted = rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(second);
        if admitted {
            Ok(())
        } else {
            Err(Refusal::new(429, "RATE_LIMITED").retry_after_ms(1_000))
        }
    }

    /// Refuses with 503 while the gate takes nothing.
    pub fn check_health(&self) -> Result<(), Refusal> {
        match self.gate.refusal() {
            Some(reasons) => Err(Refusal::new(503, "IG_UNHEALTHY")
                .detail(reasons)
                .retry_after_ms(1_000)),
            None => Ok(()),
        }
    }
}
