//! Between senders and the gate: an in-process client that is watched, a network that loses, delays and
//! doubles, and producers that push over it.

use crate::faults::Fault;
use crate::plan::{PlannedProducer, RUNS};
use crate::sim::Sim;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use wellspring_actors::ingestion_gate::handle::{GateHandle, RETRY_AFTER_MS};
use wellspring_actors::ingestion_gate::in_process_gate::InProcessGate;
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::ports::{
    BoxFuture, EnvelopeBatch, GateClient, ItemOutcome, PendingOutcomes, PushError,
};

pub fn actor() -> Actor {
    Actor {
        actor_id: "SYSTEM::simulation".into(),
        source_type: "SYSTEM".into(),
        auth_mode: "disabled".into(),
        principal: "simulation".into(),
    }
}

/// The gate in the same process, watched. Nothing comes between the sender and its answers: that is what the
/// gate's order per sender rests on.
pub struct Watched {
    pub sim: Arc<Sim>,
    pub inner: Arc<dyn GateClient>,
}

impl Watched {
    pub fn new(sim: &Arc<Sim>, gate: &GateHandle) -> Watched {
        Watched {
            sim: sim.clone(),
            inner: Arc::new(InProcessGate::new(gate.clone(), actor(), sim.plan.window)),
        }
    }
}

impl GateClient for Watched {
    fn submit(&self, batch: EnvelopeBatch) -> BoxFuture<'_, Result<PendingOutcomes, PushError>> {
        Box::pin(async move {
            if self.sim.strikes(Fault::Throttled) {
                return Err(throttled());
            }
            let pending = self.inner.submit(batch.clone()).await?;
            let sim = self.sim.clone();
            let watched: PendingOutcomes = Box::pin(async move {
                let outcomes = pending.await?;
                still_living(&sim).await;
                let mut judge = sim.judge();
                judge.answered(&batch, &outcomes);
                judge.heard("stream", &batch, &outcomes);
                drop(judge);
                Ok(outcomes)
            });
            Ok(watched)
        })
    }

    fn window(&self) -> usize {
        self.inner.window()
    }

    fn sender(&self) -> Option<Arc<dyn GateClient>> {
        Some(Arc::new(Watched {
            sim: self.sim.clone(),
            inner: self.inner.sender()?,
        }))
    }
}

fn throttled() -> PushError {
    PushError::Backpressure {
        code: "IG_RATE_LIMITED".to_owned(),
        retry_after_ms: 20,
    }
}

/// What a dead process answers arrives nowhere.
async fn still_living(sim: &Sim) {
    if sim.is_dead() {
        std::future::pending().await
    }
}

/// The gate behind a network: what the HTTP edge does, and everything a network does to it.
#[derive(Clone)]
pub struct Remote {
    pub name: String,
    pub sim: Arc<Sim>,
    pub gate: GateHandle,
}

impl Remote {
    async fn push(self, batch: EnvelopeBatch) -> Result<Vec<ItemOutcome>, PushError> {
        let sim = self.sim.clone();
        let lost = || PushError::Transient {
            detail: "timeout".to_owned(),
        };
        if sim.strikes(Fault::RequestLost) {
            sim.pause(500).await;
            return Err(lost());
        }
        if sim.strikes(Fault::RequestDelayed) {
            sim.pause(2_000).await;
        }
        if sim.strikes(Fault::RequestDoubled) {
            let (copy, again) = (self.clone(), batch.clone());
            tokio::spawn(async move {
                copy.sim.pause(3_000).await;
                let _ = copy.edge(again).await;
            });
        }
        let answer = self.edge(batch.clone()).await;
        if sim.strikes(Fault::AnswerLost) {
            sim.pause(500).await;
            return Err(lost());
        }
        if sim.strikes(Fault::AnswerDelayed) {
            sim.pause(2_000).await;
        }
        still_living(&sim).await;
        let mut outcomes = answer?;
        if sim.strikes(Fault::AnswerCut) {
            let kept = sim.below(outcomes.len() as u64) as usize;
            for outcome in &mut outcomes[kept..] {
                *outcome = ItemOutcome::Retry {
                    code: "ANSWER_CUT".to_owned(),
                    retry_after_ms: 0,
                };
            }
        }
        sim.judge().heard(&self.name, &batch, &outcomes);
        Ok(outcomes)
    }

