//! Objects as files below one folder (contract 3.8).
//!
//! What stays true: an object is seen whole or not at all, because it is written to a temporary file,
//! synced and then renamed or linked into place; it survives a power cut once the call has returned,
//! because the folder is synced too. Temporary files are never listed, so a crash leaves no object behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::check_key;
use crate::failpoints::{Artefact, Operation, Step, around, writing};
use wellspring_domain::ports::{
    ObjectMeta, ObjectStore, ObjectWriter, PutOutcome, StoreError, WriteMode,
};

const OBJECT_WRITE: Step = Step(Artefact::Object, Operation::Write);
const OBJECT_SYNC: Step = Step(Artefact::Object, Operation::Sync);
const OBJECT_RENAME: Step = Step(Artefact::Object, Operation::Rename);
const OBJECT_FOLDER_SYNC: Step = Step(Artefact::Object, Operation::FolderSync);
const BIG_OBJECT_WRITE: Step = Step(Artefact::BigObject, Operation::Write);
const BIG_OBJECT_SYNC: Step = Step(Artefact::BigObject, Operation::Sync);
const LINE_WRITE: Step = Step(Artefact::ObjectLine, Operation::Write);
const LINE_SYNC: Step = Step(Artefact::ObjectLine, Operation::Sync);
const LINE_FOLDER_SYNC: Step = Step(Artefact::ObjectLine, Operation::FolderSync);

/// How temporary files start; listings skip them.
const TEMPORARY_PREFIX: &str = ".writing-";
/// Folders deeper than this below a prefix mean a link that points back up.
const FOLDER_DEPTH_MAX: u32 = 64;

static TEMPORARY_COUNTER: AtomicU64 = AtomicU64::new(0);

/// A folder as an object store. The folder and its parents are created by the first write.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    root: PathBuf,
}

impl LocalFiles {
    /// The store below `root`; keys are shown with `root` as given (contract 7.7).
    pub fn new(root: impl Into<PathBuf>) -> LocalFiles {
        LocalFiles { root: root.into() }
    }

    /// The folder all keys are below.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    /// The path of something that is read: a link may lead to another place below the root, never out.
    fn path_within(&self, key: &str) -> Result<PathBuf, StoreError> {
        let path = self.path(key)?;
        match leaves(&self.root, &path) {
            true => Err(StoreError::InvalidKey {
                key: format!("{key} (a link that leads out of {})", self.root.display()),
            }),
            false => Ok(path),
        }
    }
}

fn unavailable(operation: &'static str, key: &str, error: &io::Error) -> StoreError {
    StoreError::Unavailable {
        operation,
        key: key.to_owned(),
        cause: error.to_string(),
    }
}

/// True for errors that mean no object lies under the key: absent, a folder, or below a file.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory
    )
}

impl ObjectStore for LocalFiles {
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<PutOutcome, StoreError> {
        let path = self.path(key)?;
        let put = || -> io::Result<PutOutcome> {
            if path.symlink_metadata().is_ok() {
                return Ok(PutOutcome::AlreadyExists);
            }
            Temporary::write(&path, bytes)?.publish(&path, WriteMode::Once)
        };
        put().map_err(|error| unavailable("put_if_absent", key, &error))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let put = || -> io::Result<()> {
            Temporary::write(&path, bytes)?.publish(&path, WriteMode::Replace)?;
            Ok(())
        };
        put().map_err(|error| unavailable("put", key, &error))
    }

