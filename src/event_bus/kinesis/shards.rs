//! The shards of a stream, all pages of them.

use aws_sdk_kinesis::types::Shard as ServiceShard;
use tokio::time::Instant;
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::event_bus::backoff::Backoff;
use wellspring_domain::event_bus::shard_tree::{Shard, ShardTree, partition_of};
use wellspring_domain::ports::StoreError;

use super::client::KinesisClient;
use super::fault::{Fault, classify};
use super::pace::{Jitter, Tries};
use crate::blocking_runtime::block_on;
use std::time::Duration;

const OPERATION: &str = "list shards";
/// Shards of a page.
const PAGE: i32 = 1_000;
/// Pages of one listing; more is no stream.
const PAGES_MAX: usize = 1_000;

/// All shards of a stream, closed ones included, tried again for at most `patience`.
pub fn list_shards(
    client: &KinesisClient,
    stream: &str,
    patience: Duration,
) -> Result<ShardTree, StoreError> {
    list_shards_by_page(client, stream, patience, PAGE)
}

/// The same with a page size of the caller's choice.
pub fn list_shards_by_page(
    client: &KinesisClient,
    stream: &str,
    patience: Duration,
    page: i32,
) -> Result<ShardTree, StoreError> {
    block_on(shards_of(client, stream, Instant::now() + patience, page))
}

/// The listing for callers that are asynchronous already.
pub(super) async fn tree_of(
    client: &KinesisClient,
    stream: &str,
    deadline: Instant,
) -> Result<ShardTree, StoreError> {
    shards_of(client, stream, deadline, PAGE).await
}

async fn shards_of(
    client: &KinesisClient,
    stream: &str,
    deadline: Instant,
    page: i32,
) -> Result<ShardTree, StoreError> {
    let jitter = Jitter::from_seed(stream.len() as u64);
    let mut tries = Tries::until(deadline, Backoff::default(), &jitter);
    let mut shards = Vec::new();
    let mut token: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let request = client.service().list_shards().max_results(page);
        // The service takes a stream's name or a token, never both.
        let request = match &token {
            Some(token) => request.next_token(token),
            None => request.stream_name(stream),
        };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                match classify(&error) {
                    fault @ (Fault::Again(_) | Fault::InUse(_)) => {
                        if !tries.again().await {
                            return Err(fault.into_store_error(OPERATION, stream));
                        }
                    }
                    // A token lives for minutes; the listing starts anew.
                    Fault::InvalidArgument(_) if token.is_some() => {
                        token = None;
                        shards.clear();
                    }
                    fault => return Err(fault.into_store_error(OPERATION, stream)),
                }
                continue;
            }
        };
        for shard in answer.shards() {
            shards.push(shard_of(stream, shard)?);
        }
        match answer.next_token() {
            Some(next) if !next.is_empty() => token = Some(next.to_owned()),
            _last => return Ok(shards.into_iter().collect()),
        }
    }
    Err(StoreError::Unavailable {
        operation: OPERATION,
        key: stream.to_owned(),
        cause: format!("the listing has more than {PAGES_MAX} pages"),
    })
}

fn shard_of(stream: &str, shard: &ServiceShard) -> Result<Shard, StoreError> {
    let strange = |what: &str, text: &str| StoreError::Damaged {
        key: format!("{stream}/{}", shard.shard_id()),
        offset: 0,
        cause: format!("{what} {text:?} is none"),
    };
    let number = |text: &str| {
        let parsed = text.parse::<u128>();
        parsed.map_err(|_| strange("hash key", text))
    };
    let hashes = shard
        .hash_key_range()
        .ok_or_else(|| strange("hash key range", ""))?;
    let sequences = shard
        .sequence_number_range()
        .ok_or_else(|| strange("sequence number range", ""))?;
    let first = sequences.starting_sequence_number();
    let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
    Ok(Shard {
        id: shard.shard_id().to_owned(),
        partition: partition_of(shard.shard_id())
            .ok_or_else(|| strange("shard name", shard.shard_id()))?,
        parents: parents.into_iter().flatten().map(str::to_owned).collect(),
        hashes: number(hashes.starting_hash_key())?..=number(hashes.ending_hash_key())?,
        first: SequenceNumber::parse(first).ok_or_else(|| strange("sequence number", first))?,
        open: sequences.ending_sequence_number().is_none(),
    })
}
