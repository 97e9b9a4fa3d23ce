//! Reads a big object in order, in ranges, the next ones under way while one is read.
//!
//! All ranges are of the same version of the object: the first answer names it. A range that breaks is
//! continued where it broke.

use std::collections::VecDeque;
use std::io::{self, Read};

use wellspring_domain::ports::StoreError;

use super::client::S3Client;
use super::fault::Fault;
use super::io_runtime::{Pending, begin};
use super::requests::{self, Fetched, Place, Wanted};
use super::store::answer;

/// Bytes of one range.
const RANGE_BYTES: u64 = 4 << 20;
/// Ranges under way beside the one being read.
const AHEAD: usize = 2;

pub(super) struct S3Reader {
    client: S3Client,
    place: Place,
    shown: String,
    etag: Option<String>,
    size: u64,
    /// Where the next range to ask for begins.
    next: u64,
    ahead: VecDeque<Pending<Result<Fetched, Fault>>>,
    current: io::Cursor<Vec<u8>>,
}

impl S3Reader {
    /// Reads the first range, which says how big the object is and which version it is.
    pub(super) fn open(
        client: S3Client,
        place: Place,
        shown: String,
    ) -> Result<S3Reader, StoreError> {
        let mut reader = S3Reader {
            client,
            place,
            shown,
            etag: None,
            size: u64::MAX,
            next: 0,
            ahead: VecDeque::new(),
            current: io::Cursor::new(Vec::new()),
        };
        reader.ask();
        let first = reader.ahead.pop_front().and_then(Pending::wait);
        let first = match first {
            Some(Err(Fault::OutOfRange)) => None,
            answered => Some(answer(answered, "open_reader", || reader.shown.clone())?),
        };
        reader.size = first.as_ref().map_or(0, |first| first.size);
        if let Some(first) = first {
            // A store without ranges sends everything at once.
            reader.next = first.bytes.len() as u64;
            reader.etag = first.etag;
            reader.current = io::Cursor::new(first.bytes);
        }
        Ok(reader)
    }

    fn ask(&mut self) {
        let (client, place, etag) = (self.client.clone(), self.place.clone(), self.etag.clone());
        let (from, to) = (self.next, self.next + RANGE_BYTES - 1);
        self.next = to + 1;
        self.ahead.push_back(begin(async move {
            requests::fetch(&client, &place, Wanted::Range(from, to), etag).await
        }));
    }
}

impl Read for S3Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.next < self.size && self.ahead.len() < AHEAD {
                self.ask();
            }
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(pending) = self.ahead.pop_front() else {
                return Ok(0);
            };
            let fetched = answer(pending.wait(), "read", || self.shown.clone());
            self.current = io::Cursor::new(fetched.map_err(io::Error::other)?.bytes);
        }
    }
}
