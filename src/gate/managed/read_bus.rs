//! `bus read` and `bus head` on Kinesis: what the ledger names as the record of an event, and nothing else.
//!
//! A stream may hold strays (late or repeated puts) and other runs' records. A record is shown when the
//! admission row of its event names this very place.

use super::substrate::Substrate;
use crate::event_bus::kinesis::{PageEnd, ReadFrom, Record};
use serde::Serialize;
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::envelope::{Envelope, Field};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::ids::{Hash32, dedupe_key};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

/// Keys asked about at once.
const KEYS_AT_ONCE: usize = 1_000;

/// Says which class an event type belongs to.
pub type ClassOf<'a> = dyn Fn(&str) -> String + 'a;

/// Where to read.
pub struct ReadPlace<'a> {
    /// The run.
    pub run: &'a PlatformRunId,
    /// Topic.
    pub topic: &'a str,
    /// Partition: the number of the stream's shard.
    pub partition: u32,
    /// First sequence number; the beginning when absent.
    pub from: Option<SequenceNumber>,
    /// Most records.
    pub max: usize,
}

/// An authoritative record with its row.
pub struct BusEntry {
    /// The record.
    pub record: Record,
    /// The row that admitted it.
    pub row: JournalRow,
}

/// Visits the records of a run in one partition, in order.
pub fn read(
    substrate: &Substrate,
    place: &ReadPlace<'_>,
    class_of: &ClassOf<'_>,
    visit: &mut dyn FnMut(&BusEntry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let stream = substrate.streams.stream_of(place.topic);
    let shard_id = format!("shardId-{:012}", place.partition);
    let from = place.from.map_or(ReadFrom::Start, ReadFrom::At);
    let mut reader = substrate.scan.shard(stream, &shard_id, from);
    let mut left = place.max;
    while left > 0 {
        let page = reader.next_page()?;
        let of_run: Vec<(Record, Hash32)> = page
            .records
            .into_iter()
            .filter_map(|record| {
                let key = key_of(&record, place, class_of)?;
                Some((record, key))
            })
            .collect();
        for chunk in of_run.chunks(KEYS_AT_ONCE) {
            let keys: Vec<Hash32> = chunk.iter().map(|(_, key)| *key).collect();
            let rows = substrate.ledger.admitted_of_keys(&keys)?;
            for ((record, _), row) in chunk.iter().zip(rows) {
                let Some(row) = row.filter(|row| is_place_of(row, place, record)) else {
                    continue;
                };
                visit(&BusEntry {
                    record: record.clone(),
                    row,
                })?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        if page.end != PageEnd::More {
            return Ok(());
        }
    }
    Ok(())
}

fn key_of(record: &Record, place: &ReadPlace<'_>, class_of: &ClassOf<'_>) -> Option<Hash32> {
    let envelope = Envelope::read(&record.data).ok().flatten()?;
    let run = envelope.string(Field::PlatformRunId)?;
    if run != place.run.as_str() {
        return None;
    }
    let class = class_of(&envelope.string(Field::EventType)?);
    let event_id = envelope.string(Field::EventId)?;
    Some(dedupe_key(
        run.as_bytes(),
        class.as_bytes(),
        event_id.as_bytes(),
    ))
}

fn is_place_of(row: &JournalRow, place: &ReadPlace<'_>, record: &Record) -> bool {
    match &row.outcome {
        JournalOutcome::Admit {
            topic,
            partition,
            offset: BusOffset::Sequence(sequence),
        } => {
            **topic == *place.topic
                && *partition == record.partition
                && *sequence == record.sequence
        }
        _ => false,
    }
}

/// How far a stream shard is known to be written.
#[derive(Debug, Serialize)]
pub struct ShardHead {
    /// Stream.
    pub stream: String,
    /// Partition: the number of the shard.
    pub partition: u32,
    /// Last sequence number an admitted event has.
    pub last_sequence: String,
}

/// The last places known of every stream. Streams are shared by runs.
pub fn heads(substrate: &Substrate) -> Result<Vec<ShardHead>, StoreError> {
    let positions = substrate
        .ledger
        .stream_positions(&substrate.stream_names())?;
    Ok(positions
        .into_iter()
        .filter_map(|position| {
            let partition =
                wellspring_domain::event_bus::shard_tree::partition_of(&position.shard_id)?;
            Some(ShardHead {
                stream: position.stream,
                partition,
                last_sequence: position.sequence?,
            })
        })
        .collect())
}
