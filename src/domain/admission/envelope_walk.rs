//! A walk through an envelope beside one whose members are known (see [`super::envelope_reader`]).

use crate::admission::envelope_layout::Slot;
use crate::json_scan::{Member, Scanner, ValueKind};
use std::ops::Range;

/// Members of an object that follow each other.
pub(super) struct Members {
    pub(super) places: Vec<Place>,
    /// For each member: the end of the run of members from it on that have been equal so far.
    steady_to: Vec<u16>,
    /// For each member: how far from its place the layout has it. It is the same for all of a run, because runs
    /// are only ever cut.
    shifts: Vec<Option<u32>>,
}

impl Members {
    /// Takes all for equal until one is not. A payload is never equal as a whole.
    pub(super) fn new(places: Vec<Place>, payload: Option<usize>) -> Members {
        let steady_to = vec![places.len() as u16; places.len()];
        let shifts = vec![None; places.len()];
        let mut members = Members {
            places,
            steady_to,
            shifts,
        };
        if let Some(payload) = payload {
            members.varies(payload);
        }
        members
    }

    /// Notes that a member's value is not always the same.
    pub(super) fn varies(&mut self, number: usize) {
        self.shifts[number] = None;
        if self.run_from(number).is_empty() {
            return;
        }
        let before = self.steady_to[..number].iter_mut();
        before.for_each(|end| *end = (*end).min(number as u16));
        self.steady_to[number] = number as u16;
    }

    /// The run of equal members from this one on; empty for one that varies.
    fn run_from(&self, number: usize) -> Range<usize> {
        number..usize::from(self.steady_to[number])
    }

    /// Notes that the layout has nothing in its place.
    pub(super) fn lie_nowhere(&mut self) {
        self.shifts.fill(None);
    }

    /// Notes that the members of a run lie so far from their places. True when the layout says so already.
    pub(super) fn lie_at(&mut self, run: Range<usize>, shift: u32) -> bool {
        let known = self.shifts[run.start] == Some(shift);
        if !known {
            self.shifts[run].fill(Some(shift));
        }
        known
    }
}

/// Where a member lies: its quoted key and colon from `start`, its value from `value` to `end`.
#[derive(Clone, Copy)]
pub(super) struct Place {
    start: u32,
    pub(super) value: u32,
    end: u32,
    kind: ValueKind,
}

impl Place {
    pub(super) fn key_length(&self) -> u32 {
        self.value - self.start
    }

    /// The member, moved by so many bytes.
    pub(super) fn member(&self, shift: u32) -> Member {
        let key = self.start.wrapping_add(shift) + 1;
        Member {
            // Without its quotes and the colon.
            key: key..key + self.key_length() - 3,
            value: self.slot(shift).value,
            kind: self.kind,
        }
    }

    /// The value, moved by so many bytes.
    pub(super) fn slot(&self, shift: u32) -> Slot {
        Slot {
            value: self.value.wrapping_add(shift)..self.end.wrapping_add(shift),
            kind: self.kind,
        }
    }
}

pub(super) fn place_at(value: &Range<u32>, base: u32, kind: ValueKind) -> Place {
    Place {
        start: 0,
        value: base + value.start,
        end: base + value.end,
        kind,
    }
}

/// In canonical text a member starts right behind the comma that follows the one before.
pub(super) fn set_starts<'p>(places: impl Iterator<Item = &'p mut Place>, first: u32) {
    let mut start = first;
    for place in places {
        place.start = start;
        start = place.end + 1;
    }
}

/// A walk through an envelope beside a known one.
pub(super) struct Walk<'k, 't> {
    pub(super) known: &'k [u8],
    pub(super) text: &'t [u8],
    pub(super) at: usize,
    pub(super) scanner: Scanner<'t>,
}

impl Walk<'_, '_> {
    pub(super) fn expect(&mut self, byte: u8) -> Option<()> {
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

    /// The same for as many members as are equal by experience, else for one of them: tells the member behind them and
    /// how far they are from the known ones. A member that varies is not compared.
    #[inline]
    pub(super) fn equal(&mut self, known: &Members, number: usize) -> Option<(usize, u32)> {
        let run = known.run_from(number);
        if run.is_empty() {
            return None;
        }
        let end = run.end;
        match self.run(&known.places[run]) {
            Some(shift) => Some((end, shift)),
            None if end == number + 1 => None,
            None => Some((number + 1, self.run(&known.places[number..number + 1])?)),
        }
    }

    /// Scans a member that has the known key; tells what its value is, which ends where the walk stands then.
    #[inline]
    pub(super) fn other(&mut self, place: &Place, depth: u32) -> Option<ValueKind> {
        if !self.follows(place.start, place.value) {
            return None;
        }
        self.at += place.key_length() as usize;
        self.scanner.jump(self.at);
        let kind = self.scanner.value(depth).ok()?;
        self.at = self.scanner.position();
        Some(kind)
    }

    /// Reads a payload with the known keys; its members are relative to its first byte. Gives a bit for each that may
    /// have another value, when there are enough bits.
    pub(super) fn payload(
        &mut self,
        place: &Place,
        known: &mut Members,
        members: &mut [Member],
    ) -> Option<(Slot, Option<u64>)> {
        if !self.follows(place.start, place.value) {
            return None;
        }
        self.at += place.key_length() as usize;
        let base = self.at as u32;
        self.expect(b'{')?;
        let (mut number, mut changed) = (0, 0);
        while number < known.places.len() {
            if number > 0 {
                self.expect(b',')?;
            }
            if let Some((end, shift)) = self.equal(known, number) {
                let (run, shift) = (number..end, shift.wrapping_sub(base));
                number = end;
                if !known.lie_at(run.clone(), shift) {
                    for at in run {
                        members[at] = known.places[at].member(shift);
                    }
                }
                continue;
            }
            known.varies(number);
            changed |= 1u64.checked_shl(number as u32).unwrap_or(0);
            let place = known.places[number];
            let start = self.at as u32 - base;
            let kind = self.other(&place, 2)?;
            members[number] = Member {
                value: start + place.key_length()..self.at as u32 - base,
                kind,
                ..place.member(start.wrapping_sub(place.start))
            };
            number += 1;
        }
        self.expect(b'}')?;
        let slot = Slot {
            value: base..self.at as u32,
            kind: ValueKind::Object,
        };
        let enough = known.places.len() <= u64::BITS as usize;
        Some((slot, enough.then_some(changed)))
    }
}
