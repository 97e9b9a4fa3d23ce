//! Which run a key stands for and who may work on it, in the contract's tables (contract 5.3).
//!
//! Times are T-off text, because other programs read and write these tables. They are made from the
//! database's clock, so that nodes whose clocks differ agree on when a lease is over.

use deadpool_postgres::Transaction;
use wellspring_domain::ids;
use wellspring_domain::ports::{
    EquivalenceOutcome, LeaseGrant, Leases, RunEquivalence, StoreError,
};
use wellspring_domain::time_text::Micros;

use super::database::Database;
use super::faults::Fault;
use super::values::Columns;

/// The authority store in one database.
#[derive(Clone)]
pub struct PostgresAuthority {
    database: Database,
}

impl PostgresAuthority {
    /// The authority store in `database`.
    pub fn new(database: Database) -> PostgresAuthority {
        PostgresAuthority { database }
    }
}

impl RunEquivalence for PostgresAuthority {
    fn resolve(
        &self,
        run_equivalence_key: &str,
        run_id: &str,
        intent_fingerprint: &str,
    ) -> Result<EquivalenceOutcome, StoreError> {
        self.database.call("resolve", async |connection| {
            let transaction = connection.transaction().await?;
            let now = now(&transaction).await?.format_off();
            transaction
                .execute(
                    "INSERT INTO sr_run_equivalence AS e VALUES ($1, $2, $3, $4, $4)
                     ON CONFLICT (run_equivalence_key) DO UPDATE SET last_seen_at = $4
                     WHERE e.intent_fingerprint = $3",
                    &[&run_equivalence_key, &run_id, &intent_fingerprint, &now],
                )
                .await?;
            let row = transaction
                .query_opt(
                    "SELECT run_id, intent_fingerprint FROM sr_run_equivalence
                     WHERE run_equivalence_key = $1",
                    &[&run_equivalence_key],
                )
                .await?;
            transaction.commit().await?;
            let Some(row) = row else {
                return Ok(EquivalenceOutcome::Vanished);
            };
            let stored: String = row.get(1);
            Ok(match stored == intent_fingerprint {
                true => EquivalenceOutcome::Resolved { run_id: row.get(0) },
                false => EquivalenceOutcome::Collision {
                    intent_fingerprint: stored,
                },
            })
        })
    }
}

/// A lease as it is stored, its row locked.
struct LeaseRow {
    token: String,
    expires_at: String,
    fencing_token: i64,
}

impl LeaseRow {
    /// A time that cannot be read has passed: nobody could check such a lease.
    fn is_held(&self, now: Micros) -> bool {
        Micros::parse_any(&self.expires_at).is_ok_and(|end| now < end)
    }

    fn is_held_with(&self, token: &str, now: Micros) -> bool {
        self.token == token && self.is_held(now)
    }
}

async fn lease_row(transaction: &Transaction<'_>, key: &str) -> Result<Option<LeaseRow>, Fault> {
    let select = "SELECT lease_token, expires_at, fencing_token FROM sr_run_leases
                  WHERE run_id = $1 FOR UPDATE";
    let Some(row) = transaction.query_opt(select, &[&key]).await? else {
        return Ok(None);
    };
    let row = Columns(&row);
    Ok(Some(LeaseRow {
        token: row.get("lease_token")?,
        expires_at: row.get("expires_at")?,
        fencing_token: row.get("fencing_token")?,
    }))
}

async fn now(transaction: &Transaction<'_>) -> Result<Micros, Fault> {
    let select = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    Ok(Micros(transaction.query_one(select, &[]).await?.get(0)))
}

fn end_of(now: Micros, ttl_seconds: u64) -> Micros {
    let seconds = i64::try_from(ttl_seconds).unwrap_or(i64::MAX);
    Micros(now.0.saturating_add(seconds.saturating_mul(1_000_000)))
}

fn grant(token: String, fencing_token: i64, expires_at: Micros) -> LeaseGrant {
    LeaseGrant {
        token,
        epoch: u64::try_from(fencing_token).unwrap_or_default(),
        expires_at,
    }
}

impl Leases for PostgresAuthority {
    fn acquire(
        &self,
        key: &str,
        owner: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        self.database.call("acquire", async |connection| {
            let transaction = connection.transaction().await?;
            // An absent row cannot be locked: one that wants this key waits for another that does.
            let lock = "SELECT pg_advisory_xact_lock(hashtextextended('sr_run_leases:' || $1, 0))";
            transaction.execute(lock, &[&key]).await?;
            let row = lease_row(&transaction, key).await?;
            let now = now(&transaction).await?;
            if row.as_ref().is_some_and(|row| row.is_held(now)) {
                return Ok(None);
            }
            let fencing_token = row.map_or(1, |row| row.fencing_token.saturating_add(1));
            let token = ids::lease_token(key, owner, &now.format_off());
            let expires_at = end_of(now, ttl_seconds);
            let (ends, stamp) = (expires_at.format_off(), now.format_off());
            transaction
                .execute(
                    "INSERT INTO sr_run_leases (run_id, owner_id, lease_token, expires_at,
                                                updated_at, fencing_token)
                     VALUES ($1, $2, $3, $4, $5, $6)
                     ON CONFLICT (run_id) DO UPDATE SET owner_id = $2, lease_token = $3,
                         expires_at = $4, updated_at = $5, fencing_token = $6",
                    &[&key, &owner, &token, &ends, &stamp, &fencing_token],
                )
                .await?;
            transaction.commit().await?;
            Ok(Some(grant(token, fencing_token, expires_at)))
        })
    }

    fn renew(
        &self,
        key: &str,
        token: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        self.database.call("renew", async |connection| {
            let transaction = connection.transaction().await?;
            let row = lease_row(&transaction, key).await?;
            let now = now(&transaction).await?;
            let Some(row) = row.filter(|row| row.is_held_with(token, now)) else {
                return Ok(None);
            };
            let expires_at = end_of(now, ttl_seconds);
            let (ends, stamp) = (expires_at.format_off(), now.format_off());
            let update =
                "UPDATE sr_run_leases SET expires_at = $2, updated_at = $3 WHERE run_id = $1";
            transaction.execute(update, &[&key, &ends, &stamp]).await?;
            transaction.commit().await?;
            Ok(Some(grant(row.token, row.fencing_token, expires_at)))
        })
    }

    fn holds(&self, key: &str, token: &str) -> Result<bool, StoreError> {
        self.database.call("holds", async |connection| {
            let transaction = connection.transaction().await?;
            let row = lease_row(&transaction, key).await?;
            let now = now(&transaction).await?;
            transaction.rollback().await?;
            Ok(row.is_some_and(|row| row.is_held_with(token, now)))
        })
    }

    fn release(&self, key: &str, token: &str) -> Result<(), StoreError> {
        self.database.call("release", async |connection| {
            let transaction = connection.transaction().await?;
            let stamp = now(&transaction).await?.format_off();
            // The row stays, ended now, so that the fencing token keeps growing.
            let update = "UPDATE sr_run_leases SET expires_at = $3, updated_at = $3
                          WHERE run_id = $1 AND lease_token = $2";
            transaction.execute(update, &[&key, &token, &stamp]).await?;
            transaction.commit().await?;
            Ok(())
        })
    }
}
