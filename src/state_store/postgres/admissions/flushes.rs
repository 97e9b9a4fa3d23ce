//! Flushes: what is unsettled, what is unstored, what there is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use wellspring_domain::admission::decision::ReceiptContext;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::time_text::Micros;

use super::super::faults::Fault;
use super::super::values::{Columns, damaged};
use super::rows::{context_in, exact};
use super::writers::run_of;
use super::{
    AdmissionLedger, FlushInfo, FlushKey, FlushState, RunSummary, StreamPosition, UnsettledClaim,
    UnsettledFlush, WriterId,
};

const COLUMNS: &str = "platform_run_id, shard, segment, writer, rows, positions::text AS positions,
    decided_at_utc, segment_ref, state";

impl AdmissionLedger {
    /// The segments of these flushes are objects now.
    pub fn stored(&self, flushes: &[FlushKey]) -> Result<(), StoreError> {
        self.database.call("stored", async |connection| {
            let statement = connection
                .prepare_cached(
                    "UPDATE ws_flushes SET state = 'STORED', changed_at = clock_timestamp()
                     WHERE platform_run_id = $1 AND shard = $2 AND segment = $3
                       AND state = 'MARKED'",
                )
                .await?;
            for key in flushes {
                let (shard, segment) = (i32::from(key.shard), i64::from(key.segment));
                connection
                    .execute(&statement, &[&key.run.as_str(), &shard, &segment])
                    .await?;
            }
            Ok(())
        })
    }

    /// What a writer claimed and did not finish.
    pub fn unsettled(&self, writer: WriterId) -> Result<Vec<UnsettledFlush>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS} FROM ws_flushes WHERE writer = $1 AND state = 'CLAIMED'
             ORDER BY platform_run_id, shard, segment"
        );
        self.database.call("unsettled", async |connection| {
            let rows = connection.query(&select, &[&writer.0]).await?;
            let mut unsettled = Vec::with_capacity(rows.len());
            for row in &rows {
                let flush = flush_info(row)?;
                let claims = self.claims_of(connection, &flush).await?;
                unsettled.push(UnsettledFlush { flush, claims });
            }
            Ok(unsettled)
        })
    }

    async fn claims_of(
        &self,
        connection: &Object,
        flush: &FlushInfo,
    ) -> Result<Vec<UnsettledClaim>, Fault> {
        let select = "SELECT ws_row, ws_context, event_id, ws_ts_utc, ws_texts, dedupe_key,
                             payload_hash, ws_partition_key
                      FROM admissions WHERE platform_run_id = $1 AND ws_shard = $2
                      AND ws_segment = $3 AND state = 'PUBLISH_IN_FLIGHT' ORDER BY ws_row";
        let key = &flush.key;
        let (shard, segment) = (i32::from(key.shard), i64::from(key.segment));
        let parameters = [
            &key.run.as_str() as &(dyn tokio_postgres::types::ToSql + Sync),
            &shard,
            &segment,
        ];
        let rows = connection.query(select, &parameters).await?;
        let ids = rows.iter().map(|row| row.get::<_, i64>("ws_context"));
        let contexts = self.contexts.load(connection, ids).await?;
        rows.iter()
            .map(|row| unsettled_claim(row, &contexts))
            .collect()
    }

    /// Marked flushes of a run whose segments are not stored, unchanged for `age`: their writer does not
    /// come back for them, or has not yet.
    pub fn unstored_flushes(
        &self,
        run: &PlatformRunId,
        age: Duration,
        limit: u32,
    ) -> Result<Vec<FlushInfo>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS} FROM ws_flushes WHERE platform_run_id = $1 AND state = 'MARKED'
             AND changed_at <= clock_timestamp() - $2::float8 * interval '1 second'
             ORDER BY platform_run_id, shard, segment LIMIT $3"
        );
        self.database.call("unstored_flushes", async |connection| {
            let rows = connection
                .query(
                    &select,
                    &[&run.as_str(), &age.as_secs_f64(), &i64::from(limit)],
                )
                .await?;
            rows.iter().map(flush_info).collect()
        })
    }

    /// Marked flushes of a writer that has ended, whose segments are not stored: it does not come back.
    pub fn unstored_of_writer(&self, writer: WriterId) -> Result<Vec<FlushInfo>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS} FROM ws_flushes WHERE state = 'MARKED' AND writer = $1
             ORDER BY platform_run_id, shard, segment"
        );
        self.database
            .call("unstored_of_writer", async |connection| {
                let rows = connection.query(&select, &[&writer.0]).await?;
                rows.iter().map(flush_info).collect()
            })
    }

    /// The flushes of a run behind `after`, by shard and segment.
    pub fn flushes_after(
        &self,
        run: &PlatformRunId,
        after: Option<&FlushKey>,
        limit: u32,
    ) -> Result<Vec<FlushInfo>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS} FROM ws_flushes
             WHERE platform_run_id = $1 AND (shard, segment) > ($2, $3)
             ORDER BY platform_run_id, shard, segment LIMIT $4"
        );
        let shard = after.map_or(-1, |key| i32::from(key.shard));
        let segment = after.map_or(-1, |key| i64::from(key.segment));
        self.database.call("flushes_after", async |connection| {
            let rows = connection
                .query(
                    &select,
                    &[&run.as_str(), &shard, &segment, &i64::from(limit)],
                )
                .await?;
            rows.iter().map(flush_info).collect()
        })
    }

    /// Last sequence number known of each shard of these streams.
    pub fn stream_positions(&self, streams: &[&str]) -> Result<Vec<StreamPosition>, StoreError> {
        self.database.call("stream_positions", async |connection| {
            let statement = connection
                .prepare_cached(
                    "SELECT stream, shard_id, sequence FROM ws_stream_positions
                     WHERE stream = ANY($1) ORDER BY stream, shard_id",
                )
                .await?;
            let rows = connection.query(&statement, &[&streams]).await?;
            let position = |row: &Row| StreamPosition {
                stream: row.get(0),
                shard_id: row.get(1),
                sequence: row.get(2),
            };
            Ok(rows.iter().map(position).collect())
        })
    }

    /// Counts of a run. Reads all its rows.
    pub fn summary(&self, run: &PlatformRunId) -> Result<RunSummary, StoreError> {
        self.database.call("summary", async |connection| {
            let run = run.as_str();
            let admitted = connection
                .query(
                    "SELECT state, eb_topic, count(*) FROM admissions WHERE platform_run_id = $1
                     GROUP BY state, eb_topic ORDER BY eb_topic",
                    &[&run],
                )
                .await?;
            let decided = connection
                .query(
                    "SELECT decision, count(*) FROM ws_decisions WHERE platform_run_id = $1
                     GROUP BY decision",
                    &[&run],
                )
                .await?;
            let mut summary = RunSummary::default();
            for row in &admitted {
                let count = row.get::<_, i64>(2) as u64;
                match (row.get::<_, Option<&str>>(0), row.get(1)) {
                    (Some("ADMITTED"), Some(topic)) => summary.admitted.push((topic, count)),
                    _ => summary.in_flight += count,
                }
            }
            for row in &decided {
                let count = row.get::<_, i64>(1) as u64;
                match row.get::<_, &str>(0) {
                    "DUPLICATE" => summary.duplicates = count,
                    _ => summary.quarantined = count,
                }
            }
            Ok(summary)
        })
    }
}

