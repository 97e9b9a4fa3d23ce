//! The mark: claims become admitted, decisions become rows, all at once. This is the commit point.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::types::ToSql;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ids::receipt_id;
use wellspring_domain::ports::StoreError;

use super::super::faults::Fault;
use super::super::values::{Hex, storable};
use super::claim::exact_texts;
use super::flush_row::{FlushRow, SAVE_FLUSH};
use super::writers::{self, Step, fenced};
use super::{
    AdmissionLedger, Admitted, CHUNK_ROWS, DecisionOutcome, DecisionRecord, FlushKey, MarkBatch,
    StreamPosition, WriterId,
};

/// Also used when a dead writer's flush is settled. Its transaction says [`BY_HASH`] first.
pub const ADMIT: &str = "
UPDATE admissions AS a
SET state = 'ADMITTED', receipt_ref = $5 || '#' || a.ws_row, receipt_write_failed = 0,
    admitted_at_utc = $6, eb_topic = t.topic, eb_partition = t.partition, eb_offset = t.offset_text,
    eb_offset_kind = t.kind, eb_published_at_utc = $6
FROM unnest($7::text[], $8::text[], $9::int[], $10::text[], $11::text[])
     AS t(dedupe_key, topic, partition, offset_text, kind)
WHERE a.dedupe_key = t.dedupe_key AND a.platform_run_id = $1 AND a.ws_shard = $2
  AND a.ws_segment = $3 AND a.ws_writer = $4 AND a.state = 'PUBLISH_IN_FLIGHT'";

/// The flush is read once by its segment and met with the keys in a hash table. Without statistics the
/// planner takes a flush for one row and would compare every row with every key.
pub const BY_HASH: &str = "SET LOCAL enable_nestloop = off; SET LOCAL enable_hashjoin = on";

/// Rows one [`ADMIT`] takes: each reads the whole flush, so it takes whole flushes.
pub const ADMIT_ROWS: usize = 32_768;

const INSERT_DECISIONS: &str = "
INSERT INTO ws_decisions (platform_run_id, shard, segment, \"row\", decision, receipt_id, event_id,
    event_type, dedupe_key, payload_hash, ts_utc, context, original_shard, original_segment,
    original_row, reason_code, quarantine_record, decided_at_utc, texts)
SELECT $1, $2, $3, t.row, t.decision, t.receipt_id, t.event_id, t.event_type, t.dedupe_key,
       t.payload_hash, t.ts_utc, t.context, t.original_shard, t.original_segment, t.original_row,
       t.reason_code, t.record, $4, t.texts
