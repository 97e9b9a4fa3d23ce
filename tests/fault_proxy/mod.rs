//! A proxy before a Kinesis server that adds the faults no stand-in has, chosen by a seed.
//!
//! | Fault | What happens |
//! |---|---|
//! | throttle | the whole call is refused with `ProvisionedThroughputExceededException`; nothing is forwarded |
//! | partial | single records of a `PutRecords` are not forwarded and answered as failed |
//! | lose | the call is forwarded, its answer is dropped and the connection cut |
//! | expire | a read is told that its iterator expired |
//! | delay | the answer comes later |
//! | limits | a shard takes 1,000 records and 1 MB a second and answers 5 reads a second |
//!
//! Calls in CBOR get the faults of whole calls only. `GET /__stats` counts, `PUT /__plan` changes the plan.

mod limits;
mod server;

pub use server::{FaultProxy, Plan};
