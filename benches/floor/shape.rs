//! Floor of reading an envelope: its bytes walked once along the one shape the output has.
//!
//! Constants are compared as they stand; only what changes from event to event is looked at. Bytes of any other
//! shape are `None`: a program would then take a general road. What is accepted here is valid and canonical.

use super::framing::{Template, is_time};
use std::ops::Range;
use wellspring_domain::canonical_json::is_plain;

/// Where the parts of an envelope lie that hashing and routing need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub event_id: Range<usize>,
    pub time: Range<usize>,
    pub payload: Range<usize>,
    pub flow_id: Range<usize>,
}

impl Template {
    /// Reads an envelope of this output.
    pub fn read(&self, bytes: &[u8]) -> Option<Found> {
        let mut walk = Walk { bytes, at: 0 };
        walk.constant(b"{\"event_id\":\"")?;
        let event_id = walk.take(64)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        all(&bytes[event_id.clone()], hex)?;
        walk.constant(&self.before_time)?;
        let time = walk.take(27)?;
        is_time(&bytes[time.clone()]).then_some(())?;
        walk.constant(&self.before_amount)?;
        let start = walk.at - b"{\"amount\":".len();
        walk.decimal()?;
        walk.constant(b",\"campaign_id\":")?;
        if walk.constant(b"null").is_none() {
            walk.text()?;
        }
        walk.constant(b",\"event_seq\":")?;
        walk.integer()?;
        walk.constant(b",\"event_type\":")?;
        walk.text()?;
        walk.constant(b",\"flow_id\":")?;
        let flow_id = walk.integer()?;
        let flag = walk.constant(b",\"fraud_flag\":true");
        flag.or_else(|| walk.constant(b",\"fraud_flag\":false"))?;
        walk.constant(&self.pins_before_payload_time)?;
        let inner = walk.take(27)?;
        is_time(&bytes[inner]).then_some(())?;
        walk.constant(b"\"}")?;
        let payload = start..walk.at;
        walk.constant(&self.tail)?;
        (walk.at == bytes.len()).then_some(Found {
            event_id,
            time,
            payload,
            flow_id,
        })
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn constant(&mut self, text: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(text).then_some(())?;
        self.at += text.len();
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let range = self.at..self.at + length;
        self.bytes.get(range.clone())?;
        self.at = range.end;
        Some(range)
    }

    /// Decimal digits without a leading zero, with a minus before them or not.
    fn integer(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.at += usize::from(self.bytes.get(start) == Some(&b'-'));
        let digits = &self.bytes[self.at..];
        let length = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let canonical = length == 1 || (length > 1 && digits[0] != b'0');
        self.at += length;
        canonical.then_some(start..self.at)
    }

    /// Digits, a point, digits: at most 15, and no zero at the end but the only one.
    fn decimal(&mut self) -> Option<()> {
        let whole = self.integer()?;
        self.constant(b".")?;
        let digits = &self.bytes[self.at..];
        let length = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.at += length;
        let short = length == 1 || (length > 1 && digits[length - 1] != b'0');
        (short && whole.len() + length <= 15).then_some(())
    }

    /// A string; text with an escape is walked with it.
    fn text(&mut self) -> Option<()> {
        self.constant(b"\"")?;
        let rest = &self.bytes[self.at..];
        let plain = rest.iter().position(|byte| !is_plain(*byte))?;
        if rest[plain] == b'"' {
            self.at += plain + 1;
            return Some(());
        }
        let text: Option<Result<String, _>> =
            serde_json::Deserializer::from_slice(&self.bytes[self.at - 1..])
                .into_iter()
                .next();
        let mut canonical = Vec::new();
        wellspring_domain::canonical_json::push_string(&mut canonical, &text?.ok()?);
        self.at -= 1;
        self.constant(&canonical)
    }
}

fn all(bytes: &[u8], holds: impl Fn(u8) -> bool) -> Option<()> {
    let all = bytes.iter().fold(true, |all, byte| all & holds(*byte));
    all.then_some(())
}
