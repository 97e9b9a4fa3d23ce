//! Reads one shard, page by page: from its beginning, from a sequence number, or from a time.
//!
//! Iterators live for minutes; an expired one is replaced by a new one behind the last record read. A shard
//! answers five reads a second; reads are spaced, and what is throttled waits. A position that the service
//! does not accept any more (a stream that was made anew) is told once, and the shard is read from its
//! beginning: records may be seen again, none is passed over.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use bytes::Bytes;
use tokio::time::Instant;
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::event_bus::backoff::Backoff;
use wellspring_domain::event_bus::shard_tree::partition_of;
use wellspring_domain::ports::StoreError;
use wellspring_domain::time_text::Micros;

use super::client::KinesisClient;
use super::fault::{Fault, classify};
use super::pace::{Jitter, Tries};
use crate::blocking_runtime::block_on;

/// Limits of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderSettings {
    /// Reads of one shard per second; 0 means no limit.
    pub reads_per_second: u32,
    /// Records of one page, at most 10,000.
    pub page_records_max: i32,
    /// How long one page is tried for.
    pub patience: Duration,
    /// Waits between tries.
    pub backoff: Backoff,
}

impl Default for ReaderSettings {
    fn default() -> Self {
        ReaderSettings {
            reads_per_second: 5,
            page_records_max: 10_000,
            patience: Duration::from_secs(30),
            backoff: Backoff::default(),
        }
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the oldest record.
    Start,
    /// At this record.
    At(SequenceNumber),
    /// Behind this record.
    After(SequenceNumber),
    /// At the first record that arrived at this time or later.
    Time(Micros),
}

/// One record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its shard.
    pub shard_id: Arc<str>,
    /// The shard's number.
    pub partition: u32,
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// Its partition key.
    pub partition_key: String,
    /// Its data.
    pub data: Bytes,
    /// When it arrived, as the service noted it.
    pub arrived_at: Option<Micros>,
}

/// One page of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPage {
    /// Records, oldest first.
    pub records: Vec<Record>,
    /// What lies behind them.
    pub end: PageEnd,
}

/// What lies behind a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// More, as far as is known.
    More,
    /// Nothing now; the shard may get records.
    CaughtUp,
    /// Nothing ever: the shard was split or merged.
    Closed,
}

/// A reader of one shard.
pub struct ShardReader {
    client: KinesisClient,
    settings: ReaderSettings,
    stream: String,
    shard_id: Arc<str>,
    partition: u32,
    from: ReadFrom,
    iterator: Option<String>,
    next_read: Instant,
    stale: Option<ReadFrom>,
    closed: bool,
}

impl ShardReader {
    /// A reader of `shard_id` that begins at `from`.
    pub fn new(
        client: KinesisClient,
        settings: ReaderSettings,
        stream: &str,
        shard_id: &str,
        from: ReadFrom,
    ) -> ShardReader {
        ShardReader {
            client,
            settings,
            stream: stream.to_owned(),
            shard_id: shard_id.into(),
            partition: partition_of(shard_id).unwrap_or_default(),
            from,
            iterator: None,
            next_read: Instant::now(),
            stale: None,
            closed: false,
        }
    }

    /// The next page. Blocks; at the tail the page may be empty.
    pub fn next_page(&mut self) -> Result<ShardPage, StoreError> {
        block_on(self.page())
    }

    /// Where reading goes on.
    pub fn position(&self) -> ReadFrom {
        self.from
    }

    /// A position the service did not accept, if there was one.
    pub fn stale(&self) -> Option<ReadFrom> {
        self.stale
    }

    /// Its shard.
    pub fn shard_id(&self) -> &str {
        &self.shard_id
    }

