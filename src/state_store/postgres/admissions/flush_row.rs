//! The row of a flush, as the claim and the mark write it.

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use deadpool_postgres::Transaction;

use super::super::faults::Fault;
use super::FlushHead;

/// Makes the row, or takes a claimed row of the same writer on; changes no row that is another's or done.
pub const SAVE_FLUSH: &str = "
INSERT INTO ws_flushes (platform_run_id, shard, segment, writer, rows, positions, decided_at_utc,
                        segment_ref, quarantine_root, state)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10)
ON CONFLICT (platform_run_id, shard, segment)
DO UPDATE SET state = excluded.state, changed_at = clock_timestamp()
WHERE ws_flushes.writer = $4 AND ws_flushes.state = 'CLAIMED'";

/// A flush with its texts.
pub struct FlushRow<'a> {
    /// What it says.
    pub head: &'a FlushHead<'a>,
    positions: String,
    decided_at: String,
}

impl<'a> FlushRow<'a> {
    /// The row of a flush.
    pub fn of(head: &'a FlushHead<'a>) -> FlushRow<'a> {
        FlushRow {
            head,
            positions: serde_json::to_string(head.positions).expect("positions are texts"),
            decided_at: head.decided_at.format_off(),
        }
    }

    /// Writes it with [`SAVE_FLUSH`]; zero when the place is taken or the flush is done.
    pub async fn save(
        &self,
        transaction: &Transaction<'_>,
        statement: &Statement,
        state: &str,
    ) -> Result<u64, Fault> {
        let head = self.head;
        let parameters: [&(dyn ToSql + Sync); 10] = [
            &head.key.run.as_str(),
            &i32::from(head.key.shard),
            &i64::from(head.key.segment),
            &head.writer.0,
            &(head.rows as i32),
            &self.positions,
            &self.decided_at,
            &head.segment_ref,
            &head.quarantine_root,
            &state,
        ];
        Ok(transaction.execute(statement, &parameters).await?)
    }
}
