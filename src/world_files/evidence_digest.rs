//! What an output's bytes are: the files its path stands for and the digest over all of them
//! (contract 1.2, 3.5, 5.5).
//!
//! Outputs are hashed beside each other, each file in big reads. A digest is remembered for the life of the
//! process under the path, size and version of every file it covers, so asking again reads nothing.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::long_digest::LongDigest;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{ObjectMeta, ObjectStore, StoreError};
use wellspring_domain::scenario::proof::{Digest, EngineOutputLocator};
use wellspring_domain::world::catalogue::{CatalogueError, OutputEntry, WorldTokens};
use wellspring_domain::world::locator::{PathPattern, engine_locator, join_root};

/// Bytes asked for at a time; big enough that the read call does not count.
const READ_BYTES: usize = 1 << 20;

/// Why evidence about an output could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The output's path cannot be made from the catalogue.
    #[error(transparent)]
    Path(#[from] CatalogueError),
    /// The world's files could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EvidenceError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            EvidenceError::Path(error) => error.code(),
            EvidenceError::Store(error) => error.code(),
        }
    }
}

/// An output that exists: the reference to it and what the reference covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundOutput {
    /// The reference, with its content digest.
    pub locator: EngineOutputLocator,
    /// The files it covers, in path order, keys relative to the engine run root.
    pub files: Vec<ObjectMeta>,
}

/// Whether an output exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocatorOutcome {
    /// It does.
    Found(Box<FoundOutput>),
    /// No file matches its path.
    Missing {
        /// The path that matched nothing, prefixed by the engine root.
        path: String,
    },
}

/// The files a rendered path stands for, in path order: those its glob matches, the file itself, or all
/// files below it when it is a folder (contract 5.5).
pub fn matched_files(
    store: &dyn ObjectStore,
    rendered: &str,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let pattern = PathPattern::new(rendered);
    let Some(path) = pattern.literal() else {
        let mut files = store.list(&pattern.fixed_folder())?;
        files.retain(|file| pattern.matches(&file.key));
        return Ok(files);
    };
    match store.head(&path)? {
        Some(file) => Ok(vec![file]),
        None => store.list(&path),
    }
}

/// Digests made in this process, by what they cover.
#[derive(Debug, Default)]
pub struct EvidenceDigests {
    known: Mutex<HashMap<Vec<FileVersion>, Hash32>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileVersion {
    path: String,
    size: u64,
    version: String,
}

impl EvidenceDigests {
    /// SHA-256 over the bytes of the files, one after the other (contract 1.2).
    pub fn content_digest(
        &self,
        store: &dyn ObjectStore,
        files: &[ObjectMeta],
    ) -> Result<Hash32, StoreError> {
        let Some(versions) = versions(store, files) else {
            return hash_files(store, files);
        };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known.get(&versions) {
            return Ok(*digest);
        }
        drop(known); // hashing takes long; others may look up meanwhile
        let digest = hash_files(store, files)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(versions, digest);
        Ok(digest)
    }

    /// The locator of one output of the world in `store`; `engine_run_root` is how the root is written in
    /// references.
    pub fn locator_for(
        &self,
        store: &dyn ObjectStore,
        engine_run_root: &str,
        entry: &OutputEntry,
        tokens: &WorldTokens,
    ) -> Result<LocatorOutcome, EvidenceError> {
        let rendered = entry.render_path(tokens)?;
        let files = matched_files(store, &rendered)?;
        if files.is_empty() {
            return Ok(LocatorOutcome::Missing {
                path: join_root(engine_run_root, &rendered),
            });
        }
        let digest = self.content_digest(store, &files)?;
        let digest = Some(Digest::sha256(digest.to_string()));
        Ok(LocatorOutcome::Found(Box::new(FoundOutput {
            locator: engine_locator(engine_run_root, entry, &rendered, tokens, digest),
            files,
        })))
    }

    /// The locators of several outputs, hashed beside each other, in the order given.
    pub fn locators_for(
        &self,
        store: &dyn ObjectStore,
        engine_run_root: &str,
        entries: &[&OutputEntry],
        tokens: &WorldTokens,
    ) -> Vec<Result<LocatorOutcome, EvidenceError>> {
        in_parallel(entries, |entry| {
            self.locator_for(store, engine_run_root, entry, tokens)
        })
    }
}

/// The digest of a world that does not depend on where or under which run it lies, and in which file
/// boundaries count: over `<relative path> <sha256>` lines in path order. It goes into evidence notes
/// beside the bundle hash (contract 11, W28).
pub fn world_digest(store: &dyn ObjectStore, files: &[ObjectMeta]) -> Result<Hash32, StoreError> {
    let mut sorted: Vec<&ObjectMeta> = files.iter().collect();
    sorted.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    sorted.dedup_by(|a, b| a.key == b.key);
    let digests = in_parallel(&sorted, |file| {
        hash_files(store, std::slice::from_ref(*file))
    });
    let mut lines = String::new();
    for (file, digest) in sorted.iter().zip(digests) {
        lines.push_str(&format!("{} {}\n", file.key, digest?));
    }
    Ok(Hash32::of(lines.as_bytes()))
}

/// Runs `work` for every item on as many threads as there are processors; results keep the items' order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    in_parallel_on(processors, items, work)
}

