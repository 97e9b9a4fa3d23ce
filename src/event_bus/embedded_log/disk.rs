//! Files as the log uses them: writes at a known position, syncs, folders that survive power loss.
//!
//! Every failure carries the operation and the path. [`DiskFaults`] lets a test make any write or
//! sync fail, in the middle if it wants.

use super::direct_io::DirectFile;
use crate::failpoints::{Artefact, Operation, Step, around, writing};
use rustix::fs::Advice;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_domain::ports::StoreError;

/// Decides which disk operations fail. The log itself never sets one.
pub trait DiskFaults: Send + Sync {
    /// Called before `length` bytes are written; `Some(n)`: only `n` bytes arrive, then the write fails.
    fn write_stops_after(&self, path: &Path, length: usize) -> Option<usize>;
    /// Called before a sync; true: it fails.
    fn sync_fails(&self, path: &Path) -> bool;
}

/// Where injected faults come from; none in production.
pub type Faults = Option<Arc<dyn DiskFaults>>;

/// A file the log writes at positions it knows.
pub struct LogFile {
    file: File,
    /// The same file for writes around the page cache.
    direct: Option<DirectFile>,
    path: PathBuf,
    faults: Faults,
}

impl LogFile {
    /// Opens for reading and writing; creates the file when it is missing. The folder must exist.
    pub fn open(path: &Path, faults: &Faults) -> Result<LogFile, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("open", path))?;
        Ok(LogFile {
            file,
            direct: None,
            path: path.to_owned(),
            faults: faults.clone(),
        })
    }

    /// As [`LogFile::open`], for large appends too ([`LogFile::write_blocks_at`]).
    pub fn open_for_appends(path: &Path, faults: &Faults) -> Result<LogFile, StoreError> {
        let file = LogFile::open(path, faults)?;
        Ok(LogFile {
            direct: DirectFile::open(path),
            ..file
        })
    }

    /// Whether whole blocks can go around the page cache: opened for it, on a file system that can.
    pub fn writes_blocks(&self) -> bool {
        self.direct.is_some()
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    pub fn length(&self) -> Result<u64, StoreError> {
        let meta = self.file.metadata().map_err(failed("stat", &self.path))?;
        Ok(meta.len())
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.write_unless_stopped(bytes, |bytes| self.file.write_all_at(bytes, offset))
    }

    /// The same, with whole blocks around the page cache where the file system can ([`DirectFile::write_blocks`]).
    pub fn write_blocks_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.write_unless_stopped(bytes, |bytes| {
            let direct = self.direct.as_ref();
            let written = direct.map_or(Ok(0), |file| file.write_blocks(bytes, offset))?;
            let rest = &bytes[written..];
            self.file.write_all_at(rest, offset + written as u64)
        })
    }

    /// Writes all of `bytes`, or as much as an injected fault lets through.
    fn write_unless_stopped(
        &self,
        bytes: &[u8],
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let faults = self.faults.as_ref();
        let stop = faults.and_then(|faults| faults.write_stops_after(&self.path, bytes.len()));
        let written = match stop {
            None => write(bytes),
            Some(count) => write(&bytes[..count.min(bytes.len())])
                .and(Err(io::Error::from(io::ErrorKind::StorageFull))),
        };
        written.map_err(failed("write", &self.path))
    }

    /// Puts the data, and the length if it changed, on the disk.
    pub fn sync_data(&self) -> Result<(), StoreError> {
        self.fault_before_sync()?;
        self.file.sync_data().map_err(failed("fsync", &self.path))
    }

    /// Lets the pages of a part that is on the disk go. Only advice: whatever comes of it, the bytes stay.
    pub fn let_pages_go(&self, part: Range<u64>) {
        let length = NonZeroU64::new(part.end - part.start);
        let _ = rustix::fs::fadvise(&self.file, part.start, length, Advice::DontNeed);
    }

    /// Puts data and metadata on the disk.
    pub fn sync_all(&self) -> Result<(), StoreError> {
        self.fault_before_sync()?;
        self.file.sync_all().map_err(failed("fsync", &self.path))
    }

    /// Cuts the file to `length` bytes.
    pub fn truncate(&self, length: u64) -> Result<(), StoreError> {
        self.file
            .set_len(length)
            .map_err(failed("truncate", &self.path))
    }

    /// Fills `buffer` from `offset`.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(failed("read", &self.path))
    }

    fn fault_before_sync(&self) -> Result<(), StoreError> {
        match &self.faults {
            Some(faults) if faults.sync_fails(&self.path) => {
                Err(failed("fsync", &self.path)(io::Error::other("injected")))
            }
            _ => Ok(()),
        }
    }
}

/// The error of a failed operation on `path`.
pub fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |cause| StoreError::Unavailable {
        operation,
        key: path.display().to_string(),
        cause: cause.to_string(),
    }
}

/// The error of a file that cannot be what we wrote.
pub fn damaged(path: &Path, offset: u64, cause: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        key: path.display().to_string(),
        offset,
        cause: cause.into(),
    }
}

/// Makes the entries of a folder survive power loss.
pub fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("fsync", path))
}

/// Creates a folder and its parents; each new entry survives power loss.
pub fn create_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_folder(parent)?;
    match fs::create_dir(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("create folder", path)(cause))
        }
        _ => sync_folder(parent),
    }
}

/// How much a replaced file must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: file and folder are synced.
    Synced,
    /// A crash of the program only; readers never see half a file.
    Renamed,
}

/// Replaces a small file through `<name>.tmp` and a rename. `what` names its durable steps.
pub fn replace_file(
    path: &Path,
    bytes: &[u8],
    durability: Durability,
    what: Artefact,
) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file = File::create(&temporary).map_err(failed("create", &temporary))?;
    writing(Step(what, Operation::Write), bytes, |bytes| {
        file.write_all(bytes).map_err(failed("write", &temporary))
    })?;
    if durability == Durability::Synced {
        around(Step(what, Operation::Sync), || {
            file.sync_all().map_err(failed("fsync", &temporary))
        })?;
    }
    around(Step(what, Operation::Rename), || {
        fs::rename(&temporary, path).map_err(failed("rename", path))
    })?;
    match (durability, path.parent()) {
        (Durability::Synced, Some(folder)) => {
            around(Step(what, Operation::FolderSync), || sync_folder(folder))
        }
        _ => Ok(()),
    }
}

/// The whole of a small file, `None` when it is absent.
pub fn read_small_file(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("read", path)(cause)),
    }
}

/// Names of the entries of a folder, sorted; none when the folder is absent.
pub fn entry_names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(failed("list", folder)(cause)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", folder))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
