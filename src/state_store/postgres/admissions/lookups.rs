//! Finding decisions: by key, by place in their flush, by receipt.

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

use super::super::faults::Fault;
use super::super::values::Hex;
use super::rows::{
    ADMITTED_COLUMNS, DECIDED_COLUMNS, admitted_row, context_ids, decided_row, query,
};
use super::{AdmissionLedger, FlushKey};

impl AdmissionLedger {
    /// Every decision about these keys: admitted rows, then duplicates and quarantines in the order of
    /// their rows.
    pub fn decisions_of_keys(&self, keys: &[Hash32]) -> Result<Vec<JournalRow>, StoreError> {
        let keys: Vec<Hex> = keys.iter().copied().map(Hex).collect();
        self.database.call("decisions_of_keys", async |connection| {
            let parameters: [&(dyn ToSql + Sync); 1] = [&keys];
            let admitted = "a.dedupe_key = ANY($1)";
            let decided = "d.dedupe_key = ANY($1)";
            self.find(connection, admitted, decided, &parameters).await
        })
    }

    /// The admitted row of each key, in the order of `keys`.
    pub fn admitted_of_keys(&self, keys: &[Hash32]) -> Result<Vec<Option<JournalRow>>, StoreError> {
        let texts: Vec<Hex> = keys.iter().copied().map(Hex).collect();
        let rows = self.database.call("admitted_of_keys", async |connection| {
            let parameters: [&(dyn ToSql + Sync); 1] = [&texts];
            self.admitted(connection, "a.dedupe_key = ANY($1)", &parameters)
                .await
        })?;
        let found: std::collections::HashMap<Hash32, JournalRow> =
            rows.into_iter().map(|row| (row.dedupe_key, row)).collect();
        // A key is asked for twice when its event is on a stream twice.
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    /// The decision in one row.
    pub fn decision_at(
        &self,
        run: &PlatformRunId,
        at: RowRef,
    ) -> Result<Option<JournalRow>, StoreError> {
        let (run, row) = (run.as_str(), at.row as i32);
        let (shard, segment) = (i32::from(at.shard), i64::from(at.segment));
        self.database.call("decision_at", async |connection| {
            let parameters: [&(dyn ToSql + Sync); 4] = [&run, &shard, &segment, &row];
            let admitted = "a.platform_run_id = $1 AND a.ws_shard = $2 AND a.ws_segment = $3
                            AND a.ws_row = $4";
            let decided = "d.platform_run_id = $1 AND d.shard = $2 AND d.segment = $3
                           AND d.\"row\" = $4";
            let found = self
                .find(connection, admitted, decided, &parameters)
                .await?;
            Ok(found.into_iter().next())
        })
    }

    /// Every decision with this receipt id; of one run, or of all. Copies share the id of their receipt.
    pub fn decisions_of_receipt(
        &self,
        run: Option<&PlatformRunId>,
        receipt_id: &str,
    ) -> Result<Vec<JournalRow>, StoreError> {
        let run = run.map(PlatformRunId::as_str);
        self.database
            .call("decisions_of_receipt", async |connection| {
                let parameters: [&(dyn ToSql + Sync); 2] = [&receipt_id, &run];
                let admitted =
                    "a.ws_receipt_id = $1 AND ($2::text IS NULL OR a.platform_run_id = $2)";
                let decided = "d.receipt_id = $1 AND ($2::text IS NULL OR d.platform_run_id = $2)";
                self.find(connection, admitted, decided, &parameters).await
            })
    }

    /// All decisions of a flush, by row. A settled flush may have gaps.
    pub fn flush_rows(&self, flush: &FlushKey) -> Result<Vec<JournalRow>, StoreError> {
        let run = flush.run.as_str();
        let (shard, segment) = (i32::from(flush.shard), i64::from(flush.segment));
        self.database.call("flush_rows", async |connection| {
            let parameters: [&(dyn ToSql + Sync); 3] = [&run, &shard, &segment];
            let admitted = "a.platform_run_id = $1 AND a.ws_shard = $2 AND a.ws_segment = $3";
            let decided = "d.platform_run_id = $1 AND d.shard = $2 AND d.segment = $3";
            let mut rows = self
                .find(connection, admitted, decided, &parameters)
                .await?;
            rows.sort_unstable_by_key(|row| row.row_ref);
            Ok(rows)
        })
    }

    async fn find(
        &self,
        connection: &Object,
        admitted: &str,
        decided: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<JournalRow>, Fault> {
        let mut found = self.admitted(connection, admitted, parameters).await?;
        let select = format!(
            "SELECT {DECIDED_COLUMNS} FROM ws_decisions d WHERE {decided}
             ORDER BY d.platform_run_id, d.shard, d.segment, d.\"row\""
        );
        let rows = query(connection, &select, parameters).await?;
        let ids = context_ids(&rows, "context");
        let contexts = self.contexts.load(connection, ids).await?;
        for row in &rows {
            found.push(decided_row(row, &contexts)?);
        }
        Ok(found)
    }

    async fn admitted(
        &self,
        connection: &Object,
        condition: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<JournalRow>, Fault> {
        let select = format!(
            "SELECT {ADMITTED_COLUMNS} FROM admissions a
             WHERE a.state = 'ADMITTED' AND a.ws_segment IS NOT NULL AND {condition}"
        );
        let rows = query(connection, &select, parameters).await?;
        let ids = context_ids(&rows, "ws_context");
        let contexts = self.contexts.load(connection, ids).await?;
        rows.iter()
            .map(|row| admitted_row(row, &contexts))
            .collect()
    }
}
