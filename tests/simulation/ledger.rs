//! What nodes share: a ledger of claims and streams of records. A commit claims, puts, marks; a record nobody
//! marked is settled later by whoever finds it, as the product does (`docs/architecture.md`).
//!
//! The rules of a lost claim are the product's own (`shared_claims`); the ledger and the streams are simulated.

use crate::disk::{Decided, Frame, FrameState, Place};
use crate::faults::Fault;
use crate::sim::{Sim, unavailable};
use std::collections::BTreeMap;
use std::sync::Arc;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::claims::DigestMap;
use wellspring_domain::admission::commit_report::{CommitReport, SettledRow};
use wellspring_domain::admission::decision::{Flush, IndexEntry, RowOutcome, RowRef};
use wellspring_domain::admission::flush_builder::SegmentRule;
use wellspring_domain::admission::shared_claims::{
    ClaimedFlush, LostKey, Redirects, row_at, settle,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{DecisionLog, OpenShard, StoreError};
use wellspring_domain::run_paths::PlatformRunId;

/// Segments a writer may use; no other writer ever uses them.
const SEGMENTS_OF_A_WRITER: u32 = 1 << 20;
/// The shard another node's rows are filed under.
const ANOTHER_NODE: u16 = 1_000;

/// Ledger and streams of a run.
#[derive(Default)]
pub struct Ledger {
    keys: BTreeMap<Hash32, Claim>,
    streams: BTreeMap<Place, Vec<Record>>,
    writers: u32,
    /// Flushes that were claimed and not marked, by writer.
    in_flight: BTreeMap<u32, (u16, Arc<Flush>)>,
}

struct Claim {
    entry: IndexEntry,
    /// The writer that claimed it and has not marked it; none when it is admitted.
    writer: Option<u32>,
}

struct Record {
    key: Hash32,
    line: Vec<u8>,
}

impl Ledger {
    /// Every record of every stream, strays too.
    pub fn bus(&self) -> BTreeMap<Place, Vec<&[u8]>> {
        let streams = self.streams.iter();
        streams
            .map(|(place, records)| {
                let lines = records.iter().map(|record| record.line.as_slice());
                (place.clone(), lines.collect())
            })
            .collect()
    }

    pub fn is_used(&self) -> bool {
        self.writers > 0
    }

    fn put(&mut self, place: &Place, key: Hash32, line: &[u8]) -> u64 {
        let records = self.streams.entry(place.clone()).or_default();
        records.push(Record {
            key,
            line: line.to_vec(),
        });
        records.len() as u64 - 1
    }

    /// Where a key's record lies, if one arrived.
    fn find(&self, key: &Hash32) -> Option<(Place, u64)> {
        self.streams.iter().find_map(|(place, records)| {
            let offset = records.iter().position(|record| record.key == *key)?;
            Some((place.clone(), offset as u64))
        })
    }
}

/// A writer with a lease and segments of its own.
pub fn open_shared(sim: &Arc<Sim>, run: &PlatformRunId, shard: u16) -> OpenShard {
    let mut disk = sim.disk();
    let ledger = &mut disk.run(run.as_str()).ledger;
    ledger.writers += 1;
    let writer = ledger.writers;
    drop(disk);
    let log = SharedLog {
        sim: sim.clone(),
        run: run.clone(),
        shard,
        writer,
        redirects: Redirects::default(),
        failed: false,
    };
    OpenShard {
        log: Box::new(log),
        next_row: RowRef {
            shard,
            segment: writer * SEGMENTS_OF_A_WRITER,
            row: 0,
        },
        segments: SegmentRule::Flush,
        recovered: Vec::new(),
    }
}

/// Settles what writers of a shard, or all, left in flight: a record that arrived is admitted, the others are
/// given up.
pub fn settle_writers(sim: &Arc<Sim>, run: &PlatformRunId, shard: Option<u16>) {
    let mut disk = sim.disk();
    let state = disk.run(run.as_str());
    let wanted = |of: &u16| shard.is_none_or(|shard| shard == *of);
    let left = state.ledger.in_flight.iter();
    let left = left.filter(|(_, (of, _))| wanted(of));
    let left: Vec<u32> = left.map(|(writer, _)| *writer).collect();
    let mut told = Vec::new();
    for writer in left {
        let Some((shard, flush)) = state.ledger.in_flight.remove(&writer) else {
            continue;
        };
        let mut decided = Vec::with_capacity(flush.rows.len());
        for row in &flush.rows {
            let ledger = &mut state.ledger;
            let is_ours = |claim: &&Claim| claim.writer == Some(writer);
            let ours = ledger.keys.get(&row.dedupe_key).filter(is_ours).is_some();
            let found = ledger.find(&row.dedupe_key);
            let is_admit = matches!(row.outcome, RowOutcome::Admit { .. });
            decided.push(match found.filter(|_| ours && is_admit) {
                Some((place, offset)) => {
                    if let Some(claim) = ledger.keys.get_mut(&row.dedupe_key) {
                        claim.writer = None;
                    }
                    told.push("claim settled: admitted");
                    Some(Decided::Admitted(place, offset))
                }
                None => {
                    if ours {
                        ledger.keys.remove(&row.dedupe_key);
                        told.push("claim settled: given up");
                    }
                    None
                }
            });
        }
        state.journals.entry(shard).or_default().push(Frame {
            flush,
            decided,
            ends: Vec::new(),
            state: FrameState::Synced,
            told: false,
        });
    }
    drop(disk);
    for what in told {
        sim.count(what);
        sim.note(what);
    }
}

/// The commit of one shard on shared backends.
struct SharedLog {
    sim: Arc<Sim>,
    run: PlatformRunId,
    shard: u16,
    writer: u32,
    redirects: Redirects,
    failed: bool,
}

impl Drop for SharedLog {
    fn drop(&mut self) {
        let key = (self.run.to_string(), self.shard);
        self.sim.disk().writers.remove(&key);
    }
}

impl SharedLog {
    fn write(&mut self, flush: &Arc<Flush>) -> Result<CommitReport, StoreError> {
        let key = self.run.to_string();
        self.sim.dies(Fault::DiesBeforeLines, "claim", &key)?;
        if self.sim.strikes(Fault::AdmittedElsewhere) {
            self.admit_elsewhere(flush);
        }
        let lost = self.claim(flush);
        let mut claimed = settle(flush, &lost, &self.redirects);
        self.sim.dies(Fault::DiesBeforeLineSync, "put", &key)?;
        for row in claimed.publish.clone() {
            let (place, offset) = self.put(flush, row as usize)?;
            claimed.settled[row as usize] = Some(SettledRow::Published {
                partition: place.1,
                offset: BusOffset::Line(offset),
            });
        }
        self.sim.dies(Fault::DiesBeforeFrame, "mark", &key)?;
        if self.sim.strikes(Fault::WriterFenced) {
            settle_writers(&self.sim, &self.run, Some(self.shard));
            return Err(StoreError::Refused {
                code: "WRITER_FENCED",
                key,
                cause: "simulated".to_owned(),
            });
        }
        self.mark(flush, &claimed);
        self.redirects.remember(flush, &claimed);
        self.sim.dies(Fault::DiesAfterCommit, "mark", &key)?;
        self.sim.fails(Fault::CommitAnswerLost, "mark", &key)?;
        Ok(CommitReport::settled(flush.first_row, claimed.settled))
    }

    /// Claims what is to be published; says what others have.
    fn claim(&self, flush: &Arc<Flush>) -> DigestMap<LostKey> {
        let mut lost = DigestMap::default();
        let mut disk = self.sim.disk();
        let ledger = &mut disk.run(self.run.as_str()).ledger;
        let mut busy = 0;
        for (number, row) in flush.rows.iter().enumerate() {
            if !matches!(row.outcome, RowOutcome::Admit { .. }) {
                continue;
            }
            match ledger.keys.get(&row.dedupe_key) {
                Some(claim) => {
                    busy += usize::from(claim.writer.is_some());
                    lost.insert(row.dedupe_key, LostKey::Admitted(claim.entry));
                }
                None => {
                    let entry = IndexEntry {
                        payload_hash: row.payload_hash,
                        row: row_at(flush, number),
                    };
                    let writer = Some(self.writer);
                    ledger.keys.insert(row.dedupe_key, Claim { entry, writer });
                }
            }
        }
        let flight = (self.shard, flush.clone());
        ledger.in_flight.insert(self.writer, flight);
        drop(disk);
        if busy > 0 {
            // Claims in memory keep shards of one gate apart, and a recovery settles before it claims.
            self.sim.broken("a key was claimed while it was in flight");
        }
        lost
    }

    fn put(&self, flush: &Flush, row: usize) -> Result<(Place, u64), StoreError> {
        let key = self.run.as_str();
        self.sim.alive("put", key)?;
        if self.sim.strikes(Fault::PutFails) {
            return Err(unavailable("put", key, "simulated"));
        }
        // Lanes keep the order of a key: what was refused goes again before anything later of its key.
        let _again = self.sim.strikes(Fault::PutThrottled);
        let repeated = self.sim.strikes(Fault::PutRepeated);
        let (place, line) = line_of(flush, row);
        let dedupe_key = flush.rows[row].dedupe_key;
        let mut disk = self.sim.disk();
        let ledger = &mut disk.run(key).ledger;
        if repeated {
            ledger.put(&place, dedupe_key, line);
        }
        let offset = ledger.put(&place, dedupe_key, line);
        Ok((place, offset))
    }

    fn mark(&self, flush: &Arc<Flush>, claimed: &ClaimedFlush) {
        let decided = flush.rows.iter().zip(&claimed.settled).enumerate();
        let decided = decided.map(|(number, (row, settled))| {
            Some(match settled {
                None => Decided::as_asked(flush, row),
                Some(SettledRow::Duplicate { admitted }) => Decided::Duplicate(admitted.row),
                Some(SettledRow::Quarantined { code, .. }) => Decided::Quarantined(code),
                Some(SettledRow::Published { offset, .. }) => {
                    let BusOffset::Line(offset) = offset else {
                        return None;
                    };
                    Decided::Admitted(line_of(flush, number).0, *offset)
                }
            })
        });
        let frame = Frame {
            flush: flush.clone(),
            decided: decided.collect(),
            ends: Vec::new(),
            state: FrameState::Synced,
            told: true,
        };
        let mut disk = self.sim.disk();
        let state = disk.run(self.run.as_str());
        state.ledger.in_flight.remove(&self.writer);
        for number in &claimed.publish {
            let key = &flush.rows[*number as usize].dedupe_key;
            if let Some(claim) = state.ledger.keys.get_mut(key) {
                claim.writer = None;
            }
        }
        self.sim.judge().committed(self.run.as_str(), &frame);
        state.journals.entry(self.shard).or_default().push(frame);
    }

    /// Another node has just admitted the first event of the flush: nothing of its key is on its way before it.
    fn admit_elsewhere(&self, flush: &Flush) {
        let is_admit = |row: &wellspring_domain::admission::decision::DecisionRow| {
            matches!(row.outcome, RowOutcome::Admit { .. })
        };
        let Some(number) = flush.rows.iter().position(is_admit) else {
            return;
        };
        let (place, line) = line_of(flush, number);
        let row = flush.rows[number];
        let mut disk = self.sim.disk();
        let state = disk.run(self.run.as_str());
        if state.ledger.keys.contains_key(&row.dedupe_key) {
            return;
        }
        let offset = state.ledger.put(&place, row.dedupe_key, line);
        let frames = state.journals.entry(ANOTHER_NODE).or_default();
        let at = RowRef {
            shard: ANOTHER_NODE,
            segment: frames.len() as u32,
            row: 0,
        };
        let flush = Flush {
            first_row: at,
            rows: vec![row],
            ..flush.clone()
        };
        let frame = Frame {
            flush: Arc::new(flush),
            decided: vec![Some(Decided::Admitted(place, offset))],
            ends: Vec::new(),
            state: FrameState::Synced,
            told: true,
        };
        self.sim.judge().committed(self.run.as_str(), &frame);
        frames.push(frame);
        let entry = IndexEntry {
            payload_hash: row.payload_hash,
            row: at,
        };
        let claim = Claim {
            entry,
            writer: None,
        };
        state.ledger.keys.insert(row.dedupe_key, claim);
    }
}

/// The record of an ADMIT row and where it goes.
fn line_of(flush: &Flush, number: usize) -> (Place, &[u8]) {
    let RowOutcome::Admit { append, offset } = flush.rows[number].outcome else {
        unreachable!("only admitted rows have a line");
    };
    let append = &flush.appends[usize::from(append)];
    let index = (offset - append.first_offset) as usize;
    let mut lines = append.bytes.split_inclusive(|byte| *byte == b'\n');
    let line = lines
        .nth(index)
        .expect("a flush has a line for each admission");
    ((append.topic.clone(), append.partition), line)
}

impl DecisionLog for SharedLog {
    fn commit(&mut self, flush: &Flush) -> Result<CommitReport, StoreError> {
        self.sim.alive("commit", self.run.as_str())?;
        if self.failed {
            self.sim.broken("a writer went on behind a failed commit");
        }
        let result = self.write(&Arc::new(flush.clone()));
        self.failed = result.is_err();
        let (shard, rows) = (self.shard, flush.rows.len());
        let told = match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        self.sim.note(format!(
            "commit {} shard {shard} rows {rows} {told}",
            self.run
        ));
        result
    }
}
