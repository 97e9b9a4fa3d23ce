//! How far each shard of a control stream is settled, durably.
//!
//! Nodes share these positions. Each settled record is kept by name, so that two nodes that settle different
//! records never undo each other; the contiguous position only grows and takes the names up to it away.

use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::ports::StoreError;

/// What is known of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardProgress {
    /// The shard.
    pub shard_id: String,
    /// Everything up to this record is settled.
    pub through: Option<SequenceNumber>,
    /// Settled records beyond that.
    pub settled: Vec<SequenceNumber>,
}

/// One record that is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled<'a> {
    /// Its shard.
    pub shard_id: &'a str,
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// Everything up to this record is settled, as far as the caller knows. A position that is stored and
    /// farther stays.
    pub through: Option<SequenceNumber>,
}

/// Durable progress of the consumers of control streams.
pub trait ControlPositions: Send + Sync {
    /// Everything known of a stream's shards.
    fn load(&self, stream: &str) -> Result<Vec<ShardProgress>, StoreError>;
    /// Remembers a settled record and the contiguous position; durable when this returns. Repeating it
    /// changes nothing.
    fn settle(&self, stream: &str, settled: &Settled<'_>) -> Result<(), StoreError>;
}
