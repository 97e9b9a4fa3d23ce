//! A bucket, or a prefix in one, as an object store.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use wellspring_domain::ports::{
    ObjectMeta, ObjectStore, ObjectTail, ObjectWriter, PutOutcome, StoreError, WriteMode,
};

use super::client::{Attempts, S3Client, jittered};
use super::fault::Fault;
use super::io_runtime::begin;
use super::multipart::S3Writer;
use super::reader::S3Reader;
use super::requests::{self, Condition, Fetched, Place, Wanted};
use crate::object_store::check_key;

/// Appenders of this process to one key wait for each other instead of losing races in the store.
static APPENDERS: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];

/// Objects below `s3://bucket[/prefix]`.
#[derive(Clone)]
pub struct S3Store {
    client: S3Client,
    root: String,
    bucket: String,
    /// Empty, or ends in `/`.
    prefix: String,
}

impl S3Store {
    pub(super) fn new(client: S3Client, root: &str) -> Result<S3Store, StoreError> {
        let invalid = || StoreError::Refused {
            code: "S3_ROOT_INVALID",
            key: root.to_owned(),
            cause: "a root is s3://bucket or s3://bucket/prefix".to_owned(),
        };
        let rest = root.strip_prefix("s3://").ok_or_else(invalid)?;
        let rest = rest.trim_end_matches('/');
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if bucket.len() < 3 || bucket.len() > 255 || bucket.contains(odd) {
            return Err(invalid());
        }
        if !prefix.is_empty() {
            check_key(prefix).map_err(|_| invalid())?;
        }
        Ok(S3Store {
            client,
            root: root.to_owned(),
            bucket: bucket.to_owned(),
            prefix: match prefix {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
        })
    }

    /// Whether anything lies below the root; a bucket that is there counts as something.
    pub(super) fn exists(&self) -> Result<bool, StoreError> {
        let (client, bucket, prefix) = (
            self.client.clone(),
            self.bucket.clone(),
            self.prefix.clone(),
        );
        let asked = begin(async move { requests::list(&client, &bucket, &prefix, Some(1)).await });
        let found = answer(asked.wait(), "open", || self.root.clone())?;
        Ok(self.prefix.is_empty() || !found.is_empty())
    }

    fn place(&self, key: &str) -> Result<Place, StoreError> {
        check_key(key)?;
        Ok(Place {
            bucket: self.bucket.clone(),
            key: format!("{}{key}", self.prefix),
        })
    }

    fn fetch(&self, key: &str, wanted: Wanted) -> Result<Result<Fetched, Fault>, StoreError> {
        let (client, place) = (self.client.clone(), self.place(key)?);
        let asked =
            begin(async move { requests::fetch(&client, &place, wanted, None).await }).wait();
        asked.ok_or_else(|| lost("get", self.absolute(key)))
    }

    /// Key relative to the root; folders' own markers are no objects.
    fn relative(&self, mut object: ObjectMeta) -> Option<ObjectMeta> {
        let key = object.key.strip_prefix(&self.prefix)?;
        if key.is_empty() || key.ends_with('/') {
            return None;
        }
        object.key = key.to_owned();
        Some(object)
    }
}

/// The work ended without an answer.
fn lost(operation: &'static str, key: String) -> StoreError {
    StoreError::Unavailable {
        operation,
        key,
        cause: "the request ended without an answer".to_owned(),
    }
}

pub(super) fn answer<T>(
    answered: Option<Result<T, Fault>>,
    operation: &'static str,
    key: impl Fn() -> String,
) -> Result<T, StoreError> {
    match answered {
        Some(Ok(value)) => Ok(value),
        Some(Err(fault)) => Err(fault.into_store_error(operation, key())),
        None => Err(lost(operation, key())),
    }
}

impl ObjectStore for S3Store {
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<PutOutcome, StoreError> {
        let (client, place) = (self.client.clone(), self.place(key)?);
        let bytes = Bytes::copy_from_slice(bytes);
        let asked = begin(async move { requests::create(&client, &place, &bytes).await });
        answer(asked.wait(), "put_if_absent", || self.absolute(key))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (client, place) = (self.client.clone(), self.place(key)?);
        let bytes = Bytes::copy_from_slice(bytes);
        let asked = begin(async move { requests::replace(&client, &place, &bytes).await });
        answer(asked.wait(), "put", || self.absolute(key))
    }

    fn append_line(&self, key: &str, line: &[u8]) -> Result<(), StoreError> {
        assert!(!line.contains(&b'\n'), "a line is one line");
        let (client, place) = (self.client.clone(), self.place(key)?);
        let line = line.to_vec();
        let _turn = turn(&place);
        let asked = begin(async move { append(&client, &place, &line).await });
        answer(asked.wait(), "append_line", || self.absolute(key))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.fetch(key, Wanted::All)? {
            Ok(fetched) => Ok(Some(fetched.bytes)),
            Err(Fault::Absent) => Ok(None),
            Err(fault) => Err(fault.into_store_error("get", self.absolute(key))),
        }
    }

    fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        if length == 0 {
            check_key(key)?;
            return Ok(Vec::new());
        }
        let last = start.saturating_add(length - 1);
        match self.fetch(key, Wanted::Range(start, last))? {
            Ok(fetched) => Ok(fetched.bytes),
            Err(Fault::OutOfRange) => Ok(Vec::new()),
            Err(fault) => Err(fault.into_store_error("get_range", self.absolute(key))),
        }
    }

    fn get_tail(&self, key: &str, length: u64) -> Result<Option<ObjectTail>, StoreError> {
        match self.fetch(key, Wanted::Tail(length.max(1)))? {
            Ok(fetched) => Ok(Some(ObjectTail {
                size: fetched.size,
                bytes: fetched.bytes,
            })),
            // Nothing can be taken from the end of an empty object.
            Err(Fault::OutOfRange) => Ok(Some(ObjectTail {
                size: 0,
                bytes: Vec::new(),
            })),
            Err(Fault::Absent) => Ok(None),
            Err(fault) => Err(fault.into_store_error("get_tail", self.absolute(key))),
        }
    }

    fn open_writer(&self, key: &str, mode: WriteMode) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let writer = S3Writer::new(
            self.client.clone(),
            self.place(key)?,
            mode,
            self.absolute(key),
        );
        Ok(Box::new(writer))
    }

    fn open_reader(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let reader = S3Reader::open(self.client.clone(), self.place(key)?, self.absolute(key))?;
        Ok(Box::new(reader))
    }

    fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let (client, place) = (self.client.clone(), self.place(key)?);
        let asked = begin(async move { requests::head(&client, &place).await });
        let found = answer(asked.wait(), "head", || self.absolute(key))?;
        Ok(found.and_then(|object| self.relative(object)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let folder = prefix.trim_end_matches('/');
        let below = match folder {
            "" => self.prefix.clone(),
            folder => {
                check_key(folder)?;
                format!("{}{folder}/", self.prefix)
            }
        };
        let (client, bucket) = (self.client.clone(), self.bucket.clone());
        let asked = begin(async move { requests::list(&client, &bucket, &below, None).await });
        let found = answer(asked.wait(), "list", || self.absolute(prefix))?;
        let mut found: Vec<ObjectMeta> = found
            .into_iter()
            .filter_map(|object| self.relative(object))
            .collect();
        // Stores differ in where a `/` sorts, so their order says nothing.
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn absolute(&self, key: &str) -> String {
        format!("{}/{key}", self.root.trim_end_matches('/'))
    }
}

/// Held while this process appends to the place.
fn turn(place: &Place) -> MutexGuard<'static, ()> {
    let mut hasher = DefaultHasher::new();
    (&place.bucket, &place.key).hash(&mut hasher);
    let slot = hasher.finish() as usize % APPENDERS.len();
    APPENDERS[slot]
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Reads, adds the line, and writes back only if nothing came between (contract 3.8).
async fn append(client: &S3Client, place: &Place, line: &[u8]) -> Result<(), Fault> {
    let patience = &client.patience;
    let mut outages = Attempts::of(patience);
    // Contents that writes without an answer may have left.
    let mut maybe_written: Vec<Bytes> = Vec::new();
    let mut lost_races = 0;
    loop {
        let (mut content, condition) = read_for_append(client, place).await?;
        if maybe_written.iter().any(|ours| content.starts_with(ours)) {
            return Ok(());
        }
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        content.extend_from_slice(line);
        content.push(b'\n');
        let content = Bytes::from(content);
        match requests::put(client, place, &content, &condition, &requests::new_mark()).await {
            Ok(()) => return Ok(()),
            Err(Fault::Precondition | Fault::Conflict | Fault::Absent) => {
                lost_races += 1;
                if lost_races >= patience.append_attempts_max {
                    return Err(Fault::Refused {
                        code: "S3_APPEND_CONFLICT",
                        cause: format!("other writers were faster {lost_races} times"),
                    });
                }
                let wait = Duration::from_millis(patience.append_backoff_ms) * lost_races;
                tokio::time::sleep(jittered(wait)).await;
            }
            Err(fault @ Fault::Passing(_)) => {
                maybe_written.push(content);
                outages.again(fault).await?;
            }
            Err(fault) => return Err(fault),
        }
    }
}

async fn read_for_append(client: &S3Client, place: &Place) -> Result<(Vec<u8>, Condition), Fault> {
    match requests::fetch(client, place, Wanted::All, None).await {
        Ok(found) => {
            let etag = found.etag.ok_or_else(|| Fault::Refused {
                code: "S3_REQUEST_REFUSED",
                cause: "the store gives objects no version".to_owned(),
            })?;
            Ok((found.bytes, Condition::Matches(etag)))
        }
        Err(Fault::Absent) => Ok((Vec::new(), Condition::Absent)),
        Err(fault) => Err(fault),
    }
}
