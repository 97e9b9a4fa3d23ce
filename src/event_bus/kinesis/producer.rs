//! Puts records on streams, in order per partition key, until all are placed or the time is up.
//!
//! The caller's thread waits and does the work of its own call; lanes of the call run beside each other, each
//! with one request in flight (`put_lanes`). What fails is sent again: single records of an answer, whole
//! requests that were throttled, and requests nothing is known of. The last kind may leave a second copy on
//! the stream (a stray); the place that is returned is the one that was acknowledged.
//!
//! Two calls that run at the same time must not share partition keys: admission shards own theirs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::event_bus::backoff::Backoff;
use wellspring_domain::event_bus::put_lanes::{LaneRecord, RequestLimits, spread};
use wellspring_domain::event_bus::shard_buckets::{ShardBuckets, ShardRates};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

use super::client::KinesisClient;
use super::pace::{Jitter, Tries};
use super::put_lane_run::LaneRun;
use super::shards::tree_of;
use crate::blocking_runtime::block_on;

/// Characters of a partition key on the wire.
pub(super) const KEY_BYTES: usize = 64;
/// What the service takes at most, in one record and in one request.
const SERVICE_BYTES_MAX: usize = 10 << 20;
const SERVICE_RECORDS_MAX: usize = 500;

/// Which stream a topic is on (contract 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamNames {
    /// All topics share one.
    Fixed(String),
    /// Each topic has its own, of the same name.
    PerTopic,
}

impl StreamNames {
    /// From wiring: no name, `auto` and `topic` mean one stream per topic.
    pub fn from_wiring(stream: Option<&str>) -> StreamNames {
        let stream = stream.map(str::trim).unwrap_or_default();
        let per_topic = ["", "auto", "topic"].contains(&stream.to_ascii_lowercase().as_str());
        match per_topic {
            true => StreamNames::PerTopic,
            false => StreamNames::Fixed(stream.to_owned()),
        }
    }

    /// The stream of a topic.
    pub fn stream_of<'a>(&'a self, topic: &'a str) -> &'a str {
        match self {
            StreamNames::Fixed(stream) => stream,
            StreamNames::PerTopic => topic,
        }
    }
}

/// Limits of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// Requests in flight per stream and call.
    pub lanes: usize,
    /// What one request may hold.
    pub request: RequestLimits,
    /// Bytes of one record's data and partition key: 1 MiB, or up to 10 MiB where the stream allows it.
    pub record_bytes_max: usize,
    /// What a shard takes per second; 0 switches a limit off.
    pub rates: ShardRates,
    /// Waits between tries.
    pub backoff: Backoff,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        ProducerSettings {
            lanes: 4,
            request: RequestLimits {
                records_max: SERVICE_RECORDS_MAX,
                bytes_max: 5 << 20,
            },
            record_bytes_max: 1 << 20,
            rates: ShardRates {
                records_per_second: 1_000,
                bytes_per_second: 1 << 20,
            },
            backoff: Backoff::default(),
            seed: 0,
        }
    }
}

/// A record to be put.
#[derive(Clone, Copy, Debug)]
pub struct PutItem<'a> {
    /// Stream.
    pub stream: &'a str,
    /// Partition key; its 64 hex characters go on the wire.
    pub partition_key: Hash32,
    /// Data.
    pub data: &'a [u8],
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Number of the shard.
    pub partition: u32,
    /// Sequence number in the shard.
    pub sequence: SequenceNumber,
}

/// Not everything was placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of {} records were not placed: {cause}", .placed.iter().filter(|place| place.is_none()).count(), .placed.len())]
pub struct PublishError {
    /// What was acknowledged, in item order. A record that was not may still be on the stream.
    pub placed: Vec<Option<Placed>>,
    /// Why the rest is not known to be placed.
    pub cause: StoreError,
}

/// Puts records on streams. Shared by all writers of a process.
pub struct Producer {
    client: KinesisClient,
    settings: ProducerSettings,
    buckets: Mutex<BTreeMap<String, SharedBuckets>>,
    origin: Instant,
    calls: AtomicU64,
}

/// The buckets of one stream, shared by calls and lanes.
pub(super) type SharedBuckets = Arc<Mutex<ShardBuckets>>;

/// What the lanes of one call share. It stays on the caller's thread.
pub(super) struct Call<'a> {
    pub(super) client: &'a KinesisClient,
    pub(super) settings: &'a ProducerSettings,
    pub(super) items: &'a [PutItem<'a>],
    pub(super) placed: RefCell<Vec<Option<Placed>>>,
    pub(super) stopped: Cell<bool>,
    pub(super) resharded: Cell<bool>,
    pub(super) jitter: Jitter,
    pub(super) deadline: Instant,
    pub(super) origin: Instant,
}

impl Producer {
    /// A producer over a client.
    pub fn new(client: KinesisClient, settings: ProducerSettings) -> Result<Producer, StoreError> {
        check(&settings)?;
        Ok(Producer {
            client,
            settings,
            buckets: Mutex::default(),
            origin: Instant::now(),
            calls: AtomicU64::new(0),
        })
    }

    /// Its limits.
    pub fn settings(&self) -> &ProducerSettings {
        &self.settings
    }

