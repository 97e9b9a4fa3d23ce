//! The control bus on Kinesis (contract 5.9): data is the envelope, the partition key is the sender's.
//!
//! A message stays with its consumer until it is settled, also over restarts (D12): positions move only over
//! settled records (`Unsettled`), and a restart reads again from there. All shards are read, children after
//! their parents. A record that is no envelope of the topic is passed over with one warning. Memory is bounded:
//! with too many messages waiting nothing further is read, and the stream keeps the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::event_bus::shard_tree::ShardTree;
use wellspring_domain::event_bus::unsettled::Unsettled;
use wellspring_domain::ports::{ControlBus, ControlRecord, PutOutcome, StoreError};
use wellspring_domain::time_text::Micros;

use super::positions::{ControlPositions, Settled};
use crate::event_bus::kinesis::{
    KinesisClient, PageEnd, ReadFrom, ReaderSettings, Record, Scan, ShardReader, SingleRecord,
    put_record,
};

/// What the service takes in one record, its key included.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// Limits of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KinesisControlBusSettings {
    /// How reading is paced.
    pub reader: ReaderSettings,
    /// How long one publish is tried for.
    pub publish_patience: Duration,
    /// Messages of a shard that may wait before reading it stops.
    pub waiting_max: usize,
    /// Places of a shard kept in memory, settled ones behind the first gap included.
    pub held_max: usize,
}

impl Default for KinesisControlBusSettings {
    fn default() -> Self {
        KinesisControlBusSettings {
            reader: ReaderSettings {
                page_records_max: 1_000,
                patience: Duration::from_secs(10),
                ..ReaderSettings::default()
            },
            publish_patience: Duration::from_secs(15),
            waiting_max: 1_000,
            held_max: 65_536,
        }
    }
}

/// A stream as a control bus.
pub struct KinesisControlBus {
    client: KinesisClient,
    scan: Scan,
    stream: String,
    settings: KinesisControlBusSettings,
    positions: Arc<dyn ControlPositions>,
    shards: Mutex<Shards>,
}

/// One message that waits.
struct Message {
    arrived_at: Option<Micros>,
    bytes: Bytes,
}

/// A shard that is being read.
struct Shard {
    reader: ShardReader,
    unsettled: Unsettled<Message>,
    full: bool,
}

#[derive(Default)]
struct Shards {
    tree: ShardTree,
    reading: BTreeMap<String, Shard>,
    finished: BTreeSet<String>,
    listed: bool,
}

impl KinesisControlBus {
    /// The bus on `stream`.
    pub fn new(
        client: KinesisClient,
        stream: impl Into<String>,
        settings: KinesisControlBusSettings,
        positions: Arc<dyn ControlPositions>,
    ) -> KinesisControlBus {
        KinesisControlBus {
            scan: Scan::new(client.clone(), settings.reader),
            client,
            stream: stream.into(),
            settings,
            positions,
            shards: Mutex::default(),
        }
    }

    /// Starts readers for shards whose parents are read, and takes over what other nodes settled.
    fn bring_up(&self, shards: &mut Shards) -> Result<(), StoreError> {
        if !shards.listed {
            shards.tree = self.scan.shards(&self.stream)?;
            shards.listed = true;
        }
        let mut known: BTreeMap<String, _> = self
            .positions
            .load(&self.stream)?
            .into_iter()
            .map(|progress| (progress.shard_id.clone(), progress))
            .collect();
        for (id, shard) in &mut shards.reading {
            if let Some(progress) = known.remove(id) {
                // A position that was not of this stream says nothing about its records.
                let through = progress.through.filter(|_| shard.reader.stale().is_none());
                shard.unsettled.merge(through, progress.settled);
            }
        }
        for shard in shards.tree.reading_order() {
            let started = shards.reading.contains_key(&shard.id);
            if started || !shards.tree.is_ready(shard, &shards.finished) {
                continue;
            }
            let progress = known.remove(&shard.id);
            let (through, settled) = progress
                .map(|progress| (progress.through, progress.settled))
                .unwrap_or_default();
            let from = through.map_or(ReadFrom::Start, ReadFrom::After);
            let started = Shard {
                reader: self.scan.shard(&self.stream, &shard.id, from),
                unsettled: Unsettled::new(through, settled),
                full: false,
            };
            shards.reading.insert(shard.id.clone(), started);
        }
        Ok(())
    }

    /// Reads every shard up to its tail. True when one ended, so that its children may be read.
    fn read(&self, shards: &mut Shards, topic: &str) -> Result<bool, StoreError> {
        let mut ended = false;
        let unfinished = shards
            .reading
            .iter_mut()
            .filter(|(id, _)| !shards.finished.contains(*id));
        let mut closed = Vec::new();
        for (id, shard) in unfinished {
            self.read_shard(shard, topic)?;
            if shard.reader.is_closed() {
                closed.push(id.clone());
            }
        }
        for id in closed {
            ended |= shards.finished.insert(id);
        }
        Ok(ended)
    }

