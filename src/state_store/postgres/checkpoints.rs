//! Stream checkpoints in `wsp_checkpoint` (contract 6.7), fenced by the lease of their run.

use tokio_postgres::types::ToSql;
use wellspring_domain::ports::{CheckpointStore, Cursor, StoreError};
use wellspring_domain::time_text::Micros;

use super::database::Database;
use super::faults::Fault;
use super::leases::LeaseProof;
use super::values::Columns;

const SELECT: &str = "
SELECT last_file, last_row_index, last_ts_utc, ws_stream_view_id, ws_part_name
FROM wsp_checkpoint WHERE pack_key = $1 AND output_id = $2";

/// The lease's row is locked until the save is durable: nobody takes the lease over in between. A save of
/// an older grant never replaces one of a newer grant.
const SAVE_LEASED: &str = "
WITH held AS MATERIALIZED (
    SELECT epoch FROM ws_leases
    WHERE lease_key = $9 AND token = $10 AND expires_at > clock_timestamp() FOR SHARE)
INSERT INTO wsp_checkpoint AS c (pack_key, output_id, last_file, last_row_index, last_ts_utc,
    updated_at_utc, ws_stream_view_id, ws_part_name, ws_lease_epoch)
SELECT $1, $2, $3, $4, $5, timestamptz 'epoch' + $6 * interval '1 microsecond', $7, $8, epoch
FROM held
ON CONFLICT (pack_key, output_id) DO UPDATE SET last_file = excluded.last_file,
    last_row_index = excluded.last_row_index, last_ts_utc = excluded.last_ts_utc,
    updated_at_utc = excluded.updated_at_utc, ws_stream_view_id = excluded.ws_stream_view_id,
    ws_part_name = excluded.ws_part_name, ws_lease_epoch = excluded.ws_lease_epoch
WHERE coalesce(c.ws_lease_epoch, 0) <= excluded.ws_lease_epoch";

const SAVE: &str = "
INSERT INTO wsp_checkpoint (pack_key, output_id, last_file, last_row_index, last_ts_utc,
    updated_at_utc, ws_stream_view_id, ws_part_name)
VALUES ($1, $2, $3, $4, $5, timestamptz 'epoch' + $6 * interval '1 microsecond', $7, $8)
ON CONFLICT (pack_key, output_id) DO UPDATE SET last_file = excluded.last_file,
    last_row_index = excluded.last_row_index, last_ts_utc = excluded.last_ts_utc,
    updated_at_utc = excluded.updated_at_utc, ws_stream_view_id = excluded.ws_stream_view_id,
    ws_part_name = excluded.ws_part_name";

/// Checkpoints in one database.
#[derive(Clone)]
pub struct PostgresCheckpoints {
    database: Database,
    lease: Option<LeaseProof>,
}

impl PostgresCheckpoints {
    /// The checkpoints in `database`; with a lease, saves are refused once it is lost.
    pub fn new(database: Database, lease: Option<LeaseProof>) -> PostgresCheckpoints {
        PostgresCheckpoints { database, lease }
    }
}

impl CheckpointStore for PostgresCheckpoints {
    fn load(&self, pack_key: &str, output_id: &str) -> Result<Option<Cursor>, StoreError> {
        self.database.call("load_checkpoint", async |connection| {
            let statement = connection.prepare_cached(SELECT).await?;
            let row = connection
                .query_opt(&statement, &[&pack_key, &output_id])
                .await?;
            let Some(row) = row else { return Ok(None) };
            let row = Columns(&row);
            Ok(Some(Cursor {
                pack_key: pack_key.to_owned(),
                output_id: output_id.to_owned(),
                last_file: row.get("last_file")?,
                last_row_index: row.number("last_row_index")?,
                last_ts_utc: row.get("last_ts_utc")?,
                stream_view_id: row.get("ws_stream_view_id")?,
                part_name: row.get("ws_part_name")?,
            }))
        })
    }

    fn save(&self, cursor: &Cursor, updated_at: Micros) -> Result<(), StoreError> {
        let place = self.database.place("save_checkpoint");
        let row = i32::try_from(cursor.last_row_index).map_err(|_| {
            let cause = format!(
                "row {} does not fit the table's column",
                cursor.last_row_index
            );
            place.refused("CHECKPOINT_ROW_TOO_LARGE", cause)
        })?;
        // Microseconds as a float keep every digit until the year 2255.
        let updated_at = updated_at.0 as f64;
        self.database.call("save_checkpoint", async |connection| {
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
                &cursor.pack_key,
                &cursor.output_id,
                &cursor.last_file,
                &row,
                &cursor.last_ts_utc,
                &updated_at,
                &cursor.stream_view_id,
                &cursor.part_name,
            ];
            let statement = match &self.lease {
                None => SAVE,
                Some(lease) => {
                    parameters.push(&lease.key);
                    parameters.push(&lease.token);
                    SAVE_LEASED
                }
            };
            let statement = connection.prepare_cached(statement).await?;
            match (
                connection.execute(&statement, &parameters).await?,
                &self.lease,
            ) {
                (0, Some(lease)) => Err(lost(lease)),
                _ => Ok(()),
            }
        })
    }
}

fn lost(lease: &LeaseProof) -> Fault {
    Fault::Store(StoreError::Refused {
        code: "LEASE_LOST",
        key: lease.key.clone(),
        cause: "the lease ended or another node has it; nothing was saved".to_owned(),
    })
}
