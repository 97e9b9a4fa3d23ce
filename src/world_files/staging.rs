//! A folder to build something in, owned by one process at a time.
//!
//! What is built here becomes visible by one rename, so a killed process leaves nothing but a staging
//! folder, and the next one that builds the same thing clears it. The lock file lives beside the folder
//! (`<folder>.lock`) and vanishes with it; a process that locked a file which is no longer at its path
//! tries again.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A claimed staging folder; dropped, it is removed with all that is left in it.
#[derive(Debug)]
pub struct StagingDir {
    path: PathBuf,
    lock_path: PathBuf,
    // Held for the lifetime of the claim; closing the file releases the lock.
    _lock: File,
}

/// Why a staging folder was not given.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// Another process (or thread) holds it.
    #[error("{0} is in use by another process")]
    Busy(PathBuf),
    /// The file system refused.
    #[error("cannot prepare {path}: {source}")]
    Io {
        /// Folder or lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StagingDir {
    /// Claims `path` and empties it.
    pub fn claim(path: &Path) -> Result<Self, StagingError> {
        let failed = |source| StagingError::Io {
            path: path.to_owned(),
            source,
        };
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let lock = lock_at(&lock_path)?;
        remove_if_there(path).map_err(failed)?;
        fs::create_dir(path).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            lock_path,
            _lock: lock,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the folder to `target`, which must be absent or an empty folder, and makes that durable.
    pub fn publish(&self, target: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, target)?;
        sync_parent(target)
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next claim.
        let _ = remove_if_there(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Makes the entry of `path` in its folder durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn lock_at(lock_path: &Path) -> Result<File, StagingError> {
    let failed = |source| StagingError::Io {
        path: lock_path.to_owned(),
        source,
    };
    loop {
        let lock = File::create(lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StagingError::Busy(lock_path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let ours = lock.metadata().map_err(failed)?;
        match fs::metadata(lock_path) {
            Ok(there) if there.ino() == ours.ino() => return Ok(lock),
            _removed_by_the_last_owner => {}
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_folder_is_empty_and_cannot_be_claimed_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stage");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("left_over"), b"x").unwrap();
        let claim = StagingDir::claim(&path).unwrap();
        assert_eq!(fs::read_dir(claim.path()).unwrap().count(), 0);
        assert!(matches!(
            StagingDir::claim(&path),
            Err(StagingError::Busy(_))
        ));
        drop(claim);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(StagingDir::claim(&path).is_ok());
    }

    #[test]
    fn a_published_folder_stays_and_a_filled_target_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        let claim = StagingDir::claim(&dir.path().join("stage")).unwrap();
        fs::write(claim.path().join("file"), b"x").unwrap();
        claim.publish(&target).unwrap();
        drop(claim);
        assert!(target.join("file").exists());
        let again = StagingDir::claim(&dir.path().join("stage")).unwrap();
        assert!(again.publish(&target).is_err());
    }
}