    /// Puts all items, each key's in the order of `items`, and returns where they lie, in item order. Blocks
    /// until everything is acknowledged, or for at most `patience`.
    pub fn publish(
        &self,
        items: &[PutItem<'_>],
        patience: Duration,
    ) -> Result<Vec<Placed>, PublishError> {
        let nothing = || vec![None; items.len()];
        if let Err(cause) = self.check_sizes(items) {
            return Err(PublishError {
                placed: nothing(),
                cause,
            });
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let call = Call {
            client: &self.client,
            settings: &self.settings,
            items,
            placed: RefCell::new(nothing()),
            stopped: Cell::new(false),
            resharded: Cell::new(false),
            jitter: Jitter::from_seed(self.settings.seed.wrapping_add(number)),
            deadline: Instant::now() + patience,
            origin: self.origin,
        };
        let outcome = block_on(self.run(&call));
        if call.resharded.get() {
            lock(&self.buckets).clear();
        }
        let placed = call.placed.into_inner();
        match outcome {
            Ok(()) => {
                let all: Option<Vec<Placed>> = placed.into_iter().collect();
                Ok(all.expect("lanes end without an error only when all their records are placed"))
            }
            Err(cause) => Err(PublishError { placed, cause }),
        }
    }

    fn check_sizes(&self, items: &[PutItem<'_>]) -> Result<(), StoreError> {
        let most = self.settings.record_bytes_max;
        let large = items.iter().find(|item| item.data.len() + KEY_BYTES > most);
        let Some(item) = large else {
            return Ok(());
        };
        let bytes = item.data.len() + KEY_BYTES;
        Err(StoreError::Refused {
            code: "KINESIS_RECORD_TOO_LARGE",
            key: item.stream.to_owned(),
            cause: format!("a record has {bytes} bytes with its key, {most} are allowed"),
        })
    }

    async fn run(&self, call: &Call<'_>) -> Result<(), StoreError> {
        let mut by_stream: BTreeMap<&str, Vec<LaneRecord>> = BTreeMap::new();
        for (number, item) in call.items.iter().enumerate() {
            by_stream.entry(item.stream).or_default().push(LaneRecord {
                key: item.partition_key,
                item: number as u32,
                bytes: (item.data.len() + KEY_BYTES) as u32,
            });
        }
        let mut lanes = FuturesUnordered::new();
        for (stream, records) in &by_stream {
            let buckets = self.buckets_of(stream, call).await?;
            for lane in spread(records, &self.settings.request, self.settings.lanes) {
                let tries = Tries::until(call.deadline, self.settings.backoff, &call.jitter);
                let run = LaneRun {
                    call,
                    stream,
                    lane,
                    buckets: buckets.clone(),
                    tries,
                };
                lanes.push(run.until_done());
            }
        }
        let mut outcome = Ok(());
        // After an error the other lanes end with the request they have in flight.
        while let Some(lane) = lanes.next().await {
            if let Err(error) = lane {
                call.stopped.set(true);
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    async fn buckets_of(
        &self,
        stream: &str,
        call: &Call<'_>,
    ) -> Result<Option<SharedBuckets>, StoreError> {
        if self.settings.rates.are_off() {
            return Ok(None);
        }
        if let Some(known) = lock(&self.buckets).get(stream) {
            return Ok(Some(known.clone()));
        }
        let tree = tree_of(call.client, stream, call.deadline).await?;
        let buckets = ShardBuckets::new(&tree, self.settings.rates, call.now_micros());
        let buckets = Arc::new(Mutex::new(buckets));
        let mut known = lock(&self.buckets);
        // Another call may have been faster; there is one set of buckets per stream.
        Ok(Some(
            known.entry(stream.to_owned()).or_insert(buckets).clone(),
        ))
    }
}

impl Call<'_> {
    /// Microseconds since the producer was made.
    pub(super) fn now_micros(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }
}

/// The lock, also after another thread panicked: tokens may be lost, nothing else.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(settings: &ProducerSettings) -> Result<(), StoreError> {
    let request = &settings.request;
    let problem = match () {
        () if settings.lanes == 0 => "lanes must be at least 1",
        () if !(1..=SERVICE_RECORDS_MAX).contains(&request.records_max) => {
            "records per request must be from 1 to 500"
        }
        () if !(KEY_BYTES..=SERVICE_BYTES_MAX).contains(&settings.record_bytes_max) => {
            "bytes per record must be at most 10 MiB"
        }
        () if !(settings.record_bytes_max..=SERVICE_BYTES_MAX).contains(&request.bytes_max) => {
            "bytes per request must be from one record to 10 MiB"
        }
        () => return Ok(()),
    };
    Err(StoreError::Refused {
        code: "CONFIG_VALUE_INVALID",
        key: "event_bus".to_owned(),
        cause: problem.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_auto_and_topic_mean_a_stream_per_topic() {
        for name in [None, Some(""), Some("auto"), Some("Topic"), Some(" AUTO ")] {
            assert_eq!(
                StreamNames::from_wiring(name).stream_of("t"),
                "t",
                "{name:?}"
            );
        }
        assert_eq!(StreamNames::from_wiring(Some("s")).stream_of("t"), "s");
    }

    #[test]
    fn limits_that_contradict_each_other_or_the_service_are_refused() {
        let good = ProducerSettings::default();
        assert_eq!(check(&good), Ok(()));
        let large = ProducerSettings {
            record_bytes_max: 10 << 20,
            request: RequestLimits {
                records_max: 500,
                bytes_max: 10 << 20,
            },
            ..good
        };
        assert_eq!(check(&large), Ok(()));
        let bad = [
            ProducerSettings { lanes: 0, ..good },
            ProducerSettings {
                record_bytes_max: 6 << 20,
                ..good
            },
            ProducerSettings {
                record_bytes_max: 11 << 20,
                ..large
            },
            ProducerSettings {
                request: RequestLimits {
                    records_max: 501,
                    ..good.request
                },
                ..good
            },
        ];
        for settings in bad {
            assert_eq!(check(&settings).unwrap_err().code(), "CONFIG_VALUE_INVALID");
        }
    }
}
