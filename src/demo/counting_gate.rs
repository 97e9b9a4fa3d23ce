//! A gate that shows how many events it has answered: what moves the bar of the streaming stage.

use crate::cli::progress::Progress;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use wellspring_domain::ports::{EnvelopeBatch, GateClient, PendingOutcomes, PushError};

/// Stands before a gate and counts its answers; changes nothing.
pub(super) struct CountingGate {
    gate: Arc<dyn GateClient>,
    answered: Arc<Progress>,
}

impl CountingGate {
    pub(super) fn before(gate: Arc<dyn GateClient>, answered: Arc<Progress>) -> Arc<Self> {
        Arc::new(CountingGate { gate, answered })
    }
}

impl GateClient for CountingGate {
    fn submit(&self, batch: EnvelopeBatch) -> BoxFuture<'_, Result<PendingOutcomes, PushError>> {
        let answered = self.answered.clone();
        let taken = self.gate.submit(batch);
        let counted = move |outcomes: PendingOutcomes| -> PendingOutcomes {
            outcomes
                .inspect(move |outcomes| {
                    let events = outcomes.as_ref().map_or(0, Vec::len);
                    answered.add(events as u64);
                })
                .boxed()
        };
        async move { Ok(counted(taken.await?)) }.boxed()
    }

    fn window(&self) -> usize {
        self.gate.window()
    }

    fn sender(&self) -> Option<Arc<dyn GateClient>> {
        let gate = self.gate.sender()?;
        Some(CountingGate::before(gate, self.answered.clone()))
    }
}
