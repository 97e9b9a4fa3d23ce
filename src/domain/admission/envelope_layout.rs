//! Where everything in an envelope lies.

use crate::admission::envelope::Field;
use crate::json_scan::{JsonError, Member, Scanner, ValueKind};
use crate::json_tree::decode_string;
use std::ops::Range;

/// Where one field lies, and what kind of value it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) value: Range<u32>,
    pub(super) kind: ValueKind,
}

/// Where everything in an envelope lies.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) slots: [Option<Slot>; 17],
    /// The first member with a name no envelope has.
    pub(super) unknown: Option<String>,
    /// Members of the payload, relative to [`super::envelope::Envelope::payload_json`].
    pub(super) payload_members: Vec<Member>,
    /// False when no string of the text holds an escape.
    pub(super) escapes: bool,
    /// Sorted payload bytes, when the payload in `text` is not sorted itself.
    pub(super) payload_sorted: Option<Vec<u8>>,
}

impl Layout {
    /// Reads the payload and keeps its members relative to its first byte. Keys that are not strictly
    /// ascending clear the scanner's sorted flag.
    pub(super) fn scan_payload(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &[u8],
        start: u32,
    ) -> Result<(), JsonError> {
        let members = &mut self.payload_members;
        members.clear();
        members.reserve(24);
        let mut previous: Range<usize> = 0..0;
        scanner.members(1, |scanner, member| {
            let key = member.key.start as usize..member.key.end as usize;
            if !members.is_empty() {
                scanner.note_order(&text[previous.clone()], &text[key.clone()]);
            }
            previous = key;
            let shift = |range: Range<u32>| range.start - start..range.end - start;
            members.push(Member {
                key: shift(member.key),
                value: shift(member.value),
                kind: member.kind,
            });
            Ok(())
        })
    }

    /// Notes where a member lies; true when its name came before (the slow road then refuses it).
    pub(super) fn place(&mut self, text: &[u8], member: &Member) -> bool {
        match Field::from_name(member.key_of(text)) {
            Some(field) => {
                let slot = Slot {
                    value: member.value.clone(),
                    kind: member.kind,
                };
                self.slots[field as usize].replace(slot).is_some()
            }
            None => {
                // Unknown members end on the slow road only to find out whether one is repeated.
                let first = self.unknown.is_none();
                self.unknown
                    .get_or_insert_with(|| decode_string(member.key_of(text)));
                !first
            }
        }
    }
}
