//! Claims: of all who want a key, exactly one gets it.

use std::collections::HashMap;

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::types::ToSql;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ids::{Hash32, receipt_id};
use wellspring_domain::ports::StoreError;

use super::super::faults::Fault;
use super::super::values::{Columns, Hex, damaged, storable};
use super::flush_row::{FlushRow, SAVE_FLUSH};
use super::writers::{self, Step};
use super::{
    AdmissionLedger, BusPlace, CHUNK_ROWS, Claim, ClaimBatch, ClaimOutcome, ClaimResult, Holder,
    HolderState, WriterId,
};

/// How often a key may be found taken and be free again a moment later, in one call.
const ROUNDS_MAX: u32 = 16;

const INSERT_CLAIMS: &str = "
INSERT INTO admissions (dedupe_key, state, platform_run_id, event_class, event_id, payload_hash,
                        receipt_ref, receipt_write_failed, ws_writer, ws_segment, ws_context,
                        ws_shard, ws_row, ws_ts_utc, ws_partition_key, ws_texts, ws_receipt_id)
SELECT t.dedupe_key, 'PUBLISH_IN_FLIGHT', $1, t.event_class, t.event_id, t.payload_hash, '', 0,
       $2, $3, t.context, $4, t.row, t.ts_utc, t.partition_key, t.texts, t.receipt_id
FROM unnest($5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::int[], $11::text[],
            $12::text[], $13::text[], $14::text[])
     AS t(dedupe_key, event_class, event_id, payload_hash, context, row, ts_utc, partition_key,
          texts, receipt_id)
ON CONFLICT (dedupe_key) DO NOTHING
RETURNING ws_row";

const SELECT_HOLDERS: &str = "
SELECT a.dedupe_key, a.state, a.payload_hash, a.ws_writer, a.ws_shard, a.ws_segment, a.ws_row,
       a.eb_topic, a.eb_partition, a.eb_offset, a.eb_offset_kind, a.admitted_at_utc, a.receipt_ref,
       coalesce(NOT w.fenced AND w.expires_at > clock_timestamp(), FALSE) AS writer_lives
FROM admissions a LEFT JOIN ws_writers w ON w.writer = a.ws_writer
WHERE a.dedupe_key = ANY($1)";

impl AdmissionLedger {
    /// Claims the batch's keys, in one transaction but for keys whose holder vanished meanwhile. When
    /// this returns the claims are durable; after an error they may be, and the flush must be settled.
    pub fn claim(&self, batch: &ClaimBatch<'_>) -> Result<ClaimOutcome, StoreError> {
        self.database.call("claim", async |connection| {
            let contexts = self.contexts.store(connection, batch.contexts).await?;
            let mut results: Vec<Option<ClaimResult>> = vec![None; batch.claims.len()];
            let mut open: Vec<usize> = (0..batch.claims.len()).collect();
            open.sort_unstable_by_key(|&index| batch.claims[index].dedupe_key);
            for _round in 0..ROUNDS_MAX {
                claim_round(connection, batch, &contexts, &open, &mut results).await?;
                open.retain(|&index| results[index].is_none());
                if open.is_empty() {
                    let results = results.into_iter().flatten().collect();
                    return Ok(ClaimOutcome { results });
                }
            }
            let place = self.database.place("claim");
            Err(place
                .unavailable("keys are claimed and released by others again and again")
                .into())
        })
    }
}

/// One transaction: claims `open`, sorted by key, and says who has the others. A key whose holder
/// vanished in between stays without a result. Without a claim that was won nothing is written, so a
/// writer that dies leaves no flush behind that claims nothing; the mark writes it.
async fn claim_round(
    connection: &mut Object,
    batch: &ClaimBatch<'_>,
    contexts: &[i64],
    open: &[usize],
    results: &mut [Option<ClaimResult>],
) -> Result<(), Fault> {
    let flush = connection.prepare_cached(SAVE_FLUSH).await?;
    let row = FlushRow::of(&batch.flush);
    let insert = connection.prepare_cached(INSERT_CLAIMS).await?;
    let select = connection.prepare_cached(SELECT_HOLDERS).await?;
    let transaction = writers::begin(connection, batch.flush.writer, Step::Claim).await?;
    let chunks = open.chunks(CHUNK_ROWS);
    let inserts = chunks.map(|chunk| insert_claims(&transaction, &insert, batch, contexts, chunk));
    // Sent one after the other without waiting: keys are taken in order over all chunks.
    let ((), won) = futures::try_join!(
        save_flush(&transaction, &flush, &row),
        futures::future::try_join_all(inserts),
    )?;
    let mut lost: HashMap<Hash32, Vec<usize>> = HashMap::new();
    let by_row = rows_of(batch, open);
    for row in won.into_iter().flatten() {
        results[by_row[&row]] = Some(ClaimResult::Won);
    }
    for &index in open.iter().filter(|&&index| results[index].is_none()) {
        let key = batch.claims[index].dedupe_key;
        lost.entry(key).or_default().push(index);
    }
    let mut keys: Vec<Hash32> = lost.keys().copied().collect();
    keys.sort_unstable();
    for chunk in keys.chunks(CHUNK_ROWS) {
        let chunk: Vec<Hex> = chunk.iter().copied().map(Hex).collect();
        for row in transaction.query(&select, &[&chunk]).await? {
            let row = Columns(&row);
            let holder = holder(&row)?;
            for &index in &lost[&row.hash("dedupe_key")?] {
                results[index] = Some(ClaimResult::Taken(holder.clone()));
            }
        }
    }
    match open
        .iter()
        .any(|&index| results[index] == Some(ClaimResult::Won))
    {
        true => transaction.commit().await?,
        false => transaction.rollback().await?,
    }
    Ok(())
}

