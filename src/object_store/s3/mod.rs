//! Objects in S3 (contract 3.8).
//!
//! What stays true: a write-once object has exactly one creator, also when answers are lost; an appended
//! line stands in the object once; nothing relies on the order of a listing; credentials come from the
//! environment alone; no error quotes anything that was signed.

mod buckets;
mod client;
#[cfg(test)]
mod fake_server;
mod fault;
mod io_runtime;
mod multipart;
pub mod options;
mod reader;
mod requests;
mod store;
#[cfg(test)]
mod tests;

use client::S3Client;
use std::fmt;
use std::sync::OnceLock;
use wellspring_domain::ports::StoreError;

pub use buckets::{EnsuredBucket, ensure_bucket};
pub use options::{S3Credentials, S3Options, S3Patience};
pub use store::S3Store;

/// Opens buckets. The client is made when the first one is opened, and shared by all.
pub struct S3Opener {
    options: S3Options,
    client: OnceLock<Result<S3Client, StoreError>>,
}

impl S3Opener {
    /// Buckets reached by `options`; nothing is made or sent yet.
    pub fn new(options: S3Options) -> S3Opener {
        S3Opener {
            options,
            client: OnceLock::new(),
        }
    }

    /// The store below `s3://bucket[/prefix]`; nothing is sent.
    pub fn open(&self, root: &str) -> Result<S3Store, StoreError> {
        let client = self.client.get_or_init(|| S3Client::new(&self.options));
        S3Store::new(client.clone()?, root)
    }

    /// The same, when something lies below the root already; `None` when nothing does.
    pub fn open_existing(&self, root: &str) -> Result<Option<S3Store>, StoreError> {
        let store = self.open(root)?;
        Ok(store.exists()?.then_some(store))
    }
}

impl fmt::Debug for S3Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        f.debug_struct("S3Opener")
            .field("options", options)
            .finish()
    }
}
