//! Reads a whole stream up to its tail: all shards from given positions, children after their parents.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use wellspring_domain::event_bus::shard_tree::ShardTree;
use wellspring_domain::ports::StoreError;

use super::client::KinesisClient;
use super::reader::{PageEnd, ReadFrom, ReaderSettings, Record, ShardReader};
use super::shards::list_shards;

/// Empty pages of a shard that is closed before its end is taken for granted.
const EMPTY_PAGES_MAX: u32 = 16;

/// What happens to shards no position is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherShards {
    /// They are read from their beginning.
    FromTheirStart,
    /// They are read only when they came from a shard that has a position.
    OnlyDescendants,
}

/// Where a scan begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFrom {
    /// By shard name.
    pub positions: BTreeMap<String, ReadFrom>,
    /// All other shards.
    pub others: OtherShards,
}

impl ScanFrom {
    /// Everything the stream still holds.
    pub fn start() -> ScanFrom {
        ScanFrom {
            positions: BTreeMap::new(),
            others: OtherShards::FromTheirStart,
        }
    }
}

/// Where a scan ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanEnd {
    /// Where the next scan goes on, by shard.
    pub positions: BTreeMap<String, ReadFrom>,
    /// Shards whose position was not of this stream; they were read from their beginning.
    pub stale: Vec<String>,
    /// True when the visitor ended it.
    pub stopped: bool,
}

/// Reads streams of one service.
#[derive(Clone)]
pub struct Scan {
    client: KinesisClient,
    settings: ReaderSettings,
}

impl Scan {
    /// A reader over a client.
    pub fn new(client: KinesisClient, settings: ReaderSettings) -> Scan {
        Scan { client, settings }
    }

    /// The stream's shards now.
    pub fn shards(&self, stream: &str) -> Result<ShardTree, StoreError> {
        list_shards(&self.client, stream, self.settings.patience)
    }

    /// A reader of one shard.
    pub fn shard(&self, stream: &str, shard_id: &str, from: ReadFrom) -> ShardReader {
        ShardReader::new(self.client.clone(), self.settings, stream, shard_id, from)
    }

    /// Visits every record from `from` to the tail, each shard's in order and children after their parents.
    /// Everything that was acknowledged before the call is visited.
    pub fn scan(
        &self,
        stream: &str,
        from: &ScanFrom,
        visit: &mut dyn FnMut(Record) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<ScanEnd, StoreError> {
        let mut end = ScanEnd::default();
        let mut finished: BTreeSet<String> = BTreeSet::new();
        loop {
            let tree = self.shards(stream)?;
            let wanted = wanted(&tree, from);
            let mut closed_meanwhile = false;
            for shard in tree.reading_order() {
                if !wanted.contains(&shard.id) || finished.contains(&shard.id) {
                    continue;
                }
                let start = from.positions.get(&shard.id);
                let start = start.copied().unwrap_or(ReadFrom::Start);
                let mut reader = self.shard(stream, &shard.id, start);
                let flow = read_to_tail(&mut reader, shard.open, visit)?;
                closed_meanwhile |= shard.open && reader.is_closed();
                finished.insert(shard.id.clone());
                if reader.stale().is_some() {
                    end.stale.push(shard.id.clone());
                }
                end.positions.insert(shard.id.clone(), reader.position());
                if flow.is_break() {
                    end.stopped = true;
                    return Ok(end);
                }
            }
            // A shard that was split or merged while it was read has children the listing did not show.
            if !closed_meanwhile {
                return Ok(end);
            }
        }
    }
}

fn wanted(tree: &ShardTree, from: &ScanFrom) -> BTreeSet<String> {
    match from.others {
        OtherShards::FromTheirStart => tree.iter().map(|shard| shard.id.clone()).collect(),
        OtherShards::OnlyDescendants => {
            tree.with_descendants(from.positions.keys().map(String::as_str))
        }
    }
}

fn read_to_tail(
    reader: &mut ShardReader,
    open: bool,
    visit: &mut dyn FnMut(Record) -> Result<ControlFlow<()>, StoreError>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut empty_pages = 0;
    loop {
        let page = reader.next_page()?;
        for record in page.records {
            empty_pages = 0;
            if visit(record)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        match page.end {
            PageEnd::More => {}
            PageEnd::Closed => return Ok(ControlFlow::Continue(())),
            PageEnd::CaughtUp if open => return Ok(ControlFlow::Continue(())),
            // A closed shard says so on the page behind its last one.
            PageEnd::CaughtUp => {
                empty_pages += 1;
                if empty_pages == EMPTY_PAGES_MAX {
                    return Ok(ControlFlow::Continue(()));
                }
            }
        }
    }
}
