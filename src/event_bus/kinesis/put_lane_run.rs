//! One lane of a publish call: request after request until its records are placed.

use std::time::Duration;

use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::event_bus::put_lanes::{Admission, NextPut, PutLane};
use wellspring_domain::event_bus::shard_tree::partition_of;
use wellspring_domain::ports::StoreError;

use super::fault::{Fault, classify};
use super::pace::Tries;
use super::producer::{Call, KEY_BYTES, Placed, PutItem, SharedBuckets, lock};

const OPERATION: &str = "put records";

/// A lane at work.
pub(super) struct LaneRun<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) stream: &'a str,
    pub(super) lane: PutLane,
    pub(super) buckets: Option<SharedBuckets>,
    pub(super) tries: Tries<'a>,
}

/// What became of a request.
enum Answer {
    /// Per record, in order: its place, or why it has none.
    Records(Vec<Result<Placed, String>>),
    /// Nothing is known to be placed; send it again.
    Again(String),
}

impl LaneRun<'_> {
    /// Runs until every record is placed, the call is stopped, or the time is up.
    pub(super) async fn until_done(mut self) -> Result<(), StoreError> {
        let mut items = Vec::new();
        loop {
            if self.call.stopped.get() {
                return Ok(());
            }
            match self.fill(&mut items) {
                NextPut::Done => return Ok(()),
                NextPut::WaitUntil(micros) => {
                    let wait = micros.saturating_sub(self.call.now_micros()).max(1);
                    if !self.tries.pause(Duration::from_micros(wait)).await {
                        return Err(self.out_of_time("the shard takes no more before the deadline"));
                    }
                }
                NextPut::Send => {
                    let failed = self.send(&items).await?;
                    self.after(failed).await?;
                }
            }
        }
    }

    fn fill(&mut self, items: &mut Vec<u32>) -> NextPut {
        let call = self.call;
        let limits = &call.settings.request;
        let Some(buckets) = &self.buckets else {
            return self.lane.next_put(limits, &mut |_| Admission::Now, items);
        };
        let (mut buckets, now) = (lock(buckets), call.now_micros());
        let mut admit = |item: u32| {
            let item = &call.items[item as usize];
            let bytes = (item.data.len() + KEY_BYTES) as u32;
            buckets.admit(hash_of(item), bytes, now)
        };
        self.lane.next_put(limits, &mut admit, items)
    }

    /// Sends the request and settles it; why some records failed, if any did.
    async fn send(&mut self, items: &[u32]) -> Result<Option<String>, StoreError> {
        let entries = self.entries(items)?;
        let sending = self
            .call
            .client
            .service()
            .put_records()
            .stream_name(self.stream)
            .set_records(Some(entries))
            .send();
        let answer = match tokio::time::timeout_at(self.tries.deadline(), sending).await {
            Ok(Ok(output)) => self.walk(&output, items.len())?,
            Ok(Err(error)) => match classify(&error) {
                Fault::Again(cause) | Fault::InUse(cause) => Answer::Again(cause),
                fault => return Err(fault.into_store_error(OPERATION, self.stream)),
            },
            Err(_elapsed) => Answer::Again("no answer before the deadline".to_owned()),
        };
        Ok(self.settle(answer, items))
    }

    fn settle(&mut self, answer: Answer, items: &[u32]) -> Option<String> {
        let records = match answer {
            Answer::Records(records) => records,
            Answer::Again(cause) => {
                self.lane.settle(|_| false);
                return Some(cause);
            }
        };
        let mut placed = self.call.placed.borrow_mut();
        let (mut failed, mut any) = (None, false);
        for (record, item) in records.iter().zip(items) {
            match record {
                Ok(place) => {
                    placed[*item as usize] = Some(*place);
                    any = true;
                }
                Err(cause) => failed = Some(cause.clone()),
            }
        }
        self.lane.settle(|position| records[position].is_ok());
        if any {
            self.tries.progressed();
        }
        failed
    }

    async fn after(&mut self, failed: Option<String>) -> Result<(), StoreError> {
        let Some(cause) = failed else {
            return Ok(());
        };
        tracing::debug!(
            stream = self.stream,
            cause,
            left = self.lane.left(),
            "records are put again"
        );
        match self.tries.again().await {
            true => Ok(()),
            false => Err(self.out_of_time(&cause)),
        }
    }

    fn out_of_time(&self, cause: &str) -> StoreError {
        StoreError::Unavailable {
            operation: OPERATION,
            key: self.stream.to_owned(),
            cause: format!("not everything was placed in time; last: {cause}"),
        }
    }

    /// The request's entries. Their data share one buffer, so that a request costs one allocation.
    fn entries(&self, items: &[u32]) -> Result<Vec<PutRecordsRequestEntry>, StoreError> {
        let items = || items.iter().map(|item| &self.call.items[*item as usize]);
        let mut buffer = BytesMut::with_capacity(items().map(|item| item.data.len()).sum());
        items().for_each(|item| buffer.extend_from_slice(item.data));
        let mut rest = buffer.freeze();
        let entry = |item: &PutItem<'_>| {
            let data: Bytes = rest.split_to(item.data.len());
            let built = PutRecordsRequestEntry::builder()
                .data(Blob::from_maybe_shared(data))
                .partition_key(key_text(item))
                .build();
            built.map_err(|error| StoreError::Refused {
                code: "KINESIS_REQUEST_REFUSED",
                key: self.stream.to_owned(),
                cause: error.to_string(),
            })
        };
        items().map(entry).collect()
    }

    /// Walks the answer by index (the service promises the request's order).
    fn walk(&self, output: &PutRecordsOutput, sent: usize) -> Result<Answer, StoreError> {
        let results = output.records();
        if results.len() != sent {
            let cause = format!("{} results for {sent} records", results.len());
            return Ok(Answer::Again(cause));
        }
        let records = results.iter().map(|result| self.place(result));
        Ok(Answer::Records(records.collect::<Result<_, _>>()?))
    }

    fn place(&self, result: &PutRecordsResultEntry) -> Result<Result<Placed, String>, StoreError> {
        if let Some(code) = result.error_code() {
            let text = result.error_message().unwrap_or_default();
            return Ok(Err(format!("{code} {text}")));
        }
        let shard = result.shard_id().unwrap_or_default();
        let sequence = result.sequence_number().unwrap_or_default();
        if let Some(buckets) = &self.buckets
            && !lock(buckets).knows(shard)
        {
            self.call.resharded.set(true);
        }
        match (partition_of(shard), SequenceNumber::parse(sequence)) {
            (Some(partition), Some(sequence)) => Ok(Ok(Placed {
                partition,
                sequence,
            })),
            _ => Err(StoreError::Damaged {
                key: self.stream.to_owned(),
                offset: 0,
                cause: format!("{shard:?} {sequence:?} is no place of a record"),
            }),
        }
    }
}

fn key_text(item: &PutItem<'_>) -> String {
    let hex = item.partition_key.hex();
    String::from_utf8(hex.to_vec()).expect("hex characters are text")
}

/// Where the service puts the record: MD5 of the partition key's text.
fn hash_of(item: &PutItem<'_>) -> u128 {
    u128::from_be_bytes(Md5::digest(item.partition_key.hex()).into())
}