/// Which claim has which row number.
fn rows_of(batch: &ClaimBatch<'_>, open: &[usize]) -> HashMap<i32, usize> {
    let row = |&index: &usize| (batch.claims[index].row as i32, index);
    open.iter().map(row).collect()
}

async fn save_flush(
    transaction: &Transaction<'_>,
    statement: &tokio_postgres::Statement,
    row: &FlushRow<'_>,
) -> Result<(), Fault> {
    match row.save(transaction, statement, "CLAIMED").await? {
        0 => Err(Fault::Store(StoreError::Refused {
            code: "SEGMENT_TAKEN",
            key: row.head.segment_ref.to_owned(),
            cause: "another flush has this segment number; open a new writer".to_owned(),
        })),
        _ => Ok(()),
    }
}

/// The columns of a chunk of claims.
#[derive(Default)]
struct ClaimColumns<'a> {
    keys: Vec<Hex>,
    classes: Vec<&'a str>,
    event_ids: Vec<std::borrow::Cow<'a, str>>,
    payload_hashes: Vec<Hex>,
    contexts: Vec<i64>,
    rows: Vec<i32>,
    ts_utc: Vec<std::borrow::Cow<'a, str>>,
    partition_keys: Vec<Hex>,
    texts: Vec<Option<String>>,
    receipt_ids: Vec<String>,
}

async fn insert_claims(
    transaction: &Transaction<'_>,
    statement: &tokio_postgres::Statement,
    batch: &ClaimBatch<'_>,
    contexts: &[i64],
    chunk: &[usize],
) -> Result<Vec<i32>, Fault> {
    let mut columns = ClaimColumns::default();
    for &index in chunk {
        let claim = &batch.claims[index];
        let context = &batch.contexts[usize::from(claim.context)];
        columns.push(
            claim,
            &context.event_class,
            contexts[usize::from(claim.context)],
        );
    }
    let parameters: [&(dyn ToSql + Sync); 14] = [
        &batch.flush.key.run.as_str(),
        &batch.flush.writer.0,
        &i64::from(batch.flush.key.segment),
        &i32::from(batch.flush.key.shard),
        &columns.keys,
        &columns.classes,
        &columns.event_ids,
        &columns.payload_hashes,
        &columns.contexts,
        &columns.rows,
        &columns.ts_utc,
        &columns.partition_keys,
        &columns.texts,
        &columns.receipt_ids,
    ];
    let rows = transaction.query(statement, &parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

impl<'a> ClaimColumns<'a> {
    fn push(&mut self, claim: &Claim<'a>, event_class: &'a str, context: i64) {
        self.keys.push(Hex(claim.dedupe_key));
        self.classes.push(event_class);
        self.event_ids.push(storable(claim.event_id));
        self.payload_hashes.push(Hex(claim.payload_hash));
        self.contexts.push(context);
        self.rows.push(claim.row as i32);
        self.ts_utc.push(storable(claim.ts_utc));
        self.partition_keys.push(Hex(claim.partition_key));
        self.texts.push(exact_texts(claim.event_id, claim.ts_utc));
        self.receipt_ids.push(receipt_id("ADMIT", claim.event_id));
    }
}

/// Event id and event time as JSON, when the database cannot hold them as they are.
pub fn exact_texts(event_id: &str, ts_utc: &str) -> Option<String> {
    let needed = event_id.contains('\0') || ts_utc.contains('\0');
    needed.then(|| serde_json::json!([event_id, ts_utc]).to_string())
}

fn holder(row: &Columns<'_>) -> Result<Holder, Fault> {
    let segment: Option<i64> = row.get("ws_segment")?;
    let at = match segment {
        None => None,
        Some(_) => Some(RowRef {
            shard: row.number("ws_shard")?,
            segment: row.number("ws_segment")?,
            row: row.number("ws_row")?,
        }),
    };
    let state: Option<&str> = row.get("state")?;
    let state = match state {
        Some("PUBLISH_IN_FLIGHT") => HolderState::InFlight {
            writer: WriterId(row.get("ws_writer")?),
            writer_lives: row.get("writer_lives")?,
        },
        Some("PUBLISH_AMBIGUOUS") => HolderState::Ambiguous,
        Some("ADMITTED") => admitted(row)?,
        // Rows of old programs have no state; a place on the bus says that they were admitted.
        None if row.get::<Option<&str>>("eb_offset")?.is_some() => admitted(row)?,
        other => HolderState::Invalid {
            state: other.unwrap_or("none").to_owned(),
        },
    };
    Ok(Holder {
        payload_hash: row.hash("payload_hash")?,
        row: at,
        state,
    })
}

fn admitted(row: &Columns<'_>) -> Result<HolderState, Fault> {
    let text = |name| {
        row.get::<Option<String>>(name)
            .map(Option::unwrap_or_default)
    };
    Ok(HolderState::Admitted {
        place: bus_place(row)?,
        admitted_at_utc: text("admitted_at_utc")?,
        receipt_ref: text("receipt_ref")?,
    })
}

/// A row's place on the bus.
pub fn bus_place(row: &Columns<'_>) -> Result<BusPlace, Fault> {
    let kind: &str = row.get("eb_offset_kind")?;
    let offset = BusOffset::parse(kind, row.get("eb_offset")?);
    Ok(BusPlace {
        topic: row.get::<&str>("eb_topic")?.into(),
        partition: row.number("eb_partition")?,
        offset: offset.ok_or_else(|| damaged("eb_offset", "an offset of its kind"))?,
    })
}
