//! Nodes that share this database: who they are and when they were last seen.

use std::time::Duration;

use tokio_postgres::Row;
use wellspring_domain::ports::StoreError;
use wellspring_domain::time_text::Micros;

use super::database::Database;
use super::values::Columns;

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its name: new with each start.
    pub node: String,
    /// Machine it runs on.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Where its gate answers, when it has one.
    pub url: Option<String>,
    /// Which program it is.
    pub build: String,
}

/// A node as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// What it says about itself.
    pub identity: NodeIdentity,
    /// When it started.
    pub started_at: Micros,
    /// How long ago it was seen last, by the database's clock.
    pub silent_for: Duration,
}

/// The nodes in one database.
#[derive(Clone)]
pub struct NodeRegistry {
    database: Database,
}

impl NodeRegistry {
    /// The nodes in `database`.
    pub fn new(database: Database) -> NodeRegistry {
        NodeRegistry { database }
    }

    /// Says that the node is here; also its first sign.
    pub fn beat(&self, node: &NodeIdentity) -> Result<(), StoreError> {
        self.database.call("beat_node", async |connection| {
            let statement = connection
                .prepare_cached(
                    "INSERT INTO ws_nodes (node, host, pid, url, started_at, seen_at, build)
                     VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp(), $5)
                     ON CONFLICT (node) DO UPDATE SET seen_at = clock_timestamp(), url = excluded.url",
                )
                .await?;
            let pid = i64::from(node.pid);
            connection
                .execute(&statement, &[&node.node, &node.host, &pid, &node.url, &node.build])
                .await?;
            Ok(())
        })
    }

    /// The node leaves in good order.
    pub fn leave(&self, node: &str) -> Result<(), StoreError> {
        self.database.call("leave_node", async |connection| {
            let delete = "DELETE FROM ws_nodes WHERE node = $1";
            connection.execute(delete, &[&node]).await?;
            Ok(())
        })
    }

    /// Forgets nodes that were not seen for so long.
    pub fn forget(&self, silent_for: Duration) -> Result<u64, StoreError> {
        self.database.call("forget_nodes", async |connection| {
            let delete = "DELETE FROM ws_nodes
                          WHERE seen_at < clock_timestamp() - $1::float8 * interval '1 second'";
            Ok(connection
                .execute(delete, &[&silent_for.as_secs_f64()])
                .await?)
        })
    }

    /// All nodes, by the time they started.
    pub fn list(&self) -> Result<Vec<NodeInfo>, StoreError> {
        self.database.call("list_nodes", async |connection| {
            let rows = connection
                .query(
                    "SELECT node, host, pid, url, build,
                            (extract(epoch FROM started_at) * 1000000)::bigint AS started_micros,
                            extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_seconds
                     FROM ws_nodes ORDER BY started_at, node",
                    &[],
                )
                .await?;
            let info = |row: &Row| {
                let row = Columns(row);
                let silent: f64 = row.get("silent_seconds")?;
                Ok(NodeInfo {
                    identity: NodeIdentity {
                        node: row.get("node")?,
                        host: row.get("host")?,
                        pid: row.number("pid")?,
                        url: row.get("url")?,
                        build: row.get("build")?,
                    },
                    started_at: Micros(row.get("started_micros")?),
                    silent_for: Duration::try_from_secs_f64(silent).unwrap_or_default(),
                })
            };
            rows.iter().map(info).collect()
        })
    }
}
