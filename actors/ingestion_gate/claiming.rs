//! Asks the index shards for the keys of a batch.

use super::index_shard::{ClaimAnswers, IndexShardMsg};
use super::messages::ShardBatch;
use ractor::ActorRef;
use tokio::sync::oneshot;
use wellspring_domain::admission::key_table::FETCHED_AT_ONCE;
use wellspring_domain::admission::routing::index_shard_of;
use wellspring_domain::ids::Hash32;
use wellspring_domain::prefetch::prefetch_value;

/// The keys one index shard is asked for, and their places among all.
struct Part {
    keys: Vec<Hash32>,
    positions: Vec<u32>,
}

/// Claims the keys of all items of a batch that may be published, in batch order; `None` when an index shard did not
/// answer.
pub async fn claim(
    index: &[ActorRef<IndexShardMsg>],
    shard: u16,
    batch: &ShardBatch,
) -> Option<ClaimAnswers> {
    let (parts, count) = parts_of(batch, index.len());
    let mut waiting = Vec::with_capacity(index.len());
    for (owner, Part { keys, positions }) in index.iter().zip(parts) {
        if keys.is_empty() {
            continue;
        }
        let (reply, answers) = oneshot::channel();
        let message = IndexShardMsg::Claim {
            run: batch.run.clone(),
            shard,
            keys,
            reply,
        };
        owner.cast(message).ok()?;
        waiting.push((positions, answers));
    }
    let mut claims = ClaimAnswers::parked(count);
    for (positions, answers) in waiting {
        let some = answers.await.ok();
        let some = some.filter(|some| some.answers.len() == positions.len())?;
        claims.place(&positions, &some);
    }
    Some(claims)
}

/// What each index shard is asked for, and how many keys that are.
fn parts_of(batch: &ShardBatch, index_shards: usize) -> (Vec<Part>, usize) {
    let room = share_of(batch.items.len(), index_shards);
    let part = |_| Part {
        keys: Vec::with_capacity(room),
        positions: Vec::with_capacity(room),
    };
    let mut parts: Vec<Part> = (0..index_shards).map(part).collect();
    let mut count = 0;
    let item = |position: &u32| &batch.judged.items[*position as usize];
    for (at, position) in batch.items.iter().enumerate() {
        if let Some(ahead) = batch.items.get(at + FETCHED_AT_ONCE) {
            prefetch_value(item(ahead));
        }
        let item = item(position);
        if item.quarantine.is_some() {
            continue;
        }
        let owner = index_shard_of(&item.dedupe_key, index_shards as u16);
        let part = &mut parts[usize::from(owner)];
        part.keys.push(item.dedupe_key);
        part.positions.push(count);
        count += 1;
    }
    (parts, count as usize)
}

/// Room for one index shard's share of so many keys: they are spread evenly, so a few more than that.
pub fn share_of(keys: usize, index_shards: usize) -> usize {
    keys / index_shards * 17 / 16 + 16
}
