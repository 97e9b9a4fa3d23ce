//! Settles what writers left behind that died between claim and mark, or between mark and segment.
//!
//! The writer is fenced first, so that it claims and marks nothing any more. Then the streams are read from
//! where they stood when the claims were made: an event that is there is admitted at its first place, a
//! claim whose event is not there is given up, and its sender will send it again. Every step may be done
//! twice, by anyone, with the same outcome. A record a frozen writer puts after this is a stray: no row
//! names its place.

use super::substrate::Substrate;
use crate::event_bus::kinesis::{OtherShards, ReadFrom, Record, ScanFrom};
use crate::state_store::postgres::admissions::{
    Admitted, BusPlace, FlushInfo, Settled, StreamPosition, UnsettledClaim, UnsettledFlush,
    WriterId,
};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::envelope::{Envelope, Field};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

/// Unfinished flushes looked at in one call.
const FLUSHES_MAX: u32 = 10_000;

/// Settles writers. Clones share the backends.
#[derive(Clone)]
pub struct Reconciler {
    substrate: Substrate,
}

/// A claim that is looked for on a stream.
struct Wanted<'a> {
    flush: usize,
    claim: &'a UnsettledClaim,
    run: &'a PlatformRunId,
}

impl Reconciler {
    /// A reconciler over these backends.
    pub fn new(substrate: Substrate) -> Reconciler {
        Reconciler { substrate }
    }

    /// Settles every writer of a run whose lease has ended, and writes segments that are missing.
    pub fn settle_run(&self, run: &PlatformRunId) -> Result<Settled, StoreError> {
        let mut total = Settled::default();
        for expired in self.substrate.ledger.expired_writers(Some(run))? {
            total = sum(total, self.settle_writer(expired.writer)?);
        }
        // A segment that is younger than a lease may be on its way.
        self.store_missing(run, self.substrate.lease)?;
        Ok(total)
    }

    /// Settles every writer of every run whose lease has ended.
    pub fn settle_all(&self) -> Result<Settled, StoreError> {
        let expired = self.substrate.ledger.expired_writers(None)?;
        let mut total = Settled::default();
        for writer in expired {
            total = sum(total, self.settle_writer(writer.writer)?);
            self.store_missing(&writer.run, self.substrate.lease)?;
        }
        Ok(total)
    }

    /// Fences a writer whose time is over and settles its claims. Nothing happens while it lives.
    pub fn settle_writer(&self, writer: WriterId) -> Result<Settled, StoreError> {
        match self.substrate.ledger.fence(writer)? {
            true => self.settle_fenced(writer),
            false => Ok(Settled::default()),
        }
    }

    /// Settles the claims of a writer that has nothing under way: fenced, or this process's own and ended.
    pub fn settle_fenced(&self, writer: WriterId) -> Result<Settled, StoreError> {
        let unsettled = self.substrate.ledger.unsettled(writer)?;
        let found = self.find(&unsettled)?;
        let mut total = Settled::default();
        for (flush, found) in unsettled.iter().zip(&found) {
            let settled = self.substrate.ledger.settle_flush(&flush.flush, found)?;
            total = sum(total, settled);
            self.store_flush(&flush.flush)?;
        }
        // Also what it marked just before its end: nobody looks at a closed writer again.
        for flush in self.substrate.ledger.unstored_of_writer(writer)? {
            self.store_flush(&flush)?;
        }
        self.substrate.ledger.close_writer(writer)?;
        if !unsettled.is_empty() {
            tracing::warn!(
                writer = writer.0,
                admitted = total.admitted,
                released = total.released,
                "claims of an ended writer were settled from the streams"
            );
        }
        Ok(total)
    }

    /// Writes the segments of decided flushes whose writer did not come to it.
    pub fn store_missing(&self, run: &PlatformRunId, age: Duration) -> Result<(), StoreError> {
        let ledger = &self.substrate.ledger;
        for flush in ledger.unstored_flushes(run, age, FLUSHES_MAX)? {
            self.store_flush(&flush)?;
        }
        Ok(())
    }

