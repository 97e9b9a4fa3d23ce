//! The requests the store is made of, each repeated as far as that is safe.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use wellspring_domain::ports::{ObjectMeta, PutOutcome};

use super::client::{Attempts, S3Client, repeated};
use super::fault::{Fault, fault_of};

/// User metadata that tells our own write from another's after a lost answer.
pub(super) const WRITE_MARK: &str = "wellspring-write";
/// Progress after which a broken body counts as a new beginning.
const PROGRESS_BYTES: usize = 1 << 20;

/// Where an object lies.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) bucket: String,
    /// The whole key, with the root's prefix.
    pub(super) key: String,
}

/// Which bytes are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    All,
    /// From the first to the last, both included.
    Range(u64, u64),
    /// So many from the end.
    Tail(u64),
}

/// Bytes of an object and what was said about it.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    /// Size of the whole object.
    pub(super) size: u64,
    pub(super) etag: Option<String>,
}

/// A write that happens only under a condition.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Always,
    Absent,
    Matches(String),
}

/// A mark no other write has.
pub(super) fn new_mark() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Reads bytes. A body that breaks is continued where it broke, as long as the object is the same.
pub(super) async fn fetch(
    client: &S3Client,
    place: &Place,
    wanted: Wanted,
    etag: Option<String>,
) -> Result<Fetched, Fault> {
    let mut attempts = Attempts::of(&client.patience);
    let mut reading = Reading {
        bytes: Vec::new(),
        first: None,
        etag,
    };
    loop {
        let before = reading.bytes.len();
        match reading.go_on(client, place, wanted).await {
            Ok(()) => return Ok(reading.done()),
            Err(fault @ Fault::Passing(_)) => {
                if reading.bytes.len() - before >= PROGRESS_BYTES {
                    attempts = Attempts::of(&client.patience);
                }
                attempts.again(fault).await?;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// What the first answer says about the whole.
struct FirstAnswer {
    /// Where the wanted bytes begin and end (excluded).
    start: u64,
    end: u64,
    size: u64,
}

struct Reading {
    bytes: Vec<u8>,
    first: Option<FirstAnswer>,
    etag: Option<String>,
}

impl Reading {
    fn range(&self, wanted: Wanted) -> Option<String> {
        if let Some(first) = &self.first {
            let from = first.start + self.bytes.len() as u64;
            return Some(format!("bytes={from}-{}", first.end - 1));
        }
        match wanted {
            Wanted::All => None,
            Wanted::Range(from, to) => Some(format!("bytes={from}-{to}")),
            Wanted::Tail(length) => Some(format!("bytes=-{length}")),
        }
    }

    async fn go_on(
        &mut self,
        client: &S3Client,
        place: &Place,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        let request = client
            .sdk
            .get_object()
            .bucket(&place.bucket)
            .key(&place.key)
            .set_range(self.range(wanted))
            .set_if_match(self.etag.clone());
        let answer = request.send().await.map_err(|error| fault_of(&error))?;
        let first = match &self.first {
            Some(first) => first,
            None => {
                self.etag = answer.e_tag().map(str::to_owned).or(self.etag.take());
                self.first.insert(first_answer(&answer)?)
            }
        };
        let end = first.end - first.start;
        let mut body = answer.body;
        while (self.bytes.len() as u64) < end {
            let piece = tokio::time::timeout(client.patience.read_timeout, body.next()).await;
            match piece {
                Ok(Some(Ok(piece))) => self.bytes.extend_from_slice(&piece),
                Ok(Some(Err(error))) => return Err(Fault::Passing(format!("body broke: {error}"))),
                Ok(None) => return Err(Fault::Passing("body ended early".to_owned())),
                Err(_) => return Err(Fault::Passing("body stood still".to_owned())),
            }
        }
        match self.bytes.len() as u64 == end {
            true => Ok(()),
            false => Err(Fault::Refused {
                code: "S3_REQUEST_REFUSED",
                cause: "the store sent more bytes than it said".to_owned(),
            }),
        }
    }

    fn done(self) -> Fetched {
        let size = self.first.as_ref().map_or(0, |first| first.size);
        Fetched {
            bytes: self.bytes,
            size,
            etag: self.etag,
        }
    }
}

fn first_answer(answer: &GetObjectOutput) -> Result<FirstAnswer, Fault> {
    let length = answer.content_length().unwrap_or(0).unsigned_abs();
    let Some(range) = answer.content_range() else {
        return Ok(FirstAnswer {
            start: 0,
            end: length,
            size: length,
        });
    };
    let parsed = range.strip_prefix("bytes ").and_then(|range| {
        let (span, size) = range.split_once('/')?;
        let (from, to) = span.split_once('-')?;
        let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        (from <= to).then_some((from, to + 1, size.parse().ok()?))
    });
    match parsed {
        Some((start, end, size)) => Ok(FirstAnswer { start, end, size }),
        None => Err(Fault::Refused {
            code: "S3_REQUEST_REFUSED",
            cause: format!("the store answered with the range {range:?}"),
        }),
    }
}

/// Writes an object once; not repeated here.
pub(super) async fn put(
    client: &S3Client,
    place: &Place,
    bytes: &Bytes,
    condition: &Condition,
    mark: &str,
) -> Result<(), Fault> {
    let request = client
        .sdk
        .put_object()
        .bucket(&place.bucket)
        .key(&place.key)
        .metadata(WRITE_MARK, mark)
        .body(ByteStream::from(bytes.clone()));
    let request = match condition {
        Condition::Always => request,
        Condition::Absent => request.if_none_match("*"),
        Condition::Matches(etag) => request.if_match(etag),
    };
    let sent = request.send().await;
    sent.map(drop).map_err(|error| fault_of(&error))
}

/// Creates the object unless one exists.
pub(super) async fn create(
    client: &S3Client,
    place: &Place,
    bytes: &Bytes,
) -> Result<PutOutcome, Fault> {
    let mark = new_mark();
    let mut attempts = Attempts::of(&client.patience);
    let mut may_be_ours = false;
    loop {
        match put(client, place, bytes, &Condition::Absent, &mark).await {
            Ok(()) => return Ok(PutOutcome::Created),
            Err(Fault::Precondition) if may_be_ours => {
                return owner_of(client, place, &mark).await;
            }
            Err(Fault::Precondition) => return Ok(PutOutcome::AlreadyExists),
            Err(fault @ Fault::Passing(_)) => {
                may_be_ours = true;
                attempts.again(fault).await?;
            }
            Err(fault @ Fault::Conflict) => attempts.again(fault).await?,
            Err(fault) => return Err(fault),
        }
    }
}

/// An answer was lost and now an object is there: whose is it?
pub(super) async fn owner_of(
    client: &S3Client,
    place: &Place,
    mark: &str,
) -> Result<PutOutcome, Fault> {
    let found = repeated(&client.patience, || async {
        let request = client
            .sdk
            .head_object()
            .bucket(&place.bucket)
            .key(&place.key);
        request.send().await.map_err(|error| fault_of(&error))
    });
    let metadata = found.await?.metadata;
    let found = metadata.and_then(|mut metadata| metadata.remove(WRITE_MARK));
    Ok(match found.as_deref() == Some(mark) {
        true => PutOutcome::Created,
        false => PutOutcome::AlreadyExists,
    })
}

/// Creates or replaces the object.
pub(super) async fn replace(client: &S3Client, place: &Place, bytes: &Bytes) -> Result<(), Fault> {
    let mark = new_mark();
    let mut attempts = Attempts::of(&client.patience);
    loop {
        match put(client, place, bytes, &Condition::Always, &mark).await {
            Err(fault @ (Fault::Passing(_) | Fault::Conflict)) => attempts.again(fault).await?,
            done => return done,
        }
    }
}

/// What is known of an object; its key as given.
pub(super) async fn head(client: &S3Client, place: &Place) -> Result<Option<ObjectMeta>, Fault> {
    let found = repeated(&client.patience, || async {
        let request = client
            .sdk
            .head_object()
            .bucket(&place.bucket)
            .key(&place.key);
        request.send().await.map_err(|error| fault_of(&error))
    });
    match found.await {
        Ok(found) => Ok(Some(ObjectMeta {
            key: place.key.clone(),
            size: found.content_length().unwrap_or(0).unsigned_abs(),
            version: found.e_tag().map(str::to_owned),
        })),
        Err(Fault::Absent) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Objects below a prefix, in whatever order they come; at most one page when only `first` matter.
pub(super) async fn list(
    client: &S3Client,
    bucket: &str,
    prefix: &str,
    first: Option<i32>,
) -> Result<Vec<ObjectMeta>, Fault> {
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page = repeated(&client.patience, || async {
            let request = client
                .sdk
                .list_objects_v2()
                .bucket(bucket)
                .prefix(prefix)
                .set_max_keys(first)
                .set_continuation_token(token.clone());
            request.send().await.map_err(|error| fault_of(&error))
        });
        let page = page.await?;
        found.extend(page.contents().iter().filter_map(|object| {
            Some(ObjectMeta {
                key: object.key()?.to_owned(),
                size: object.size().unwrap_or(0).unsigned_abs(),
                version: object.e_tag().map(str::to_owned),
            })
        }));
        token = match page.is_truncated() {
            Some(true) if first.is_none() => page.next_continuation_token,
            _ => None,
        };
        if token.is_none() {
            return Ok(found);
        }
    }
}
