//! Describes and creates streams: for bootstrap, and for the gate's health.

use std::time::Duration;

use aws_sdk_kinesis::types::{StreamMode, StreamModeDetails, StreamStatus};
use tokio::time::Instant;
use wellspring_domain::event_bus::backoff::Backoff;
use wellspring_domain::ports::StoreError;

use super::client::KinesisClient;
use super::fault::{Fault, classify};
use super::pace::{Jitter, Tries};
use crate::blocking_runtime::block_on;

/// A stream as the service describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// True when it takes and gives records.
    pub active: bool,
    /// The service's word for its state.
    pub status: String,
    /// Open shards.
    pub open_shards: u32,
    /// How long records are kept.
    pub retention_hours: u32,
}

/// What making a stream came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsuredStream {
    /// It is new.
    Created,
    /// It was there; its shards are as they were.
    Existed,
}

/// Asks about a stream; `None` when there is none.
pub fn describe_stream(
    client: &KinesisClient,
    stream: &str,
    patience: Duration,
) -> Result<Option<StreamState>, StoreError> {
    block_on(describe(client, stream, Instant::now() + patience))
}

/// Makes the stream unless there is one, and waits until it is active. Repeating it changes nothing.
pub fn ensure_stream(
    client: &KinesisClient,
    stream: &str,
    shards: u32,
    patience: Duration,
) -> Result<EnsuredStream, StoreError> {
    block_on(ensure(client, stream, shards, Instant::now() + patience))
}

async fn describe(
    client: &KinesisClient,
    stream: &str,
    deadline: Instant,
) -> Result<Option<StreamState>, StoreError> {
    let jitter = Jitter::from_seed(1);
    let mut tries = Tries::until(deadline, Backoff::default(), &jitter);
    loop {
        let request = client.service().describe_stream_summary();
        let fault = match request.stream_name(stream).send().await {
            Ok(answer) => {
                let summary = answer.stream_description_summary();
                return Ok(summary.map(|summary| StreamState {
                    // A stream that is being resharded still serves.
                    active: matches!(
                        summary.stream_status(),
                        StreamStatus::Active | StreamStatus::Updating
                    ),
                    status: summary.stream_status().as_str().to_owned(),
                    open_shards: summary.open_shard_count().max(0) as u32,
                    retention_hours: summary.retention_period_hours().max(0) as u32,
                }));
            }
            Err(error) => classify(&error),
        };
        match fault {
            Fault::NotFound(_) => return Ok(None),
            fault @ (Fault::Again(_) | Fault::InUse(_)) => {
                if !tries.again().await {
                    return Err(fault.into_store_error("describe stream", stream));
                }
            }
            fault => return Err(fault.into_store_error("describe stream", stream)),
        }
    }
}

async fn ensure(
    client: &KinesisClient,
    stream: &str,
    shards: u32,
    deadline: Instant,
) -> Result<EnsuredStream, StoreError> {
    let jitter = Jitter::from_seed(2);
    let mut tries = Tries::until(deadline, Backoff::default(), &jitter);
    let mut ensured = EnsuredStream::Existed;
    loop {
        let waits_for = match describe(client, stream, deadline).await? {
            Some(state) if state.active => return Ok(ensured),
            Some(state) => format!("it is {}", state.status),
            None => match create(client, stream, shards).await {
                Ok(()) => {
                    ensured = EnsuredStream::Created;
                    "it is being made".to_owned()
                }
                // Somebody else makes it at this moment.
                Err(Fault::InUse(cause) | Fault::Again(cause)) => cause,
                Err(fault) => return Err(fault.into_store_error("create stream", stream)),
            },
        };
        if !tries.again().await {
            return Err(StoreError::Unavailable {
                operation: "create stream",
                key: stream.to_owned(),
                cause: format!("it is not active in time: {waits_for}"),
            });
        }
    }
}

async fn create(client: &KinesisClient, stream: &str, shards: u32) -> Result<(), Fault> {
    let provisioned = StreamModeDetails::builder()
        .stream_mode(StreamMode::Provisioned)
        .build()
        .map_err(|error| Fault::Refused {
            code: "KINESIS_REQUEST_REFUSED",
            cause: error.to_string(),
        })?;
    let request = client
        .service()
        .create_stream()
        .stream_name(stream)
        .shard_count(i32::try_from(shards).unwrap_or(i32::MAX))
        .stream_mode_details(provisioned);
    request.send().await.map_err(|error| classify(&error))?;
    Ok(())
}