/// The same on `threads` threads: more than processors when the work is waiting.
pub(crate) fn in_parallel_on<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            done.push((index, work(item)));
        }
        done
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads.min(items.len()))
            .map(|_| scope.spawn(take))
            .collect();
        let mut results = take();
        for worker in workers {
            match worker.join() {
                Ok(done) => results.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What identifies the files' bytes; `None` when the store has no version for one of them.
fn versions(store: &dyn ObjectStore, files: &[ObjectMeta]) -> Option<Vec<FileVersion>> {
    let version = |file: &ObjectMeta| {
        Some(FileVersion {
            path: store.absolute(&file.key),
            size: file.size,
            version: file.version.clone()?,
        })
    };
    files.iter().map(version).collect()
}

fn hash_files(store: &dyn ObjectStore, files: &[ObjectMeta]) -> Result<Hash32, StoreError> {
    let mut hasher = LongDigest::new();
    for file in files {
        hash_into(store, &file.key, &mut hasher)?;
    }
    Ok(hasher.finish())
}

/// Feeds one object's bytes to a hasher.
pub(crate) fn hash_into(
    store: &dyn ObjectStore,
    key: &str,
    hasher: &mut LongDigest,
) -> Result<(), StoreError> {
    let mut reader = store.open_reader(key)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(StoreError::Unavailable {
                    operation: "read",
                    key: key.to_owned(),
                    cause: error.to_string(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::LocalFiles;
    use serde::Deserialize;
    use serde_json::json;

    fn world() -> (tempfile::TempDir, LocalFiles) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFiles::new(folder.path());
        store.put("data/s/part-1.parquet", b"second").unwrap();
        store.put("data/s/part-0.parquet", b"first").unwrap();
        store.put("data/s/notes.txt", b"not an output").unwrap();
        store.put("data/s/deep/part-2.parquet", b"deeper").unwrap();
        (folder, store)
    }

    fn entry(template: &str) -> OutputEntry {
        OutputEntry::deserialize(&json!({"output_id": "o", "scope": "scope_seed",
            "path_template": template, "primary_key": [], "partitions": ["manifest_fingerprint"]}))
        .unwrap()
    }

    fn tokens() -> WorldTokens {
        WorldTokens {
            manifest_fingerprint: Some("a".repeat(64)),
            ..WorldTokens::default()
        }
    }

    #[test]
    fn the_digest_covers_the_matched_files_in_path_order_and_no_others() {
        let (_folder, store) = world();
        let digests = EvidenceDigests::default();
        let outcome = digests
            .locator_for(&store, "/w", &entry("data/s/part-*.parquet\n"), &tokens())
            .unwrap();
        let LocatorOutcome::Found(found) = outcome else {
            panic!("the output exists");
        };
        let expected = Hash32::of(b"firstsecond").to_string();
        assert_eq!(found.locator.content_digest.unwrap().hex, expected);
        assert_eq!(found.locator.path, "/w/data/s/part-*.parquet");
        assert_eq!(found.files.len(), 2);
    }

    #[test]
    fn a_file_stands_for_itself_and_a_folder_for_all_files_below_it() {
        let (_folder, store) = world();
        assert_eq!(matched_files(&store, "data/s/notes.txt").unwrap().len(), 1);
        assert_eq!(matched_files(&store, "data/s").unwrap().len(), 4);
        assert_eq!(matched_files(&store, "data/nothing").unwrap(), []);
    }

    #[test]
    fn an_output_without_files_is_missing_and_says_where_it_was_looked_for() {
        let (_folder, store) = world();
        let digests = EvidenceDigests::default();
        let outcomes = digests.locators_for(
            &store,
            "/w",
            &[&entry("data/x/part-*"), &entry("data/s")],
            &tokens(),
        );
        assert_eq!(
            outcomes[0],
            Ok(LocatorOutcome::Missing {
                path: "/w/data/x/part-*".to_owned()
            })
        );
        assert!(matches!(outcomes[1], Ok(LocatorOutcome::Found(_))));
        let error = digests.locator_for(&store, "/w", &entry("{seed}"), &tokens());
        assert_eq!(error.unwrap_err().code(), "TEMPLATE_TOKEN_MISSING");
    }

    #[test]
    fn a_changed_file_is_hashed_again_and_an_unchanged_one_is_not() {
        let (folder, store) = world();
        let digests = EvidenceDigests::default();
        let digest = || {
            let files = matched_files(&store, "data/s/part-0.parquet").unwrap();
            digests.content_digest(&store, &files)
        };
        let first = digest().unwrap();
        assert_eq!(digests.known.lock().unwrap().len(), 1);
        assert_eq!(digest().unwrap(), first);
        assert_eq!(digests.known.lock().unwrap().len(), 1);
        std::fs::write(folder.path().join("data/s/part-0.parquet"), b"other").unwrap();
        assert_eq!(digest().unwrap(), Hash32::of(b"other"));
    }

    #[test]
    fn the_world_digest_sees_where_a_file_ends() {
        let (_folder, store) = world();
        let digest = |store: &LocalFiles| {
            let files = matched_files(store, "data/s/part-*.parquet").unwrap();
            (
                EvidenceDigests::default()
                    .content_digest(store, &files)
                    .unwrap(),
                world_digest(store, &files).unwrap(),
            )
        };
        let before = digest(&store);
        store.put("data/s/part-0.parquet", b"firsts").unwrap();
        store.put("data/s/part-1.parquet", b"econd").unwrap();
        let after = digest(&store);
        assert_eq!(before.0, after.0, "the concatenation cannot tell");
        assert_ne!(before.1, after.1);
    }

    #[test]
    fn parallel_work_keeps_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(
            in_parallel(&items, |item| item * 2),
            (0..100).map(|i| i * 2).collect::<Vec<_>>()
        );
        assert_eq!(in_parallel(&[], |item: &u32| *item), Vec::<u32>::new());
    }
}