    fn read_shard(&self, shard: &mut Shard, topic: &str) -> Result<(), StoreError> {
        loop {
            let full = shard.unsettled.waiting_count() >= self.settings.waiting_max
                || shard.unsettled.held_count() >= self.settings.held_max;
            if full && !shard.full {
                tracing::warn!(
                    stream = self.stream,
                    shard = shard.reader.shard_id(),
                    waiting = shard.unsettled.waiting_count(),
                    "too many control messages wait; the rest stays on the stream"
                );
            }
            shard.full = full;
            if full {
                return Ok(());
            }
            let stale_before = shard.reader.stale().is_some();
            let page = shard.reader.next_page()?;
            if shard.reader.stale().is_some() && !stale_before {
                shard.unsettled.from_the_beginning();
            }
            for record in page.records {
                self.take_in(shard, topic, record)?;
            }
            if page.end != PageEnd::More {
                return Ok(());
            }
        }
    }

    fn take_in(&self, shard: &mut Shard, topic: &str, record: Record) -> Result<(), StoreError> {
        let sequence = record.sequence;
        let strange = not_an_envelope(topic, &record.data);
        let message = Message {
            arrived_at: record.arrived_at,
            bytes: record.data,
        };
        shard.unsettled.take_in(sequence, message);
        let Some(cause) = strange else {
            return Ok(());
        };
        // Each record is read once per start, and settled: so it is told once.
        tracing::warn!(
            stream = self.stream,
            shard = shard.reader.shard_id(),
            sequence = %sequence,
            cause,
            "control bus record is no message of this topic, skipped"
        );
        self.settle_in(shard, sequence)
    }

    /// Settles in memory and durably.
    fn settle_in(&self, shard: &mut Shard, sequence: SequenceNumber) -> Result<(), StoreError> {
        shard.unsettled.settle(sequence);
        let stale = shard.reader.stale().is_some();
        self.positions.settle(
            &self.stream,
            &Settled {
                shard_id: shard.reader.shard_id(),
                sequence,
                through: shard.unsettled.through().filter(|_| !stale),
            },
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shards> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlBus for KinesisControlBus {
    /// Always `Created`: the service keeps no message ids, so that repeated messages are told apart by their
    /// consumer.
    fn publish(
        &self,
        _topic: &str,
        message_id: &str,
        partition_key: &str,
        envelope: &[u8],
    ) -> Result<PutOutcome, StoreError> {
        let partition_key = match partition_key {
            "" => message_id,
            key => key,
        };
        let bytes = envelope.len() + partition_key.len();
        if bytes > RECORD_BYTES_MAX {
            return Err(StoreError::Refused {
                code: "KINESIS_RECORD_TOO_LARGE",
                key: format!("{}/{message_id}", self.stream),
                cause: format!(
                    "the message has {bytes} bytes with its key, {RECORD_BYTES_MAX} are allowed"
                ),
            });
        }
        let record = SingleRecord {
            stream: &self.stream,
            partition_key,
            data: envelope,
        };
        put_record(&self.client, &record, self.settings.publish_patience)?;
        Ok(PutOutcome::Created)
    }

    fn poll(&self, topic: &str, max: usize) -> Result<Vec<ControlRecord>, StoreError> {
        let mut shards = self.lock();
        loop {
            self.bring_up(&mut shards)?;
            if !self.read(&mut shards, topic)? {
                break;
            }
            shards.listed = false;
        }
        Ok(oldest(&shards, max))
    }

    fn settle(&self, _topic: &str, record: &ControlRecord) -> Result<(), StoreError> {
        let place = record.position.split_once('/');
        let place = place.and_then(|(shard, text)| Some((shard, SequenceNumber::parse(text)?)));
        let Some((shard_id, sequence)) = place else {
            return Err(StoreError::InvalidKey {
                key: record.position.clone(),
            });
        };
        let mut shards = self.lock();
        if let Some(shard) = shards.reading.get_mut(shard_id) {
            return self.settle_in(shard, sequence);
        }
        let settled = Settled {
            shard_id,
            sequence,
            through: None,
        };
        self.positions.settle(&self.stream, &settled)
    }
}

/// Why the bytes are no message of the topic.
fn not_an_envelope(topic: &str, bytes: &[u8]) -> Option<String> {
    match serde_json::from_slice::<serde_json::Value>(bytes) {
        Ok(serde_json::Value::Object(envelope)) => {
            let named = envelope.get("topic").and_then(serde_json::Value::as_str);
            (named != Some(topic)).then(|| "it is of another topic".to_owned())
        }
        Ok(_no_object) => Some("not a JSON object".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The messages that wait, each shard's in order, the shards merged by arrival.
fn oldest(shards: &Shards, max: usize) -> Vec<ControlRecord> {
    let mut rows: Vec<_> = shards
        .reading
        .iter()
        .filter(|(_, shard)| shard.unsettled.waiting_count() > 0)
        .map(|(id, shard)| (id, shard.unsettled.waiting().peekable()))
        .collect();
    let mut records = Vec::new();
    while records.len() < max {
        let heads = rows.iter_mut().enumerate().filter_map(|(at, (_, row))| {
            let (_, message) = row.peek()?;
            Some((message.arrived_at, at))
        });
        let Some((_, at)) = heads.min() else {
            break;
        };
        let (id, row) = &mut rows[at];
        let (sequence, message) = row.next().expect("its head was seen");
        records.push(ControlRecord {
            position: format!("{id}/{sequence}"),
            bytes: message.bytes.to_vec(),
        });
    }
    records
}
