//! The commit of one admission shard on shared backends.
//!
//! Order, and what is durable when: keys are claimed (rows of the ledger, with where reconciliation would
//! read from); records are put (on their stream); the flush is marked (admitted with their places, other
//! decisions stored: this is the commit); its objects and its receipt segment are written. Only then is it
//! answered. A crash in between leaves claims that [`super::reconcile`] settles; nothing of it was promised.

use super::reconcile::Reconciler;
use super::substrate::Substrate;
use super::writer_leases::{HeldWriter, WriterLeases};
use crate::event_bus::kinesis::{Placed, PutItem};
use crate::failpoints::{Artefact, Operation, Step, around};
use crate::state_store::postgres::admissions::{
    Admitted, BusPlace, Claim, ClaimBatch, ClaimResult, DecisionOutcome, DecisionRecord, FlushHead,
    FlushKey, FlushState, Holder, HolderState, MarkBatch, StreamPosition, WRITER_FENCED, Writer,
    WriterId,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::claims::DigestMap;
use wellspring_domain::admission::commit_report::{CommitReport, SettledRow};
use wellspring_domain::admission::decision::{Flush, IndexEntry, RowOutcome};
use wellspring_domain::admission::flush_rows::{envelope_of, envelopes, journal_rows};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::segment_object;
use wellspring_domain::admission::shared_claims::{ClaimedFlush, LostKey, Redirects, settle};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{Clock, DecisionLog, StoreError};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};

const CLAIM: Step = Step(Artefact::LedgerClaim, Operation::Put);
const PUT: Step = Step(Artefact::StreamRecords, Operation::Put);
const MARK: Step = Step(Artefact::LedgerMark, Operation::Put);
const OBJECTS: Step = Step(Artefact::FlushObjects, Operation::Put);
const SEGMENT: Step = Step(Artefact::ReceiptSegment, Operation::Put);

/// How long a key that another writer has in flight is waited for (contract 7.4).
const IN_FLIGHT_WAIT: Duration = Duration::from_secs(2);
/// Pause between looks at it.
const IN_FLIGHT_POLL: Duration = Duration::from_millis(50);
/// First pause between tries to reach a backend that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between them.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Stored segments noted in the ledger at once.
const STORED_NOTED: usize = 16;

/// The quarantine code of an event that is larger than a record of the stream may be.
pub const RECORD_TOO_LARGE: &str = "KINESIS_RECORD_TOO_LARGE";
/// The quarantine code of an event whose row in the ledger has a state that is none (contract 7.4).
pub const STATE_INVALID: &str = "ADMISSION_STATE_INVALID";

/// A flush that is being committed, with its envelopes taken apart.
struct Work<'a> {
    flush: &'a Flush,
    envelopes: Vec<Vec<&'a [u8]>>,
    key: FlushKey,
    segment_ref: String,
    quarantine_root: String,
    /// Where the streams stood before its records were put.
    positions: Vec<StreamPosition>,
}

/// What the log of a shard is made of.
pub struct ManagedLogParts {
    /// Backends.
    pub substrate: Substrate,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Settles what dead writers left.
    pub reconciler: Reconciler,
    /// Keeps writers alive.
    pub leases: Arc<WriterLeases>,
}

/// The decision log of one admission shard of one run.
pub struct ManagedDecisionLog {
    parts: ManagedLogParts,
    paths: RunPaths,
    run: PlatformRunId,
    shard: u16,
    writer: Writer,
    held: HeldWriter,
    /// Last sequence number known of each stream shard.
    positions: BTreeMap<(String, String), SequenceNumber>,
    redirects: Redirects,
    stored: Vec<FlushKey>,
    failed: bool,
}

impl ManagedDecisionLog {
    /// Opens a writer of its own. Blocks.
    pub fn open(
        parts: ManagedLogParts,
        run: &PlatformRunId,
        shard: u16,
    ) -> Result<ManagedDecisionLog, StoreError> {
        let substrate = &parts.substrate;
        let ledger = &substrate.ledger;
        let writer = ledger.open_writer(run, shard, &substrate.node, substrate.lease)?;
        let held = parts.leases.hold(writer.writer);
        let known = ledger.stream_positions(&substrate.stream_names())?;
        let positions = known.into_iter().filter_map(|position| {
            let sequence = SequenceNumber::parse(position.sequence.as_deref()?)?;
            Some(((position.stream, position.shard_id), sequence))
        });
        Ok(ManagedDecisionLog {
            positions: positions.collect(),
            paths: substrate.paths(run),
            run: run.clone(),
            shard,
            writer,
            held,
            redirects: Redirects::default(),
            stored: Vec::new(),
            failed: false,
            parts,
        })
    }

