//! Reads the envelopes of one batch, each with the help of the one before.
//!
//! Events of one stream have the same members in the same order, and most of their values repeat. So an
//! envelope is compared with the last canonical one: bytes that are equal were read before, only what
//! differs is scanned. Neighbours that were equal before are compared at once. The bytes decide alone. An envelope that does not fit takes the
//! road of [`Envelope::read`], and a property test says that both roads see the same.

use crate::admission::envelope::{Envelope, FIELDS, Field, Slot};
use crate::admission::envelope_checks::CONTEXT_FIELDS;
use crate::json_scan::{JsonError, Member, Scanner, ValueKind};
use std::borrow::Cow;
use std::ops::Range;

/// An envelope, and how it compares with the one the reader compared it with.
pub struct Reading<'t> {
    /// The envelope.
    pub envelope: Envelope<'t>,
    /// Its shared fields.
    pub shared: SharedFields,
    /// Its payload.
    pub payload: PayloadChange,
}

/// What of a payload is not that of the envelope it was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadChange {
    /// It has the same members; those with another value, a bit for each from the first on.
    Values(u64),
    /// Not compared: the envelope is the one the next ones are compared with, if any.
    Unknown,
}

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
    pub fn read<'t>(&mut self, text: &'t [u8]) -> Result<Option<Reading<'t>>, JsonError> {
        let spare = &mut self.spare;
        let beside = self.last.as_mut().and_then(|last| last.read(text, spare));
        let envelope = match beside {
            Some(read) if read.shared == SharedFields::Same => return Ok(Some(read)),
            Some(read) => read.envelope,
            None => match Envelope::read(text)? {
                Some(envelope) => envelope,
                None => return Ok(None),
            },
        };
        self.last = Shape::of(&envelope);
        Ok(Some(Reading {
            envelope,
            shared: SharedFields::Unknown,
            payload: PayloadChange::Unknown,
        }))
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
    names: Vec<Field>,
    fields: Members,
    payload: Members,
}

/// Members of an object that follow each other.
struct Members {
    places: Vec<Place>,
    /// For each member: the end of the run of members from it on that have been equal so far.
    steady_to: Vec<u16>,
}

impl Members {
    /// Takes all for equal until one is not. A payload is never equal as a whole.
    fn new(places: Vec<Place>, payload: Option<usize>) -> Members {
        let steady_to = vec![places.len() as u16; places.len()];
        let mut members = Members { places, steady_to };
        if let Some(payload) = payload {
            members.varies(payload);
        }
        members
    }

    /// Notes that a member's value is not always the same.
    fn varies(&mut self, number: usize) {
        let before = self.steady_to[..number].iter_mut();
        before.for_each(|end| *end = (*end).min(number as u16));
        self.steady_to[number] = number as u16;
    }
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

    /// The member, moved by so many bytes, as seen from `base`.
    fn member(&self, shift: u32, base: u32) -> Member {
        let value = self.slot(shift).value;
        let key = self.start.wrapping_add(shift) + 1 - base;
        Member {
            // Without its quotes and the colon.
            key: key..key + self.key_length() - 3,
            value: value.start - base..value.end - base,
            kind: self.kind,
        }
    }

    /// The value, moved by so many bytes.
    fn slot(&self, shift: u32) -> Slot {
        Slot {
            value: self.value.wrapping_add(shift)..self.end.wrapping_add(shift),
            kind: self.kind,
        }
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
        if fields.len().max(envelope.payload_members.len()) > usize::from(u16::MAX) {
            return None;
        }
        let base = payload_slot.value.start;
        let members = envelope.payload_members.iter();
        let mut payload: Vec<Place> = members
            .map(|member| place_at(&member.value, base, member.kind))
            .collect();
        set_starts(fields.iter_mut().map(|(_, place)| place), 1);
        set_starts(payload.iter_mut(), base + 1);
        let (names, places): (Vec<Field>, Vec<Place>) = fields.into_iter().unzip();
        let payload_at = names.iter().position(|name| *name == Field::Payload);
        Some(Shape {
            text: text.to_vec(),
            names,
            fields: Members::new(places, payload_at),
            payload: Members::new(payload, None),
        })
    }

