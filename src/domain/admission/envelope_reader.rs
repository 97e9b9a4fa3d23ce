//! Reads the envelopes of one batch, each with the help of the one before.
//!
//! Events of one stream have the same members in the same order, and most of their values repeat. So an
//! envelope is compared with the last canonical one member by member: bytes that are equal were read
//! before, only what differs is scanned. The bytes decide alone. An envelope that does not fit takes the
//! road of [`Envelope::read`], and a property test says that both roads see the same.

use crate::admission::envelope::{Envelope, FIELDS, Field, Slot};
use crate::admission::envelope_checks::CONTEXT_FIELDS;
use crate::json_scan::{JsonError, Member, Scanner, ValueKind};
use std::borrow::Cow;
use std::ops::Range;

/// Reads one envelope after the other.
#[derive(Default)]
pub struct EnvelopeReader {
    last: Option<Shape>,
    /// Memory of an envelope that was let go.
    spare: Vec<Member>,
}

/// Whether the fields that the events of a stream share are those of the envelope read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedFields {
    /// Byte for byte the same.
    Same,
    /// Not compared, or not the same.
    Unknown,
}

impl EnvelopeReader {
    /// As [`Envelope::read`].
    pub fn read<'t>(
        &mut self,
        text: &'t [u8],
    ) -> Result<Option<(Envelope<'t>, SharedFields)>, JsonError> {
        let spare = &mut self.spare;
        if let Some(read) = self.last.as_ref().and_then(|last| last.read(text, spare)) {
            if read.1 == SharedFields::Unknown {
                self.last = Shape::of(&read.0);
            }
            return Ok(Some(read));
        }
        let Some(envelope) = Envelope::read(text)? else {
            return Ok(None);
        };
        self.last = Shape::of(&envelope);
        Ok(Some((envelope, SharedFields::Unknown)))
    }

    /// Takes the memory of an envelope back that is needed no more.
    pub fn recycle(&mut self, mut members: Vec<Member>) {
        members.clear();
        self.spare = members;
    }
}

/// A canonical envelope without escapes as a pattern for the next one.
struct Shape {
    text: Vec<u8>,
    fields: Vec<(Field, Place)>,
    payload: Vec<Place>,
}

/// Where a member lies: its quoted key and colon from `start`, its value from `value` to `end`.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    value: u32,
    end: u32,
    kind: ValueKind,
}

impl Place {
    fn key_length(&self) -> u32 {
        self.value - self.start
    }
}

impl Shape {
    /// The shape of an envelope whose bytes were canonical as they came; none for others.
    fn of(envelope: &Envelope<'_>) -> Option<Shape> {
        let Cow::Borrowed(text) = envelope.text else {
            return None;
        };
        if envelope.escapes || envelope.unknown.is_some() {
            return None;
        }
        let payload_slot = envelope.slots[Field::Payload as usize].as_ref();
        let payload_slot = payload_slot.filter(|slot| slot.kind == ValueKind::Object)?;
        let place = |field: &Field| {
            let slot = envelope.slots[*field as usize].as_ref()?;
            Some((*field, place_at(&slot.value, 0, slot.kind)))
        };
        let mut fields: Vec<(Field, Place)> = FIELDS.iter().filter_map(place).collect();
        fields.sort_unstable_by_key(|(_, place)| place.value);
        let base = payload_slot.value.start;
        let members = envelope.payload_members.iter();
        let mut payload: Vec<Place> = members
            .map(|member| place_at(&member.value, base, member.kind))
            .collect();
        set_starts(fields.iter_mut().map(|(_, place)| place), 1);
        set_starts(payload.iter_mut(), base + 1);
        Some(Shape {
            text: text.to_vec(),
            fields,
            payload,
        })
    }

