//! What senders hold of the gate. Judging runs on tasks of the senders, in front of the shards.

use super::admission_shard::AdmissionShardMsg;
use super::gate_supervisor::GateSupervisorMsg;
use super::intake_memories::IntakeMemories;
use super::messages::{Answer, Portion, RunKey, ShardBatch, Verdict};
use super::sender_order::Submission;
use super::summary::{GateTally, Reporting};
use crate::runtime::blocking;
use crate::runtime::credit::{Credit, Credits};
use crate::runtime::slot::SlotReader;
use ractor::ActorRef;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::admission::health::{Health, HealthState};
use wellspring_domain::admission::intake::{
    Immediate, IntakeContext, JudgedBatch, ProofState, VerifyGates, judge,
};
use wellspring_domain::admission::policy::AdmissionPolicy;
use wellspring_domain::ports::{EnvelopeBatch, ItemOutcome};
use wellspring_domain::run_paths::PlatformRunId;

/// Looks gate proofs up, and remembers them (D5).
pub trait GateProofs: Send + Sync {
    /// What is known now, without waiting.
    fn known(&self, platform_run_id: &str, scenario_run_id: &str) -> ProofState;
    /// Reads the facts view so that [`GateProofs::known`] has an answer. Blocks.
    fn load(&self, platform_run_id: &str, scenario_run_id: &str);
}

/// What a gate is made of, as senders need it.
pub struct GateParts {
    /// Compiled policy.
    pub policy: AdmissionPolicy,
    /// Partitions per topic index.
    pub partitions: Vec<u32>,
    /// Provenance block stamped on receipts.
    pub provenance: Value,
    /// Gate verification switch.
    pub verify_gates: VerifyGates,
    /// Gate proofs.
    pub proofs: Arc<dyn GateProofs>,
    /// Room for events and bytes in the whole gate.
    pub credits: Credits,
    /// Health as last probed.
    pub health: watch::Receiver<Health>,
    /// Deny also on amber.
    pub deny_on_amber: bool,
    /// How long a sender waits on amber that does not deny.
    pub amber_sleep: Duration,
    /// How the gate reports on itself.
    pub reporting: Reporting,
}

/// A gate in this process. Clones share it.
#[derive(Clone)]
pub struct GateHandle {
    inner: Arc<Inner>,
}

struct Inner {
    parts: GateParts,
    shards: Vec<SlotReader<ActorRef<AdmissionShardMsg>>>,
    runs: watch::Receiver<Arc<HashMap<PlatformRunId, RunKey>>>,
    supervisor: ActorRef<GateSupervisorMsg>,
    tally: Arc<GateTally>,
    /// For callers that have none of their own.
    memories: IntakeMemories,
}

/// The answers to one batch: what was judged and what was decided.
pub struct Answered {
    /// The judged batch; answers refer to its items.
    pub judged: Arc<JudgedBatch>,
    /// One answer per judged item, in order.
    pub answers: Vec<Answer>,
}

/// A batch the gate has taken; resolves when every item is durable or refused.
pub struct Ticket {
    judged: Arc<JudgedBatch>,
    /// Answers to items no shard has taken.
    untaken: Vec<(u32, Answer)>,
    /// Items without an answer.
    open: Vec<bool>,
    missing: usize,
    portions: mpsc::Receiver<Portion>,
    taken_at: Instant,
    tally: Arc<GateTally>,
}

/// How long a sender waits for a shard that is between two generations.
const SHARD_WAIT: Duration = Duration::from_secs(2);

/// What a client is told to wait before it tries again, milliseconds.
pub const RETRY_AFTER_MS: u64 = 1_000;

impl GateHandle {
    pub(super) fn new(
        parts: GateParts,
        shards: Vec<SlotReader<ActorRef<AdmissionShardMsg>>>,
        runs: watch::Receiver<Arc<HashMap<PlatformRunId, RunKey>>>,
        supervisor: ActorRef<GateSupervisorMsg>,
        tally: Arc<GateTally>,
    ) -> GateHandle {
        GateHandle {
            inner: Arc::new(Inner {
                parts,
                shards,
                runs,
                supervisor,
                tally,
                memories: IntakeMemories::default(),
            }),
        }
    }

    /// The room in front of the gate. The HTTP edge takes from it before it reads a body.
    pub fn credits(&self) -> &Credits {
        &self.inner.parts.credits
    }

    /// The policy in force.
    pub fn policy(&self) -> &AdmissionPolicy {
        &self.inner.parts.policy
    }

    /// Health as last probed.
    pub fn health(&self) -> Health {
        self.inner.parts.health.borrow().clone()
    }

