//! `bus verify` on shared backends: every admitted row has its record where it says, and what lies on the
//! streams besides is counted.
//!
//! Rows come from the ledger in the order of the bus and are followed beside the shards, so memory does not
//! grow with the run. A record of the run that no row names is a *stray*: a late or repeated put. Readers of
//! the bus never see it; it is no difference.

use super::substrate::Substrate;
use crate::event_bus::kinesis::{PageEnd, ReadFrom, Record, ShardReader};
use crate::state_store::embedded::verify::{
    BusReport, Differences, DigestSum, KeyChains, PartitionReport, TopicFingerprint, record_digest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::mpsc::{Receiver, sync_channel};
use wellspring_domain::admission::bus_line::EnvelopeFacts;
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::envelope::{Envelope, Field};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

/// Rows of one page; so many pages wait at most.
const PAGE_ROWS: u32 = 5_000;
const PAGES_WAITING: usize = 2;
/// Empty pages of a closed shard before its end is taken for granted.
const EMPTY_PAGES_MAX: u32 = 16;

/// Says which topic an event type is published to.
pub type TopicOf<'a> = dyn Fn(&str) -> String + Sync + 'a;

/// Verifies the streams of a run against the ledger; with fingerprints when `digest` is set.
pub fn verify_bus(
    substrate: &Substrate,
    run: &PlatformRunId,
    topic_of: &TopicOf<'_>,
) -> Result<(BusReport, Vec<TopicFingerprint>), StoreError> {
    let (sender, receiver) = sync_channel(PAGES_WAITING);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            substrate
                .ledger
                .visit_in_bus_order(run, PAGE_ROWS, &mut |page| {
                    // A reader that has failed takes no more pages.
                    let _ = sender.send(page);
                    Ok(())
                })
        });
        let mut walk = Walk::new(substrate, run, topic_of, receiver);
        let walked = walk.all_topics();
        let (report, prints) = (walk.report(), walk.fingerprints());
        drop(walk);
        reading
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        walked?;
        Ok((report, prints))
    })
}

/// Rows one by one.
struct Rows {
    pages: Receiver<Vec<JournalRow>>,
    page: std::vec::IntoIter<JournalRow>,
}

impl Iterator for Rows {
    type Item = JournalRow;

    fn next(&mut self) -> Option<JournalRow> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(row);
            }
            self.page = self.pages.recv().ok()?.into_iter();
        }
    }
}

struct Walk<'a> {
    substrate: &'a Substrate,
    run: &'a PlatformRunId,
    topic_of: &'a TopicOf<'a>,
    rows: Peekable<Rows>,
    parts: Vec<PartitionReport>,
    differences: Differences,
    prints: BTreeMap<String, Print>,
}

/// The fingerprint of one topic, being made.
struct Print {
    records: u64,
    sum: DigestSum,
    order: KeyChains,
}

