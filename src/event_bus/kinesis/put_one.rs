//! Puts one record: what the control bus needs.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use bytes::Bytes;
use tokio::time::Instant;
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::event_bus::backoff::Backoff;
use wellspring_domain::event_bus::shard_tree::partition_of;
use wellspring_domain::ports::StoreError;

use super::client::KinesisClient;
use super::fault::{Fault, classify};
use super::pace::{Jitter, Tries};
use super::producer::Placed;
use crate::blocking_runtime::block_on;

const OPERATION: &str = "put record";

/// A record for [`put_record`].
#[derive(Clone, Copy, Debug)]
pub struct SingleRecord<'a> {
    /// Stream.
    pub stream: &'a str,
    /// Partition key as it goes on the wire.
    pub partition_key: &'a str,
    /// Data.
    pub data: &'a [u8],
}

/// Puts the record, trying for at most `patience`. When an answer was lost it is there twice.
pub fn put_record(
    client: &KinesisClient,
    record: &SingleRecord<'_>,
    patience: Duration,
) -> Result<Placed, StoreError> {
    block_on(put(client, record, Instant::now() + patience))
}

async fn put(
    client: &KinesisClient,
    record: &SingleRecord<'_>,
    deadline: Instant,
) -> Result<Placed, StoreError> {
    let jitter = Jitter::from_seed(record.data.len() as u64);
    let mut tries = Tries::until(deadline, Backoff::default(), &jitter);
    let data = Bytes::copy_from_slice(record.data);
    loop {
        let sending = client
            .service()
            .put_record()
            .stream_name(record.stream)
            .partition_key(record.partition_key)
            .data(Blob::from_maybe_shared(data.clone()))
            .send();
        let fault = match tokio::time::timeout_at(deadline, sending).await {
            Ok(Ok(answer)) => {
                let place = (
                    partition_of(answer.shard_id()),
                    SequenceNumber::parse(answer.sequence_number()),
                );
                if let (Some(partition), Some(sequence)) = place {
                    return Ok(Placed {
                        partition,
                        sequence,
                    });
                }
                Fault::Again("the answer names no place".to_owned())
            }
            Ok(Err(error)) => classify(&error),
            Err(_elapsed) => Fault::Again("no answer before the deadline".to_owned()),
        };
        match fault {
            Fault::Again(_) | Fault::InUse(_) if tries.again().await => {}
            fault => return Err(fault.into_store_error(OPERATION, record.stream)),
        }
    }
}