    fn store_flush(&self, flush: &FlushInfo) -> Result<(), StoreError> {
        let rows = self.substrate.ledger.flush_rows(&flush.key)?;
        if rows.is_empty() {
            return Ok(());
        }
        self.substrate.write_objects(&flush.key.run, &rows)?;
        self.substrate.write_segment(&flush.key.run, &rows)?;
        self.substrate
            .ledger
            .stored(std::slice::from_ref(&flush.key))
    }

    /// Per flush, the claims that are on their streams.
    fn find(&self, flushes: &[UnsettledFlush]) -> Result<Vec<Vec<Admitted>>, StoreError> {
        let mut found: Vec<Vec<Admitted>> = flushes.iter().map(|_| Vec::new()).collect();
        let mut by_stream: BTreeMap<&str, HashMap<String, Vec<Wanted<'_>>>> = BTreeMap::new();
        for (number, flush) in flushes.iter().enumerate() {
            for claim in &flush.claims {
                let stream = self.substrate.streams.stream_of(&claim.context.topic);
                let keys = by_stream.entry(stream).or_default();
                let of_key = keys.entry(claim.partition_key.to_string()).or_default();
                of_key.push(Wanted {
                    flush: number,
                    claim,
                    run: &flush.flush.key.run,
                });
            }
        }
        for (stream, mut wanted) in by_stream {
            let from = scan_from(stream, flushes);
            self.substrate.scan.scan(stream, &from, &mut |record| {
                if let Some((flush, admitted)) = take_match(&mut wanted, &record) {
                    found[flush].push(admitted);
                }
                Ok(match wanted.is_empty() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            })?;
        }
        Ok(found)
    }
}

/// Every shard from the earliest place one of the flushes knew; shards nobody knew from their start.
fn scan_from(stream: &str, flushes: &[UnsettledFlush]) -> ScanFrom {
    let mut earliest: BTreeMap<&str, Option<SequenceNumber>> = BTreeMap::new();
    let known = |position: &StreamPosition| {
        let sequence = position.sequence.as_deref();
        sequence.and_then(SequenceNumber::parse)
    };
    for flush in flushes {
        for position in &flush.flush.positions {
            if position.stream != stream {
                continue;
            }
            let sequence = known(position);
            let entry = earliest.entry(&position.shard_id).or_insert(sequence);
            *entry = (*entry).min(sequence);
        }
    }
    // A flush that did not know a shard yet may have been the first to write there.
    let all_know = |shard: &str| {
        flushes.iter().all(|flush| {
            let mut positions = flush.flush.positions.iter();
            positions.any(|position| position.stream == stream && position.shard_id == shard)
        })
    };
    let positions = earliest.iter().map(|(shard, sequence)| {
        let from = match sequence.filter(|_| all_know(shard)) {
            Some(sequence) => ReadFrom::After(sequence),
            None => ReadFrom::Start,
        };
        ((*shard).to_owned(), from)
    });
    ScanFrom {
        positions: positions.collect(),
        others: OtherShards::FromTheirStart,
    }
}

/// The claim a record is the event of; it is not looked for any more.
fn take_match(
    wanted: &mut HashMap<String, Vec<Wanted<'_>>>,
    record: &Record,
) -> Option<(usize, Admitted)> {
    let of_key = wanted.get_mut(&record.partition_key)?;
    let envelope = Envelope::read(&record.data).ok().flatten()?;
    let event_id = envelope.string(Field::EventId)?;
    let event_type = envelope.string(Field::EventType)?;
    let run = envelope.string(Field::PlatformRunId)?;
    let position = of_key.iter().position(|wanted| {
        wanted.claim.event_id == event_id
            && wanted.claim.context.event_type == event_type
            && wanted.run.as_str() == run
    })?;
    let hit = of_key.swap_remove(position);
    if of_key.is_empty() {
        wanted.remove(&record.partition_key);
    }
    let admitted = Admitted {
        dedupe_key: hit.claim.dedupe_key,
        place: BusPlace {
            topic: Arc::from(hit.claim.context.topic.as_str()),
            partition: record.partition,
            offset: BusOffset::Sequence(record.sequence),
        },
    };
    Some((hit.flush, admitted))
}

fn sum(a: Settled, b: Settled) -> Settled {
    Settled {
        admitted: a.admitted + b.admitted,
        released: a.released + b.released,
    }
}