    /// What the HTTP edge does with a request (contract 7.3, step 1).
    async fn edge(&self, batch: EnvelopeBatch) -> Result<Vec<ItemOutcome>, PushError> {
        if self.sim.strikes(Fault::Throttled) {
            return Err(throttled());
        }
        let busy = |code: &str| PushError::Backpressure {
            code: code.to_owned(),
            retry_after_ms: RETRY_AFTER_MS,
        };
        if self.gate.refusal().is_some() {
            return Err(busy("IG_UNHEALTHY"));
        }
        let (events, bytes) = (batch.len() as u32, batch.bytes.len() as u32);
        let Some(credit) = self.gate.credits().try_take(events, bytes) else {
            return Err(busy("IG_RATE_LIMITED"));
        };
        let ticket = self.gate.accept(batch.clone(), &actor(), credit).await;
        let outcomes = ticket.answered().await.outcomes();
        still_living(&self.sim).await;
        self.sim.judge().answered(&batch, &outcomes);
        Ok(outcomes)
    }
}

impl GateClient for Remote {
    fn submit(&self, batch: EnvelopeBatch) -> BoxFuture<'_, Result<PendingOutcomes, PushError>> {
        let remote = self.clone();
        Box::pin(async move {
            let pending: PendingOutcomes = Box::pin(remote.push(batch));
            Ok(pending)
        })
    }

    fn window(&self) -> usize {
        1
    }
}

/// A producer on another machine: it outlives the process and remembers what was answered.
pub struct Producer {
    plan: PlannedProducer,
    left: Mutex<VecDeque<Vec<u8>>>,
}

impl Producer {
    pub fn new(sim: &Sim, number: usize) -> Producer {
        let plan = sim.plan.producers[number].clone();
        let left = (0..plan.events)
            .map(|n| event(sim, &plan, number, n))
            .collect();
        Producer {
            plan,
            left: Mutex::new(left),
        }
    }

    pub fn is_done(&self) -> bool {
        self.left.lock().unwrap().is_empty()
    }

    /// Pushes what is left, one request at a time; what is not decided is sent again before anything else.
    pub async fn push_all(&self, remote: Remote) {
        let sim = remote.sim.clone();
        loop {
            let batch = {
                let left = self.left.lock().unwrap();
                batch_of(left.iter().take(self.plan.batch))
            };
            if batch.is_empty() {
                return;
            }
            let count = batch.len();
            match remote.clone().push(batch).await {
                Ok(outcomes) => {
                    let mut left = self.left.lock().unwrap();
                    let sent: Vec<_> = left.drain(..count).collect();
                    let open = sent.into_iter().zip(&outcomes);
                    let open = open.filter(|(_, o)| matches!(o, ItemOutcome::Retry { .. }));
                    for (event, _) in open.collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(event);
                    }
                }
                Err(PushError::Rejected { detail, .. }) => {
                    sim.broken(format!("a whole request was rejected: {detail}"));
                }
                Err(_busy_or_lost) => sim.pause(300).await,
            }
            sim.pause(self.plan.pause_ms_max).await;
        }
    }
}

fn batch_of<'a>(events: impl Iterator<Item = &'a Vec<u8>>) -> EnvelopeBatch {
    let mut bytes = Vec::new();
    let mut ranges = Vec::new();
    for event in events {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(event);
        ranges.push(start..bytes.len() as u32);
    }
    EnvelopeBatch {
        bytes: Arc::new(bytes),
        ranges,
    }
}

/// Event `n` of a producer: most are new and ordered, some are copies, forgeries or no events at all.
fn event(sim: &Sim, plan: &PlannedProducer, number: usize, n: u64) -> Vec<u8> {
    let roll = sim.below(100);
    let (id, value, ordered) = match roll {
        0..70 => (format!("p{number}-{n}"), 0, 1),
        // Every producer pushes these, each with its own payload and key: they race across shards.
        70..80 => (format!("shared-{}", sim.below(40)), number as u64, 0),
        80..88 if n > 0 => (format!("p{number}-{}", sim.below(n)), 1 + n, 0),
        88..92 => return b"{\"event_id\":".to_vec(),
        92..95 => return b"[1, 2, 3]".to_vec(),
        _ => (format!("extra-{number}-{n}"), n, 0),
    };
    let event_type = if roll >= 97 { "unheard_of" } else { "pushed" };
    let key = 100_000 + number as u64 * 100 + n % plan.keys;
    let event = json!({
        "event_id": id, "event_type": event_type, "ts_utc": "2026-01-01T00:00:00.000000Z",
        "manifest_fingerprint": "a".repeat(64), "platform_run_id": RUNS[plan.run],
        "payload": {"k": key, "n": n, "o": ordered, "v": value},
    });
    event.to_string().into_bytes()
}
