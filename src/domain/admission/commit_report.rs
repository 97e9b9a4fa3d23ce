//! What a commit made of a flush, where it is not what the flush asked for.
//!
//! An embedded log writes a flush as it is. A log whose claims are shared with other nodes learns only
//! while committing where a record was placed, or that the event was admitted elsewhere before.

use super::bus_offset::BusOffset;
use super::decision::{IndexEntry, RowRef};

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettledRow {
    /// Published at this place of its topic.
    Published {
        /// Partition of the topic.
        partition: u32,
        /// Place in that partition.
        offset: BusOffset,
    },
    /// The same event was admitted before: the row is a DUPLICATE of it.
    Duplicate {
        /// The admission that stands.
        admitted: IndexEntry,
    },
    /// The event cannot be published: the row is quarantined.
    Quarantined {
        /// Contract reason code.
        code: &'static str,
        /// The admission that stands under the same key, if there is one.
        admitted: Option<IndexEntry>,
    },
}

/// Rows that were settled by the commit itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    first_row: RowRef,
    rows: Vec<Option<SettledRow>>,
}

impl CommitReport {
    /// Every row is what the flush says.
    pub fn as_asked() -> CommitReport {
        CommitReport::default()
    }

    /// `rows[i]` is what became of row `first_row.row + i`; `None`: what the flush says.
    pub fn settled(first_row: RowRef, rows: Vec<Option<SettledRow>>) -> CommitReport {
        CommitReport { first_row, rows }
    }

    /// What became of a row, when it is not what the flush says.
    pub fn row(&self, at: RowRef) -> Option<SettledRow> {
        if self.rows.is_empty()
            || (at.shard, at.segment) != (self.first_row.shard, self.first_row.segment)
        {
            return None;
        }
        let index = at.row.checked_sub(self.first_row.row)?;
        self.rows.get(index as usize).copied().flatten()
    }

    /// True when every row is what the flush says.
    pub fn is_as_asked(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u32, row: u32) -> RowRef {
        RowRef {
            shard: 1,
            segment,
            row,
        }
    }

    #[test]
    fn a_row_is_found_by_its_reference_and_only_in_its_own_segment() {
        let placed = SettledRow::Published {
            partition: 3,
            offset: BusOffset::Line(9),
        };
        let report = CommitReport::settled(at(2, 5), vec![None, Some(placed)]);
        assert_eq!(report.row(at(2, 6)), Some(placed));
        for other in [at(2, 5), at(2, 4), at(2, 7), at(3, 6)] {
            assert_eq!(report.row(other), None);
        }
        assert!(CommitReport::as_asked().is_as_asked());
    }
}