    /// True when the shard is read to its end and gets no further record.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) async fn page(&mut self) -> Result<ShardPage, StoreError> {
        if self.closed {
            return Ok(ShardPage {
                records: Vec::new(),
                end: PageEnd::Closed,
            });
        }
        let jitter = Jitter::from_seed(u64::from(self.partition));
        let deadline = Instant::now() + self.settings.patience;
        let mut tries = Tries::until(deadline, self.settings.backoff, &jitter);
        loop {
            let fault = match self.try_page().await {
                Ok(page) => return Ok(page),
                Err(fault) => fault,
            };
            match fault {
                Fault::ExpiredIterator if self.iterator.take().is_some() => continue,
                Fault::InvalidArgument(cause) if self.forget_position(&cause) => continue,
                Fault::Again(_) | Fault::InUse(_) | Fault::ExpiredIterator => {
                    if !tries.again().await {
                        return Err(fault.into_store_error("get records", &self.key()));
                    }
                }
                fault => return Err(fault.into_store_error("get records", &self.key())),
            }
        }
    }

    /// Takes a new iterator, and if the position itself is refused falls back to the shard's beginning, once.
    fn forget_position(&mut self, cause: &str) -> bool {
        // It may be the iterator alone; only a new one tells.
        if self.iterator.take().is_some() {
            return true;
        }
        if self.stale.is_some() || self.from == ReadFrom::Start {
            return false;
        }
        tracing::warn!(
            stream = self.stream,
            shard = &*self.shard_id,
            position = ?self.from,
            cause,
            "the position is not of this stream any more; the shard is read from its beginning"
        );
        self.stale = Some(self.from);
        self.from = ReadFrom::Start;
        true
    }

    fn key(&self) -> String {
        format!("{}/{}", self.stream, self.shard_id)
    }

    async fn try_page(&mut self) -> Result<ShardPage, Fault> {
        let iterator = match self.iterator.clone() {
            Some(iterator) => iterator,
            None => self.new_iterator().await?,
        };
        self.wait_for_turn().await;
        let answer = self
            .client
            .service()
            .get_records()
            .shard_iterator(&iterator)
            .limit(self.settings.page_records_max)
            .send()
            .await;
        // Kept until an answer has come: after a fault the same page is asked for again.
        self.iterator = Some(iterator);
        let answer = answer.map_err(|error| classify(&error))?;
        self.take(answer)
    }

    async fn wait_for_turn(&mut self) {
        if self.settings.reads_per_second == 0 {
            return;
        }
        tokio::time::sleep_until(self.next_read).await;
        let between = Duration::from_secs(1) / self.settings.reads_per_second;
        self.next_read = Instant::now() + between;
    }

    async fn new_iterator(&self) -> Result<String, Fault> {
        let request = self
            .client
            .service()
            .get_shard_iterator()
            .stream_name(&self.stream)
            .shard_id(&*self.shard_id);
        let request = match self.from {
            ReadFrom::Start => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            ReadFrom::At(sequence) => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(sequence.to_string()),
            ReadFrom::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence.to_string()),
            ReadFrom::Time(micros) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(micros.0.div_euclid(1_000))),
        };
        let answer = request.send().await.map_err(|error| classify(&error))?;
        let iterator = answer.shard_iterator().map(str::to_owned);
        iterator.ok_or_else(|| Fault::Again("no iterator in the answer".to_owned()))
    }

    fn take(&mut self, answer: GetRecordsOutput) -> Result<ShardPage, Fault> {
        let behind = answer.millis_behind_latest();
        self.closed = answer.next_shard_iterator().is_none();
        self.iterator = answer.next_shard_iterator().map(str::to_owned);
        let records = answer.records.into_iter();
        let records: Vec<Record> = records
            .map(|record| self.record(record))
            .collect::<Result<_, _>>()?;
        if let Some(last) = records.last() {
            self.from = ReadFrom::After(last.sequence);
        }
        let end = match (self.closed, records.is_empty(), behind) {
            (true, _, _) => PageEnd::Closed,
            (false, true, Some(0) | None) => PageEnd::CaughtUp,
            _ => PageEnd::More,
        };
        Ok(ShardPage { records, end })
    }

    fn record(&self, record: aws_sdk_kinesis::types::Record) -> Result<Record, Fault> {
        let sequence = SequenceNumber::parse(&record.sequence_number).ok_or_else(|| {
            let text = format!("sequence number {:?} is none", record.sequence_number);
            Fault::Refused {
                code: "KINESIS_REQUEST_REFUSED",
                cause: text,
            }
        })?;
        let arrived_at = record.approximate_arrival_timestamp;
        let micros = |time: DateTime| {
            Micros(time.secs() * 1_000_000 + i64::from(time.subsec_nanos()) / 1_000)
        };
        Ok(Record {
            shard_id: self.shard_id.clone(),
            partition: self.partition,
            sequence,
            partition_key: record.partition_key.unwrap_or_default(),
            data: record.data.into_bytes(),
            arrived_at: arrived_at.map(micros),
        })
    }
}
