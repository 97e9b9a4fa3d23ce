//! Reading request bodies: room first, then bytes, then events.

use super::answer::Refusal;
use axum::body::{Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;
use wellspring_actors::runtime::credit::{Credit, Credits};
use wellspring_domain::json_scan::Scanner;

/// A body with the room it takes.
pub struct RoomedBody {
    /// The bytes.
    pub bytes: Bytes,
    /// Room for them and, if they were counted, for their events.
    pub credit: Credit,
}

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Events it is known to have.
    pub events: usize,
    /// Most bytes.
    pub bytes_max: usize,
    /// Longest time until it is here.
    pub deadline: Duration,
}

/// Longest wait for room in front of the gate, before a request is told to come back.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Room for a request, or 429: those who wait are served in the order they came.
pub async fn take_room(credits: &Credits, events: usize, bytes: usize) -> Result<Credit, Refusal> {
    let [events_wanted, bytes_wanted] =
        [events, bytes].map(|wanted| u32::try_from(wanted).unwrap_or(u32::MAX));
    let room = credits.take_within(events_wanted, bytes_wanted, ROOM_WAIT);
    room.await.ok_or_else(|| {
        let what = match (events, bytes) {
            (0, _) => "bytes",
            (_, 0) => "events",
            _ => "events or bytes",
        };
        Refusal::new(429, "GATE_BUSY")
            .detail(format!("too many {what} in flight"))
            .retry_after_ms(1_000)
    })
}

/// Reads a body. The room is taken before the first byte is read: the declared length, else the limit (429
/// when there is none).
pub async fn read_body(
    headers: &HeaderMap,
    body: impl HttpBody<Data = Bytes> + Unpin,
    wanted: Wanted,
    credits: &Credits,
) -> Result<RoomedBody, Refusal> {
    let max = wanted.bytes_max;
    let declared = declared_length(headers)?;
    if declared.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let room = declared.unwrap_or(max).max(1);
    let credit = take_room(credits, wanted.events, room).await?;
    let reading = collect(body, declared.unwrap_or(max), declared.unwrap_or_default());
    match tokio::time::timeout(wanted.deadline, reading).await {
        Ok(Ok(bytes)) => Ok(RoomedBody { bytes, credit }),
        Ok(Err(Reading::TooLarge)) => Err(too_large(max)),
        Ok(Err(Reading::Broken)) => {
            Err(Refusal::new(400, "BODY_INCOMPLETE").detail("the body ended early"))
        }
        Err(_late) => {
            Err(Refusal::new(408, "REQUEST_TIMEOUT").detail("the body did not arrive in time"))
        }
    }
}

fn too_large(max: usize) -> Refusal {
    Refusal::new(413, "BODY_TOO_LARGE").detail(format!("at most {max} bytes are accepted"))
}

fn declared_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| {
        Refusal::new(400, "BODY_LENGTH_INVALID").detail("Content-Length is not a number")
    })
}

enum Reading {
    TooLarge,
    Broken,
}

/// Reads at most `max` bytes; `expected` of them are said to come, and there is room for them.
async fn collect(
    mut body: impl HttpBody<Data = Bytes> + Unpin,
    max: usize,
    expected: usize,
) -> Result<Bytes, Reading> {
    // Most bodies come in one piece, which is not copied.
    let (mut first, mut all) = (Bytes::new(), Vec::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| Reading::Broken)?;
        // Trailers say nothing about an event.
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if first.len().max(all.len()) + chunk.len() > max {
            return Err(Reading::TooLarge);
        }
        if first.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            all.reserve(expected);
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// Splits a batch body into the ranges of its envelopes: a JSON array, else one JSON text per line.
pub fn split_batch(bytes: &[u8]) -> Result<Vec<Range<u32>>, Refusal> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        split_array(bytes)
    } else {
        Ok(split_lines(bytes))
    }
}

fn split_lines(bytes: &[u8]) -> Vec<Range<u32>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        let line = &bytes[start..end];
        let kept = line.strip_suffix(b"\r").unwrap_or(line);
        if !kept.trim_ascii().is_empty() {
            ranges.push(start as u32..(start + kept.len()) as u32);
        }
        start = end + 1;
    }
    ranges
}

fn split_array(bytes: &[u8]) -> Result<Vec<Range<u32>>, Refusal> {
    let invalid = |cause: String| Refusal::new(400, "INVALID_JSON").detail(cause);
    let mut whole = Scanner::new(bytes);
    whole.skip_space();
    let open = whole.position() + 1;
    whole
        .value(0)
        .and_then(|_| whole.end())
        .map_err(|error| invalid(error.to_string()))?;
    let mut ranges = Vec::new();
    let mut items = Scanner::new(&bytes[open..]);
    loop {
        items.skip_space();
        if items.peek() == Some(b']') {
            return Ok(ranges);
        }
        let start = open + items.position();
        items.value(1).map_err(|error| invalid(error.to_string()))?;
        ranges.push(start as u32..(open + items.position()) as u32);
        items.skip_separator();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        let ranges = split_batch(text.as_bytes()).unwrap();
        ranges
            .into_iter()
            .map(|range| text[range.start as usize..range.end as usize].to_owned())
            .collect()
    }

    #[test]
    fn arrays_and_lines_are_split_in_order() {
        assert_eq!(parts(" [ {\"a\":1} , 2,[3]] "), ["{\"a\":1}", "2", "[3]"]);
        assert_eq!(parts("[]"), Vec::<String>::new());
        assert_eq!(
            parts("{\"a\":1}\r\n\n  \n{broken\n3"),
            ["{\"a\":1}", "{broken", "3"]
        );
        assert_eq!(parts(""), Vec::<String>::new());
    }

    #[test]
    fn a_broken_array_is_refused_as_a_whole() {
        for text in ["[1,", "[1 2]", "[1]x", "[{\"a\":}]"] {
            assert_eq!(
                split_batch(text.as_bytes()).unwrap_err().body()["error"],
                "INVALID_JSON",
                "{text}"
            );
        }
    }
}