FROM unnest($5::int[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
            $12::text[], $13::bigint[], $14::int[], $15::bigint[], $16::int[], $17::text[],
            $18::text[], $19::text[])
     AS t(row, decision, receipt_id, event_id, event_type, dedupe_key, payload_hash, ts_utc, context,
          original_shard, original_segment, original_row, reason_code, record, texts)";

/// Sequence numbers of a shard have no fixed width: the longer one is the greater.
const ADVANCE: &str = "
INSERT INTO ws_stream_positions AS p (stream, shard_id, sequence)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
ON CONFLICT (stream, shard_id) DO UPDATE SET sequence = excluded.sequence
WHERE (length(p.sequence), p.sequence COLLATE \"C\")
    < (length(excluded.sequence), excluded.sequence COLLATE \"C\")";

impl AdmissionLedger {
    /// Marks a flush: every won claim admitted at its place, every other decision stored. All or
    /// nothing: refused with `WRITER_FENCED` when a claim is not this writer's any more. After any
    /// other error the outcome is unknown and the flush must be settled.
    pub fn mark(&self, batch: &MarkBatch<'_>) -> Result<(), StoreError> {
        self.database.call("mark", async |connection| {
            let contexts = self.contexts.store(connection, batch.contexts).await?;
            let admit = connection.prepare_cached(ADMIT).await?;
            let decide = connection.prepare_cached(INSERT_DECISIONS).await?;
            let save = connection.prepare_cached(SAVE_FLUSH).await?;
            let row = FlushRow::of(&batch.flush);
            let transaction = writers::begin(connection, batch.flush.writer, Step::Mark).await?;
            let place = AdmitPlace::of(batch);
            let chunks = batch.admitted.chunks(ADMIT_ROWS);
            let admits = chunks.map(|chunk| place.admit(&transaction, &admit, chunk));
            let chunks = batch.decisions.chunks(CHUNK_ROWS);
            let decisions = chunks
                .map(|chunk| insert_decisions(&transaction, &decide, batch, &contexts, chunk));
            let ((), admitted, (), marked) = futures::try_join!(
                async { Ok(transaction.batch_execute(BY_HASH).await?) },
                sum(admits),
                async { futures::future::try_join_all(decisions).await.map(drop) },
                row.save(&transaction, &save, "MARKED"),
            )?;
            if admitted != batch.admitted.len() as u64 || marked == 0 {
                return Err(fenced(batch.flush.writer));
            }
            transaction.commit().await?;
            // A position that stays behind only makes a later reader read more.
            if let Err(fault) = advance_positions(connection, batch.positions).await {
                let error = self.database.place("advance").tell(fault);
                tracing::warn!(%error, "stream positions were not advanced");
            }
            Ok(())
        })
    }
}

async fn sum(
    counts: impl Iterator<Item = impl Future<Output = Result<u64, Fault>>>,
) -> Result<u64, Fault> {
    let counts = futures::future::try_join_all(counts).await?;
    Ok(counts.into_iter().sum())
}

/// What the admitted rows of a flush share.
pub struct AdmitPlace<'a> {
    /// The flush.
    pub flush: &'a FlushKey,
    /// Whose claims.
    pub writer: WriterId,
    /// Reference of the segment object.
    pub segment_ref: &'a str,
    /// When the flush was decided, T-off.
    pub decided_at_utc: String,
}

impl<'a> AdmitPlace<'a> {
    fn of(batch: &MarkBatch<'a>) -> AdmitPlace<'a> {
        AdmitPlace {
            flush: batch.flush.key,
            writer: batch.flush.writer,
            segment_ref: batch.flush.segment_ref,
            decided_at_utc: batch.flush.decided_at.format_off(),
        }
    }

    /// Admits claims that are still in flight; returns how many were.
    pub async fn admit(
        &self,
        transaction: &Transaction<'_>,
        statement: &tokio_postgres::Statement,
        chunk: &[Admitted],
    ) -> Result<u64, Fault> {
        let keys: Vec<Hex> = chunk.iter().map(|row| Hex(row.dedupe_key)).collect();
        let topics: Vec<&str> = chunk.iter().map(|row| &*row.place.topic).collect();
        let partitions: Vec<i32> = chunk.iter().map(|row| row.place.partition as i32).collect();
        let offsets: Vec<String> = chunk
            .iter()
            .map(|row| row.place.offset.to_string())
            .collect();
        let kinds: Vec<&str> = chunk.iter().map(|row| row.place.offset.kind()).collect();
        let parameters: [&(dyn ToSql + Sync); 11] = [
            &self.flush.run.as_str(),
            &i32::from(self.flush.shard),
            &i64::from(self.flush.segment),
            &self.writer.0,
            &self.segment_ref,
            &self.decided_at_utc,
            &keys,
            &topics,
            &partitions,
            &offsets,
            &kinds,
        ];
        Ok(transaction.execute(statement, &parameters).await?)
    }
}

/// In a transaction of its own: all writers of a stream meet here, and none may wait for another's sync.
async fn advance_positions(
    connection: &mut Object,
    positions: &[StreamPosition],
) -> Result<(), Fault> {
    let mut known: Vec<(&str, &str, &str)> = positions
        .iter()
        .filter_map(|at| Some((&*at.stream, &*at.shard_id, at.sequence.as_deref()?)))
        .collect();
    if known.is_empty() {
        return Ok(());
    }
    known.sort_unstable();
    let streams: Vec<&str> = known.iter().map(|at| at.0).collect();
    let shards: Vec<&str> = known.iter().map(|at| at.1).collect();
    let sequences: Vec<&str> = known.iter().map(|at| at.2).collect();
    let parameters: [&(dyn ToSql + Sync); 3] = [&streams, &shards, &sequences];
    let statement = connection.prepare_cached(ADVANCE).await?;
    let transaction = connection.transaction().await?;
    let (unsynced, advanced) = futures::join!(
        transaction.batch_execute("SET LOCAL synchronous_commit = off"),
        transaction.execute(&statement, &parameters),
    );
    unsynced?;
    advanced?;
    transaction.commit().await?;
    Ok(())
}

/// The columns of a chunk of decisions that depend on the decision.
#[derive(Default)]
struct OutcomeColumns<'a> {
    decisions: Vec<&'static str>,
    receipt_ids: Vec<String>,
    original_shards: Vec<Option<i32>>,
    original_segments: Vec<Option<i64>>,
    original_rows: Vec<Option<i32>>,
    codes: Vec<&'a str>,
    records: Vec<Option<std::borrow::Cow<'a, str>>>,
}

impl<'a> OutcomeColumns<'a> {
    fn push(&mut self, record: &DecisionRecord<'a>) {
        let (decision, original, code, text) = match record.outcome {
            DecisionOutcome::Duplicate { original } => {
                ("DUPLICATE", Some(original), "DUPLICATE", None)
            }
            DecisionOutcome::Quarantine { code, record } => {
                ("QUARANTINE", None, code, Some(record))
            }
        };
        self.decisions.push(decision);
        self.receipt_ids.push(receipt_id(decision, record.event_id));
        let at = |part: fn(RowRef) -> i64| original.map(part);
        self.original_shards
            .push(at(|row| i64::from(row.shard)).map(|part| part as i32));
        self.original_segments
            .push(at(|row| i64::from(row.segment)));
        self.original_rows
            .push(at(|row| i64::from(row.row)).map(|part| part as i32));
        self.codes.push(code);
        self.records.push(text.map(storable));
    }
}

async fn insert_decisions(
    transaction: &Transaction<'_>,
    statement: &tokio_postgres::Statement,
    batch: &MarkBatch<'_>,
    contexts: &[i64],
    chunk: &[DecisionRecord<'_>],
) -> Result<(), Fault> {
    let mut outcomes = OutcomeColumns::default();
    chunk.iter().for_each(|record| outcomes.push(record));
    let rows: Vec<i32> = chunk.iter().map(|record| record.row as i32).collect();
    let event_ids: Vec<_> = chunk
        .iter()
        .map(|record| storable(record.event_id))
        .collect();
    let context = |record: &DecisionRecord<'_>| usize::from(record.context);
    let event_types: Vec<_> = chunk
        .iter()
        .map(|record| storable(&batch.contexts[context(record)].event_type))
        .collect();
    let keys: Vec<Hex> = chunk.iter().map(|record| Hex(record.dedupe_key)).collect();
    let hashes: Vec<Hex> = chunk
        .iter()
        .map(|record| Hex(record.payload_hash))
        .collect();
    let times: Vec<_> = chunk.iter().map(|record| storable(record.ts_utc)).collect();
    let ids: Vec<i64> = chunk
        .iter()
        .map(|record| contexts[context(record)])
        .collect();
    let texts: Vec<Option<String>> = chunk
        .iter()
        .map(|record| exact_texts(record.event_id, record.ts_utc))
        .collect();
    let parameters: [&(dyn ToSql + Sync); 19] = [
        &batch.flush.key.run.as_str(),
        &i32::from(batch.flush.key.shard),
        &i64::from(batch.flush.key.segment),
        &batch.flush.decided_at.format_off(),
        &rows,
        &outcomes.decisions,
        &outcomes.receipt_ids,
        &event_ids,
        &event_types,
        &keys,
        &hashes,
        &times,
        &ids,
        &outcomes.original_shards,
        &outcomes.original_segments,
        &outcomes.original_rows,
        &outcomes.codes,
        &outcomes.records,
        &texts,
    ];
    transaction.execute(statement, &parameters).await?;
    Ok(())
}
