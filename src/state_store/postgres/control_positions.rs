//! How far each shard of a control stream is settled, shared by all nodes (design 3.7, D12).
//!
//! A settled record is a row of its own until the contiguous position has passed it, so nodes that settle
//! different records never undo each other. Sequence numbers have no fixed width as text: the longer one
//! is the greater, and those of one width compare digit by digit.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::ports::StoreError;

use super::database::Database;
use super::faults::Fault;
use super::values::damaged;
use crate::control_bus::positions::{ControlPositions, Settled, ShardProgress};

/// Keeps the farther of two positions.
const ADVANCE: &str = "
INSERT INTO ws_control_positions AS p (stream, shard_id, sequence) VALUES ($1, $2, $3)
ON CONFLICT (stream, shard_id) DO UPDATE SET sequence = excluded.sequence
WHERE (length(p.sequence), p.sequence COLLATE \"C\")
    < (length(excluded.sequence), excluded.sequence COLLATE \"C\")";

/// A record that comes late, behind the position, is not kept.
const SETTLE: &str = "
INSERT INTO ws_control_settled (stream, shard_id, sequence)
SELECT $1, $2, $3 WHERE NOT EXISTS (
    SELECT FROM ws_control_positions p WHERE p.stream = $1 AND p.shard_id = $2
    AND (length(p.sequence), p.sequence COLLATE \"C\") >= (length($3), $3 COLLATE \"C\"))
ON CONFLICT DO NOTHING";

const PASS: &str = "
DELETE FROM ws_control_settled s USING ws_control_positions p
WHERE s.stream = $1 AND s.shard_id = $2 AND p.stream = $1 AND p.shard_id = $2
AND (length(s.sequence), s.sequence COLLATE \"C\") <= (length(p.sequence), p.sequence COLLATE \"C\")";

/// Control positions in one database.
#[derive(Clone)]
pub struct PostgresControlPositions {
    database: Database,
}

impl PostgresControlPositions {
    /// The control positions in `database`.
    pub fn new(database: Database) -> PostgresControlPositions {
        PostgresControlPositions { database }
    }
}

impl ControlPositions for PostgresControlPositions {
    fn load(&self, stream: &str) -> Result<Vec<ShardProgress>, StoreError> {
        self.database.call("load_positions", async |connection| {
            // One statement, one moment: a record is in one of the two tables.
            let rows = connection
                .query(
                    "SELECT shard_id, sequence, TRUE FROM ws_control_positions WHERE stream = $1
                     UNION ALL
                     SELECT shard_id, sequence, FALSE FROM ws_control_settled WHERE stream = $1",
                    &[&stream],
                )
                .await?;
            let mut shards: BTreeMap<String, ShardProgress> = BTreeMap::new();
            for row in &rows {
                let shard_id: String = row.get(0);
                let shard = shards
                    .entry(shard_id.clone())
                    .or_insert_with(|| ShardProgress {
                        shard_id,
                        through: None,
                        settled: Vec::new(),
                    });
                match row.get(2) {
                    true => shard.through = Some(sequence(row)?),
                    false => shard.settled.push(sequence(row)?),
                }
            }
            for shard in shards.values_mut() {
                shard.settled.sort_unstable();
            }
            Ok(shards.into_values().collect())
        })
    }

    fn settle(&self, stream: &str, settled: &Settled<'_>) -> Result<(), StoreError> {
        self.database.call("settle_position", async |connection| {
            let transaction = connection.transaction().await?;
            let shard = settled.shard_id;
            let own = settled.sequence.to_string();
            if let Some(through) = settled.through {
                let through = through.to_string();
                execute(&transaction, ADVANCE, &[&stream, &shard, &through]).await?;
            }
            execute(&transaction, SETTLE, &[&stream, &shard, &own]).await?;
            execute(&transaction, PASS, &[&stream, &shard]).await?;
            transaction.commit().await?;
            Ok(())
        })
    }
}

async fn execute(
    client: &impl GenericClient,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<u64, Fault> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, parameters).await?)
}

fn sequence(row: &Row) -> Result<SequenceNumber, Fault> {
    SequenceNumber::parse(row.get(1)).ok_or_else(|| damaged("sequence", "a sequence number"))
}
