//! Makes what a profile names on managed backends: buckets, streams, the database's schema.
//!
//! Repeating it changes nothing. What exists is left as it is, a stream keeps its shards. Each kind is made
//! apart from the others, so that one server that is away does not hide what is wrong with the next.

mod make;
mod plan;

use serde::Serialize;
use wellspring_domain::ports::StoreError;

pub use make::make;
pub use plan::{Plan, PlannedStream};

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// An S3 bucket.
    Bucket,
    /// A Kinesis stream.
    Stream,
    /// The tables of a PostgreSQL database.
    Schema,
}

impl ResourceKind {
    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            ResourceKind::Bucket => "bucket",
            ResourceKind::Stream => "stream",
            ResourceKind::Schema => "schema",
        }
    }
}

/// What came of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// It is new.
    Created,
    /// It was there.
    Existed,
    /// It is there and up to date; whether it is new is not told.
    Ready,
    /// It could not be made.
    Failed,
    /// One like it had failed before.
    NotTried,
    /// It would be made.
    Planned,
}

impl Made {
    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Made::Created => "created",
            Made::Existed => "existed",
            Made::Ready => "ready",
            Made::Failed => "FAILED",
            Made::NotTried => "not tried",
            Made::Planned => "planned",
        }
    }
}

/// One resource and what came of it.
#[derive(Debug, Serialize)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name, without credentials.
    pub name: String,
    /// Shards, of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// What came of it.
    pub made: Made,
    /// Why it failed.
    #[serde(skip)]
    pub error: Option<StoreError>,
}

impl Resource {
    fn planned(kind: ResourceKind, name: impl Into<String>) -> Resource {
        Resource {
            kind,
            name: name.into(),
            shards: None,
            made: Made::Planned,
            error: None,
        }
    }
}
