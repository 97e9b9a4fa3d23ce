//! Gate proofs from facts views (D5): which gates the Scenario Runner saw pass for a run.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use wellspring_actors::ingestion_gate::handle::GateProofs;
use wellspring_domain::admission::intake::ProofState;
use wellspring_domain::ids::is_hex;
use wellspring_domain::ports::{Clock, ObjectStore};
use wellspring_domain::run_paths::platform_prefix;
use wellspring_domain::scenario::facts_view::RunFactsView;

/// Proofs read from the store and kept: a facts view is write-once, so what it proves never changes. Its
/// absence is kept for a short while only.
pub struct FactsProofs {
    store: Arc<dyn ObjectStore>,
    runs_root: String,
    clock: Arc<dyn Clock>,
    absence_kept_micros: u64,
    /// Read by every sender, written once per run: a lock held for a lookup, never over I/O.
    known: Mutex<HashMap<(String, String), Kept>>,
}

struct Kept {
    state: ProofState,
    /// Monotonic time after which the answer must be looked up again.
    until: Option<u64>,
}

/// Most runs remembered; one more forgets all and starts over.
const KEPT_MAX: usize = 1024;

impl FactsProofs {
    /// Proofs for the runs below `runs_root`, read from `store`.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        runs_root: &str,
        clock: Arc<dyn Clock>,
        absence_kept_ms: u64,
    ) -> FactsProofs {
        FactsProofs {
            store,
            runs_root: runs_root.to_owned(),
            clock,
            absence_kept_micros: absence_kept_ms * 1_000,
            known: Mutex::default(),
        }
    }

    fn read(&self, platform_run_id: &str, scenario_run_id: &str) -> ProofState {
        if !is_hex(scenario_run_id, 32) {
            return ProofState::Absent;
        }
        let prefix = platform_prefix(&self.runs_root);
        let key = format!("{prefix}{platform_run_id}/sr/run_facts_view/{scenario_run_id}.json");
        match self.store.get(&key) {
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "facts view cannot be read");
                ProofState::Unavailable
            }
            Ok(None) => ProofState::Absent,
            Ok(Some(bytes)) => match serde_json::from_slice::<RunFactsView>(&bytes) {
                Ok(facts) => ProofState::Proven(Arc::new(passed_gates(&facts))),
                Err(error) => {
                    tracing::warn!(%error, key, "facts view is not readable: nothing is proven by it");
                    ProofState::Absent
                }
            },
        }
    }
}

fn passed_gates(facts: &RunFactsView) -> BTreeSet<String> {
    facts
        .gate_receipts
        .iter()
        .filter(|receipt| facts.gate_passed(&receipt.gate_id))
        .map(|receipt| receipt.gate_id.clone())
        .collect()
}

impl GateProofs for FactsProofs {
    fn known(&self, platform_run_id: &str, scenario_run_id: &str) -> ProofState {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic_micros();
        match known.get(&(platform_run_id.to_owned(), scenario_run_id.to_owned())) {
            Some(kept) if kept.until.is_none_or(|until| now < until) => kept.state.clone(),
            _ => ProofState::NotLoaded,
        }
    }

    fn load(&self, platform_run_id: &str, scenario_run_id: &str) {
        let state = self.read(platform_run_id, scenario_run_id);
        let now = self.clock.monotonic_micros();
        let until = match state {
            ProofState::Proven(_) => None,
            // At least long enough for the batch that asked to be judged again.
            _ => Some(now + self.absence_kept_micros.max(1_000)),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        known.insert(
            (platform_run_id.to_owned(), scenario_run_id.to_owned()),
            Kept { state, until },
        );
    }
}
