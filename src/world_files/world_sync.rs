//! Copies a sealed world from one root to another, folders and buckets alike.
//!
//! What stays true: an object that is there is never written over, an equal one is left alone, a different
//! one stops the copy. Each object is hashed while it is read and again from where it was written. The
//! files by which a world is recognised come last, the seal last of all, so a copy that was interrupted is
//! never mistaken for the world; the next call goes on where it stopped. Stream views are not copied: their
//! identity holds the root, so they are sorted again at the target.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::long_digest::LongDigest;
use serde::Serialize;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{ObjectMeta, ObjectStore, PutOutcome, StoreError, WriteMode};
use wellspring_domain::world::checker::SealRule;
use wellspring_domain::world::pack::PACK_MANIFEST_FILE;
use wellspring_domain::world::seal::{SEAL_FILE, SEAL_FLAG_FILE, SealRefusal};
use wellspring_domain::world::world_key::{RUN_RECEIPT_FILE, RunReceiptError};

use super::evidence_digest::{hash_into, in_parallel_on};
use super::pack_files::{read_run_receipt, read_seal};

/// What never belongs to a copy.
const VIEWS_FOLDER: &str = "stream_view/";
/// What makes a world of files, in the order it is written after everything else.
const LAST: [&str; 4] = [
    RUN_RECEIPT_FILE,
    PACK_MANIFEST_FILE,
    SEAL_FLAG_FILE,
    SEAL_FILE,
];
const COPY_BYTES: usize = 1 << 20;

/// Why a world was not copied.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The source is no world.
    #[error(transparent)]
    NoWorld(#[from] RunReceiptError),
    /// The source must not be read.
    #[error("the source may not be read: {0}")]
    Seal(SealRefusal),
    /// Something else lies at the target.
    #[error("{key} differs: the source has {source_digest}, the target {target_digest}")]
    Differs {
        /// The object.
        key: String,
        /// SHA-256 at the source.
        source_digest: String,
        /// SHA-256 at the target.
        target_digest: String,
    },
    /// What was written is not what was read.
    #[error("{key} was written as {written} and is read back as {read_back}")]
    NotWritten {
        /// The object.
        key: String,
        /// SHA-256 of what was sent.
        written: String,
        /// SHA-256 of what lies there.
        read_back: String,
    },
    /// A root could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SyncError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            SyncError::NoWorld(error) => error.code(),
            SyncError::Seal(refusal) => refusal.code(),
            SyncError::Differs { .. } => "SYNC_TARGET_DIFFERS",
            SyncError::NotWritten { .. } => "SYNC_DIGEST_MISMATCH",
            SyncError::Store(error) => error.code(),
        }
    }
}

/// What a copy came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyncReport {
    /// Objects written now.
    pub copied: u64,
    /// Objects that were there and are equal.
    pub unchanged: u64,
    /// Bytes written now.
    pub bytes_copied: u64,
    /// Bytes of all objects.
    pub bytes_total: u64,
    /// Digest over `<key> <sha256>` lines in key order: the same for every copy of the same world.
    pub content_digest: String,
}

/// What became of one object.
struct Copied {
    digest: Hash32,
    bytes: u64,
    written: bool,
}

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct SyncOptions {
    /// Whether a world without a seal is copied.
    pub seal_rule: SealRule,
    /// Objects at once.
    pub parallel: usize,
}

/// Copies the world; `on_bytes` is told how many bytes are done.
pub fn sync_world(
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    options: SyncOptions,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<SyncReport, SyncError> {
    read_run_receipt(from)?;
    let strict = options.seal_rule == SealRule::Strict;
    if let Some(refusal) = read_seal(from)?.refusal(strict) {
        return Err(SyncError::Seal(refusal));
    }
    let mut objects = from.list("")?;
    objects.retain(|object| !object.key.starts_with(VIEWS_FOLDER));
    let (last, first): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| LAST.contains(&object.key.as_str()));
    let stop = AtomicBool::new(false);
    let copied = in_parallel_on(options.parallel, &first, |object| {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let copied = copy(from, to, object, on_bytes);
        stop.fetch_or(copied.is_err(), Ordering::Relaxed);
        Some(copied)
    });
    let mut done: Vec<(&str, Copied)> = Vec::new();
    for (object, copied) in first.iter().zip(copied) {
        // An object that was not begun stands behind one that failed, or beside it.
        if let Some(copied) = copied {
            done.push((&object.key, copied?));
        }
    }
    assert_eq!(done.len(), first.len(), "nothing failed, so all is done");
    for name in LAST {
        for object in last.iter().filter(|object| object.key == name) {
            done.push((&object.key, copy(from, to, object, on_bytes)?));
        }
    }
    Ok(report(done))
}

fn report(mut done: Vec<(&str, Copied)>) -> SyncReport {
    done.sort_unstable_by_key(|(key, _)| *key);
    let mut report = SyncReport::default();
    let mut lines = String::new();
    for (key, copied) in &done {
        lines.push_str(&format!("{key} {}\n", copied.digest));
        report.bytes_total += copied.bytes;
        match copied.written {
            true => {
                report.copied += 1;
                report.bytes_copied += copied.bytes;
            }
            false => report.unchanged += 1,
        }
    }
    report.content_digest = Hash32::of(lines.as_bytes()).to_string();
    report
}

