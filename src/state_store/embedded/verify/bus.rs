//! `bus verify`: the bus holds exactly what the journals say was admitted.
//!
//! Each shard's ADMIT rows are followed in order beside their partitions, all shards side by side.
//! Checked per record: it is there, its envelope has the row's event id, its recomputed payload hash
//! and partition key are the row's, and it carries the row's time. Checked per partition: offsets are
//! dense from 0 and none has two rows; lines without a row are strays. Checked per run: no key was
//! admitted twice.

use super::admitted_keys::AdmittedKeys;
use super::fingerprint::{DigestSum, record_digest};
use super::report::{BusReport, Differences, PartitionReport};
use crate::event_bus::embedded_log::{
    BusReader, BusStream, JournalReader, ReadBound, bus_partitions,
};
use crate::state_store::embedded::journal_source::{JournalSource, RowSpan};
use crate::state_store::embedded::prune::PrunedTopics;
use std::collections::BTreeMap;
use std::thread;
use wellspring_domain::admission::bus_line::BusLine;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::decision::Decision;
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::segment_receipt_ref;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// A topic and a partition.
type Place = (String, u32);

/// Verifies the bus of a run against its journals. Reads only; works beside a running gate.
pub fn verify_bus(paths: &RunPaths) -> Result<BusReport, StoreError> {
    let journal = JournalReader::new(paths);
    let pruned = PrunedTopics::load(paths)?;
    let shards = journal.shards()?;
    let parts = thread::scope(|scope| {
        let walks: Vec<_> = shards
            .iter()
            .map(|shard| scope.spawn(|| ShardWalk::new(paths, &pruned).run(&journal, *shard)))
            .collect();
        let joined = walks.into_iter().map(|walk| walk.join());
        joined
            .map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut report = BusReport::default();
    let mut covered: BTreeMap<Place, Covered> = BTreeMap::new();
    let mut pruned_sums: BTreeMap<String, DigestSum> = BTreeMap::new();
    for part in parts {
        report.differences.join(part.differences);
        for (place, spans) in part.covered {
            covered.entry(place).or_default().spans.extend(spans.spans);
        }
        for (topic, sum) in part.pruned_sums {
            pruned_sums.entry(topic).or_default().join(&sum);
        }
    }
    for stub in pruned.topics() {
        let sum = pruned_sums.remove(&stub.topic).unwrap_or_default();
        if sum.hex() != stub.fingerprint.records_digest {
            let detail = "the receipts no longer give the digest recorded when the data was pruned";
            report
                .differences
                .add("PRUNED_DIGEST_DIFFERS", stub.topic.clone(), detail);
        }
    }
    for place in bus_partitions(paths)? {
        covered.entry(place).or_default();
    }
    let ends = committed_ends(&journal)?;
    for (place, spans) in covered {
        let end = ends.get(&place).copied().unwrap_or_default();
        let partition =
            check_partition(paths, &pruned, place, spans, end, &mut report.differences)?;
        report.records += partition.records;
        report.admitted += partition.admitted;
        report.partitions.push(partition);
    }
    let mut keys = AdmittedKeys::gather(paths, &journal)?;
    keys.find_double_admissions(paths, &journal, &mut report.differences)?;
    report.verified = report.differences.count == 0;
    Ok(report)
}

/// Offsets that have an ADMIT row, as spans in the order they were seen.
#[derive(Default)]
struct Covered {
    spans: Vec<(u64, u64)>,
}

impl Covered {
    fn add(&mut self, offset: u64) {
        match self.spans.last_mut() {
            Some((_, end)) if *end == offset => *end += 1,
            _ => self.spans.push((offset, offset + 1)),
        }
    }
}

/// Follows one shard's ADMIT rows along the partitions they were published to.
struct ShardWalk<'a> {
    paths: &'a RunPaths,
    pruned: &'a PrunedTopics,
    streams: BTreeMap<Place, Follower>,
    part: ShardPart,
}

/// What one shard's rows say.
#[derive(Default)]
struct ShardPart {
    covered: BTreeMap<Place, Covered>,
    /// Sums over the records of pruned topics, made from their rows.
    pruned_sums: BTreeMap<String, DigestSum>,
    differences: Differences,
}

/// One partition, read on from where the last row was found.
struct Follower {
    stream: Option<BusStream>,
    next: u64,
}

impl<'a> ShardWalk<'a> {
    fn new(paths: &'a RunPaths, pruned: &'a PrunedTopics) -> ShardWalk<'a> {
        ShardWalk {
            paths,
            pruned,
            streams: BTreeMap::new(),
            part: ShardPart::default(),
        }
    }

    fn run(mut self, journal: &JournalReader, shard: u16) -> Result<ShardPart, StoreError> {
        let span = RowSpan::shard(shard).only(&[Decision::Admit]);
        journal.visit_rows(&span, &mut |row| self.check_row(row))?;
        Ok(self.part)
    }

    fn check_row(&mut self, row: &JournalRow) -> Result<(), StoreError> {
        let JournalOutcome::Admit {
            topic,
            partition,
            offset: BusOffset::Line(offset),
        } = &row.outcome
        else {
            return Ok(());
        };
        let place = (topic.to_string(), *partition);
        match self.part.covered.get_mut(&place) {
            Some(covered) => covered.add(*offset),
            None => {
                let spans = vec![(*offset, *offset + 1)];
                self.part.covered.insert(place.clone(), Covered { spans });
            }
        }
        if self.pruned.partition(&place.0, place.1).is_some() {
            let key = row.partition_key.to_string();
            let digest = record_digest(&row.payload_hash, &key, &row.ts_utc, &row.event_id);
            self.part
                .pruned_sums
                .entry(place.0)
                .or_default()
                .add(&digest);
            return Ok(());
        }
        if let Err((code, detail)) = self.check_record(&place, *offset, row)? {
            let receipt = segment_receipt_ref(self.paths, row.row_ref);
            let detail = format!("{detail} (receipt {receipt})");
            self.part
                .differences
                .add(code, location(&place, *offset), detail);
        }
        Ok(())
    }

    /// The record at `offset` against its row.
    fn check_record(
        &mut self,
        place: &Place,
        offset: u64,
        row: &JournalRow,
    ) -> Result<Result<(), (&'static str, String)>, StoreError> {
        if !self.streams.contains_key(place) {
            let follower = Follower {
                stream: None,
                next: 0,
            };
            self.streams.insert(place.clone(), follower);
        }
        let Some(follower) = self.streams.get_mut(place) else {
            return Ok(Ok(()));
        };
        match follower.line_at(self.paths, place, offset) {
            Ok(Some(line)) => Ok(compare(line, row)),
            Ok(None) => Ok(Err((
                "RECORD_MISSING",
                "no record at this offset".to_owned(),
            ))),
            Err(error @ StoreError::Damaged { .. }) => {
                follower.stream = None;
                Ok(Err(("RECORD_MISSING", error.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

impl Follower {
    fn line_at(
        &mut self,
        paths: &RunPaths,
        (topic, partition): &Place,
        offset: u64,
    ) -> Result<Option<&[u8]>, StoreError> {
        if self.stream.is_none() || self.next != offset {
            let mut reader = BusReader::open(paths, topic, *partition, ReadBound::Journal)?;
            self.stream = Some(reader.stream(offset)?);
        }
        self.next = offset + 1;
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        Ok(stream
            .next_line()?
            .filter(|(found, _)| *found == offset)
            .map(|(_, line)| line))
    }
}

/// A line of the bus against the ADMIT row that published it.
fn compare(line: &[u8], row: &JournalRow) -> Result<(), (&'static str, String)> {
    let Some(record) = BusLine::parse(line) else {
        return Err(("RECORD_UNREADABLE", "the line is no bus record".to_owned()));
    };
    let Some(facts) = record.facts() else {
        return Err(("RECORD_UNREADABLE", "the payload is no envelope".to_owned()));
    };
    let differs = |code, found: &str, wanted: String| {
        Err((code, format!("{found}, the receipt says {wanted}")))
    };
    if facts.event_id != row.event_id {
        return differs("EVENT_DIFFERS", &facts.event_id, row.event_id.clone());
    }
    if facts.payload_hash != row.payload_hash {
        let found = facts.payload_hash.to_string();
        return differs("PAYLOAD_DIFFERS", &found, row.payload_hash.to_string());
    }
    if record.partition_key.as_bytes() != row.partition_key.hex() {
        let wanted = row.partition_key.to_string();
        return differs("PARTITION_KEY_DIFFERS", &record.partition_key, wanted);
    }
    let published_at = row.decided_at.format_off();
    if facts.ts_utc != row.ts_utc || record.published_at != published_at {
        let found = format!("{} / {}", facts.ts_utc, record.published_at);
        return differs(
            "TIME_DIFFERS",
            &found,
            format!("{} / {published_at}", row.ts_utc),
        );
    }
    Ok(())
}

fn location((topic, partition): &Place, offset: u64) -> String {
    format!("{topic}/{partition}@{offset}")
}

/// Where the committed part of a partition ends.
#[derive(Clone, Copy, Default)]
struct CommittedEnd {
    next_offset: u64,
    next_byte: u64,
}

fn committed_ends(journal: &JournalReader) -> Result<BTreeMap<Place, CommittedEnd>, StoreError> {
    let mut ends: BTreeMap<Place, CommittedEnd> = BTreeMap::new();
    journal.visit_heads(|head| {
        for entry in &head.partitions {
            let end = entry.end();
            let known = ends
                .entry((end.topic.to_string(), end.partition))
                .or_default();
            if end.next_offset > known.next_offset {
                known.next_offset = end.next_offset;
                known.next_byte = end.next_byte;
            }
        }
    })?;
    Ok(ends)
}

/// Offsets dense, none twice, head not ahead, and what lies behind the end.
fn check_partition(
    paths: &RunPaths,
    pruned: &PrunedTopics,
    place: Place,
    mut covered: Covered,
    end: CommittedEnd,
    differences: &mut Differences,
) -> Result<PartitionReport, StoreError> {
    covered.spans.sort_unstable();
    let mut report = PartitionReport {
        topic: place.0.clone(),
        partition: place.1,
        admitted: covered.spans.iter().map(|(from, to)| to - from).sum(),
        ..PartitionReport::default()
    };
    let mut next = 0;
    for (from, to) in &covered.spans {
        if *from < next {
            let twice = next.min(*to) - from;
            let at = location(&place, *from);
            differences.add_counted(twice, "OFFSET_TWICE", at, "two receipts name this record");
        }
        if *from > next {
            report.stray += add_stray(differences, &place, next, *from);
        }
        next = next.max(*to);
    }
    if let Some(stub) = pruned.partition(&place.0, place.1) {
        report.pruned = true;
        report.records = stub.next_offset;
        if next != stub.next_offset {
            let detail = format!(
                "receipts end at {next}, the pruned data ended at {}",
                stub.next_offset
            );
            differences.add("PRUNED_END_DIFFERS", location(&place, next), detail);
        }
        return Ok(report);
    }
    let (lines, uncommitted) = super::lines::count(paths, &place, end.next_offset, end.next_byte)?;
    report.records = lines;
    report.uncommitted = uncommitted;
    if lines > next {
        report.stray += add_stray(differences, &place, next, lines);
    }
    let head = super::lines::published_head(paths, &place)?;
    if head.is_some_and(|head| head > lines) {
        let detail = format!(
            "head.json says {}, the log ends at {lines}",
            head.unwrap_or_default()
        );
        differences.add("HEAD_AHEAD", location(&place, lines), detail);
    }
    Ok(report)
}

fn add_stray(differences: &mut Differences, place: &Place, from: u64, to: u64) -> u64 {
    let detail = format!("{} records have no receipt", to - from);
    differences.add_counted(
        to - from,
        "RECORD_WITHOUT_RECEIPT",
        location(place, from),
        detail,
    );
    to - from
}
