//! Admission shard: the only one that decides about its topic partitions.
//!
//! Claims keys, builds flushes, hands them to its writer thread and answers when they are durable.
//! Durable: every answered decision, because no answer leaves before its flush is committed. When the
//! shard dies, its unanswered batches end with "outcome unknown", its writer is awaited, its journal is
//! recovered and its claims are settled from it (see [`super::shard_generation`]).

use super::claiming::{claim, share_of};
use super::flush_turns::FlushTurns;
use super::in_flight::Admitted;
use super::index_shard::IndexShardMsg;
use super::messages::{Answer, Portion, RunKey, ShardBatch, Verdict};
use super::settlement;
use super::shard_state::ShardRun;
use super::summary::GateTally;
use super::writer_thread::{CommittedFlush, FlushJob, Writer, WriterGone};
use crate::runtime::failure::StageFailure;
use crate::runtime::heartbeat::Heartbeat;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use wellspring_domain::admission::commit_report::CommitReport;
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::flush_builder::LogEnds;
use wellspring_domain::admission::gate_summary::DecisionCounts;
use wellspring_domain::admission::routing::index_shard_of;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{Clock, OpenShard, PartitionEnd, StoreError};

/// Messages of an admission shard.
pub enum AdmissionShardMsg {
    /// Decides the items of a batch. The batch carries its credit.
    Decide(ShardBatch),
    /// A flush came back from the writer thread and waits to be looked at. Whatever message comes next looks
    /// first, so that batches that came before this one do not keep the writer idle.
    Committed,
    /// A claim this shard was parked on has ended.
    ClaimEnded {
        /// The run.
        run: RunKey,
        /// The key.
        key: Hash32,
        /// The winner's row; `None` when the claim was released.
        admitted: Option<IndexEntry>,
    },
    /// A run was opened.
    OpenRun {
        /// What this shard needs of it.
        run: Box<ShardRunOpening>,
        /// Answered when batches may come.
        reply: oneshot::Sender<()>,
    },
    /// Asks whether nothing of a run is undecided or unsettled here.
    RunIdle {
        /// The run.
        run: RunKey,
        /// The answer.
        reply: oneshot::Sender<bool>,
    },
    /// A run is closed. Batches that still come for it are answered "send again".
    CloseRun {
        /// The run.
        run: RunKey,
        /// Answered when its files are handed back.
        reply: oneshot::Sender<()>,
    },
}

/// A run as a shard takes it over.
pub struct ShardRunOpening {
    /// The run.
    pub run: RunKey,
    /// Recovered journal and partitions.
    pub shard: OpenShard,
    /// Where the partitions end.
    pub ends: Vec<PartitionEnd>,
}

/// What a shard is started with.
pub struct AdmissionShardArgs {
    /// Which shard.
    pub shard: u16,
    /// Runs that were open when the last generation ended.
    pub runs: Vec<ShardRunOpening>,
    /// Index shards in order.
    pub index: Arc<Vec<ActorRef<IndexShardMsg>>>,
    /// Bytes after which a flush is closed even while the disk is busy.
    pub flush_bytes_max: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Beats while a message is handled.
    pub heartbeat: Heartbeat,
    /// Where to say that the writer thread has ended.
    pub writer_gone: oneshot::Sender<WriterGone>,
    /// What decisions are counted into.
    pub tally: Arc<GateTally>,
}

/// The actor.
pub struct AdmissionShard;

/// State of an admission shard.
pub struct AdmissionShardState {
    shard: u16,
    runs: HashMap<RunKey, ShardRun>,
    index: Arc<Vec<ActorRef<IndexShardMsg>>>,
    flush_bytes_max: usize,
    clock: Arc<dyn Clock>,
    heartbeat: Heartbeat,
    writer: Writer,
    writer_busy: bool,
    /// Flushes the writer is done with.
    committed: mpsc::Receiver<CommittedFlush>,
    /// Flushes closed because they were full, oldest first.
    full: VecDeque<Box<FlushJob>>,
    /// Runs with something to write.
    turns: FlushTurns<RunKey>,
    tally: Arc<GateTally>,
}

