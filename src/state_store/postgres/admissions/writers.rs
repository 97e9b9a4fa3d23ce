//! Writers: who may claim, until when, and who must not any more.
//!
//! The database's clock decides. A writer works under a shared advisory lock of its number; fencing takes
//! the same lock alone, so after a fence no claim or mark of that writer is under way.

use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Row;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

use super::super::faults::Fault;
use super::super::values::{Columns, damaged};
use super::{AdmissionLedger, ExpiredWriter, SegmentBlock, WRITER_FENCED, Writer, WriterId};

/// Segment numbers handed out at once.
pub const BLOCK_SEGMENTS: u32 = 1 << 18;

/// Space of the advisory locks of writers, in the upper half of the key.
const LOCK_SPACE: i64 = 0x7773 << 48;

/// What a writer is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes new keys: its time must not be over.
    Claim,
    /// Finishes what it claimed: enough that nobody fenced it.
    Mark,
}

impl AdmissionLedger {
    /// A new writer of the run's shard with a block of segment numbers.
    pub fn open_writer(
        &self,
        run: &PlatformRunId,
        shard: u16,
        node: &str,
        ttl: Duration,
    ) -> Result<Writer, StoreError> {
        self.database.call("open_writer", async |connection| {
            let transaction = connection.transaction().await?;
            let row = transaction
                .query_one(
                    "INSERT INTO ws_writers (node, platform_run_id, shard, expires_at)
                     VALUES ($1, $2, $3, clock_timestamp() + $4::float8 * interval '1 second')
                     RETURNING writer",
                    &[&node, &run.as_str(), &i32::from(shard), &ttl.as_secs_f64()],
                )
                .await?;
            let block = next_block(&transaction, run.as_str(), shard).await?;
            transaction.commit().await?;
            let writer = WriterId(row.get(0));
            Ok(Writer { writer, block })
        })
    }

    /// Another block of segment numbers for a writer whose block is used up.
    pub fn next_segments(
        &self,
        run: &PlatformRunId,
        shard: u16,
    ) -> Result<SegmentBlock, StoreError> {
        self.database.call("next_segments", async |connection| {
            let transaction = connection.transaction().await?;
            let block = next_block(&transaction, run.as_str(), shard).await?;
            transaction.commit().await?;
            Ok(block)
        })
    }

    /// Extends the time of these writers; returns those that live. One that is missing was fenced.
    pub fn renew_writers(
        &self,
        writers: &[WriterId],
        ttl: Duration,
    ) -> Result<Vec<WriterId>, StoreError> {
        let mut numbers: Vec<i64> = writers.iter().map(|writer| writer.0).collect();
        numbers.sort_unstable();
        self.database.call("renew_writers", async |connection| {
            let statement = connection
                .prepare_cached(
                    "UPDATE ws_writers
                     SET expires_at = clock_timestamp() + $2::float8 * interval '1 second'
                     WHERE writer IN (SELECT writer FROM ws_writers WHERE writer = ANY($1)
                                      AND NOT fenced AND NOT closed ORDER BY writer FOR UPDATE)
                     RETURNING writer",
                )
                .await?;
            let rows = connection
                .query(&statement, &[&numbers, &ttl.as_secs_f64()])
                .await?;
            Ok(rows.iter().map(|row| WriterId(row.get(0))).collect())
        })
    }

    /// Ends a writer whose time is over, for ever. True when it is fenced now, by this call or before;
    /// false while it lives or when there is none. Afterwards nothing of it is under way.
    pub fn fence(&self, writer: WriterId) -> Result<bool, StoreError> {
        self.database.call("fence", async |connection| {
            let transaction = connection.transaction().await?;
            let lock = "SELECT pg_advisory_xact_lock($1)";
            transaction
                .execute(lock, &[&(LOCK_SPACE | writer.0)])
                .await?;
            let updated = transaction
                .execute(
                    "UPDATE ws_writers SET fenced = TRUE
                     WHERE writer = $1 AND (fenced OR expires_at <= clock_timestamp())",
                    &[&writer.0],
                )
                .await?;
            transaction.commit().await?;
            Ok(updated > 0)
        })
    }

