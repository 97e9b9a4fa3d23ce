//! A gate of this process, and what it is fed with.

use super::measure::Watch;
use super::world::RUN;
use std::collections::VecDeque;
use std::time::Duration;
use wellspring::daemon::live_tree;
use wellspring::gate::assembly::{GateOptions, RunningGate, start};
use wellspring::settings::Settings;
use wellspring_domain::ports::{EnvelopeBatch, GateClient, ItemOutcome, PendingOutcomes};
use wellspring_domain::run_paths::PlatformRunId;

/// Starts a gate for the run of all benches.
pub async fn start_gate(settings: &Settings) -> RunningGate {
    let options = GateOptions {
        own_run: Some(PlatformRunId::parse(RUN).expect("an id")),
        tree: live_tree(),
    };
    start(settings, options).await.expect("a gate")
}

/// Ends it in order.
pub async fn stop_gate(gate: RunningGate) {
    gate.drain(Duration::from_secs(10)).await;
    gate.stop(Duration::from_secs(10)).await;
}

/// Submits batches as fast as the gate takes them until every answer is durable; all must be admitted.
pub async fn admit_all(
    client: &dyn GateClient,
    batches: impl Iterator<Item = EnvelopeBatch>,
) -> u64 {
    let mut pending = VecDeque::new();
    let mut admitted = 0;
    for batch in batches {
        if pending.len() == client.window() {
            admitted += answered(pending.pop_front().expect("a full window")).await;
        }
        let submitted = client.submit(batch).await;
        pending.push_back(submitted.expect("a gate that takes work"));
    }
    for answers in pending {
        admitted += answered(answers).await;
    }
    admitted
}

async fn answered(answers: PendingOutcomes) -> u64 {
    let outcomes = answers.await.expect("answers");
    let admitted = |outcome: &ItemOutcome| *outcome == ItemOutcome::Admitted;
    assert!(outcomes.iter().all(admitted), "every event is admitted");
    outcomes.len() as u64
}

/// Measures framed batches on their way to durable answers, in a run of its own.
pub fn measure_batches(watch: &mut Watch, settings: &Settings, batches: &[EnvelopeBatch]) {
    let runtime = wellspring::process::runtime().expect("a runtime");
    runtime.block_on(async {
        let gate = start_gate(settings).await;
        let client = gate.client();
        watch.begin();
        let admitted = admit_all(&client, batches.iter().cloned()).await;
        watch.end();
        let events: usize = batches.iter().map(EnvelopeBatch::len).sum();
        assert_eq!(admitted, events as u64);
        stop_gate(gate).await;
    });
}