    /// The envelope in `text`, when it has this shape and is canonical.
    fn read<'t>(&mut self, text: &'t [u8], spare: &mut Vec<Member>) -> Option<Reading<'t>> {
        let mut envelope = Envelope::empty(Cow::Borrowed(text));
        envelope.payload_members = std::mem::take(spare);
        let mut shared = SharedFields::Same;
        let mut payload = PayloadChange::Unknown;
        let mut walk = Walk {
            known: &self.text,
            text,
            at: 0,
            scanner: Scanner::new(text),
        };
        walk.expect(b'{')?;
        let mut number = 0;
        while number < self.names.len() {
            if number > 0 {
                walk.expect(b',')?;
            }
            let end = usize::from(self.fields.steady_to[number]);
            if let Some(shift) = walk.run(&self.fields.places[number..end]) {
                for (field, place) in self.names[number..end]
                    .iter()
                    .zip(&self.fields.places[number..end])
                {
                    envelope.slots[*field as usize] = Some(place.slot(shift));
                }
                number = end;
                continue;
            }
            let (field, place) = (self.names[number], self.fields.places[number]);
            let slot = if field == Field::Payload {
                let members = &mut envelope.payload_members;
                let (slot, change) = walk.payload(&place, &mut self.payload, members)?;
                payload = change;
                slot
            } else if let Some(slot) = walk.same(&place) {
                slot
            } else {
                if CONTEXT_FIELDS.contains(&field) {
                    shared = SharedFields::Unknown;
                }
                self.fields.varies(number);
                walk.other(&place, 1)?
            };
            envelope.slots[field as usize] = Some(slot);
            number += 1;
        }
        walk.expect(b'}')?;
        envelope.escapes = walk.scanner.escapes;
        let canonical = walk.scanner.normal && walk.scanner.sorted;
        (canonical && walk.at == text.len()).then_some(Reading {
            envelope,
            shared,
            payload,
        })
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

    /// Steps over members that are byte for byte the known ones; tells how far they are from these.
    fn run(&mut self, places: &[Place]) -> Option<u32> {
        let (first, last) = (places.first()?, places.last()?);
        let length = (last.end - first.start) as usize;
        // A number may go on where the known one ended.
        let ended = matches!(self.text.get(self.at + length), Some(b',' | b'}'));
        if !ended || !self.follows(first.start, last.end) {
            return None;
        }
        let shift = (self.at as u32).wrapping_sub(first.start);
        self.at += length;
        Some(shift)
    }

    /// The same for one member.
    fn same(&mut self, place: &Place) -> Option<Slot> {
        let shift = self.run(std::slice::from_ref(place))?;
        Some(place.slot(shift))
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
        known: &mut Members,
        members: &mut Vec<Member>,
    ) -> Option<(Slot, PayloadChange)> {
        if !self.follows(place.start, place.value) {
            return None;
        }
        self.at += place.key_length() as usize;
        let base = self.at as u32;
        members.reserve(known.places.len());
        self.expect(b'{')?;
        let (mut number, mut changed) = (0, 0);
        while number < known.places.len() {
            if number > 0 {
                self.expect(b',')?;
            }
            let end = usize::from(known.steady_to[number]);
            if let Some(shift) = self.run(&known.places[number..end]) {
                let run = known.places[number..end].iter();
                members.extend(run.map(|place| place.member(shift, base)));
                number = end;
                continue;
            }
            let place = known.places[number];
            let start = self.at as u32;
            let mut member = place.member(start.wrapping_sub(place.start), base);
            if self.same(&place).is_none() {
                known.varies(number);
                changed |= 1u64.checked_shl(number as u32).unwrap_or(0);
                let slot = self.other(&place, 2)?;
                member.value = slot.value.start - base..slot.value.end - base;
                member.kind = slot.kind;
            }
            members.push(member);
            number += 1;
        }
        self.expect(b'}')?;
        let slot = Slot {
            value: base..self.at as u32,
            kind: ValueKind::Object,
        };
        let change = match known.places.len() as u32 <= u64::BITS {
            true => PayloadChange::Values(changed),
            false => PayloadChange::Unknown,
        };
        Some((slot, change))
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
                Ok(Some(read)) => Some(read.shared),
                _ => None,
            });
            let beside = beside.map(|read| read.map(|read| read.envelope));
            assert_eq!(format!("{beside:?}"), format!("{alone:?}"), "{text}");
            if let Ok(Some(envelope)) = beside {
                reader.recycle(envelope.into_parts().1);
            }
        }
        shared
    }

    fn read_by(shape: &mut Shape, text: &str) -> bool {
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
        let mut shape = shape.last.unwrap();
        assert!(read_by(&mut shape, &texts[1]), "the short road");
        for other in [&texts[3], &texts[4], &texts[5]] {
            assert!(!read_by(&mut shape, other), "{other}");
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