impl Actor for AdmissionShard {
    type Msg = AdmissionShardMsg;
    type State = AdmissionShardState;
    type Arguments = AdmissionShardArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: AdmissionShardArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        let (writer, committed, gone) = Writer::start(args.shard, myself)?;
        // The starter waits for this before it starts another generation.
        let _ = args.writer_gone.send(gone);
        let mut state = AdmissionShardState {
            shard: args.shard,
            runs: HashMap::new(),
            index: args.index,
            flush_bytes_max: args.flush_bytes_max,
            clock: args.clock,
            heartbeat: args.heartbeat,
            writer,
            writer_busy: false,
            committed,
            full: VecDeque::new(),
            turns: FlushTurns::new(),
            tally: args.tally,
        };
        for opening in args.runs {
            state.open_run(opening)?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let heartbeat = state.heartbeat.clone();
        let _busy = heartbeat.busy();
        while let Ok(flush) = state.committed.try_recv() {
            state.committed(*flush.job, flush.result)?;
        }
        match message {
            AdmissionShardMsg::Decide(batch) => state.decide(batch).await?,
            AdmissionShardMsg::Committed => {}
            AdmissionShardMsg::ClaimEnded { run, key, admitted } => {
                state.claim_ended(&run, &key, admitted)?
            }
            AdmissionShardMsg::OpenRun { run, reply } => {
                state.open_run(*run)?;
                let _ = reply.send(());
            }
            AdmissionShardMsg::RunIdle { run, reply } => {
                let idle = state.runs.get(&run).is_none_or(ShardRun::is_idle);
                let _ = reply.send(idle);
            }
            AdmissionShardMsg::CloseRun { run, reply } => {
                state.runs.remove(&run);
                state.writer.close(run)?;
                let _ = reply.send(());
            }
        }
        Ok(())
    }
}

impl AdmissionShardState {
    fn open_run(&mut self, opening: ShardRunOpening) -> Result<(), ActorProcessingErr> {
        let ends = LogEnds::new(
            (*opening.run).clone(),
            opening.shard.next_row,
            opening.shard.segments,
            &opening.ends,
        );
        self.writer.open(opening.run.clone(), opening.shard.log)?;
        self.runs
            .insert(opening.run.clone(), ShardRun::new(opening.run, ends));
        Ok(())
    }

    async fn decide(&mut self, batch: ShardBatch) -> Result<(), ActorProcessingErr> {
        let Some(run) = self.runs.get_mut(&batch.run) else {
            refuse(batch, "IG_UNHEALTHY");
            return Ok(());
        };
        let Some(claims) = claim(&self.index, self.shard, &batch).await else {
            refuse(batch, "IG_UNHEALTHY");
            return Ok(());
        };
        let clock = &self.clock;
        let key = batch.run.clone();
        let unused = run.decide(batch, &claims, || clock.now());
        if run.gathered_bytes() >= self.flush_bytes_max {
            self.full.extend(run.take_flush());
        }
        self.release(&key, &unused)?;
        self.start_flush()
    }

    fn claim_ended(
        &mut self,
        run: &RunKey,
        key: &Hash32,
        admitted: Option<IndexEntry>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(run) = self.runs.get_mut(run) {
            let clock = &self.clock;
            run.claim_ended(key, admitted, || clock.now());
        }
        self.start_flush()
    }

    /// Gives the writer the next flush as soon as it is idle. Runs take turns; within one, full flushes come
    /// before what was gathered after them.
    fn start_flush(&mut self) -> Result<(), ActorProcessingErr> {
        self.line_up();
        if self.writer_busy {
            return Ok(());
        }
        while let Some(run) = self.turns.next() {
            if let Some(job) = self.take_job(&run) {
                self.writer_busy = true;
                self.writer.commit(job)?;
                break;
            }
        }
        Ok(())
    }

    /// The oldest flush of a run.
    fn take_job(&mut self, run: &RunKey) -> Option<Box<FlushJob>> {
        match self.full.iter().position(|job| job.run == *run) {
            Some(at) => self.full.remove(at),
            None => self.runs.get_mut(run).and_then(ShardRun::take_flush),
        }
    }

    /// Puts every run that has something to write into the line; one that was served, behind those that wait.
    fn line_up(&mut self) {
        let gathered = self.runs.iter().filter(|(_, run)| run.has_gathered());
        let full = self.full.iter().map(|job| &job.run);
        for run in full.chain(gathered.map(|(key, _)| key)) {
            self.turns.line_up(run);
        }
    }

