//! Leases with fencing tokens (`ws_leases`): who works on what, across nodes.
//!
//! The database's clock decides when a lease is over; clocks of nodes do not matter. The epoch grows with
//! each grant of a key and never falls, also when the lease was given back.

use std::time::Duration;

use tokio_postgres::Row;
use wellspring_domain::ports::{LeaseGrant, Leases, StoreError};
use wellspring_domain::time_text::Micros;

use super::database::Database;
use super::faults::Fault;
use super::values::Columns;

/// Microseconds since 1970 of a time, as text the statements below share.
const EXPIRES_MICROS: &str = "(extract(epoch FROM expires_at) * 1000000)::bigint AS expires_micros";

/// Leases in one database.
#[derive(Clone)]
pub struct PostgresLeases {
    database: Database,
}

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// What it is for.
    pub key: String,
    /// Who has it.
    pub owner: String,
    /// Its fencing token.
    pub epoch: u64,
    /// When it ends, by the database's clock.
    pub expires_at: Micros,
    /// True while it is held.
    pub held: bool,
}

/// A lease somebody works under: what writes are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseProof {
    /// Its key.
    pub key: String,
    /// Its token.
    pub token: String,
}

impl PostgresLeases {
    /// The leases in `database`.
    pub fn new(database: Database) -> PostgresLeases {
        PostgresLeases { database }
    }

    /// Leases whose key starts with `prefix`, by key; also those that are over.
    pub fn list(&self, prefix: &str) -> Result<Vec<LeaseInfo>, StoreError> {
        let select = format!(
            "SELECT lease_key, owner, epoch, {EXPIRES_MICROS}, expires_at > clock_timestamp() AS held
             FROM ws_leases WHERE starts_with(lease_key, $1) ORDER BY lease_key"
        );
        self.database.call("list_leases", async |connection| {
            let rows = connection.query(&select, &[&prefix]).await?;
            let info = |row: &Row| {
                let row = Columns(row);
                Ok(LeaseInfo {
                    key: row.get("lease_key")?,
                    owner: row.get("owner")?,
                    epoch: row.number("epoch")?,
                    expires_at: Micros(row.get("expires_micros")?),
                    held: row.get("held")?,
                })
            };
            rows.iter().map(info).collect()
        })
    }

    /// Forgets leases that ended long ago; their keys start anew at epoch 1, so only keys that are never
    /// used again may be forgotten.
    pub fn forget(&self, prefix: &str, ended_for: Duration) -> Result<u64, StoreError> {
        self.database.call("forget_leases", async |connection| {
            let delete = "DELETE FROM ws_leases WHERE starts_with(lease_key, $1)
                          AND expires_at < clock_timestamp() - $2::float8 * interval '1 second'";
            let seconds = ended_for.as_secs_f64();
            Ok(connection.execute(delete, &[&prefix, &seconds]).await?)
        })
    }
}

impl Leases for PostgresLeases {
    fn acquire(
        &self,
        key: &str,
        owner: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        let insert = format!(
            "INSERT INTO ws_leases AS l (lease_key, owner, token, epoch, expires_at, updated_at)
             VALUES ($1, $2, gen_random_uuid()::text, 1,
                     clock_timestamp() + $3::float8 * interval '1 second', clock_timestamp())
             ON CONFLICT (lease_key) DO UPDATE SET owner = excluded.owner, token = excluded.token,
                 epoch = l.epoch + 1, expires_at = excluded.expires_at,
                 updated_at = excluded.updated_at
             WHERE l.expires_at <= clock_timestamp()
             RETURNING token, epoch, {EXPIRES_MICROS}"
        );
        self.database.call("acquire_lease", async |connection| {
            let statement = connection.prepare_cached(&insert).await?;
            let parameters = [
                &key as &(dyn tokio_postgres::types::ToSql + Sync),
                &owner,
                &(ttl_seconds as f64),
            ];
            let row = connection.query_opt(&statement, &parameters).await?;
            row.as_ref().map(grant).transpose()
        })
    }

    fn renew(
        &self,
        key: &str,
        token: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        let update = format!(
            "UPDATE ws_leases SET updated_at = clock_timestamp(),
                 expires_at = clock_timestamp() + $3::float8 * interval '1 second'
             WHERE lease_key = $1 AND token = $2 AND expires_at > clock_timestamp()
             RETURNING token, epoch, {EXPIRES_MICROS}"
        );
        self.database.call("renew_lease", async |connection| {
            let statement = connection.prepare_cached(&update).await?;
            let parameters = [
                &key as &(dyn tokio_postgres::types::ToSql + Sync),
                &token,
                &(ttl_seconds as f64),
            ];
            let row = connection.query_opt(&statement, &parameters).await?;
            row.as_ref().map(grant).transpose()
        })
    }

    fn holds(&self, key: &str, token: &str) -> Result<bool, StoreError> {
        self.database.call("holds_lease", async |connection| {
            let select = "SELECT EXISTS (SELECT FROM ws_leases WHERE lease_key = $1 AND token = $2
                          AND expires_at > clock_timestamp())";
            let statement = connection.prepare_cached(select).await?;
            Ok(connection
                .query_one(&statement, &[&key, &token])
                .await?
                .get(0))
        })
    }

    fn release(&self, key: &str, token: &str) -> Result<(), StoreError> {
        self.database.call("release_lease", async |connection| {
            let update = "UPDATE ws_leases SET expires_at = clock_timestamp(),
                          updated_at = clock_timestamp() WHERE lease_key = $1 AND token = $2
                          AND expires_at > clock_timestamp()";
            connection.execute(update, &[&key, &token]).await?;
            Ok(())
        })
    }
}

fn grant(row: &Row) -> Result<LeaseGrant, Fault> {
    let row = Columns(row);
    Ok(LeaseGrant {
        token: row.get("token")?,
        epoch: row.number("epoch")?,
        expires_at: Micros(row.get("expires_micros")?),
    })
}
