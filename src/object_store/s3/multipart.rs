//! Writes a big object in parts; a small one in a single request.
//!
//! Parts go out while the next one is filled. The object becomes visible by the last request; a writer
//! that is dropped before takes its parts back.

use std::collections::VecDeque;
use std::io::{self, Write};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use wellspring_domain::ports::{ObjectWriter, PutOutcome, StoreError, WriteMode};

use super::client::{Attempts, S3Client, repeated};
use super::fault::{Fault, fault_of};
use super::io_runtime::{Pending, begin};
use super::requests::{self, Place, WRITE_MARK};
use super::store::answer;

/// Bytes of the first parts; S3 wants at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// After so many parts they double, so that ten thousand are enough for every object S3 takes.
const PARTS_BEFORE_DOUBLING: usize = 2_000;
/// Parts under way beside the one being filled.
const AHEAD: usize = 2;

pub(super) struct S3Writer {
    client: S3Client,
    place: Place,
    mode: WriteMode,
    shown: String,
    mark: String,
    buffer: Vec<u8>,
    upload_id: Option<String>,
    parts: Vec<CompletedPart>,
    ahead: VecDeque<Pending<Result<CompletedPart, Fault>>>,
    asked: usize,
}

impl S3Writer {
    pub(super) fn new(client: S3Client, place: Place, mode: WriteMode, shown: String) -> S3Writer {
        S3Writer {
            client,
            place,
            mode,
            shown,
            mark: requests::new_mark(),
            buffer: Vec::new(),
            upload_id: None,
            parts: Vec::new(),
            ahead: VecDeque::new(),
            asked: 0,
        }
    }

    fn part_bytes(&self) -> usize {
        PART_BYTES << (self.asked / PARTS_BEFORE_DOUBLING).min(6)
    }

    fn answer<T>(&self, answered: Option<Result<T, Fault>>) -> Result<T, StoreError> {
        answer(answered, "write", || self.shown.clone())
    }

