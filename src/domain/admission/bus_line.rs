//! A line of the file bus read back (contract 8), and what can be recomputed from its envelope.

use super::envelope::{Envelope, Field};
use crate::ids::{Hash32, payload_hash};
use crate::json_scan::Scanner;
use crate::json_tree::decode_string;
use std::borrow::Cow;

/// A bus record: `{"partition_key","payload":<envelope>,"published_at_utc"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusLine<'a> {
    /// Partition key as text.
    pub partition_key: Cow<'a, str>,
    /// The envelope's bytes.
    pub envelope: &'a [u8],
    /// When it was published (T-off).
    pub published_at: Cow<'a, str>,
}

/// What an envelope on the bus says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeFacts {
    /// Event id.
    pub event_id: String,
    /// Event time as written.
    pub ts_utc: String,
    /// Payload hash recomputed from the bytes (V12).
    pub payload_hash: Hash32,
}

impl<'a> BusLine<'a> {
    /// Reads a line without its end; `None` when it is no bus record.
    pub fn parse(line: &'a [u8]) -> Option<BusLine<'a>> {
        BusLine::parse_plain(line).or_else(|| BusLine::parse_any(line))
    }

    /// A line another program wrote, with other spacing or order.
    fn parse_any(line: &'a [u8]) -> Option<BusLine<'a>> {
        let (mut key, mut envelope, mut published_at) = (None, None, Cow::Borrowed(""));
        let mut scanner = Scanner::new(line);
        let text = |value: &[u8]| {
            let inside = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            Some(Cow::Owned(decode_string(inside)))
        };
        scanner
            .members(0, |_, member| {
                let value = member.value_of(line);
                match member.key_of(line) {
                    b"partition_key" => key = text(value),
                    b"payload" => envelope = Some(value),
                    b"published_at_utc" => published_at = text(value).unwrap_or_default(),
                    _other => {}
                }
                Ok(())
            })
            .ok()?;
        scanner.end().ok()?;
        Some(BusLine {
            partition_key: key?,
            envelope: envelope?,
            published_at,
        })
    }

    /// The exact form of contract 8, without looking into the envelope.
    fn parse_plain(line: &'a [u8]) -> Option<BusLine<'a>> {
        const TAIL_KEY: &[u8] = b",\"published_at_utc\":\"";
        let rest = line.strip_prefix(b"{\"partition_key\":\"")?;
        let (key, rest) = rest.split_at_checked(64)?;
        Hash32::from_hex(key)?;
        let rest = rest
            .strip_prefix(b"\",\"payload\":")?
            .strip_suffix(b"\"}")?;
        // The time is 25 or 32 characters: the fraction is left out when it is zero.
        let published_at = [25, 32].into_iter().find_map(|length| {
            let start = rest.len().checked_sub(length)?;
            rest[..start].ends_with(TAIL_KEY).then(|| &rest[start..])
        })?;
        let envelope = &rest[..rest.len() - published_at.len() - TAIL_KEY.len()];
        let whole = envelope.first() == Some(&b'{') && envelope.last() == Some(&b'}');
        let text = |bytes| std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
        Some(BusLine {
            partition_key: text(key)?,
            envelope: whole.then_some(envelope)?,
            published_at: text(published_at).filter(|text| !text.contains('"'))?,
        })
    }

    /// Reads the envelope and recomputes its payload hash; `None` when it is no envelope.
    pub fn facts(&self) -> Option<EnvelopeFacts> {
        EnvelopeFacts::of(self.envelope)
    }
}

impl EnvelopeFacts {
    /// Reads an envelope and recomputes its payload hash; `None` when it is none.
    pub fn of(envelope: &[u8]) -> Option<EnvelopeFacts> {
        let envelope = Envelope::read(envelope).ok()??;
        Some(EnvelopeFacts {
            event_id: envelope.string(Field::EventId)?.into_owned(),
            ts_utc: envelope
                .string(Field::TsUtc)
                .unwrap_or_default()
                .into_owned(),
            payload_hash: payload_hash(
                envelope.json(Field::EventType).unwrap_or(b"null"),
                envelope.json(Field::SchemaVersion).unwrap_or(b"null"),
                envelope.payload_json(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "22085aa929bcd7af4b23d9d9c046a1d4fde8be51f79d91392efafef96574ab01";

    #[test]
    fn our_own_lines_and_other_spellings_read_the_same() {
        let envelope = r#"{"event_id":"e","event_type":"t","schema_version":"v1","payload":{"a":1.5,"b":"\",\"published_at_utc\":\""}}"#;
        for time in [
            "2026-01-31T06:57:31.123456+00:00",
            "2026-01-31T06:57:31+00:00",
        ] {
            let ours = format!(
                r#"{{"partition_key":"{KEY}","payload":{envelope},"published_at_utc":"{time}"}}"#
            );
            let spaced = format!(
                r#"{{ "published_at_utc": "{time}", "payload": {envelope}, "partition_key": "{KEY}"}}"#
            );
            let plain = BusLine::parse_plain(ours.as_bytes()).unwrap();
            assert_eq!(plain.envelope, envelope.as_bytes());
            assert_eq!(plain.published_at, time);
            assert_eq!(BusLine::parse(spaced.as_bytes()).unwrap(), plain);
        }
    }

    #[test]
    fn the_hash_is_that_of_the_sorted_payload() {
        let line = |payload: &str| {
            format!(
                r#"{{"partition_key":"{KEY}","payload":{{"event_id":"e","event_type":"t","payload":{payload}}},"published_at_utc":"2026-01-31T06:57:31+00:00"}}"#
            )
        };
        let facts = |text: &str| BusLine::parse(text.as_bytes()).unwrap().facts().unwrap();
        let sorted = facts(&line(r#"{"a":1,"b":2}"#));
        assert_eq!(sorted, facts(&line(r#"{"b":2,"a":1}"#)));
        assert_eq!(
            sorted.payload_hash,
            payload_hash(b"\"t\"", b"null", br#"{"a":1,"b":2}"#)
        );
        assert_ne!(
            sorted.payload_hash,
            facts(&line(r#"{"a":1.0,"b":2}"#)).payload_hash
        );
    }

    #[test]
    fn what_is_no_record_is_said_to_be_none() {
        for bad in [
            "",
            "{}",
            "null",
            "{\"partition_key\":\"x\"}",
            "{\"partition_key\":\"",
            "torn",
        ] {
            assert!(BusLine::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