    /// A flush is durable: tell the index, then the senders, then give the room back.
    fn committed(
        &mut self,
        mut job: FlushJob,
        result: Result<CommitReport, StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        let report = result
            .inspect_err(|_| self.tally.commit_failed())
            .map_err(commit_failure)?;
        self.writer_busy = false;
        let released = settlement::apply(&mut job, &report);
        // Settle before anything else of this shard can ask for these keys again.
        self.settle(&job)?;
        if let Some(run) = self.runs.get_mut(&job.run) {
            run.ended(&job.admitted);
            run.ended(&released);
        }
        let released: Vec<Hash32> = released.iter().map(|ended| ended.key).collect();
        self.release(&job.run, &released)?;
        let mut quarantined = 0;
        for (reply, portion) in job.portions {
            quarantined += count(&portion, &self.tally);
            // A sender that is gone does not need its answer; the decision stands.
            let _ = reply.try_send(portion);
        }
        self.tally.committed(&job.flush, quarantined);
        drop(job.credits);
        if let Some(run) = self.runs.get_mut(&job.run) {
            run.recycle(job.flush, job.admitted);
        }
        self.start_flush()
    }

    /// Gives claims back that were granted and not used.
    fn release(&self, run: &RunKey, keys: &[Hash32]) -> Result<(), ActorProcessingErr> {
        for key in keys {
            let owner = usize::from(index_shard_of(key, self.index.len() as u16));
            self.index[owner].cast(IndexShardMsg::Release {
                run: run.clone(),
                key: *key,
            })?;
        }
        Ok(())
    }

    fn settle(&self, job: &FlushJob) -> Result<(), ActorProcessingErr> {
        let rows = job.flush.rows.len() as u32;
        let through = RowRef {
            row: job.flush.first_row.row + rows.saturating_sub(1),
            ..job.flush.first_row
        };
        let room = share_of(job.admitted.len(), self.index.len());
        let parts = self.index.iter().map(|_| Vec::with_capacity(room));
        let mut parts: Vec<Vec<(Hash32, IndexEntry)>> = parts.collect();
        for Admitted { key, entry, claim } in &job.admitted {
            parts[usize::from(claim.index_shard)].push((*key, *entry));
        }
        for (index, entries) in self.index.iter().zip(parts) {
            index.cast(IndexShardMsg::Settle {
                run: job.run.clone(),
                entries,
                through,
            })?;
        }
        Ok(())
    }
}

/// Code of a commit whose lease was taken over by another node.
const WRITER_FENCED: &str = "WRITER_FENCED";

/// A failed sync leaves the file's pages in an unknown state, so the process must end; any other failure
/// ends this generation and is recovered from.
fn commit_failure(error: StoreError) -> StageFailure {
    match &error {
        StoreError::Unavailable {
            operation: "fsync", ..
        } => StageFailure::terminal("FSYNC_FAILED", error.to_string()),
        // The next generation gets a lease of its own.
        _ if error.code() == WRITER_FENCED => {
            StageFailure::transient(WRITER_FENCED, error.to_string())
        }
        StoreError::Unavailable { .. } => {
            StageFailure::transient("COMMIT_FAILED", error.to_string())
        }
        other => StageFailure::terminal(other.code(), error.to_string()),
    }
}

fn refuse(batch: ShardBatch, code: &'static str) {
    let answers = batch
        .items
        .iter()
        .map(|position| (*position, Answer::retry(code)))
        .collect();
    let _ = batch.reply.try_send(Portion { answers });
}

/// Counts a portion's answers; returns how many are quarantines.
fn count(portion: &Portion, tally: &GateTally) -> u64 {
    let mut counts = DecisionCounts::default();
    let mut codes = Vec::new();
    for (_, answer) in &portion.answers {
        match answer.verdict {
            Verdict::Admitted { .. } => counts.admitted += 1,
            Verdict::Duplicate { .. } => counts.duplicates += 1,
            Verdict::Quarantined { code } => {
                counts.quarantined += 1;
                codes.push(code);
                metrics::counter!("wellspring_gate_reasons_total", "code" => code).increment(1);
            }
            Verdict::Retry { code } => {
                metrics::counter!("wellspring_gate_retries_total", "code" => code).increment(1)
            }
        }
    }
    for (decision, count) in [
        ("ADMIT", counts.admitted),
        ("DUPLICATE", counts.duplicates),
        ("QUARANTINE", counts.quarantined),
    ] {
        if count > 0 {
            metrics::counter!("wellspring_gate_decisions_total", "decision" => decision)
                .increment(count);
        }
    }
    tally.decided(counts, &codes);
    counts.quarantined
}
