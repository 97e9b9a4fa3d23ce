//! Settling: a flush whose outcome nobody knows gets one.

use tokio_postgres::types::ToSql;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

use super::super::values::Hex;
use super::mark::{ADMIT, ADMIT_ROWS, AdmitPlace, BY_HASH};
use super::{AdmissionLedger, Admitted, FlushInfo, Settled, WriterId};

const LOCK_FLUSH: &str = "
SELECT FROM ws_flushes WHERE platform_run_id = $1 AND shard = $2 AND segment = $3 FOR UPDATE";

const RELEASE_REST: &str = "
DELETE FROM admissions
WHERE platform_run_id = $1 AND ws_shard = $2 AND ws_segment = $3 AND ws_writer = $4
  AND state = 'PUBLISH_IN_FLIGHT'";

const RELEASE_KEYS: &str = "
DELETE FROM admissions WHERE dedupe_key IN
    (SELECT dedupe_key FROM admissions WHERE dedupe_key = ANY($1) AND ws_writer = $2
     AND state = 'PUBLISH_IN_FLIGHT' ORDER BY dedupe_key FOR UPDATE)";

/// A flush that ends with an admitted row has a receipt segment to store; one without has nothing.
const END_FLUSH: &str = "
UPDATE ws_flushes SET changed_at = clock_timestamp(), state =
    CASE WHEN EXISTS (SELECT FROM admissions WHERE platform_run_id = $1 AND ws_shard = $2
                      AND ws_segment = $3 AND state = 'ADMITTED')
         THEN 'MARKED' ELSE 'RELEASED' END
WHERE platform_run_id = $1 AND shard = $2 AND segment = $3 AND state = 'CLAIMED'";

impl AdmissionLedger {
    /// Settles a flush: claims in `found` are admitted there, all other claims are given up, in one
    /// transaction. Doing it again, or at the same time elsewhere, changes nothing more. The flush's
    /// writer must be fenced, or be the caller's own and have nothing under way.
    pub fn settle_flush(
        &self,
        flush: &FlushInfo,
        found: &[Admitted],
    ) -> Result<Settled, StoreError> {
        let mut found: Vec<Admitted> = found.to_vec();
        found.sort_unstable_by_key(|row| row.dedupe_key);
        let place = AdmitPlace {
            flush: &flush.key,
            writer: flush.writer,
            segment_ref: &flush.segment_ref,
            decided_at_utc: flush.decided_at.format_off(),
        };
        self.database.call("settle_flush", async |connection| {
            let admit = connection.prepare_cached(ADMIT).await?;
            let transaction = connection.transaction().await?;
            let run = flush.key.run.as_str();
            let (shard, segment) = (i32::from(flush.key.shard), i64::from(flush.key.segment));
            let rest: [&(dyn ToSql + Sync); 4] = [&run, &shard, &segment, &flush.writer.0];
            // One at a time: two that settle the same flush must not wait for each other's rows.
            transaction.execute(LOCK_FLUSH, &rest[..3]).await?;
            transaction.batch_execute(BY_HASH).await?;
            let mut settled = Settled::default();
            for chunk in found.chunks(ADMIT_ROWS) {
                settled.admitted += place.admit(&transaction, &admit, chunk).await?;
            }
            settled.released = transaction.execute(RELEASE_REST, &rest).await?;
            transaction.execute(END_FLUSH, &rest[..3]).await?;
            transaction.commit().await?;
            Ok(settled)
        })
    }

    /// Gives claims up that are certainly not on the bus; returns how many were still in flight.
    pub fn release(&self, writer: WriterId, keys: &[Hash32]) -> Result<u64, StoreError> {
        let keys: Vec<Hex> = keys.iter().copied().map(Hex).collect();
        self.database.call("release", async |connection| {
            let statement = connection.prepare_cached(RELEASE_KEYS).await?;
            Ok(connection.execute(&statement, &[&keys, &writer.0]).await?)
        })
    }
}
