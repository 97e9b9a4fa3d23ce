//! Who owns what: partition by partition key, admission shard by topic and partition, index shard by
//! dedupe key. Order lives in the partition key, uniqueness in the dedupe key.

use crate::admission::envelope::Envelope;
use crate::admission::policy::KeySource;
use crate::ids::Hash32;
use crate::json_scan::{Member, ValueKind};
use crate::json_tree::decode_string;
use std::borrow::Cow;

/// The partition of a key in a topic with `partitions` partitions (at least one).
pub fn partition_of(partition_key: &Hash32, partitions: u32) -> u32 {
    (partition_key.leading_u64() % u64::from(partitions.max(1))) as u32
}

/// The admission shard that is the only writer of a topic partition. `topic_index` is the topic's
/// position among all topics of the policy; neighbours land on different shards.
pub fn admission_shard_of(topic_index: u16, partition: u32, shards: u16) -> u16 {
    ((u32::from(topic_index) / 2 + u32::from(topic_index) + partition) % u32::from(shards.max(1)))
        as u16
}

/// The index shard that owns a dedupe key.
pub fn index_shard_of(dedupe_key: &Hash32, shards: u16) -> u16 {
    u16::from(dedupe_key.0[31]) % shards.max(1)
}

/// The text of the first value that is neither null nor empty along `precedence`: its SHA-256 is the
/// partition key (contract 7.5, V14).
pub fn partition_key_text<'a>(
    envelope: &'a Envelope<'_>,
    precedence: &[KeySource],
) -> Option<Cow<'a, [u8]>> {
    precedence.iter().find_map(|source| match source {
        KeySource::Payload(path) => {
            let text = envelope.payload_json();
            payload_value(text, envelope.payload_members(), path)
        }
        KeySource::Envelope(field) => text_of(envelope.json(*field)?, envelope.kind(*field)?),
    })
}

fn payload_value<'a>(text: &'a [u8], members: &[Member], path: &[String]) -> Option<Cow<'a, [u8]>> {
    let (first, rest) = path.split_first()?;
    let member = members
        .iter()
        .find(|member| member.key_of(text) == first.as_bytes())?;
    let value = member.value_of(text);
    match rest {
        [] => text_of(value, member.kind),
        _ if member.kind == ValueKind::Object => payload_value(
            value,
            &crate::admission::payload_schema::scan_members(value),
            rest,
        ),
        _ => None,
    }
}

/// A scalar in the contract's text form (contract 0.1, last row).
fn text_of(json: &[u8], kind: ValueKind) -> Option<Cow<'_, [u8]>> {
    match kind {
        ValueKind::Null | ValueKind::Object | ValueKind::Array => None,
        ValueKind::Bool if json == b"true" => Some(Cow::Borrowed(b"True")),
        ValueKind::Bool => Some(Cow::Borrowed(b"False")),
        ValueKind::Integer | ValueKind::Float => Some(Cow::Borrowed(json)),
        ValueKind::String => {
            let raw = &json[1..json.len() - 1];
            match raw {
                [] => None,
                _ if raw.contains(&b'\\') => Some(Cow::Owned(decode_string(raw).into_bytes())),
                _ => Some(Cow::Borrowed(raw)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::envelope::Field;

    fn key(payload: &str, precedence: &[KeySource]) -> Option<Hash32> {
        let text = format!(r#"{{"event_id":"e1","seed":7,"payload":{payload}}}"#);
        let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
        partition_key_text(&envelope, precedence).map(|text| Hash32::of(&text))
    }

    fn payload(path: &str) -> KeySource {
        KeySource::Payload(path.split('.').map(str::to_owned).collect())
    }

    #[test]
    fn the_first_value_that_is_there_decides() {
        let order = [
            payload("flow_id"),
            payload("merchant_id"),
            KeySource::Envelope(Field::EventId),
        ];
        assert_eq!(key(r#"{"flow_id":12}"#, &order), Some(Hash32::of(b"12")));
        assert_eq!(
            key(
                r#"{"flow_id":null,"merchant_id":18446744073709551615}"#,
                &order
            ),
            Some(Hash32::of(b"18446744073709551615"))
        );
        assert_eq!(
            key(r#"{"flow_id":"","merchant_id":[1]}"#, &order),
            Some(Hash32::of(b"e1"))
        );
        assert_eq!(
            key(r#"{"flow_id":true}"#, &order),
            Some(Hash32::of(b"True"))
        );
        assert_eq!(
            key(r#"{"flow_id":"\u00e9"}"#, &order),
            Some(Hash32::of("é".as_bytes()))
        );
        assert_eq!(key("{}", &[payload("flow_id")]), None);
    }

    #[test]
    fn paths_walk_objects_only() {
        let order = [payload("ref.id")];
        assert_eq!(key(r#"{"ref":{"id":"x"}}"#, &order), Some(Hash32::of(b"x")));
        assert_eq!(key(r#"{"ref":[{"id":"x"}]}"#, &order), None);
    }

    #[test]
    fn partitions_follow_the_leading_bytes() {
        let key = Hash32::of(b"1234567890123456789");
        assert_eq!(partition_of(&key, 1), 0);
        assert_eq!(partition_of(&key, 4), (0x22085aa929bcd7afu64 % 4) as u32);
        assert!((0..32).all(|topic| admission_shard_of(topic, 3, 4) < 4));
    }
}
