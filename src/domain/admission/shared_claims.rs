//! What a flush becomes when its keys are claimed in a table that other nodes share.
//!
//! A key that was won is published. A key that is lost turns its ADMIT row into a DUPLICATE of the
//! admission that stands, or into a quarantine; rows that were decided as copies of such a row follow it. What an earlier flush settled so is remembered for the flushes gathered behind it.

use super::claims::DigestMap;
use super::commit_report::SettledRow;
use super::decision::{Flush, IndexEntry, RowOutcome, RowRef};
use super::quarantine::PAYLOAD_HASH_MISMATCH;
use crate::ids::Hash32;
use std::collections::HashMap;

/// A flush with its claims answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimedFlush {
    /// Per row what it became, where that is not what the flush says.
    pub settled: Vec<Option<SettledRow>>,
    /// Rows to publish, ascending.
    pub publish: Vec<u32>,
}

/// Rows of earlier flushes that did not become what they were decided as.
#[derive(Clone, Debug, Default)]
pub struct Redirects {
    rows: HashMap<RowRef, SettledRow>,
}

impl Redirects {
    /// Remembers what a committed flush settled otherwise. The flush after it may still refer to the
    /// rows of the one before: two flushes are kept.
    pub fn remember(&mut self, flush: &Flush, claimed: &ClaimedFlush) {
        let oldest = flush.first_row.segment.saturating_sub(1);
        self.rows
            .retain(|at, _| at.segment >= oldest && at.segment <= flush.first_row.segment);
        for (index, settled) in claimed.settled.iter().enumerate() {
            if let Some(settled @ (SettledRow::Duplicate { .. } | SettledRow::Quarantined { .. })) =
                settled
            {
                self.rows.insert(row_at(flush, index), *settled);
            }
        }
    }

    /// Number of rows remembered.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Why a key may not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostKey {
    /// It was admitted elsewhere.
    Admitted(IndexEntry),
    /// It is refused with this code.
    Refused(&'static str),
}

/// Decides the rows of a flush; `lost` are the keys that may not be published.
pub fn settle(flush: &Flush, lost: &DigestMap<LostKey>, redirects: &Redirects) -> ClaimedFlush {
    let mut claimed = ClaimedFlush {
        settled: Vec::with_capacity(flush.rows.len()),
        publish: Vec::with_capacity(flush.rows.len()),
    };
    for (index, row) in flush.rows.iter().enumerate() {
        let settled = match row.outcome {
            RowOutcome::Admit { .. } => match lost.get(&row.dedupe_key) {
                Some(lost) => Some(of_lost(row.payload_hash, *lost)),
                None => {
                    claimed.publish.push(index as u32);
                    None
                }
            },
            RowOutcome::Duplicate { original } => redirected(flush, &claimed, redirects, original),
            RowOutcome::Quarantine { .. } => None,
        };
        claimed.settled.push(settled);
    }
    claimed
}

fn of_lost(payload_hash: Hash32, lost: LostKey) -> SettledRow {
    match lost {
        LostKey::Admitted(admitted) if admitted.payload_hash == payload_hash => {
            SettledRow::Duplicate { admitted }
        }
        LostKey::Admitted(admitted) => SettledRow::Quarantined {
            code: PAYLOAD_HASH_MISMATCH,
            admitted: Some(admitted),
        },
        LostKey::Refused(code) => SettledRow::Quarantined {
            code,
            admitted: None,
        },
    }
}

fn redirected(
    flush: &Flush,
    claimed: &ClaimedFlush,
    redirects: &Redirects,
    original: RowRef,
) -> Option<SettledRow> {
    let first = flush.first_row;
    let here = (original.shard, original.segment) == (first.shard, first.segment)
        && original.row >= first.row;
    match here {
        true => {
            let index = (original.row - first.row) as usize;
            claimed.settled.get(index).copied().flatten()
        }
        false => redirects.rows.get(&original).copied(),
    }
}

/// The reference of a flush's row.
pub fn row_at(flush: &Flush, index: usize) -> RowRef {
    RowRef {
        row: flush.first_row.row + index as u32,
        ..flush.first_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::decision::{DecisionRow, Span};
    use crate::run_paths::PlatformRunId;
    use crate::time_text::Micros;

    fn key(number: u8) -> Hash32 {
        Hash32::of(&[number])
    }

    fn flush(segment: u32, outcomes: &[(u8, RowOutcome)]) -> Flush {
        let row = |(number, outcome): &(u8, RowOutcome)| DecisionRow {
            context: 0,
            event_id: Span::default(),
            ts_utc: Span::default(),
            dedupe_key: key(*number),
            payload_hash: key(100 + *number),
            partition_key: key(200),
            outcome: *outcome,
        };
        Flush {
            run: PlatformRunId::parse("platform_20260101T000000Z").unwrap(),
            first_row: at(segment, 0),
            decided_at: Micros(0),
            contexts: Vec::new(),
            appends: Vec::new(),
            rows: outcomes.iter().map(row).collect(),
            arena: Vec::new(),
        }
    }

    fn at(segment: u32, row: u32) -> RowRef {
        RowRef {
            shard: 2,
            segment,
            row,
        }
    }

    const ADMIT: RowOutcome = RowOutcome::Admit {
        append: 0,
        offset: 0,
    };

    fn lost(payload: u8) -> LostKey {
        LostKey::Admitted(foreign(payload))
    }

    fn foreign(payload: u8) -> IndexEntry {
        IndexEntry {
            payload_hash: key(payload),
            row: RowRef {
                shard: 9,
                segment: 9,
                row: 9,
            },
        }
    }

    #[test]
    fn lost_keys_become_copies_or_mismatches_and_their_copies_follow_them() {
        let copy = |row| RowOutcome::Duplicate {
            original: at(5, row),
        };
        let flush = flush(
            5,
            &[
                (1, ADMIT),
                (2, ADMIT),
                (3, ADMIT),
                (2, copy(1)),
                (3, copy(2)),
                (1, copy(0)),
            ],
        );
        let lost = DigestMap::from_iter([(key(2), lost(102)), (key(3), lost(50))]);
        let claimed = settle(&flush, &lost, &Redirects::default());
        let duplicate = Some(SettledRow::Duplicate {
            admitted: foreign(102),
        });
        let mismatch = Some(SettledRow::Quarantined {
            code: PAYLOAD_HASH_MISMATCH,
            admitted: Some(foreign(50)),
        });
        assert_eq!(claimed.publish, [0]);
        assert_eq!(
            claimed.settled,
            [None, duplicate, mismatch, duplicate, mismatch, None]
        );
    }

    #[test]
    fn a_copy_in_the_next_flush_follows_too_and_older_rows_are_forgotten() {
        let first = flush(5, &[(2, ADMIT)]);
        let lost = DigestMap::from_iter([(key(2), lost(102))]);
        let mut redirects = Redirects::default();
        redirects.remember(&first, &settle(&first, &lost, &redirects));
        let copy = RowOutcome::Duplicate { original: at(5, 0) };
        let second = flush(6, &[(2, copy)]);
        let claimed = settle(&second, &DigestMap::default(), &redirects);
        assert!(matches!(
            claimed.settled[..],
            [Some(SettledRow::Duplicate { .. })]
        ));
        redirects.remember(&second, &claimed);
        assert_eq!(redirects.len(), 2);
        redirects.remember(&flush(8, &[]), &ClaimedFlush::default());
        assert!(redirects.is_empty());
    }
}