    /// `Some(detail)` when the gate takes nothing now (contract 7.3, step 1).
    pub fn refusal(&self) -> Option<String> {
        let health = self.inner.parts.health.borrow();
        match health.state {
            HealthState::Red => Some(health.reason_text()),
            HealthState::Amber if self.inner.parts.deny_on_amber => Some("AMBER".to_owned()),
            _ => None,
        }
    }

    /// Waits on amber that does not deny, so that senders slow down (contract 7.10).
    pub async fn amber_pause(&self) {
        let amber = self.inner.parts.health.borrow().state == HealthState::Amber;
        if amber && !self.inner.parts.amber_sleep.is_zero() {
            tokio::time::sleep(self.inner.parts.amber_sleep).await;
        }
    }

    /// Runs that are open now.
    pub fn open_runs(&self) -> Vec<PlatformRunId> {
        let mut runs: Vec<PlatformRunId> = self.inner.runs.borrow().keys().cloned().collect();
        runs.sort();
        runs
    }

    /// Opens a run before its first event comes.
    pub async fn open_run(&self, run: &PlatformRunId) -> Result<(), String> {
        self.run_key(run).await.map(|_| ())
    }

    /// Judges a batch and hands it to its shards. `credit` covers its events and bytes. Resolves when the
    /// shards have it; order of calls is order at the shards.
    pub async fn accept(&self, batch: EnvelopeBatch, actor: &Actor, credit: Credit) -> Ticket {
        let memories = &self.inner.memories;
        let taken_at = Instant::now();
        let judged = self.judge(&batch, actor, memories).await;
        self.hand_over(judged, credit, taken_at, None).await
    }

    /// Hands a judged batch to its shards.
    pub(super) async fn hand_over(
        &self,
        judged: JudgedBatch,
        credit: Credit,
        taken_at: Instant,
        submission: Option<&Submission>,
    ) -> Ticket {
        let mut untaken = Vec::new();
        let judged = Arc::new(judged);
        let (reply, portions) = mpsc::channel(judged.items.len().max(1));
        let mut credit = credit;
        let bytes_each = credit.bytes() / judged.items.len().max(1) as u32;
        for ((run, shard), items) in self.by_shard(&judged) {
            let share = credit.split(items.len() as u32, bytes_each * items.len() as u32);
            let run_id = &judged.runs[usize::from(run)];
            let batch = |run, credit| ShardBatch {
                run,
                judged: judged.clone(),
                items: items.clone(),
                reply: reply.clone(),
                credit,
            };
            let sent = match (self.run_key(run_id).await, share) {
                (Ok(run), Some(credit)) => self.send(shard, batch(run, credit), submission).await,
                _ => Err("IG_UNHEALTHY"),
            };
            if let Err(code) = sent {
                untaken.extend(items.iter().map(|item| (*item, Answer::retry(code))));
            }
        }
        Ticket {
            untaken,
            open: vec![true; judged.items.len()],
            missing: judged.items.len(),
            judged,
            portions,
            taken_at,
            tally: self.inner.tally.clone(),
        }
    }

    pub(super) async fn judge(
        &self,
        batch: &EnvelopeBatch,
        actor: &Actor,
        memories: &IntakeMemories,
    ) -> JudgedBatch {
        let began_at = Instant::now();
        let parts = &self.inner.parts;
        let proofs = |run: &str, scenario_run: &str| parts.proofs.known(run, scenario_run);
        let context = || IntakeContext {
            policy: &parts.policy,
            partitions: &parts.partitions,
            shards: self.inner.shards.len() as u16,
            actor,
            provenance: &parts.provenance,
            verify_gates: parts.verify_gates,
            proofs: &proofs,
        };
        let mut memory = memories.take();
        let mut judged = judge(batch, &context(), &mut memory);
        if !judged.unproven.is_empty() {
            let (proofs, unproven) = (parts.proofs.clone(), judged.unproven.clone());
            let load = move || {
                unproven
                    .iter()
                    .for_each(|(run, scenario_run)| proofs.load(run, scenario_run))
            };
            let _ = blocking::run("gate-proofs", load).await;
            judged = judge(batch, &context(), &mut memory);
        }
        memories.give_back(memory);
        self.inner.tally.judged(began_at.elapsed());
        if judged.gate_warnings > 0 {
            metrics::counter!("wellspring_gate_unproven_total")
                .increment(u64::from(judged.gate_warnings));
        }
        judged
    }

    /// What each shard gets of a batch. Runs that are open and shards that run come first: one that has to be
    /// waited for must not hold up what the others can take.
    fn by_shard(&self, judged: &JudgedBatch) -> Vec<((u16, u16), Vec<u32>)> {
        let mut parts: BTreeMap<(u16, u16), Vec<u32>> = BTreeMap::new();
        for (position, item) in judged.items.iter().enumerate() {
            parts
                .entry((item.run, item.shard))
                .or_default()
                .push(position as u32);
        }
        let mut parts: Vec<_> = parts.into_iter().collect();
        let open = self.inner.runs.borrow();
        parts.sort_by_key(|((run, shard), _)| {
            let slot = &self.inner.shards[usize::from(*shard)];
            !open.contains_key(&judged.runs[usize::from(*run)]) || slot.current().is_none()
        });
        drop(open);
        parts
    }

