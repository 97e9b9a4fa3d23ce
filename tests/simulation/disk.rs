//! The simulated disk of the gate: bus lines and journal frames, each written first and synced later; and, for
//! gates that share their backends, a ledger and streams (`ledger.rs`).
//!
//! What is written can be read at once and survives a kill. Only what is synced survives a power loss; of the
//! rest a prefix may stay, torn in the middle of a line or a frame.

use crate::ledger::Ledger;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wellspring_domain::admission::decision::{DecisionRow, Flush, IndexEntry, RowOutcome, RowRef};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::PartitionEnd;

/// A topic and a partition.
pub type Place = (Arc<str>, u32);

/// Everything on the disk, by platform run.
#[derive(Default)]
pub struct Disk {
    pub runs: BTreeMap<String, RunDisk>,
    /// Shards with an open writer, by run: never more than one.
    pub writers: BTreeSet<(String, u16)>,
}

/// One platform run.
#[derive(Default)]
pub struct RunDisk {
    pub partitions: BTreeMap<Place, PartitionFile>,
    pub journals: BTreeMap<u16, Vec<Frame>>,
    /// Which shard writes a partition.
    pub owners: BTreeMap<Place, u16>,
    /// What gates with shared backends have instead of partitions.
    pub ledger: Ledger,
}

/// The lines of a partition.
#[derive(Default)]
pub struct PartitionFile {
    pub bytes: Vec<u8>,
    pub synced: usize,
}

/// One flush in a journal.
#[derive(Clone)]
pub struct Frame {
    pub flush: Arc<Flush>,
    /// What became of each row; nothing when it was given up.
    pub decided: Vec<Option<Decided>>,
    /// Where the partitions end behind this flush: byte and offset.
    pub ends: Vec<(Place, usize, u64)>,
    pub state: FrameState,
    /// Whether the judge has seen it committed.
    pub told: bool,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    Admitted(Place, u64),
    Duplicate(RowRef),
    Quarantined(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// A part of it; its checksum is wrong.
    Torn,
    Written,
    Synced,
}

/// What a power loss did.
#[derive(Default)]
pub struct Lost {
    pub seen: Vec<&'static str>,
}

impl Decided {
    /// What the flush itself says of a row.
    pub fn as_asked(flush: &Flush, row: &DecisionRow) -> Decided {
        match row.outcome {
            RowOutcome::Admit { append, offset } => {
                let append = &flush.appends[usize::from(append)];
                Decided::Admitted((append.topic.clone(), append.partition), offset)
            }
            RowOutcome::Duplicate { original } => Decided::Duplicate(original),
            RowOutcome::Quarantine { code, .. } => Decided::Quarantined(code),
        }
    }
}

impl Frame {
    /// Rows that were decided, with their places.
    pub fn rows(&self) -> impl Iterator<Item = (RowRef, &DecisionRow, &Decided)> {
        let first = self.flush.first_row;
        let rows = self.flush.rows.iter().zip(&self.decided).enumerate();
        rows.filter_map(move |(number, (row, decided))| {
            let at = RowRef {
                row: first.row + number as u32,
                ..first
            };
            Some((at, row, decided.as_ref()?))
        })
    }

    pub fn admitted(&self) -> impl Iterator<Item = (Hash32, IndexEntry)> {
        self.rows().filter_map(|(at, row, decided)| {
            let entry = IndexEntry {
                payload_hash: row.payload_hash,
                row: at,
            };
            matches!(decided, Decided::Admitted(..)).then_some((row.dedupe_key, entry))
        })
    }
}

impl RunDisk {
    /// Where the partitions end, as the journals say: byte and offset.
    pub fn confirmed(&self) -> BTreeMap<Place, (usize, u64)> {
        let mut ends: BTreeMap<Place, (usize, u64)> = BTreeMap::new();
        let frames = self.journals.values().flatten();
        for frame in frames.filter(|frame| frame.state != FrameState::Torn) {
            for (place, byte, offset) in &frame.ends {
                let end = ends.entry(place.clone()).or_default();
                *end = (*end).max((*byte, *offset));
            }
        }
        ends
    }

