//! Where a producer's events come from.

use super::synthetic::SyntheticEvents;
use super::world::WorldRows;

/// The events of one producer.
pub enum EventSource {
    /// Made as they are needed.
    Synthetic(SyntheticEvents),
    /// The rows of one output of a sealed world, framed by a thread of their own.
    World(WorldRows),
}