    /// The envelope in `text`, when it has this shape and is canonical.
    fn read<'t>(
        &self,
        text: &'t [u8],
        spare: &mut Vec<Member>,
    ) -> Option<(Envelope<'t>, SharedFields)> {
        let mut envelope = Envelope::empty(Cow::Borrowed(text));
        envelope.payload_members = std::mem::take(spare);
        let mut shared = SharedFields::Same;
        let mut walk = Walk {
            known: &self.text,
            text,
            at: 0,
            scanner: Scanner::new(text),
        };
        walk.expect(b'{')?;
        for (number, (field, place)) in self.fields.iter().enumerate() {
            if number > 0 {
                walk.expect(b',')?;
            }
            let slot = if *field == Field::Payload {
                walk.payload(place, &self.payload, &mut envelope.payload_members)?
            } else if let Some(slot) = walk.same(place) {
                slot
            } else {
                if CONTEXT_FIELDS.contains(field) {
                    shared = SharedFields::Unknown;
                }
                walk.other(place, 1)?
            };
            envelope.slots[*field as usize] = Some(slot);
        }
        walk.expect(b'}')?;
        envelope.escapes = walk.scanner.escapes;
        let canonical = walk.scanner.normal && walk.scanner.sorted;
        (canonical && walk.at == text.len()).then_some((envelope, shared))
    }
}

fn place_at(value: &Range<u32>, base: u32, kind: ValueKind) -> Place {
    Place {
        start: 0,
        value: base + value.start,
        end: base + value.end,
        kind,
    }
}

/// In canonical text a member starts right behind the comma that follows the one before.
fn set_starts<'p>(places: impl Iterator<Item = &'p mut Place>, first: u32) {
    let mut start = first;
    for place in places {
        place.start = start;
        start = place.end + 1;
    }
}

/// A walk through an envelope beside a known one.
struct Walk<'k, 't> {
    known: &'k [u8],
    text: &'t [u8],
    at: usize,
    scanner: Scanner<'t>,
}

impl Walk<'_, '_> {
    fn expect(&mut self, byte: u8) -> Option<()> {
        let found = self.text.get(self.at) == Some(&byte);
        self.at += 1;
        found.then_some(())
    }

    fn follows(&self, start: u32, end: u32) -> bool {
        self.text[self.at..].starts_with(&self.known[start as usize..end as usize])
    }

    /// Steps over a member that is byte for byte the known one.
    fn same(&mut self, place: &Place) -> Option<Slot> {
        let length = (place.end - place.start) as usize;
        // A number may go on where the known one ended.
        let ended = matches!(self.text.get(self.at + length), Some(b',' | b'}'));
        if !ended || !self.follows(place.start, place.end) {
            return None;
        }
        let value = self.at as u32 + place.key_length();
        self.at += length;
        Some(Slot {
            value: value..self.at as u32,
            kind: place.kind,
        })
    }

    /// Scans the value of a member that has the known key.
    fn other(&mut self, place: &Place, depth: u32) -> Option<Slot> {
        if !self.follows(place.start, place.value) {
            return None;
        }
        let start = self.at + place.key_length() as usize;
        self.scanner.jump(start);
        let kind = self.scanner.value(depth).ok()?;
        self.at = self.scanner.position();
        Some(Slot {
            value: start as u32..self.at as u32,
            kind,
        })
    }

