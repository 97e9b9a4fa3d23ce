//! The event bus on Kinesis: a producer that keeps the order of each partition key, and readers that follow
//! splits and merges.
//!
//! All calls block; they are made from the shards' writer threads, from blocking tasks and from commands.
//! Retries are ours: the client of the service sends each request once.

mod client;
mod fault;
mod pace;
mod producer;
mod put_lane_run;
mod put_one;
mod reader;
mod scan;
mod shards;
mod streams;

pub use client::{CallTimeouts, KinesisClient, KinesisWiring};
pub use producer::{Placed, Producer, ProducerSettings, PublishError, PutItem, StreamNames};
pub use put_one::{SingleRecord, put_record};
pub use reader::{PageEnd, ReadFrom, ReaderSettings, Record, ShardPage, ShardReader};
pub use scan::{OtherShards, Scan, ScanEnd, ScanFrom};
pub use shards::{list_shards, list_shards_by_page};
pub use streams::{EnsuredStream, StreamState, describe_stream, ensure_stream};