fn copy(
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    object: &ObjectMeta,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Copied, SyncError> {
    let key = object.key.as_str();
    let (digest, written) = match to.head(key)? {
        Some(_) => (digest_of(from, key)?, false),
        None => write(from, to, key)?,
    };
    let read_back = digest_of(to, key)?;
    if read_back != digest {
        let (key, source, target) = (key.to_owned(), digest.to_string(), read_back.to_string());
        return Err(match written {
            true => SyncError::NotWritten {
                key,
                written: source,
                read_back: target,
            },
            false => SyncError::Differs {
                key,
                source_digest: source,
                target_digest: target,
            },
        });
    }
    on_bytes(object.size);
    Ok(Copied {
        digest,
        bytes: object.size,
        written,
    })
}

/// Writes an object piece by piece; false when another copier was first.
fn write(
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    key: &str,
) -> Result<(Hash32, bool), SyncError> {
    let mut reader = from.open_reader(key)?;
    let mut writer = to.open_writer(key, WriteMode::Once)?;
    let mut hasher = LongDigest::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken("read", from.absolute(key), error)),
        };
        hasher.update(&buffer[..read]);
        writer
            .write_all(&buffer[..read])
            .map_err(|error| broken("write", to.absolute(key), error))?;
    }
    let written = writer.finish()? == PutOutcome::Created;
    Ok((hasher.finish(), written))
}

/// The store's own error inside an error of a stream, else what the stream says.
fn broken(operation: &'static str, key: String, error: std::io::Error) -> SyncError {
    let store = error.get_ref().and_then(|inner| inner.downcast_ref());
    SyncError::Store(store.cloned().unwrap_or_else(|| StoreError::Unavailable {
        operation,
        key,
        cause: error.to_string(),
    }))
}

fn digest_of(store: &dyn ObjectStore, key: &str) -> Result<Hash32, StoreError> {
    let mut hasher = LongDigest::new();
    hash_into(store, key, &mut hasher)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::LocalFiles;
    use crate::world_files::test_world::TestWorld;
    use wellspring_domain::world::seal::SealStatus;

    fn options(seal_rule: SealRule) -> SyncOptions {
        SyncOptions {
            seal_rule,
            parallel: 3,
        }
    }

    fn sync(from: &LocalFiles, to: &LocalFiles) -> Result<SyncReport, SyncError> {
        sync_world(from, to, options(SealRule::Lenient), &|_| {})
    }

    fn target() -> (tempfile::TempDir, LocalFiles) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFiles::new(folder.path().join("copy"));
        (folder, store)
    }

    #[test]
    fn a_world_is_copied_once_and_then_found_equal() {
        let world = TestWorld::copy();
        world
            .store
            .put("stream_view/ts_utc/output_id=x/p", b"view")
            .unwrap();
        let (_folder, copy) = target();
        let first = sync(&world.store, &copy).unwrap();
        assert!(first.copied > 5 && first.unchanged == 0);
        let again = sync(&world.store, &copy).unwrap();
        assert_eq!((again.copied, again.unchanged), (0, first.copied));
        assert_eq!(again.content_digest, first.content_digest);
        assert_eq!(copy.list("stream_view").unwrap(), [], "views stay behind");
        let back = target();
        let returned = sync(&copy, &back.1).unwrap();
        assert_eq!(returned.content_digest, first.content_digest);
    }

    #[test]
    fn an_interrupted_copy_goes_on_and_another_object_stops_it() {
        let world = TestWorld::copy();
        let (_folder, copy) = target();
        let objects = world.store.list("data").unwrap();
        let (equal, other) = (&objects[0].key, &objects[1].key);
        copy.put(equal, &world.store.get(equal).unwrap().unwrap())
            .unwrap();
        copy.put(other, b"something else").unwrap();
        let error = sync(&world.store, &copy).unwrap_err();
        assert_eq!(error.code(), "SYNC_TARGET_DIFFERS");
        assert!(error.to_string().contains(other), "{error}");
        assert_eq!(copy.get(other).unwrap().unwrap(), b"something else");
        assert_eq!(copy.head(RUN_RECEIPT_FILE).unwrap(), None, "no world yet");
    }

    #[test]
    fn what_is_no_world_or_must_not_be_read_is_not_copied() {
        let (_folder, copy) = target();
        let (_other, empty) = target();
        let error = sync(&empty, &copy).unwrap_err();
        assert_eq!(error.code(), "RUN_RECEIPT_UNREADABLE");
        let world = TestWorld::copy();
        let strict = sync_world(&world.store, &copy, options(SealRule::Strict), &|_| {});
        assert_eq!(strict.unwrap_err().code(), "PACK_NOT_SEALED");
        world.pack(SealStatus::Failed);
        assert_eq!(
            sync(&world.store, &copy).unwrap_err().code(),
            "PACK_SEALED_FAILED"
        );
    }
}
