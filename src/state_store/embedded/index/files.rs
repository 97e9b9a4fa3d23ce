//! Small file work of the index, on top of what the log uses.

use crate::event_bus::embedded_log::disk::{self, Durability};
pub use crate::event_bus::embedded_log::disk::{
    damaged, entry_names, failed, read_small_file as read_file, sync_folder,
};
use crate::failpoints::Artefact;
use std::fs;
use std::io;
use std::path::Path;
use wellspring_domain::ports::StoreError;

/// Replaces a file: readers see the old or the new one whole, also after a power cut.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    disk::replace_file(path, bytes, Durability::Synced, Artefact::IndexManifest)
}

/// Removes a folder with all it holds; an absent one is no error.
pub fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove folder", folder)(error))
        }
        _removed_or_absent => Ok(()),
    }
}

/// Removes a file; an absent one is no error.
pub fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _removed_or_absent => Ok(()),
    }
}