fn unsettled_claim(
    row: &Row,
    contexts: &HashMap<i64, Arc<ReceiptContext>>,
) -> Result<UnsettledClaim, Fault> {
    let row = Columns(row);
    let (event_id, ts_utc) = exact(&row, "ws_texts", "ws_ts_utc")?;
    Ok(UnsettledClaim {
        row: row.number("ws_row")?,
        context: context_in(contexts, row.get("ws_context")?)?,
        event_id,
        ts_utc,
        dedupe_key: row.hash("dedupe_key")?,
        payload_hash: row.hash("payload_hash")?,
        partition_key: row.hash("ws_partition_key")?,
    })
}

fn flush_info(row: &Row) -> Result<FlushInfo, Fault> {
    let row = Columns(row);
    let positions = serde_json::from_str(row.get("positions")?);
    let decided_at = Micros::parse_any(row.get("decided_at_utc")?);
    Ok(FlushInfo {
        key: FlushKey {
            run: run_of(row.get("platform_run_id")?)?,
            shard: row.number("shard")?,
            segment: row.number("segment")?,
        },
        writer: WriterId(row.get("writer")?),
        rows: row.number("rows")?,
        positions: positions.map_err(|_| damaged("ws_flushes.positions", "stream positions"))?,
        decided_at: decided_at.map_err(|_| damaged("ws_flushes.decided_at_utc", "a time"))?,
        segment_ref: row.get("segment_ref")?,
        state: match row.get("state")? {
            "CLAIMED" => FlushState::Claimed,
            "MARKED" => FlushState::Marked,
            "STORED" => FlushState::Stored,
            "RELEASED" => FlushState::Released,
            _ => return Err(damaged("ws_flushes.state", "a state of a flush")),
        },
    })
}
