//! Object store adapters.

use std::path::Path;
use std::sync::Arc;

use wellspring_domain::ports::ObjectStore;

pub mod local_files;

pub use local_files::LocalFiles;

/// Why a root cannot be opened as an object store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenStoreError {
    /// The root is a URI of a store this program has no adapter for.
    #[error("there is no object store adapter for {root}")]
    Unsupported {
        /// The root as given.
        root: String,
    },
    /// The root must exist and is not a folder.
    #[error("{root} is not a folder")]
    NotFound {
        /// The root as given.
        root: String,
    },
}

impl OpenStoreError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            OpenStoreError::Unsupported { .. } => "OBJECT_STORE_KIND_UNSUPPORTED",
            OpenStoreError::NotFound { .. } => "STORE_ROOT_NOT_FOUND",
        }
    }
}

/// Opens a root that writes may create.
pub fn open(root: &str) -> Result<Arc<dyn ObjectStore>, OpenStoreError> {
    match root.contains("://") {
        true => Err(OpenStoreError::Unsupported {
            root: root.to_owned(),
        }),
        false => Ok(Arc::new(LocalFiles::new(root))),
    }
}

/// Opens a root that must be there already, such as an engine run root.
pub fn open_existing(root: &str) -> Result<Arc<dyn ObjectStore>, OpenStoreError> {
    let store = open(root)?;
    match Path::new(root).is_dir() {
        true => Ok(store),
        false => Err(OpenStoreError::NotFound {
            root: root.to_owned(),
        }),
    }
}
