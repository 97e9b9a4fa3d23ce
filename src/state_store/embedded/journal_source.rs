//! The decision journal as its projections read it: rows in order, or one row by its reference.

use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

/// Rows of one shard in order.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<JournalRow, StoreError>> + Send + 'a>;

/// An admitted key as the index takes it: where it was admitted, key, payload hash.
pub type AdmittedKey = (RowRef, Hash32, Hash32);

/// The decision journal of one run. It is the only truth about decisions: everything that reads it
/// through this trait can be dropped and made again.
pub trait JournalSource: Send + Sync {
    /// Admission shards that have a journal, in order.
    fn shards(&self) -> Result<Vec<u16>, StoreError>;

    /// The place behind the last row of a shard: segment and row the next decision would get.
    fn end(&self, shard: u16) -> Result<RowRef, StoreError>;

    /// Rows of `from.shard` from `from` on, across segments.
    fn rows_from(&self, from: RowRef) -> Result<Rows<'_>, StoreError>;

    /// One row, `None` when the journal does not have it.
    fn row(&self, at: RowRef) -> Result<Option<JournalRow>, StoreError>;

    /// Visits the admitted keys of `from.shard` from `from` on. Returns the last row seen, of
    /// whatever decision.
    fn visit_admitted(
        &self,
        from: RowRef,
        visit: &mut dyn FnMut(AdmittedKey) -> Result<(), StoreError>,
    ) -> Result<Option<RowRef>, StoreError> {
        let mut last = None;
        for row in self.rows_from(from)? {
            let row = row?;
            last = Some(row.row_ref);
            if let JournalOutcome::Admit { .. } = row.outcome {
                visit((row.row_ref, row.dedupe_key, row.payload_hash))?;
            }
        }
        Ok(last)
    }
}