    fn append_line(&self, key: &str, line: &[u8]) -> Result<(), StoreError> {
        assert!(!line.contains(&b'\n'), "a line is one line");
        let path = self.path(key)?;
        append(&path, line).map_err(|error| unavailable("append_line", key, &error))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path_within(key)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(unavailable("get", key, &error)),
        }
    }

    fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.path_within(key)?;
        let read = || -> io::Result<Vec<u8>> {
            let file = File::open(&path)?;
            let left = file.metadata()?.len().saturating_sub(start);
            let wanted = usize::try_from(length.min(left)).map_err(io::Error::other)?;
            let mut bytes = vec![0; wanted];
            file.read_exact_at(&mut bytes, start)?;
            Ok(bytes)
        };
        read().map_err(|error| unavailable("get_range", key, &error))
    }

    fn open_writer(&self, key: &str, mode: WriteMode) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let path = self.path(key)?;
        let create = || {
            create_folder(parent(&path))?;
            Temporary::create(parent(&path))
        };
        let created = create().map_err(|error| unavailable("open_writer", key, &error))?;
        let (temporary, file) = created;
        Ok(Box::new(FileWriter {
            key: key.to_owned(),
            target: path.clone(),
            mode,
            file,
            temporary: Temporary { path: temporary },
        }))
    }

    fn local_file(&self, key: &str) -> Option<PathBuf> {
        self.path_within(key).ok()
    }

    fn open_reader(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let file = File::open(self.path_within(key)?);
        let file = file.map_err(|error| unavailable("open_reader", key, &error))?;
        Ok(Box::new(file))
    }

    fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        match fs::metadata(self.path_within(key)?) {
            Ok(metadata) if metadata.is_file() => Ok(Some(object_meta(key.to_owned(), &metadata))),
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(unavailable("head", key, &error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let folder = prefix.trim_end_matches('/');
        if !folder.is_empty() {
            check_key(folder)?;
        }
        let mut found = Vec::new();
        let start = self.root.join(folder);
        if leaves(&self.root, &start) {
            return Err(StoreError::InvalidKey {
                key: format!(
                    "{prefix} (a link that leads out of {})",
                    self.root.display()
                ),
            });
        }
        walk(&self.root, &start, folder, 0, &mut found)
            .map_err(|error| unavailable("list", prefix, &error))?;
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn absolute(&self, key: &str) -> String {
        let root = self.root.to_string_lossy();
        format!("{}/{key}", root.trim_end_matches('/'))
    }
}

fn object_meta(key: String, metadata: &fs::Metadata) -> ObjectMeta {
    let version = format!(
        "{}.{:09}-{}",
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ino()
    );
    ObjectMeta {
        key,
        size: metadata.len(),
        version: Some(version),
    }
}

/// True when a path that exists lies outside the root once its links are followed.
fn leaves(root: &Path, path: &Path) -> bool {
    let (Ok(root), Ok(real)) = (root.canonicalize(), path.canonicalize()) else {
        return false;
    };
    !real.starts_with(root)
}

/// Collects the files below a folder. Links are followed within the root and are an error when they lead
/// out of it; entries that vanish meanwhile are skipped.
fn walk(
    root: &Path,
    folder: &Path,
    key: &str,
    depth: u32,
    found: &mut Vec<ObjectMeta>,
) -> io::Result<()> {
    if depth > FOLDER_DEPTH_MAX {
        return Err(io::Error::other("folders are nested too deeply"));
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| io::Error::other("a file name is not UTF-8"))?;
        if name.starts_with(TEMPORARY_PREFIX) {
            continue;
        }
        let child = match key.is_empty() {
            true => name.to_owned(),
            false => format!("{key}/{name}"),
        };
        if entry.file_type()?.is_symlink() && leaves(root, &entry.path()) {
            let cause = format!("{child} is a link that leads out of {}", root.display());
            return Err(io::Error::other(cause));
        }
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => {
                walk(root, &entry.path(), &child, depth + 1, found)?
            }
            Ok(metadata) => found.push(object_meta(child, &metadata)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A synced file beside its target, removed when it goes out of scope and was not renamed away.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn write(target: &Path, bytes: &[u8]) -> io::Result<Temporary> {
        create_folder(parent(target))?;
        let (path, mut file) = Temporary::create(parent(target))?;
        let temporary = Temporary { path };
        writing(OBJECT_WRITE, bytes, |bytes| file.write_all(bytes))?;
        around(OBJECT_SYNC, || file.sync_all())?;
        Ok(temporary)
    }

    /// Gives the synced file its name, and makes that durable.
    fn publish(&self, target: &Path, mode: WriteMode) -> io::Result<PutOutcome> {
        match mode {
            WriteMode::Replace => around(OBJECT_RENAME, || fs::rename(&self.path, target))?,
            // A link fails when the name is taken, so of two writers exactly one creates the object.
            WriteMode::Once => match around(OBJECT_RENAME, || fs::hard_link(&self.path, target)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return Ok(PutOutcome::AlreadyExists);
                }
                linked => linked?,
            },
        }
        around(OBJECT_FOLDER_SYNC, || sync_folder(parent(target))).map(|()| PutOutcome::Created)
    }

    /// A name nobody has. One that exists belongs to a writer that died, or to one with the same process id
    /// in another container, and is left alone.
    fn create(folder: &Path) -> io::Result<(PathBuf, File)> {
        loop {
            let number = TEMPORARY_COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A big object being written: a temporary file until it is finished.
struct FileWriter {
    key: String,
    target: PathBuf,
    mode: WriteMode,
    file: File,
    temporary: Temporary,
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        around(BIG_OBJECT_WRITE, || self.file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl ObjectWriter for FileWriter {
    fn finish(self: Box<Self>) -> Result<PutOutcome, StoreError> {
        let synced = around(BIG_OBJECT_SYNC, || self.file.sync_all());
        let published = synced.and_then(|()| self.temporary.publish(&self.target, self.mode));
        published.map_err(|error| unavailable("finish", &self.key, &error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename the name is gone; a leftover is never listed.
        let _ = fs::remove_file(&self.path);
    }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    create_folder(parent(path))?;
    let created = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let mut record = Vec::with_capacity(line.len() + 2);
    if ends_in_torn_line(&mut file)? {
        record.push(b'\n');
    }
    record.extend_from_slice(line);
    record.push(b'\n');
    // One write call, so that lines of several appenders never mix.
    writing(LINE_WRITE, &record, |record| match file.write(record)? {
        written if written == record.len() => Ok(()),
        _in_part => Err(io::Error::other("the line was only written in part")),
    })?;
    around(LINE_SYNC, || file.sync_data())?;
    match created {
        true => around(LINE_FOLDER_SYNC, || sync_folder(parent(path))),
        false => Ok(()),
    }
}

/// True when a crash cut the last line short: the next line must not be glued to it.
pub fn ends_in_torn_line(file: &mut File) -> io::Result<bool> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last[0] != b'\n')
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Creates a folder with its parents, each entry synced into its own parent.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    create_folder(parent(folder))?;
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(parent(folder)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[path = "local_files_tests.rs"]
mod tests;
