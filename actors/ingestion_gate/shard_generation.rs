//! Starting a generation of an admission shard: recovery, then work.
//!
//! Order matters and is this: the old writer thread has ended; each open run's journal tail and partitions
//! are recovered; the index is told what the old generation admitted and forgets everything else it had
//! claimed; only then does the new shard take batches. Other shards keep running throughout.

use super::admission_shard::{
    AdmissionShard, AdmissionShardArgs, AdmissionShardMsg, ShardRunOpening,
};
use super::index_shard::IndexShardMsg;
use super::messages::RunKey;
use super::summary::GateTally;
use super::writer_thread::WriterGone;
use crate::runtime::blocking;
use crate::runtime::failure::StageFailure;
use crate::runtime::generation::{Generation, GenerationStart, Stage};
use crate::runtime::heartbeat::Heartbeat;
use crate::runtime::pipeline::GenerationFactory;
use ractor::{Actor, ActorRef};
use std::sync::Arc;
use tokio::sync::{Mutex, oneshot, watch};
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::routing::index_shard_of;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{Clock, GateStore, StoreError};

/// What every generation of a shard is made of.
#[derive(Clone)]
pub struct ShardParts {
    /// Which shard.
    pub shard: u16,
    /// Durable state.
    pub store: Arc<dyn GateStore>,
    /// Index shards in order.
    pub index: Arc<Vec<ActorRef<IndexShardMsg>>>,
    /// Runs that are open, newest list.
    pub open_runs: watch::Receiver<Arc<Vec<RunKey>>>,
    /// Bytes after which a flush is closed even while the disk is busy.
    pub flush_bytes_max: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The last writer thread.
    pub last_writer: LastWriter,
    /// What decisions are counted into.
    pub tally: Arc<GateTally>,
}

/// Carries a writer thread's end from one generation's start to the next one's, or to the final stop. Only
/// one of them runs at a time, so the lock is never contended.
pub type LastWriter = Arc<Mutex<Option<WriterGone>>>;

/// Waits until the last writer thread has ended and dropped its files.
pub async fn await_writer(last_writer: &LastWriter) {
    if let Some(gone) = last_writer.lock().await.take() {
        // The thread signals by dropping its end: an error is the expected answer.
        let _ = gone.await;
    }
}

/// The factory of a shard's generations.
pub fn shard_generations(parts: ShardParts) -> GenerationFactory<ActorRef<AdmissionShardMsg>> {
    Box::new(move |start| Box::pin(start_generation(parts.clone(), start)))
}

async fn start_generation(
    parts: ShardParts,
    start: GenerationStart,
) -> Result<Generation<ActorRef<AdmissionShardMsg>>, StageFailure> {
    await_writer(&parts.last_writer).await;
    let open_runs = parts.open_runs.borrow().clone();
    let mut runs = Vec::with_capacity(open_runs.len());
    for run in open_runs.iter() {
        runs.push(recover_run(&parts, run).await?);
    }
    let (writer_gone, writer) = oneshot::channel();
    let heartbeat = Heartbeat::new();
    let args = AdmissionShardArgs {
        shard: parts.shard,
        runs,
        index: parts.index.clone(),
        flush_bytes_max: parts.flush_bytes_max,
        clock: parts.clock.clone(),
        heartbeat: heartbeat.clone(),
        writer_gone,
        tally: parts.tally.clone(),
    };
    let (shard, _join) = Actor::spawn_linked(None, AdmissionShard, args, start.supervisor).await?;
    *parts.last_writer.lock().await = writer.await.ok();
    let stage = Stage::new("decide", shard.get_cell()).with_heartbeat(heartbeat);
    Ok(Generation {
        entry: shard,
        stages: vec![stage],
    })
}

async fn recover_run(parts: &ShardParts, run: &RunKey) -> Result<ShardRunOpening, StageFailure> {
    let from = first_unknown_row(parts, run).await?;
    let (store, run_id, shard_number) = (parts.store.clone(), run.clone(), parts.shard);
    let reopened = blocking::run("shard-recovery", move || {
        store.reopen_shard(&run_id, shard_number, from)
    })
    .await;
    let reopened = reopened
        .map_err(|panic| StageFailure::transient("RECOVERY_PANICKED", panic.to_string()))?;
    let (shard, ends) = reopened.map_err(store_failure)?;
    end_old_claims(parts, run, &shard.recovered, shard.next_row).await?;
    Ok(ShardRunOpening {
        run: run.clone(),
        shard,
        ends,
    })
}

/// The first row any index shard may not know of.
async fn first_unknown_row(parts: &ShardParts, run: &RunKey) -> Result<RowRef, StageFailure> {
    let mut first: Option<RowRef> = None;
    for index in parts.index.iter() {
        let (reply, answer) = oneshot::channel();
        index
            .cast(IndexShardMsg::NextRow {
                run: run.clone(),
                shard: parts.shard,
                reply,
            })
            .map_err(|_| index_gone())?;
        let next = answer.await.map_err(|_| index_gone())?;
        first = Some(first.map_or(next, |first| first.min(next)));
    }
    first.ok_or_else(index_gone)
}

async fn end_old_claims(
    parts: &ShardParts,
    run: &RunKey,
    recovered: &[(Hash32, IndexEntry)],
    next_row: RowRef,
) -> Result<(), StageFailure> {
    let shards = parts.index.len() as u16;
    for (number, index) in parts.index.iter().enumerate() {
        let admitted = recovered
            .iter()
            .filter(|(key, _)| usize::from(index_shard_of(key, shards)) == number)
            .copied()
            .collect();
        let (reply, done) = oneshot::channel();
        let message = IndexShardMsg::EndGeneration {
            run: run.clone(),
            shard: parts.shard,
            admitted,
            next_row,
            reply,
        };
        index.cast(message).map_err(|_| index_gone())?;
        done.await.map_err(|_| index_gone())?;
    }
    Ok(())
}

fn index_gone() -> StageFailure {
    StageFailure::terminal("INDEX_SHARD_GONE", "an index shard has ended")
}

/// A store that is away may come back; a damaged one will not mend itself.
pub(super) fn store_failure(error: StoreError) -> StageFailure {
    match &error {
        StoreError::Unavailable { .. } => StageFailure::transient(error.code(), error.to_string()),
        _ => StageFailure::terminal(error.code(), error.to_string()),
    }
}
