//! Stored rows as the decisions they are.

use std::collections::HashMap;
use std::sync::Arc;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use wellspring_domain::admission::decision::{ReceiptContext, RowRef};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::time_text::Micros;

use super::super::faults::Fault;
use super::super::values::{Columns, damaged};
use super::claim::bus_place;

/// What [`admitted_row`] reads.
pub const ADMITTED_COLUMNS: &str = "a.dedupe_key, a.event_id, a.payload_hash, a.admitted_at_utc,
    a.eb_topic, a.eb_partition, a.eb_offset, a.eb_offset_kind, a.ws_segment, a.ws_context, a.ws_shard,
    a.ws_row, a.ws_ts_utc, a.ws_partition_key, a.ws_texts";

/// What [`decided_row`] reads.
pub const DECIDED_COLUMNS: &str =
    "d.shard, d.segment, d.\"row\", d.decision, d.event_id, d.dedupe_key,
    d.payload_hash, d.ts_utc, d.context, d.original_shard, d.original_segment, d.original_row,
    d.reason_code, d.quarantine_record, d.decided_at_utc, d.texts";

/// Contexts by number.
pub type Contexts = HashMap<i64, Arc<ReceiptContext>>;

/// Numbers of the contexts that rows refer to.
pub fn context_ids<'a>(rows: &'a [Row], column: &'a str) -> impl Iterator<Item = i64> + 'a {
    rows.iter().filter_map(move |row| row.try_get(column).ok())
}

/// Runs a query with cached statement.
pub async fn query(
    client: &impl GenericClient,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Vec<Row>, Fault> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, parameters).await?)
}

/// An ADMIT row.
pub fn admitted_row(row: &Row, contexts: &Contexts) -> Result<JournalRow, Fault> {
    let row = Columns(row);
    let place = bus_place(&row)?;
    let (event_id, ts_utc) = exact(&row, "ws_texts", "ws_ts_utc")?;
    Ok(JournalRow {
        row_ref: row_ref(&row, ["ws_shard", "ws_segment", "ws_row"])?,
        decided_at: time(&row, "admitted_at_utc")?,
        context: context_in(contexts, row.get("ws_context")?)?,
        event_id,
        ts_utc,
        dedupe_key: row.hash("dedupe_key")?,
        payload_hash: row.hash("payload_hash")?,
        partition_key: row.hash("ws_partition_key")?,
        outcome: JournalOutcome::Admit {
            topic: place.topic,
            partition: place.partition,
            offset: place.offset,
        },
    })
}

/// A DUPLICATE or QUARANTINE row.
pub fn decided_row(row: &Row, contexts: &Contexts) -> Result<JournalRow, Fault> {
    let row = Columns(row);
    let (event_id, ts_utc) = exact(&row, "texts", "ts_utc")?;
    let outcome = match row.get("decision")? {
        "DUPLICATE" => JournalOutcome::Duplicate {
            original: row_ref(&row, ["original_shard", "original_segment", "original_row"])?,
        },
        _ => JournalOutcome::Quarantine {
            code: row.get::<&str>("reason_code")?.into(),
            record: row.get::<String>("quarantine_record")?.into_bytes(),
        },
    };
    Ok(JournalRow {
        row_ref: row_ref(&row, ["shard", "segment", "row"])?,
        decided_at: time(&row, "decided_at_utc")?,
        context: context_in(contexts, row.get("context")?)?,
        event_id,
        ts_utc,
        dedupe_key: row.hash("dedupe_key")?,
        payload_hash: row.hash("payload_hash")?,
        partition_key: Default::default(),
        outcome,
    })
}

fn row_ref(row: &Columns<'_>, names: [&str; 3]) -> Result<RowRef, Fault> {
    Ok(RowRef {
        shard: row.number(names[0])?,
        segment: row.number(names[1])?,
        row: row.number(names[2])?,
    })
}

fn time(row: &Columns<'_>, name: &str) -> Result<Micros, Fault> {
    Micros::parse_any(row.get(name)?).map_err(|_| damaged(name, "a time"))
}

/// The context of that number.
pub fn context_in(contexts: &Contexts, id: i64) -> Result<Arc<ReceiptContext>, Fault> {
    let found = contexts.get(&id).cloned();
    found.ok_or_else(|| damaged("ws_contexts", "the context a row refers to"))
}

/// Event id and event time as they were received.
pub fn exact(row: &Columns<'_>, texts: &str, ts_utc: &str) -> Result<(String, String), Fault> {
    let stored: Option<&str> = row.get(texts)?;
    match stored {
        None => Ok((row.get("event_id")?, row.get(ts_utc)?)),
        Some(json) => serde_json::from_str(json).map_err(|_| damaged(texts, "two texts")),
    }
}
