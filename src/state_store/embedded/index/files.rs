//! Small file work of the index: errors with their path, atomic replacement, synced folders.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use wellspring_domain::ports::StoreError;

/// A failed file operation.
pub fn failed(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let key = path.display().to_string();
    move |error| StoreError::Unavailable {
        operation,
        key,
        cause: error.to_string(),
    }
}

/// A file that does not hold what was written to it.
pub fn damaged(path: &Path, offset: u64, cause: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        key: path.display().to_string(),
        offset,
        cause: cause.into(),
    }
}

/// Makes names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(failed("sync folder", folder))
}

/// Replaces a file: readers see the old or the new one whole, also after a power cut.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed("replace", path))?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// The whole file, `None` when absent.
pub fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Names of the entries of a folder, sorted; an absent folder has none.
pub fn entry_names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
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
