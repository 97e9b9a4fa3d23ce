//! The embedded partitioned file log and its decision journal: the durable data plane of one machine.
//!
//! A platform run keeps, below its run root:
//!
//! | path | what |
//! |---|---|
//! | `eb/<topic>/partition=<p>.jsonl` | bus lines exactly as contract 8 writes them |
//! | `eb/<topic>/head.json`, `head-<p>.json` | `{"next_offset":N}`: where readers stop |
//! | `eb/<topic>/_topic.json` | partition count, written once when the topic is created |
//! | `ig/journal/shard-<kkk>/segment-<nnnnnnnn>.wsj` | decision journal of one admission shard |
//! | `ig/journal/shard-<kkk>/synced.json` | how far that journal is known to be on the disk |
//! | `ig/gate.lock` | held while a gate writes the run |
//!
//! **The commit.** One flush writes its bus lines, syncs them, then writes and syncs one journal
//! frame. The frame is the commit: bus lines no frame confirms are cut when the run is opened, and no
//! answer leaves before the frame is on the disk. Journal rows hold all a receipt needs, so receipts,
//! index and tables are projections of journal and log.
//!
//! The formats are written down in `format.rs` and `docs/file_formats.md`.

pub mod bus_reader;
mod bus_recovery;
mod cache_window;
mod decision_log;
pub mod direct_io;
pub mod disk;
pub mod format;
pub mod frame_decode;
mod frame_encode;
mod gate_store;
mod head;
pub mod journal_reader;
mod journal_recovery;
mod journal_writer;
pub mod layout;
mod partition_writer;
mod publisher;
mod row_lookup;
mod run_state;
mod segment;
mod segment_walk;
mod sparse_index;
mod sync_pool;
mod synced_mark;
#[cfg(test)]
mod tests;
mod text_packing;

pub use bus_reader::{BusReader, BusRecord, BusStream, ReadBound, bus_partitions};
pub use frame_decode::{Frame, PartitionEntry, RowView};
pub use gate_store::EmbeddedGateStore;
pub use journal_reader::{JournalFrames, JournalReader, JournalRows};
pub use run_state::{CACHED_BYTES_DEFAULT, LogOptions, PartitionCounts, RunLock};
pub use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
