//! Reads the envelopes of one batch, each with the help of the one before.
//!
//! Events of one stream have the same members in the same order, and most of their values repeat. So an
//! envelope is compared with the last canonical one: bytes that are equal were read before, only what
//! differs is scanned. Neighbours that were equal before are compared at once, and where they lie is noted only when
//! it is somewhere else than before. The bytes decide alone. An envelope that does not fit takes the
//! road of [`Envelope::read`], and a property test says that both roads see the same.

use crate::admission::envelope::{Envelope, FIELDS, Field};
use crate::admission::envelope_checks::CONTEXT_FIELDS;
use crate::admission::envelope_layout::{Layout, Slot};
use crate::admission::envelope_walk::{Members, Place, Walk, place_at, set_starts};
use crate::json_scan::{JsonError, Scanner, ValueKind};
use std::borrow::Cow;

/// An envelope, and how it compares with the one the reader compared it with.
pub struct Reading<'t> {
    /// The envelope.
    pub envelope: Envelope<'t>,
    /// What it has in common with the other.
    pub compared: Compared,
}

/// How an envelope compares with the one the reader keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It has the same members, and the fields that the events of a stream share are byte for byte the same.
    Alike {
        /// Whether any other field but event id, time and payload may have another value.
        own_fields: bool,
        /// The payload members that may have another value, a bit for each from the first on; none for too many members.
        payload: Option<u64>,
    },
    /// Not compared, or not alike: it is the one the next ones are compared with, if any.
    Unknown,
}

/// Reads one envelope after the other.
#[derive(Default)]
pub struct EnvelopeReader {
    last: Option<Shape>,
}

impl EnvelopeReader {
    /// As [`Envelope::read`].
    pub fn read<'t>(&'t mut self, text: &'t [u8]) -> Result<Option<Reading<'t>>, JsonError> {
        if let Some(compared) = self.last.as_mut().and_then(|last| last.read(text)) {
            let last = self.last.as_ref().expect("the envelope was read beside it");
            let envelope = Envelope {
                text: Cow::Borrowed(text),
                layout: Cow::Borrowed(&last.layout),
            };
            return Ok(Some(Reading { envelope, compared }));
        }
        let Some(envelope) = Envelope::read(text)? else {
            return Ok(None);
        };
        self.last = Shape::of(&envelope);
        let compared = Compared::Unknown;
        Ok(Some(Reading { envelope, compared }))
    }
}

/// A canonical envelope without escapes as a pattern for the next one.
struct Shape {
    text: Vec<u8>,
    names: Vec<Field>,
    fields: Members,
    payload: Members,
    /// Where everything lies in the envelope read last.
    layout: Box<Layout>,
    /// False when reading into the layout was given up.
    laid_out: bool,
}

impl Shape {
    /// The shape of an envelope whose bytes were canonical as they came; none for others.
    fn of(envelope: &Envelope<'_>) -> Option<Shape> {
        let Cow::Borrowed(text) = envelope.text else {
            return None;
        };
        let layout = &envelope.layout;
        if layout.escapes || layout.unknown.is_some() {
            return None;
        }
        let payload_slot = layout.slots[Field::Payload as usize].as_ref();
        let payload_slot = payload_slot.filter(|slot| slot.kind == ValueKind::Object)?;
        let place = |field: &Field| {
            let slot = layout.slots[*field as usize].as_ref()?;
            Some((*field, place_at(&slot.value, 0, slot.kind)))
        };
        let mut fields: Vec<(Field, Place)> = FIELDS.iter().filter_map(place).collect();
        fields.sort_unstable_by_key(|(_, place)| place.value);
        if fields.len().max(layout.payload_members.len()) > usize::from(u16::MAX) {
            return None;
        }
        let base = payload_slot.value.start;
        let members = layout.payload_members.iter();
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
            layout: Box::new(Layout::clone(layout)),
            laid_out: false,
        })
    }

    /// Reads the envelope in `text` into the layout, when it is canonical and alike.
    fn read(&mut self, text: &[u8]) -> Option<Compared> {
        if !std::mem::replace(&mut self.laid_out, false) {
            self.fields.lie_nowhere();
            self.payload.lie_nowhere();
        }
        let layout = &mut *self.layout;
        let mut walk = Walk {
            known: &self.text,
            text,
            at: 0,
            scanner: Scanner::new(text),
        };
        let (mut own_fields, mut payload) = (false, None);
        walk.expect(b'{')?;
        let mut number = 0;
        while number < self.names.len() {
            if number > 0 {
                walk.expect(b',')?;
            }
            let field = self.names[number];
            let place = self.fields.places[number];
            if field == Field::Payload {
                let (slot, changed) =
                    walk.payload(&place, &mut self.payload, &mut layout.payload_members)?;
                layout.slots[field as usize] = Some(slot);
                payload = changed;
                number += 1;
            } else if let Some((end, shift)) = walk.equal(&self.fields, number) {
                let run = number..end;
                number = end;
                if !self.fields.lie_at(run.clone(), shift) {
                    for at in run {
                        let slot = self.fields.places[at].slot(shift);
                        layout.slots[self.names[at] as usize] = Some(slot);
                    }
                }
            } else {
                if CONTEXT_FIELDS.contains(&field) {
                    return None;
                }
                own_fields |= !matches!(field, Field::EventId | Field::TsUtc);
                self.fields.varies(number);
                let value = walk.at as u32 + place.key_length();
                let kind = walk.other(&place, 1)?;
                let value = value..walk.at as u32;
                layout.slots[field as usize] = Some(Slot { value, kind });
                number += 1;
            }
        }
        walk.expect(b'}')?;
        layout.escapes = walk.scanner.escapes;
        let canonical = walk.scanner.normal && walk.scanner.sorted;
        self.laid_out = canonical && walk.at == text.len();
        self.laid_out.then_some(Compared::Alike {
            own_fields,
            payload,
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
    fn assert_same(texts: &[String]) -> Vec<Option<Compared>> {
        let mut reader = EnvelopeReader::default();
        let mut compared = Vec::new();
        for text in texts {
            let alone = Envelope::read(text.as_bytes());
            let beside = reader.read(text.as_bytes());
            compared.push(match &beside {
                Ok(Some(read)) => Some(read.compared),
                _ => None,
            });
            let beside = beside.map(|read| read.map(|read| read.envelope));
            assert_eq!(format!("{beside:?}"), format!("{alone:?}"), "{text}");
        }
        compared
    }

    fn read_by(shape: &mut Shape, text: &str) -> bool {
        shape.read(text.as_bytes()).is_some()
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
        let alike = |payload| {
            let (own_fields, payload) = (false, Some(payload));
            Some(Compared::Alike {
                own_fields,
                payload,
            })
        };
        let unknown = Some(Compared::Unknown);
        assert_eq!(
            assert_same(&texts),
            [
                unknown,
                alike(0b11),
                unknown,
                unknown,
                unknown,
                unknown,
                alike(0)
            ]
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
