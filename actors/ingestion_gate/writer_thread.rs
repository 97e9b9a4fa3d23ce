//! The writer of one admission shard: its own OS thread, because it waits for disks.
//!
//! Durable: a flush is, when its commit returns. Flushes of a run are committed in the order they were
//! built. The thread ends when its channel closes, when its shard is gone, or after the first failed
//! commit; whoever starts the next generation waits for [`WriterGone`] first, so that never two writers
//! of one shard exist.

use super::admission_shard::AdmissionShardMsg;
use super::in_flight::Admitted;
use super::messages::{Portion, RunKey};
use crate::runtime::blocking::{Jobs, NotTaken, worker};
use crate::runtime::credit::Credit;
use ractor::ActorRef;
use std::collections::HashMap;
use std::ops::ControlFlow;
use tokio::sync::{mpsc, oneshot};
use wellspring_domain::admission::commit_report::CommitReport;
use wellspring_domain::admission::decision::Flush;
use wellspring_domain::ports::{DecisionLog, StoreError};

/// Resolves when the writer thread has ended and dropped its files.
pub type WriterGone = oneshot::Receiver<()>;

/// A flush with everything that waits for it.
pub struct FlushJob {
    /// Run of the flush.
    pub run: RunKey,
    /// What to commit.
    pub flush: Flush,
    /// Admitted events, for the index.
    pub admitted: Vec<Admitted>,
    /// Answers to give when it is durable.
    pub portions: Vec<(mpsc::Sender<Portion>, Portion)>,
    /// Room to give back when it is durable.
    pub credits: Vec<Credit>,
}

/// A flush the writer is done with.
pub struct CommittedFlush {
    /// The flush and what waits for it.
    pub job: Box<FlushJob>,
    /// How it went.
    pub result: Result<CommitReport, StoreError>,
}

/// Open logs by run.
type Logs = HashMap<RunKey, Box<dyn DecisionLog>>;

/// Work for the thread.
enum Job {
    Open(RunKey, Box<dyn DecisionLog>),
    Close(RunKey),
    Commit(Box<FlushJob>),
}

/// The shard's side of the thread.
pub struct Writer {
    jobs: Jobs<Job>,
}

/// The thread ended unexpectedly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the writer thread has ended")]
pub struct WriterEnded;

/// Room for control jobs; at most one commit is ever in the channel.
const JOBS_MAX: usize = 64;

impl Writer {
    /// Starts the thread. Committed flushes come back through the receiver, and `shard` is told of each by
    /// [`AdmissionShardMsg::Committed`].
    pub fn start(
        shard_number: u16,
        shard: ActorRef<AdmissionShardMsg>,
    ) -> std::io::Result<(Writer, mpsc::Receiver<CommittedFlush>, WriterGone)> {
        let mut logs: Logs = HashMap::new();
        // At most one commit is on its way.
        let (done, committed) = mpsc::channel(1);
        let back = Back { done, shard };
        let name = format!("shard-{shard_number}-writer");
        let (jobs, gone) = worker(name, JOBS_MAX, move |job| work(&mut logs, job, &back))?;
        Ok((Writer { jobs }, committed, gone))
    }

    /// Hands over a run's log.
    pub fn open(&self, run: RunKey, log: Box<dyn DecisionLog>) -> Result<(), WriterEnded> {
        self.jobs.give(Job::Open(run, log)).map_err(ended)
    }

    /// Drops a run's log.
    pub fn close(&self, run: RunKey) -> Result<(), WriterEnded> {
        self.jobs.give(Job::Close(run)).map_err(ended)
    }

    /// Starts a commit. The caller has at most one on its way.
    pub fn commit(&self, job: Box<FlushJob>) -> Result<(), WriterEnded> {
        self.jobs.give(Job::Commit(job)).map_err(ended)
    }
}

/// The way back to the shard.
struct Back {
    done: mpsc::Sender<CommittedFlush>,
    shard: ActorRef<AdmissionShardMsg>,
}

impl Back {
    /// False when nobody hears of it any more.
    fn tell(&self, flush: CommittedFlush) -> bool {
        let told = self.done.try_send(flush).is_ok();
        told && self.shard.cast(AdmissionShardMsg::Committed).is_ok()
    }
}

fn ended(_: NotTaken) -> WriterEnded {
    WriterEnded
}

/// Does one job; breaks after a failed commit, or when nobody hears of a commit any more.
fn work(logs: &mut Logs, job: Job, back: &Back) -> ControlFlow<()> {
    match job {
        Job::Open(run, log) => {
            logs.insert(run, log);
        }
        Job::Close(run) => {
            logs.remove(&run);
        }
        Job::Commit(job) => {
            let result = commit(logs, &job);
            let failed = result.is_err();
            if !back.tell(CommittedFlush { job, result }) || failed {
                return ControlFlow::Break(());
            }
        }
    }
    ControlFlow::Continue(())
}

fn commit(logs: &mut Logs, job: &FlushJob) -> Result<CommitReport, StoreError> {
    match logs.get_mut(&job.run) {
        Some(log) => log.commit(&job.flush),
        None => Err(StoreError::Unavailable {
            operation: "commit",
            key: job.run.to_string(),
            cause: "the run is not open in this shard".to_owned(),
        }),
    }
}