    pub fn ends(&self) -> Vec<PartitionEnd> {
        let end =
            |((topic, partition), (next_byte, next_offset)): (Place, (usize, u64))| PartitionEnd {
                topic,
                partition,
                next_offset,
                next_byte: next_byte as u64,
            };
        self.confirmed().into_iter().map(end).collect()
    }

    /// Cuts what was never committed and syncs the rest, for one shard or all of them. Says what cannot be.
    pub fn recover(&mut self, shard: Option<u16>) -> Vec<String> {
        let mut wrong = Vec::new();
        let wanted = |number: u16| shard.is_none_or(|shard| shard == number);
        let journals = self.journals.iter_mut().filter(|(n, _)| wanted(**n));
        for (_, frames) in journals {
            if let Some(torn) = frames
                .iter()
                .position(|frame| frame.state == FrameState::Torn)
            {
                frames.truncate(torn);
            }
            for frame in frames.iter_mut() {
                frame.state = FrameState::Synced;
            }
        }
        let confirmed = self.confirmed();
        for (place, file) in &mut self.partitions {
            if !self.owners.get(place).copied().is_none_or(wanted) {
                continue;
            }
            let (end, _) = confirmed.get(place).copied().unwrap_or_default();
            if file.bytes.len() < end {
                wrong.push(format!("lines of {place:?} are gone behind a commit"));
            }
            file.bytes.truncate(end);
            file.synced = file.bytes.len();
        }
        wrong
    }

    /// The row the next decision of a recovered shard gets: the first of a new segment.
    pub fn next_row(&self, shard: u16) -> RowRef {
        let last = self.journals.get(&shard).and_then(|frames| frames.last());
        RowRef {
            shard,
            segment: last.map_or(0, |frame| frame.flush.first_row.segment + 1),
            row: 0,
        }
    }

    /// The bus by place: lines that are committed, or all records of a stream.
    pub fn bus(&self) -> BTreeMap<Place, Vec<&[u8]>> {
        let ends = self.confirmed();
        let mut bus = self.ledger.bus();
        for (place, file) in &self.partitions {
            let (end, _) = ends.get(place).copied().unwrap_or_default();
            let lines = file.bytes[..end].split_inclusive(|byte| *byte == b'\n');
            bus.insert(place.clone(), lines.collect());
        }
        bus
    }

    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.journals.values().flatten()
    }
}

impl Disk {
    pub fn run(&mut self, run: &str) -> &mut RunDisk {
        self.runs.entry(run.to_owned()).or_default()
    }

    /// Takes what was not synced away, or a part of it; `roll` decides below a bound.
    pub fn lose_power(&mut self, roll: &mut dyn FnMut(u64) -> u64) -> Lost {
        let mut lost = Lost::default();
        for run in self.runs.values_mut() {
            for file in run.partitions.values_mut() {
                let unsynced = file.bytes.len() - file.synced;
                if unsynced == 0 {
                    continue;
                }
                let keep = match roll(4) {
                    0 => 0,
                    1 => unsynced,
                    _torn => roll(unsynced as u64 + 1) as usize,
                };
                file.bytes.truncate(file.synced + keep);
                match keep {
                    0 => lost.seen.push("bus lines lost"),
                    _ if keep < unsynced => lost.seen.push("bus lines torn"),
                    _ => {}
                }
            }
            for frames in run.journals.values_mut() {
                lose_frames(frames, roll, &mut lost);
            }
        }
        lost
    }
}

/// A file keeps a prefix of what was not synced: whole frames, perhaps a torn one, nothing behind it.
fn lose_frames(frames: &mut Vec<Frame>, roll: &mut dyn FnMut(u64) -> u64, lost: &mut Lost) {
    let unsynced = |frame: &Frame| frame.state != FrameState::Synced;
    let Some(first) = frames.iter().position(unsynced) else {
        return;
    };
    for at in first..frames.len() {
        match roll(3) {
            0 => {
                frames.truncate(at);
                lost.seen.push("frame lost");
                return;
            }
            1 => {
                frames[at].state = FrameState::Torn;
                frames.truncate(at + 1);
                lost.seen.push("frame torn");
                return;
            }
            _kept => lost.seen.push("unsynced frame kept"),
        }
    }
}
