//! The schema: made once, at the same time by many, never by an older program; and what others read.

use super::{Fresh, support, with_database};
use std::time::Duration;
use wellspring::settings::secret::Secret;
use wellspring::state_store::postgres::{Database, DatabaseSettings};

fn columns(fresh: &Fresh, table: &str) -> Vec<String> {
    let select = format!(
        "SELECT column_name || ' ' || data_type FROM information_schema.columns
         WHERE table_name = '{table}' AND column_name NOT LIKE 'ws\\_%' ORDER BY ordinal_position"
    );
    fresh
        .rows(&select)
        .into_iter()
        .map(|row| row[0].clone())
        .collect()
}

/// `a, b*, c` as columns: text, or integer with a star.
fn expected(list: &str) -> Vec<String> {
    let column = |name: &str| match name.strip_suffix('*') {
        Some(name) => format!("{name} integer"),
        None => format!("{name} text"),
    };
    list.split(", ").map(column).collect()
}

#[test]
fn tables_and_views_have_exactly_the_contracts_columns() {
    let fresh = Fresh::new();
    fresh.open();
    let contract = [
        (
            "admissions",
            "dedupe_key, state, platform_run_id, event_class, event_id, payload_hash, receipt_ref, receipt_write_failed*, admitted_at_utc, eb_topic, eb_partition*, eb_offset, eb_offset_kind, eb_published_at_utc",
        ),
        (
            "receipts",
            "receipt_id, platform_run_id, event_id, event_type, dedupe_key, decision, eb_topic, eb_partition*, eb_offset, eb_offset_kind, policy_id, policy_revision, policy_digest, created_at_utc, receipt_ref, pins_json, reason_codes_json, evidence_refs_json",
        ),
        (
            "quarantines",
            "quarantine_id, event_id, decision, reason_codes_json, policy_id, policy_revision, policy_digest, created_at_utc, evidence_ref, pins_json",
        ),
        (
            "sr_run_equivalence",
            "run_equivalence_key, run_id, intent_fingerprint, first_seen_at, last_seen_at",
        ),
    ];
    for (table, list) in contract {
        assert_eq!(columns(&fresh, table), expected(list), "{table}");
    }
    let leases = columns(&fresh, "sr_run_leases");
    assert_eq!(
        leases[..5],
        expected("run_id, owner_id, lease_token, expires_at, updated_at")
    );
    let checkpoint = columns(&fresh, "wsp_checkpoint");
    let list = "pack_key, output_id, last_file, last_row_index*, last_ts_utc";
    assert_eq!(checkpoint[..5], expected(list));
    assert_eq!(checkpoint[5], "updated_at_utc timestamp with time zone");
}

#[test]
fn many_that_start_at_once_make_one_schema_and_starting_again_changes_nothing() {
    let fresh = Fresh::new();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| fresh.open());
        }
    });
    fresh.open();
    let versions = fresh.rows("SELECT version FROM ws_schema_version ORDER BY version");
    assert_eq!(versions, [["1"]]);
}

#[test]
fn tables_another_program_made_are_kept_and_extended() {
    let fresh = Fresh::new();
    fresh.execute(
        "CREATE TABLE wsp_checkpoint (pack_key TEXT NOT NULL, output_id TEXT NOT NULL,
             last_file TEXT NOT NULL, last_row_index INTEGER NOT NULL, last_ts_utc TEXT NULL,
             updated_at_utc TIMESTAMPTZ NOT NULL, PRIMARY KEY (pack_key, output_id));
         INSERT INTO wsp_checkpoint VALUES ('k', 'o', 'f', 7, NULL, now())",
    );
    fresh.open();
    let kept = fresh.rows("SELECT last_row_index, ws_lease_epoch FROM wsp_checkpoint");
    assert_eq!(kept, [["7", "~"]]);
}

#[test]
fn a_newer_schema_is_refused_by_its_version() {
    let fresh = Fresh::new();
    fresh.open();
    fresh.execute("INSERT INTO ws_schema_version (version) VALUES (99)");
    let error = Database::open(&fresh.secret(), DatabaseSettings::default())
        .err()
        .unwrap();
    assert_eq!(error.code(), "POSTGRES_SCHEMA_NEWER");
    assert!(error.to_string().contains("99"), "{error}");
}

#[test]
fn a_migration_that_fails_leaves_nothing_behind() {
    let fresh = Fresh::new();
    fresh.execute("CREATE TABLE receipts (a TEXT)");
    let error = Database::open(&fresh.secret(), DatabaseSettings::default())
        .err()
        .unwrap();
    assert_eq!(error.code(), "POSTGRES_SCHEMA_UNUSABLE");
    let tables = fresh
        .rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'");
    assert_eq!(tables, [["receipts"]]);
}

fn open_error(dsn: &str) -> (String, String) {
    let quick = DatabaseSettings {
        connect_timeout: Duration::from_millis(500),
        ..DatabaseSettings::default()
    };
    let error = Database::open(&Secret::new(dsn), quick).err().unwrap();
    (error.code().to_owned(), error.to_string())
}

#[test]
fn what_is_wrong_with_a_connection_is_told_by_code_and_without_the_password() {
    let dsn = support::postgres_dsn();
    let (scheme, rest) = dsn.split_once("://").unwrap();
    let (user, server) = match rest.split_once('@') {
        Some((credentials, server)) => (credentials.split(':').next().unwrap(), server),
        None => ("platform", rest),
    };
    let cases = [
        (
            format!("{scheme}://{user}:hunter2@{server}"),
            "POSTGRES_AUTH_FAILED",
        ),
        (
            with_database(&dsn, "there-is-none"),
            "POSTGRES_DATABASE_MISSING",
        ),
        (
            format!("{scheme}://{user}:hunter2@127.0.0.1:1/platform"),
            "STORE_UNAVAILABLE",
        ),
        (
            format!("{scheme}://{user}:hunter2@192.0.2.1:5432/platform"),
            "STORE_UNAVAILABLE",
        ),
        (format!("{dsn}?sslmode=require"), "POSTGRES_TLS_FAILED"),
    ];
    for (dsn, code) in cases {
        let (said, text) = open_error(&dsn);
        assert_eq!(said, code, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

mod faults {
    use super::*;
    use crate::support::{Faults, Server, wait_until};

    #[test]
    fn a_restarted_server_is_found_again() {
        let faults = Faults::begin();
        let fresh = Fresh::new();
        let database = fresh.open();
        database.ping().unwrap();
        faults.kill(Server::Postgres);
        let error = database.ping().unwrap_err();
        assert_eq!(error.code(), "STORE_UNAVAILABLE");
        faults.restart(Server::Postgres);
        wait_until(
            "the pool has new connections",
            Duration::from_secs(30),
            || database.ping().is_ok(),
        );
    }
}
