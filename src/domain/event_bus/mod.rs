//! Rules of a sharded event bus: what goes into the next put, how fast, and in which order shards are read.

pub mod backoff;
pub mod put_lanes;
pub mod shard_buckets;
pub mod shard_tree;
pub mod unsettled;
