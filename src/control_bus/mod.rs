//! Control bus adapters: how READY and terminal signals travel (contract 5.9).

pub mod file;
pub mod kinesis;
pub mod place;
pub mod positions;

pub use file::FileControlBus;
pub use kinesis::{KinesisControlBus, KinesisControlBusSettings};
pub use place::ControlBusPlace;
pub use positions::{ControlPositions, Settled, ShardProgress};
