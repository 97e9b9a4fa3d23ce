//! Opens roots as object stores: folders of this machine and buckets alike (contract 3.8).
//!
//! One factory is made from the settings and handed to everything that opens a root, so a world, the
//! runs and a stream view may each lie in a folder or in a bucket. Cheap to clone; clones share clients.

use std::path::Path;
use std::sync::Arc;

use wellspring_domain::ports::{ObjectStore, StoreError};

use super::LocalFiles;
use super::s3::{S3Opener, S3Options};

/// Why a root cannot be opened as an object store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenStoreError {
    /// The root is a URI of a store this program has no adapter for.
    #[error("there is no object store adapter for {root}")]
    Unsupported {
        /// The root as given.
        root: String,
    },
    /// The root must exist and does not.
    #[error("{root} does not exist")]
    NotFound {
        /// The root as given.
        root: String,
    },
    /// The store refused, or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenStoreError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            OpenStoreError::Unsupported { .. } => "OBJECT_STORE_KIND_UNSUPPORTED",
            OpenStoreError::NotFound { .. } => "STORE_ROOT_NOT_FOUND",
            OpenStoreError::Store(error) => error.code(),
        }
    }

    /// The same as a failure of a store operation.
    pub fn into_store_error(self, root: &str) -> StoreError {
        match self {
            OpenStoreError::Store(error) => error,
            other => StoreError::Refused {
                code: other.code(),
                key: root.to_owned(),
                cause: other.to_string(),
            },
        }
    }
}

/// Opens roots as object stores.
#[derive(Clone, Debug, Default)]
pub struct ObjectStores {
    s3: Option<Arc<S3Opener>>,
}

impl ObjectStores {
    /// Stores in folders only: buckets are refused.
    pub fn folders() -> ObjectStores {
        ObjectStores::default()
    }

    /// Stores in folders, and in buckets reached by `options`.
    pub fn with_s3(options: S3Options) -> ObjectStores {
        ObjectStores {
            s3: Some(Arc::new(S3Opener::new(options))),
        }
    }

    /// Opens a root that writes may create.
    pub fn open(&self, root: &str) -> Result<Arc<dyn ObjectStore>, OpenStoreError> {
        match self.kind(root)? {
            Kind::Folder => Ok(Arc::new(LocalFiles::new(root))),
            Kind::Bucket(s3) => Ok(Arc::new(s3.open(root)?)),
        }
    }

    /// Opens a root that must be there already, such as an engine run root.
    pub fn open_existing(&self, root: &str) -> Result<Arc<dyn ObjectStore>, OpenStoreError> {
        let found: Option<Arc<dyn ObjectStore>> = match self.kind(root)? {
            Kind::Folder if Path::new(root).is_dir() => Some(Arc::new(LocalFiles::new(root))),
            Kind::Folder => None,
            Kind::Bucket(s3) => match s3.open_existing(root)? {
                Some(store) => Some(Arc::new(store)),
                None => None,
            },
        };
        found.ok_or_else(|| OpenStoreError::NotFound {
            root: root.to_owned(),
        })
    }

    fn kind(&self, root: &str) -> Result<Kind<'_>, OpenStoreError> {
        match (&self.s3, root.contains("://")) {
            (_, false) => Ok(Kind::Folder),
            (Some(s3), true) if root.starts_with("s3://") => Ok(Kind::Bucket(s3)),
            (_, true) => Err(OpenStoreError::Unsupported {
                root: root.to_owned(),
            }),
        }
    }
}

/// Where a root lies.
enum Kind<'a> {
    Folder,
    Bucket(&'a S3Opener),
}
