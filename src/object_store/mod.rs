//! Object store adapters.

pub mod local_files;
pub mod s3;
pub mod stores;

pub use local_files::LocalFiles;
pub use stores::{ObjectStores, OpenStoreError};
