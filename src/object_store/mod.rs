//! Object store adapters.

pub mod local_files;
pub mod s3;
pub mod stores;

pub use local_files::LocalFiles;
pub use stores::{ObjectStores, OpenStoreError};

use wellspring_domain::ports::StoreError;

/// A key is relative, not empty, and no component leaves the root or stands for itself.
fn check_key(key: &str) -> Result<(), StoreError> {
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    match key.contains('\0') || key.split('/').any(odd) {
        true => Err(StoreError::InvalidKey {
            key: key.to_owned(),
        }),
        false => Ok(()),
    }
}
