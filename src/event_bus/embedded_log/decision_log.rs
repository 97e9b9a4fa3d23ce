//! One admission shard's durable writer: bus lines, then the journal frame that commits them.

use super::disk::LogFile;
use super::frame_decode::ConfirmedEnd;
use super::frame_encode::PlacedAppend;
use super::journal_writer::{JournalEnd, JournalWriter};
use super::layout;
use super::partition_writer::PartitionWriters;
use super::publisher::Publisher;
use super::run_state::RunState;
use super::sync_pool::SyncPool;
use crate::failpoints::{Artefact, Operation, Step, around};
use std::sync::Arc;
use wellspring_domain::admission::commit_report::CommitReport;
use wellspring_domain::admission::decision::{Flush, PartitionAppend};
use wellspring_domain::ports::{DecisionLog, StoreError};

const LINES_SYNC: Step = Step(Artefact::BusLines, Operation::Sync);

/// Makes one shard's decisions durable (contract 7.3, 8). After an error nothing more is accepted:
/// what is on the disk is unknown until the shard is recovered, and after an error of the operation
/// `fsync` the process must end.
pub struct EmbeddedDecisionLog {
    shard: u16,
    failed: bool,
    partitions: PartitionWriters,
    journal: JournalWriter,
    syncs: SyncPool,
    placed: Vec<PlacedAppend>,
    touched: Vec<Arc<LogFile>>,
    // Dropped before the lock in `state` is released.
    publisher: Publisher,
    state: Arc<RunState>,
}

impl EmbeddedDecisionLog {
    /// Goes on behind a recovered journal.
    pub fn open(
        state: Arc<RunState>,
        shard: u16,
        journal: JournalEnd,
    ) -> Result<EmbeddedDecisionLog, StoreError> {
        let ends = state.ends();
        Ok(EmbeddedDecisionLog {
            shard,
            failed: false,
            partitions: PartitionWriters::new(state.clone(), shard),
            journal: JournalWriter::new(state.run(), journal, state.options()),
            syncs: SyncPool::default(),
            placed: Vec::new(),
            touched: Vec::new(),
            publisher: Publisher::start(state.clone(), shard, journal, ends)?,
            state,
        })
    }

    fn write(&mut self, flush: &Flush) -> Result<(), StoreError> {
        self.placed.clear();
        for append in &flush.appends {
            self.placed.push(self.partitions.append(append)?);
        }
        self.partitions.take_touched(&mut self.touched);
        around(LINES_SYNC, || self.syncs.sync_data(&self.touched))?;
        self.partitions.let_pages_go();
        let ends = if flush.first_row.row == 0 {
            self.publisher.ends()
        } else {
            Vec::new()
        };
        let before = self.journal.end().bytes;
        self.journal.commit(flush, &self.placed, &ends)?;
        let bytes = flush.appends.iter().map(|append| append.bytes.len() as u64);
        let written = bytes.sum::<u64>() + self.journal.end().bytes.saturating_sub(before);
        let confirmed = flush.appends.iter().zip(&self.placed);
        let confirmed = confirmed.map(|(append, place)| end_of(append, place));
        self.publisher
            .note(confirmed, self.journal.end(), written.max(1));
        Ok(())
    }
}

fn end_of(append: &PartitionAppend, place: &PlacedAppend) -> ConfirmedEnd {
    ConfirmedEnd {
        topic: append.topic.clone(),
        partition: append.partition,
        next_offset: append.first_offset + u64::from(append.events),
        next_byte: place.first_byte + append.bytes.len() as u64,
    }
}

impl DecisionLog for EmbeddedDecisionLog {
    fn commit(&mut self, flush: &Flush) -> Result<CommitReport, StoreError> {
        let refuse = |cause: &str| StoreError::Unavailable {
            operation: "commit",
            key: layout::shard_folder(self.state.run(), self.shard),
            cause: cause.to_owned(),
        };
        if self.failed {
            return Err(refuse(
                "an earlier commit failed; the shard must be recovered",
            ));
        }
        if flush.run != *self.state.run().run_id() || flush.first_row.shard != self.shard {
            return Err(refuse("the flush belongs to another run or shard"));
        }
        if flush.rows.is_empty() && flush.appends.is_empty() {
            return Ok(CommitReport::as_asked());
        }
        let written = self.write(flush);
        self.failed = written.is_err();
        written.map(|()| CommitReport::as_asked())
    }
}
