//! An object store that writes only while a run's lease is held.

use super::run_lease::RunLease;
use std::io::Read;
use std::sync::Arc;
use wellspring_domain::ports::{
    ObjectMeta, ObjectStore, ObjectTail, ObjectWriter, PutOutcome, StoreError, WriteMode,
};

/// Reads as the store does; every write asks for the lease first.
pub struct FencedStore {
    /// The store.
    pub inner: Arc<dyn ObjectStore>,
    /// The lease.
    pub lease: Arc<RunLease>,
}

impl ObjectStore for FencedStore {
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<PutOutcome, StoreError> {
        self.lease.check()?;
        self.inner.put_if_absent(key, bytes)
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.lease.check()?;
        self.inner.put(key, bytes)
    }

    fn append_line(&self, key: &str, line: &[u8]) -> Result<(), StoreError> {
        self.lease.check()?;
        self.inner.append_line(key, line)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(key, start, length)
    }

    fn get_tail(&self, key: &str, length: u64) -> Result<Option<ObjectTail>, StoreError> {
        self.inner.get_tail(key, length)
    }

    fn open_writer(&self, key: &str, mode: WriteMode) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.lease.check()?;
        self.inner.open_writer(key, mode)
    }

    fn open_reader(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        self.inner.open_reader(key)
    }

    fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.inner.head(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list(prefix)
    }

    fn absolute(&self, key: &str) -> String {
        self.inner.absolute(key)
    }
}