    fn upload_id(&mut self) -> Result<String, StoreError> {
        if let Some(id) = &self.upload_id {
            return Ok(id.clone());
        }
        let (client, place, mark) = (self.client.clone(), self.place.clone(), self.mark.clone());
        let asked = begin(async move { create_upload(&client, &place, &mark).await });
        let id = self.answer(asked.wait())?;
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    /// Sends what is in the buffer as the next part.
    fn send_part(&mut self) -> Result<(), StoreError> {
        let id = self.upload_id()?;
        while self.ahead.len() >= AHEAD {
            self.settle_part()?;
        }
        self.asked += 1;
        let number = i32::try_from(self.asked).unwrap_or(i32::MAX);
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let (client, place) = (self.client.clone(), self.place.clone());
        self.ahead.push_back(begin(async move {
            send_part(&client, &place, &id, number, &bytes).await
        }));
        Ok(())
    }

    fn settle_part(&mut self) -> Result<(), StoreError> {
        if let Some(pending) = self.ahead.pop_front() {
            let part = self.answer(pending.wait())?;
            self.parts.push(part);
        }
        Ok(())
    }

    fn finish_small(&mut self) -> Result<PutOutcome, StoreError> {
        let (client, place, mode) = (self.client.clone(), self.place.clone(), self.mode);
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let asked = begin(async move {
            match mode {
                WriteMode::Once => requests::create(&client, &place, &bytes).await,
                WriteMode::Replace => {
                    requests::replace(&client, &place, &bytes).await?;
                    Ok(PutOutcome::Created)
                }
            }
        });
        self.answer(asked.wait())
    }

    fn finish_parts(&mut self) -> Result<PutOutcome, StoreError> {
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        while !self.ahead.is_empty() {
            self.settle_part()?;
        }
        let completing = Completing {
            client: self.client.clone(),
            place: self.place.clone(),
            upload_id: self.upload_id()?,
            parts: self.parts.clone(),
            mode: self.mode,
            mark: self.mark.clone(),
        };
        let outcome = self.answer(begin(completing.complete()).wait())?;
        if outcome == PutOutcome::Created {
            // There is nothing to take back any more.
            self.upload_id = None;
        }
        Ok(outcome)
    }
}

impl Write for S3Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.part_bytes() - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() >= self.part_bytes() {
            self.send_part().map_err(io::Error::other)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for S3Writer {
    fn finish(mut self: Box<Self>) -> Result<PutOutcome, StoreError> {
        match self.upload_id {
            None => self.finish_small(),
            Some(_) => self.finish_parts(),
        }
    }
}

impl Drop for S3Writer {
    fn drop(&mut self) {
        let Some(upload_id) = self.upload_id.take() else {
            return;
        };
        while let Some(pending) = self.ahead.pop_front() {
            let _ = pending.wait();
        }
        let (client, place) = (self.client.clone(), self.place.clone());
        let aborted = begin(async move {
            let request = client.sdk.abort_multipart_upload();
            let request = request.bucket(&place.bucket).key(&place.key);
            request.upload_id(upload_id).send().await.is_ok()
        });
        if aborted.wait() != Some(true) {
            tracing::warn!(
                object = self.shown,
                "parts of an upload that was given up stay in the bucket until its lifecycle removes them"
            );
        }
    }
}

async fn create_upload(client: &S3Client, place: &Place, mark: &str) -> Result<String, Fault> {
    let created = repeated(&client.patience, || async {
        let request = client.sdk.create_multipart_upload();
        let request = request.bucket(&place.bucket).key(&place.key);
        let sent = request.metadata(WRITE_MARK, mark).send().await;
        sent.map_err(|error| fault_of(&error))
    });
    created.await?.upload_id.ok_or_else(|| Fault::Refused {
        code: "S3_REQUEST_REFUSED",
        cause: "the store began no upload".to_owned(),
    })
}

async fn send_part(
    client: &S3Client,
    place: &Place,
    upload_id: &str,
    number: i32,
    bytes: &Bytes,
) -> Result<CompletedPart, Fault> {
    let sent = repeated(&client.patience, || async {
        let request = client.sdk.upload_part();
        let request = request.bucket(&place.bucket).key(&place.key);
        let request = request.upload_id(upload_id).part_number(number);
        let sent = request.body(ByteStream::from(bytes.clone())).send().await;
        sent.map_err(|error| fault_of(&error))
    });
    let sent = sent.await?;
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(sent.e_tag)
        .set_checksum_crc32(sent.checksum_crc32)
        .build())
}

/// The last request of an upload.
struct Completing {
    client: S3Client,
    place: Place,
    upload_id: String,
    parts: Vec<CompletedPart>,
    mode: WriteMode,
    mark: String,
}

impl Completing {
    async fn complete(self) -> Result<PutOutcome, Fault> {
        let mut attempts = Attempts::of(&self.client.patience);
        let mut may_be_done = false;
        loop {
            match self.request().await {
                Ok(()) => return Ok(PutOutcome::Created),
                // After a lost answer the upload may be gone because it was completed.
                Err(Fault::Precondition | Fault::Absent) if may_be_done => {
                    return requests::owner_of(&self.client, &self.place, &self.mark).await;
                }
                Err(Fault::Precondition) => return Ok(PutOutcome::AlreadyExists),
                Err(fault @ Fault::Passing(_)) => {
                    may_be_done = true;
                    attempts.again(fault).await?;
                }
                Err(fault @ Fault::Conflict) => attempts.again(fault).await?,
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn request(&self) -> Result<(), Fault> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone()));
        let request = self.client.sdk.complete_multipart_upload();
        let request = request.bucket(&self.place.bucket).key(&self.place.key);
        let request = request
            .upload_id(&self.upload_id)
            .multipart_upload(parts.build());
        let request = match self.mode {
            WriteMode::Once => request.if_none_match("*"),
            WriteMode::Replace => request,
        };
        let sent = request.send().await;
        sent.map(drop).map_err(|error| fault_of(&error))
    }
}