    /// The segments this log may use.
    pub fn first_segment(&self) -> u32 {
        self.writer.block.first_segment
    }

    fn write(&mut self, flush: &Flush) -> Result<CommitReport, StoreError> {
        let work = self.work(flush)?;
        let mut lost = self.refused_by_size(&work);
        self.claim(&work, &mut lost)?;
        let mut claimed = settle(flush, &lost, &self.redirects);
        let placed = self.publish(&work, &claimed)?;
        for (row, place) in claimed.publish.iter().zip(&placed) {
            claimed.settled[*row as usize] = Some(SettledRow::Published {
                partition: place.partition,
                offset: BusOffset::Sequence(place.sequence),
            });
        }
        self.note_positions(&work, &claimed, &placed);
        let rows = journal_rows(flush, &work.envelopes, &claimed.settled);
        let rows: Vec<JournalRow> = rows.into_iter().flatten().collect();
        assert_eq!(
            rows.len(),
            flush.rows.len(),
            "every row of a published flush is settled"
        );
        self.mark(&work, &rows)?;
        self.store(&work, &rows)?;
        self.redirects.remember(flush, &claimed);
        Ok(CommitReport::settled(flush.first_row, claimed.settled))
    }

    fn work<'a>(&self, flush: &'a Flush) -> Result<Work<'a>, StoreError> {
        let block = self.writer.block;
        let used = flush.first_row.segment - block.first_segment;
        if used >= block.segments {
            return Err(self.away("the segment numbers of this writer are used up"));
        }
        let envelopes = envelopes(flush).ok_or_else(|| self.away("a line is no bus record"))?;
        Ok(Work {
            flush,
            envelopes,
            key: FlushKey {
                run: self.run.clone(),
                shard: self.shard,
                segment: flush.first_row.segment,
            },
            segment_ref: segment_object(&self.paths.run_root(), flush.first_row),
            quarantine_root: format!("{}/quarantine", self.paths.ig()),
            positions: self.all_positions(),
        })
    }

    fn head<'a>(&self, work: &'a Work<'_>) -> FlushHead<'a> {
        FlushHead {
            writer: self.writer.writer,
            key: &work.key,
            rows: work.flush.rows.len() as u32,
            positions: &work.positions,
            decided_at: work.flush.decided_at,
            segment_ref: &work.segment_ref,
            quarantine_root: &work.quarantine_root,
        }
    }

    /// Events that no request can carry: they are known before anything is claimed.
    fn refused_by_size(&self, work: &Work<'_>) -> DigestMap<LostKey> {
        let most = self.parts.substrate.producer.settings().record_bytes_max;
        let too_large = |envelope: &&[u8]| envelope.len() + 2 * size_of::<Hash32>() > most;
        let rows = work.flush.rows.iter();
        rows.filter(|row| {
            envelope_of(work.flush, &work.envelopes, row).is_some_and(|e| too_large(&e))
        })
        .map(|row| (row.dedupe_key, LostKey::Refused(RECORD_TOO_LARGE)))
        .collect()
    }

    /// Claims what is to be published; what others have goes to `lost`.
    fn claim(&self, work: &Work<'_>, lost: &mut DigestMap<LostKey>) -> Result<(), StoreError> {
        let mut open = self.claims_of(work, lost);
        let deadline = self.now() + micros(IN_FLIGHT_WAIT);
        loop {
            let batch = ClaimBatch {
                flush: self.head(work),
                contexts: &work.flush.contexts,
                claims: &open,
            };
            let outcome =
                self.retrying(|| around(CLAIM, || self.parts.substrate.ledger.claim(&batch)))?;
            let mut waiting = Vec::new();
            for (claim, result) in open.iter().zip(outcome.results) {
                match result {
                    ClaimResult::Won => {}
                    ClaimResult::Taken(holder) if self.is_own(work, claim, &holder) => {}
                    ClaimResult::Taken(holder) => match self.lost_to(&holder)? {
                        Some(reason) => {
                            lost.insert(claim.dedupe_key, reason);
                        }
                        None => waiting.push(*claim),
                    },
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if self.now() > deadline {
                return Err(
                    self.away("a key is in flight at another node: PUBLISH_IN_FLIGHT_RETRY")
                );
            }
            std::thread::sleep(IN_FLIGHT_POLL);
            open = waiting;
        }
    }

    fn claims_of<'a>(&self, work: &'a Work<'_>, lost: &DigestMap<LostKey>) -> Vec<Claim<'a>> {
        let text = |span: wellspring_domain::admission::decision::Span| {
            std::str::from_utf8(span.of(&work.flush.arena)).unwrap_or_default()
        };
        let rows = work.flush.rows.iter().enumerate();
        rows.filter(|(_, row)| {
            matches!(row.outcome, RowOutcome::Admit { .. }) && !lost.contains_key(&row.dedupe_key)
        })
        .map(|(index, row)| Claim {
            row: index as u32,
            context: row.context,
            event_id: text(row.event_id),
            ts_utc: text(row.ts_utc),
            dedupe_key: row.dedupe_key,
            payload_hash: row.payload_hash,
            partition_key: row.partition_key,
        })
        .collect()
    }

    /// A claim whose answer was lost on the way is found to be ours.
    fn is_own(&self, work: &Work<'_>, claim: &Claim<'_>, holder: &Holder) -> bool {
        let first = work.flush.first_row;
        let here = holder.row.is_some_and(|at| {
            (at.shard, at.segment, at.row) == (first.shard, first.segment, claim.row)
        });
        here && matches!(holder.state, HolderState::InFlight { writer, .. } if writer == self.writer.writer)
    }

    /// Why a taken key may not be published; `None` while its holder is at work on it.
    fn lost_to(&self, holder: &Holder) -> Result<Option<LostKey>, StoreError> {
        match &holder.state {
            HolderState::Admitted { .. } => Ok(Some(LostKey::Admitted(IndexEntry {
                payload_hash: holder.payload_hash,
                row: holder.row.unwrap_or_default(),
            }))),
            HolderState::InFlight {
                writer,
                writer_lives: false,
            } => {
                self.parts.reconciler.settle_writer(*writer)?;
                Ok(None)
            }
            HolderState::InFlight { .. } | HolderState::Ambiguous => Ok(None),
            HolderState::Invalid { .. } => Ok(Some(LostKey::Refused(STATE_INVALID))),
        }
    }

    fn publish(&self, work: &Work<'_>, claimed: &ClaimedFlush) -> Result<Vec<Placed>, StoreError> {
        let substrate = &self.parts.substrate;
        let mut items = Vec::with_capacity(claimed.publish.len());
        for index in &claimed.publish {
            let row = &work.flush.rows[*index as usize];
            let (Some(data), Some(context)) = (
                envelope_of(work.flush, &work.envelopes, row),
                work.flush.contexts.get(usize::from(row.context)),
            ) else {
                return Err(self.away("a row has no record"));
            };
            items.push(PutItem {
                stream: substrate.streams.stream_of(&context.topic),
                partition_key: row.partition_key,
                data,
            });
        }
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let publish = || substrate.producer.publish(&items, substrate.patience);
        around(PUT, || publish().map_err(|error| error.cause))
    }

    fn note_positions(&mut self, work: &Work<'_>, claimed: &ClaimedFlush, placed: &[Placed]) {
        for (index, place) in claimed.publish.iter().zip(placed) {
            let row = &work.flush.rows[*index as usize];
            let topic = &work.flush.contexts[usize::from(row.context)].topic;
            let stream = self.parts.substrate.streams.stream_of(topic).to_owned();
            let shard_id = format!("shardId-{:012}", place.partition);
            let known = self.positions.entry((stream, shard_id)).or_default();
            *known = (*known).max(place.sequence);
        }
    }

    fn all_positions(&self) -> Vec<StreamPosition> {
        let positions = self.positions.iter();
        positions
            .map(|((stream, shard_id), sequence)| StreamPosition {
                stream: stream.clone(),
                shard_id: shard_id.clone(),
                sequence: Some(sequence.to_string()),
            })
            .collect()
    }

    fn mark(&self, work: &Work<'_>, rows: &[JournalRow]) -> Result<(), StoreError> {
        let context_of = |index: usize| work.flush.rows[index].context;
        let mut admitted = Vec::new();
        let mut decisions = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let outcome = match &row.outcome {
                JournalOutcome::Admit {
                    topic,
                    partition,
                    offset,
                } => {
                    admitted.push(Admitted {
                        dedupe_key: row.dedupe_key,
                        place: BusPlace {
                            topic: topic.clone(),
                            partition: *partition,
                            offset: *offset,
                        },
                    });
                    continue;
                }
                JournalOutcome::Duplicate { original } => DecisionOutcome::Duplicate {
                    original: *original,
                },
                JournalOutcome::Quarantine { code, record } => DecisionOutcome::Quarantine {
                    code,
                    record: std::str::from_utf8(record).unwrap_or_default(),
                },
            };
            decisions.push(DecisionRecord {
                row: index as u32,
                context: context_of(index),
                event_id: &row.event_id,
                ts_utc: &row.ts_utc,
                dedupe_key: row.dedupe_key,
                payload_hash: row.payload_hash,
                outcome,
            });
        }
        let positions = self.all_positions();
        let batch = MarkBatch {
            flush: self.head(work),
            admitted: &admitted,
            contexts: &work.flush.contexts,
            decisions: &decisions,
            positions: &positions,
        };
        self.retrying(
            || match around(MARK, || self.parts.substrate.ledger.mark(&batch)) {
                // The answer to an earlier try may have been lost.
                Err(error) if error.code() == WRITER_FENCED && self.is_marked(&work.key)? => Ok(()),
                marked => marked,
            },
        )
    }

    fn is_marked(&self, key: &FlushKey) -> Result<bool, StoreError> {
        let before = key.segment.checked_sub(1).map(|segment| FlushKey {
            segment,
            ..key.clone()
        });
        let ledger = &self.parts.substrate.ledger;
        let found = ledger.flushes_after(&self.run, before.as_ref(), 1)?;
        Ok(found.first().is_some_and(|flush| {
            flush.key == *key
                && flush.writer == self.writer.writer
                && flush.state == FlushState::Marked
        }))
    }

    fn store(&mut self, work: &Work<'_>, rows: &[JournalRow]) -> Result<(), StoreError> {
        let substrate = &self.parts.substrate;
        self.held.check()?;
        self.retrying(|| around(OBJECTS, || substrate.write_objects(&self.run, rows)))?;
        self.retrying(|| around(SEGMENT, || substrate.write_segment(&self.run, rows)))?;
        self.stored.push(work.key.clone());
        if self.stored.len() >= STORED_NOTED {
            self.note_stored();
        }
        Ok(())
    }

    /// A segment that is not noted is looked for again by somebody, and found.
    fn note_stored(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        if stored.is_empty() {
            return;
        }
        if let Err(error) = self.parts.substrate.ledger.stored(&stored) {
            tracing::warn!(%error, "stored receipt segments were not noted");
        }
    }

    /// Tries again while the backend is away, for as long as the patience lasts.
    fn retrying<T>(
        &self,
        mut call: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = self.now() + micros(self.parts.substrate.patience);
        let mut pause = RETRY_PAUSE;
        loop {
            match call() {
                Err(error @ StoreError::Unavailable { .. }) if self.now() < deadline => {
                    tracing::warn!(%error, "a backend is away, the commit tries again");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                done => return done,
            }
        }
    }

    fn now(&self) -> u64 {
        self.parts.clock.monotonic_micros()
    }

    fn away(&self, cause: &str) -> StoreError {
        StoreError::Unavailable {
            operation: "commit",
            key: format!("{} shard {}", self.run, self.shard),
            cause: cause.to_owned(),
        }
    }

    /// Its number, for tests and messages.
    pub fn writer(&self) -> WriterId {
        self.writer.writer
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

impl DecisionLog for ManagedDecisionLog {
    fn commit(&mut self, flush: &Flush) -> Result<CommitReport, StoreError> {
        if self.failed {
            return Err(self.away("an earlier commit failed; the shard must be recovered"));
        }
        if flush.run != self.run || flush.first_row.shard != self.shard {
            return Err(self.away("the flush belongs to another run or shard"));
        }
        if flush.rows.is_empty() {
            return Ok(CommitReport::as_asked());
        }
        self.held.check()?;
        let written = self.write(flush);
        self.failed = written.is_err();
        written
    }
}

impl Drop for ManagedDecisionLog {
    /// A writer that ended in order is closed; after a failure its claims wait for reconciliation.
    fn drop(&mut self) {
        self.note_stored();
        if !self.failed
            && let Err(error) = self.parts.substrate.ledger.close_writer(self.writer.writer)
        {
            tracing::warn!(%error, "a writer was not closed; its lease will end");
        }
    }
}
