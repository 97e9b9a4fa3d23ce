//! Admitted rows in the order of the bus, for verification: one sort on the server, read in pages.

use std::time::Duration;

use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::PlatformRunId;

use super::rows::{ADMITTED_COLUMNS, admitted_row, context_ids};
use super::{AdmissionLedger, RowVisitor};

/// A day: the reader's own work counts, too.
const READING_MAX: Duration = Duration::from_secs(86_400);

impl AdmissionLedger {
    /// Hands `visit` every admitted row of the run by topic, partition and offset, `page` rows at a time,
    /// as the run was when this began.
    pub fn visit_in_bus_order(
        &self,
        run: &PlatformRunId,
        page: u32,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), StoreError> {
        let declare = format!(
            "DECLARE in_bus_order NO SCROLL CURSOR FOR
             SELECT {ADMITTED_COLUMNS} FROM admissions a
             WHERE a.state = 'ADMITTED' AND a.ws_segment IS NOT NULL AND a.platform_run_id = $1
             ORDER BY a.eb_topic COLLATE \"C\", a.eb_partition, length(a.eb_offset),
                      a.eb_offset COLLATE \"C\""
        );
        let fetch = format!("FETCH FORWARD {page} FROM in_bus_order");
        self.database
            .call_within("visit_in_bus_order", READING_MAX, async |connection| {
                let transaction = connection.transaction().await?;
                let setup = "SET LOCAL statement_timeout = 0;
                         SET LOCAL enable_seqscan = on; SET LOCAL work_mem = '64MB';
                         SET LOCAL idle_in_transaction_session_timeout = 0";
                transaction.batch_execute(setup).await?;
                transaction.execute(&declare, &[&run.as_str()]).await?;
                loop {
                    let rows = transaction.query(&fetch, &[]).await?;
                    if rows.is_empty() {
                        break;
                    }
                    let ids = context_ids(&rows, "ws_context");
                    let contexts = self.contexts.load(&transaction, ids).await?;
                    let page: Result<Vec<_>, _> = rows
                        .iter()
                        .map(|row| admitted_row(row, &contexts))
                        .collect();
                    visit(page?)?;
                }
                transaction.rollback().await?;
                Ok(())
            })
    }
}