    /// Reads a payload with the known keys; its members are relative to its first byte.
    fn payload(
        &mut self,
        place: &Place,
        known: &[Place],
        members: &mut Vec<Member>,
    ) -> Option<Slot> {
        if !self.follows(place.start, place.value) {
            return None;
        }
        self.at += place.key_length() as usize;
        let base = self.at as u32;
        members.reserve(known.len());
        self.expect(b'{')?;
        for (number, place) in known.iter().enumerate() {
            if number > 0 {
                self.expect(b',')?;
            }
            let key = self.at as u32 + 1 - base;
            let slot = match self.same(place) {
                Some(slot) => slot,
                None => self.other(place, 2)?,
            };
            members.push(Member {
                // Without its quotes and the colon.
                key: key..key + place.key_length() - 3,
                value: slot.value.start - base..slot.value.end - base,
                kind: slot.kind,
            });
        }
        self.expect(b'}')?;
        Some(Slot {
            value: base..self.at as u32,
            kind: ValueKind::Object,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(id: &str, event_type: &str, payload: &str) -> String {
        format!(
            r#"{{"event_id":"{id}","event_type":"{event_type}","seed":4,"payload":{payload},"producer":"p"}}"#
        )
    }

    /// Reads all texts with one reader and compares each with what it is when read alone.
    fn assert_same(texts: &[String]) -> Vec<Option<SharedFields>> {
        let mut reader = EnvelopeReader::default();
        let mut shared = Vec::new();
        for text in texts {
            let alone = Envelope::read(text.as_bytes());
            let beside = reader.read(text.as_bytes());
            shared.push(match &beside {
                Ok(Some((_, shared))) => Some(*shared),
                _ => None,
            });
            let beside = beside.map(|read| read.map(|(envelope, _)| envelope));
            assert_eq!(format!("{beside:?}"), format!("{alone:?}"), "{text}");
            if let Ok(Some(envelope)) = beside {
                reader.recycle(envelope.into_parts().1);
            }
        }
        shared
    }

    fn read_by(shape: &Shape, text: &str) -> bool {
        shape.read(text.as_bytes(), &mut Vec::new()).is_some()
    }

    #[test]
    fn the_second_of_two_alike_is_read_beside_the_first() {
        let texts = [
            text("e1", "t", r#"{"a":1,"b":{"c":2},"d":"x"}"#),
            text("e2", "t", r#"{"a":12,"b":{"c":3},"d":"x"}"#),
            text("e3", "u", r#"{"a":1,"b":null,"d":"\n"}"#),
            text("e4", "u", r#"{"a":1,"b":{"z":1,"c":3},"d":""}"#),
            text("e5", "u", r#"{"a":1.50,"b":1,"d":""}"#),
            text("e6", "u", "{}"),
            text("e7", "u", "{}"),
        ];
        let (same, unknown) = (Some(SharedFields::Same), Some(SharedFields::Unknown));
        assert_eq!(
            assert_same(&texts),
            [unknown, same, unknown, unknown, unknown, unknown, same]
        );
        let mut shape = EnvelopeReader::default();
        shape.read(texts[0].as_bytes()).unwrap();
        let shape = shape.last.unwrap();
        assert!(read_by(&shape, &texts[1]), "the short road");
        for other in [&texts[3], &texts[4], &texts[5]] {
            assert!(!read_by(&shape, other), "{other}");
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused_as_alone() {
        let good = text("e1", "t", r#"{"a":1}"#);
        for bad in [
            good[..good.len() - 1].to_owned(),
            format!("{good} x"),
            good.replace("4,", "4e999,"),
            good.replace("4,", "4x,"),
            good.replace("\"seed\"", "\"event_id\""),
            "[1]".to_owned(),
            String::new(),
        ] {
            assert_eq!(assert_same(&[good.clone(), bad])[1], None);
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        let value = prop::sample::select(vec![
            "1",
            "12",
            "-0",
            "0.5",
            "0.50",
            "1e5",
            "true",
            "null",
            "\"a\"",
            "\"\"",
            "\"a\\n\"",
            "[]",
            "[1,2]",
            "{}",
            "{\"a\":1}",
            "{\"b\":1,\"a\":2}",
            "\"\u{e9}\"",
            "tru",
            "\"",
        ]);
        let keys = prop::sample::select(vec![
            vec!["a"],
            vec!["a", "b"],
            vec!["b", "a"],
            vec!["a", "a"],
            vec![],
        ]);
        let id = prop::sample::select(vec![
            "\"e1\"",
            "\"e22\"",
            "\"e\\\"\"",
            "3",
            "null",
            "{\"b\":1,\"a\":2}",
            "{\"a\":1,\"a\":2}",
        ]);
        let kind = prop::sample::select(vec!["\"t\"", "\"u\""]);
        let rest = prop::sample::select(vec!["", ",\"producer\":\"p\"", ",\"x\":1", " "]);
        (keys, prop::collection::vec(value, 2), id, kind, rest).prop_map(
            |(keys, values, id, kind, rest)| {
                let members = keys.iter().zip(&values);
                let members: Vec<String> = members
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                let payload = members.join(",");
                format!(r#"{{"event_id":{id},"event_type":{kind},"payload":{{{payload}}}{rest}}}"#)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn any_envelopes_in_any_order_are_read_as_alone(texts in prop::collection::vec(piece(), 1..12)) {
            assert_same(&texts);
        }
    }
}