    async fn send(
        &self,
        shard: u16,
        batch: ShardBatch,
        submission: Option<&Submission>,
    ) -> Result<(), &'static str> {
        let slot = &self.inner.shards[usize::from(shard)];
        let Some(current) = slot.wait(SHARD_WAIT).await else {
            return Err("IG_UNHEALTHY");
        };
        if submission.is_some_and(|submission| !submission.may_reach(shard, current.get_id())) {
            return Err("PRECEDING_ITEM_RETRY");
        }
        current
            .cast(AdmissionShardMsg::Decide(batch))
            .map_err(|_| "IG_UNHEALTHY")
    }

    async fn run_key(&self, run: &PlatformRunId) -> Result<RunKey, String> {
        if let Some(key) = self.inner.runs.borrow().get(run) {
            return Ok(key.clone());
        }
        let (reply, opened) = oneshot::channel();
        let message = GateSupervisorMsg::OpenRun {
            run: run.clone(),
            reply,
        };
        self.inner
            .supervisor
            .cast(message)
            .map_err(|_| "the gate has ended".to_owned())?;
        opened.await.map_err(|_| "the gate has ended".to_owned())?
    }
}

impl Ticket {
    /// What was judged; answers refer to its items.
    pub fn judged(&self) -> &Arc<JudgedBatch> {
        &self.judged
    }

    /// The next answers, as soon as there are any; `None` when every item has its answer. Items whose shard
    /// died meanwhile are answered "send again": the same bytes under the same key are safe to send, whatever
    /// became of them.
    pub async fn next(&mut self) -> Option<Vec<(u32, Answer)>> {
        if self.missing == 0 {
            return None;
        }
        let answers = if self.untaken.is_empty() {
            let portion = self.portions.recv().await;
            portion.map_or_else(|| self.lost(), |portion| portion.answers)
        } else {
            std::mem::take(&mut self.untaken)
        };
        for (position, _) in &answers {
            self.open[*position as usize] = false;
        }
        self.missing -= answers.len();
        if self.missing == 0 {
            self.tally.answered(self.taken_at.elapsed());
        }
        Some(answers)
    }

    fn lost(&self) -> Vec<(u32, Answer)> {
        let open = self.open.iter().zip(0u32..).filter(|(open, _)| **open);
        open.map(|(_, position)| (position, Answer::retry("PUBLISH_AMBIGUOUS_RETRY")))
            .collect()
    }

    /// Waits for all answers.
    pub async fn answered(mut self) -> Answered {
        let not_yet = Answer::retry("PUBLISH_AMBIGUOUS_RETRY");
        let mut answers = vec![not_yet; self.judged.items.len()];
        while let Some(some) = self.next().await {
            for (position, answer) in some {
                answers[position as usize] = answer;
            }
        }
        Answered {
            judged: self.judged,
            answers,
        }
    }
}

impl Answered {
    /// The outcome of every envelope of the batch, in batch order.
    pub fn outcomes(&self) -> Vec<ItemOutcome> {
        if self.judged.immediate.is_empty() {
            return self.answers.iter().map(outcome_of).collect();
        }
        let count = self.judged.items.len() + self.judged.immediate.len();
        let mut outcomes = vec![ItemOutcome::Admitted; count];
        for (item, answer) in self.judged.items.iter().zip(&self.answers) {
            outcomes[item.index as usize] = outcome_of(answer);
        }
        for (index, immediate) in &self.judged.immediate {
            outcomes[*index as usize] = match immediate {
                Immediate::Refused {
                    status,
                    code,
                    detail,
                } => ItemOutcome::Rejected {
                    status: *status,
                    code: (*code).to_owned(),
                    detail: detail.clone(),
                },
                Immediate::Retry { code, .. } => ItemOutcome::Retry {
                    code: (*code).to_owned(),
                    retry_after_ms: RETRY_AFTER_MS,
                },
            };
        }
        outcomes
    }
}

fn outcome_of(answer: &Answer) -> ItemOutcome {
    match answer.verdict {
        Verdict::Admitted { .. } => ItemOutcome::Admitted,
        Verdict::Duplicate { .. } => ItemOutcome::Duplicate,
        Verdict::Quarantined { code } => ItemOutcome::Quarantined {
            code: code.to_owned(),
        },
        Verdict::Retry { code } => ItemOutcome::Retry {
            code: code.to_owned(),
            retry_after_ms: RETRY_AFTER_MS,
        },
    }
}