    /// Ends a writer that has nothing in flight: nobody needs to look after it. False when it has.
    pub fn close_writer(&self, writer: WriterId) -> Result<bool, StoreError> {
        self.database.call("close_writer", async |connection| {
            let updated = connection
                .execute(
                    "UPDATE ws_writers SET closed = TRUE, fenced = TRUE WHERE writer = $1
                     AND NOT EXISTS (SELECT FROM ws_flushes
                                     WHERE writer = $1 AND state = 'CLAIMED')",
                    &[&writer.0],
                )
                .await?;
            Ok(updated > 0)
        })
    }

    /// Writers whose time is over and whose work nobody has finished; of one run, or of all.
    pub fn expired_writers(
        &self,
        run: Option<&PlatformRunId>,
    ) -> Result<Vec<ExpiredWriter>, StoreError> {
        let run = run.map(PlatformRunId::as_str);
        self.database.call("expired_writers", async |connection| {
            let rows = connection
                .query(
                    "SELECT writer, node, platform_run_id, shard, fenced FROM ws_writers
                     WHERE NOT closed AND (fenced OR expires_at <= clock_timestamp())
                     AND ($1::text IS NULL OR platform_run_id = $1)
                     ORDER BY writer",
                    &[&run],
                )
                .await?;
            rows.iter().map(expired_writer).collect()
        })
    }
}

fn expired_writer(row: &Row) -> Result<ExpiredWriter, Fault> {
    let row = Columns(row);
    let run: &str = row.get("platform_run_id")?;
    Ok(ExpiredWriter {
        writer: WriterId(row.get("writer")?),
        node: row.get("node")?,
        run: run_of(run)?,
        shard: row.number("shard")?,
        fenced: row.get("fenced")?,
    })
}

/// A stored run id.
pub fn run_of(text: &str) -> Result<PlatformRunId, Fault> {
    PlatformRunId::parse(text).map_err(|_| damaged("platform_run_id", "a platform run id"))
}

async fn next_block(
    transaction: &Transaction<'_>,
    run: &str,
    shard: u16,
) -> Result<SegmentBlock, Fault> {
    let row = transaction
        .query_one(
            "INSERT INTO ws_segment_blocks AS b (platform_run_id, shard, next_segment)
             VALUES ($1, $2, $3)
             ON CONFLICT (platform_run_id, shard) DO UPDATE SET next_segment = b.next_segment + $3
             RETURNING next_segment",
            &[&run, &i32::from(shard), &i64::from(BLOCK_SEGMENTS)],
        )
        .await?;
    let end: i64 = row.get(0);
    let first = u32::try_from(end - i64::from(BLOCK_SEGMENTS));
    match (first, u32::try_from(end)) {
        (Ok(first_segment), Ok(_)) => Ok(SegmentBlock {
            first_segment,
            segments: BLOCK_SEGMENTS,
        }),
        _ => Err(Fault::Store(StoreError::Refused {
            code: "SEGMENTS_EXHAUSTED",
            key: format!("{run} shard {shard}"),
            cause: "all segment numbers of this run and shard are used; start a new platform run"
                .to_owned(),
        })),
    }
}

/// Opens a transaction in which the writer cannot be fenced; refused when it was.
pub async fn begin<'a>(
    connection: &'a mut Object,
    writer: WriterId,
    step: Step,
) -> Result<Transaction<'a>, Fault> {
    let lock = "SELECT pg_advisory_xact_lock_shared($1)";
    let lock = connection.prepare_cached(lock).await?;
    let check =
        "SELECT NOT fenced AS unfenced, NOT closed AND expires_at > clock_timestamp() AS lives
                 FROM ws_writers WHERE writer = $1";
    let check = connection.prepare_cached(check).await?;
    let transaction = connection.transaction().await?;
    // Two statements, sent together: the second must see what a fence before the lock has written.
    let key = LOCK_SPACE | writer.0;
    let lock_parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&key];
    let check_parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&writer.0];
    let (locked, row) = futures::join!(
        transaction.execute(&lock, &lock_parameters),
        transaction.query_opt(&check, &check_parameters),
    );
    locked?;
    let allowed = match row? {
        None => false,
        Some(row) => {
            let row = Columns(&row);
            row.get("unfenced")? && (step == Step::Mark || row.get("lives")?)
        }
    };
    match allowed {
        true => Ok(transaction),
        false => Err(fenced(writer)),
    }
}

/// The refusal of a writer that may not go on.
pub fn fenced(writer: WriterId) -> Fault {
    Fault::Store(StoreError::Refused {
        code: WRITER_FENCED,
        key: format!("writer {}", writer.0),
        cause: "its time was over and its work may be settled by another; open a new writer"
            .to_owned(),
    })
}