impl<'a> Walk<'a> {
    fn new(
        substrate: &'a Substrate,
        run: &'a PlatformRunId,
        topic_of: &'a TopicOf<'a>,
        pages: Receiver<Vec<JournalRow>>,
    ) -> Walk<'a> {
        let rows = Rows {
            pages,
            page: Vec::new().into_iter(),
        };
        Walk {
            substrate,
            run,
            topic_of,
            rows: rows.peekable(),
            parts: Vec::new(),
            differences: Differences::default(),
            prints: BTreeMap::new(),
        }
    }

    fn all_topics(&mut self) -> Result<(), StoreError> {
        let topics: BTreeSet<&String> = self.substrate.topics.iter().collect();
        for topic in topics {
            let stream = self.substrate.streams.stream_of(topic);
            let tree = self.substrate.scan.shards(stream)?;
            let shards: BTreeMap<u32, (String, bool)> = tree
                .iter()
                .filter_map(|shard| {
                    let partition =
                        wellspring_domain::event_bus::shard_tree::partition_of(&shard.id)?;
                    Some((partition, (shard.id.clone(), shard.open)))
                })
                .collect();
            for (partition, (shard_id, open)) in shards {
                self.rows_before(topic, partition);
                let reader = self
                    .substrate
                    .scan
                    .shard(stream, &shard_id, ReadFrom::Start);
                self.partition(topic, partition, reader, open)?;
            }
        }
        while let Some(row) = self.rows.next() {
            self.missing(&row, "there is no such shard");
        }
        Ok(())
    }

    /// Rows of places that come before this one and were not read: their shards are not there.
    fn rows_before(&mut self, topic: &str, partition: u32) {
        let place = (topic.to_owned(), partition);
        while let Some(row) = self.rows.next_if(|row| place_of(row) < place) {
            self.missing(&row, "there is no such shard");
        }
    }

    fn partition(
        &mut self,
        topic: &str,
        partition: u32,
        mut reader: ShardReader,
        open: bool,
    ) -> Result<(), StoreError> {
        let mut part = PartitionReport {
            topic: topic.to_owned(),
            partition,
            ..PartitionReport::default()
        };
        let mut empty_pages = 0;
        loop {
            let page = reader.next_page()?;
            empty_pages = match page.records.is_empty() {
                true => empty_pages + 1,
                false => 0,
            };
            for record in &page.records {
                self.record(&mut part, record);
            }
            let ended = match page.end {
                PageEnd::More => false,
                PageEnd::Closed => true,
                PageEnd::CaughtUp => open || empty_pages >= EMPTY_PAGES_MAX,
            };
            if ended {
                break;
            }
        }
        let place = (topic.to_owned(), partition);
        while let Some(row) = self.rows.next_if(|row| place_of(row) == place) {
            self.missing(&row, "the shard ends before it");
        }
        if part.records > 0 || part.admitted > 0 {
            self.parts.push(part);
        }
        Ok(())
    }

    fn record(&mut self, part: &mut PartitionReport, record: &Record) {
        let place = (part.topic.clone(), part.partition);
        let before = |row: &JournalRow| {
            place_of(row) == place && sequence_of(row).is_some_and(|at| at < record.sequence)
        };
        while let Some(row) = self.rows.next_if(before) {
            self.missing(&row, "no record at this sequence number");
        }
        let here =
            |row: &JournalRow| place_of(row) == place && sequence_of(row) == Some(record.sequence);
        if let Some(row) = self.rows.next_if(here) {
            part.records += 1;
            part.admitted += 1;
            if let Err((code, detail)) = compare(record, &row) {
                let location = format!("{}/{}@{}", place.0, place.1, record.sequence);
                self.differences.add(code, location, detail);
            }
            self.print(&row);
        } else if self.is_of_run(record, &part.topic) {
            part.records += 1;
            part.stray += 1;
        }
    }

    /// Streams are shared by runs, and one stream may carry all topics.
    fn is_of_run(&self, record: &Record, topic: &str) -> bool {
        let Ok(Some(envelope)) = Envelope::read(&record.data) else {
            return false;
        };
        let run = envelope.string(Field::PlatformRunId);
        let event_type = envelope.string(Field::EventType).unwrap_or_default();
        run.is_some_and(|run| run == self.run.as_str()) && (self.topic_of)(&event_type) == topic
    }

    fn print(&mut self, row: &JournalRow) {
        let (topic, _) = place_of(row);
        let key = row.partition_key.to_string();
        let digest = record_digest(&row.payload_hash, &key, &row.ts_utc, &row.event_id);
        let print = self.prints.entry(topic).or_insert_with(|| Print {
            records: 0,
            sum: DigestSum::default(),
            order: KeyChains::all(),
        });
        print.records += 1;
        print.sum.add(&digest);
        print.order.add(&Hash32::of(key.as_bytes()), &digest);
    }

    fn missing(&mut self, row: &JournalRow, detail: &str) {
        let (topic, partition) = place_of(row);
        let offset = sequence_of(row).unwrap_or_default();
        let location = format!("{topic}/{partition}@{offset}");
        self.differences.add("RECORD_MISSING", location, detail);
    }

    fn report(&mut self) -> BusReport {
        let parts = std::mem::take(&mut self.parts);
        BusReport {
            verified: self.differences.count == 0,
            records: parts.iter().map(|part| part.records).sum(),
            admitted: parts.iter().map(|part| part.admitted).sum(),
            partitions: parts,
            differences: std::mem::take(&mut self.differences),
        }
    }

    fn fingerprints(&mut self) -> Vec<TopicFingerprint> {
        let prints = std::mem::take(&mut self.prints).into_iter();
        prints
            .map(|(topic, print)| {
                let mut order = DigestSum::default();
                print.order.finish(&mut order);
                TopicFingerprint {
                    topic,
                    records: print.records,
                    unreadable: 0,
                    records_digest: print.sum.hex(),
                    order_digest: order.hex(),
                }
            })
            .collect()
    }
}

fn place_of(row: &JournalRow) -> (String, u32) {
    match &row.outcome {
        JournalOutcome::Admit {
            topic, partition, ..
        } => (topic.to_string(), *partition),
        _ => Default::default(),
    }
}

fn sequence_of(row: &JournalRow) -> Option<SequenceNumber> {
    match &row.outcome {
        JournalOutcome::Admit {
            offset: BusOffset::Sequence(sequence),
            ..
        } => Some(*sequence),
        _ => None,
    }
}

/// A record against the row that admitted it.
fn compare(record: &Record, row: &JournalRow) -> Result<(), (&'static str, String)> {
    let Some(facts) = EnvelopeFacts::of(&record.data) else {
        return Err(("RECORD_UNREADABLE", "the record is no envelope".to_owned()));
    };
    let differs = |code, found: &str, wanted: &str| {
        Err((code, format!("{found}, the receipt says {wanted}")))
    };
    let (hash, key) = (row.payload_hash.to_string(), row.partition_key.to_string());
    if facts.event_id != row.event_id {
        return differs("EVENT_DIFFERS", &facts.event_id, &row.event_id);
    }
    if facts.payload_hash != row.payload_hash {
        return differs("PAYLOAD_DIFFERS", &facts.payload_hash.to_string(), &hash);
    }
    if record.partition_key != key {
        return differs("PARTITION_KEY_DIFFERS", &record.partition_key, &key);
    }
    if facts.ts_utc != row.ts_utc {
        return differs("TIME_DIFFERS", &facts.ts_utc, &row.ts_utc);
    }
    Ok(())
}
