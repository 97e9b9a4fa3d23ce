//! The schema, version by version. Each file is one version; what was applied is in `ws_schema_version`.
//!
//! One process at a time applies, under an advisory lock and in one transaction: a crash leaves the
//! schema as it was. A schema newer than this program is refused: an older program must not write it.

use deadpool_postgres::Object;
use wellspring_domain::ports::StoreError;

use super::faults::Fault;

/// All versions, oldest first; the number is the position, from 1.
const VERSIONS: [&str; 1] = [include_str!("0001_tables.sql")];

/// Key of the advisory lock: `wellspri` as a number.
const LOCK: i64 = i64::from_be_bytes(*b"wellspri");

/// Brings the schema up to date.
pub async fn apply(connection: &mut Object) -> Result<(), Fault> {
    let known = VERSIONS.len() as i32;
    if current(connection).await? == Some(known) {
        return Ok(());
    }
    let transaction = connection.transaction().await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS ws_schema_version (
                 version INTEGER PRIMARY KEY,
                 applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())",
        )
        .await?;
    let row = transaction
        .query_one(
            "SELECT coalesce(max(version), 0) FROM ws_schema_version",
            &[],
        )
        .await?;
    let found: i32 = row.get(0);
    if found > known {
        return Err(newer(found, known).into());
    }
    for version in found + 1..=known {
        transaction
            .batch_execute(VERSIONS[version as usize - 1])
            .await?;
        let record = "INSERT INTO ws_schema_version (version) VALUES ($1)";
        transaction.execute(record, &[&version]).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The version in the database; `None` when there is no schema yet.
async fn current(connection: &Object) -> Result<Option<i32>, Fault> {
    let exists = "SELECT to_regclass('ws_schema_version') IS NOT NULL";
    if !connection.query_one(exists, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = connection
        .query_one("SELECT max(version) FROM ws_schema_version", &[])
        .await?;
    Ok(row.get(0))
}

fn newer(found: i32, known: i32) -> StoreError {
    StoreError::Refused {
        code: "POSTGRES_SCHEMA_NEWER",
        key: "ws_schema_version".to_owned(),
        cause: format!(
            "the schema has version {found}, this program knows {known}; use the newer program"
        ),
    }
}
