//! PostgreSQL as the state store, against a real server. Each test has a database of its own.

mod claims;
mod fencing;
mod schema;
mod settling;

use crate::support;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use wellspring::blocking_runtime::{block_on, handle};
use wellspring::settings::secret::Secret;
use wellspring::state_store::postgres::admissions::{
    AdmissionLedger, Admitted, BusPlace, Claim, ClaimBatch, ClaimResult, FlushHead, FlushKey,
    MarkBatch, Writer, WriterId,
};
use wellspring::state_store::postgres::{Database, DatabaseSettings};
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::decision::{Actor, PolicyRev, ReceiptContext};
use wellspring_domain::ids::Hash32;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::time_text::Micros;

const RUN: &str = "platform_20260101T000000Z";
const TOPIC: &str = "fp.bus.traffic.fraud.v1";
/// Where quarantined events of the run are.
const QUARANTINE_ROOT: &str = "s3://b/platform_20260101T000000Z/ig/quarantine";
const DECIDED_AT: Micros = Micros(1_767_225_600_250_000);
const LONG: Duration = Duration::from_secs(300);

fn run() -> PlatformRunId {
    PlatformRunId::parse(RUN).unwrap()
}

/// A database made for one test and dropped with it.
struct Fresh {
    name: String,
    dsn: String,
}

impl Fresh {
    fn new() -> Self {
        let name = support::unique_name("ws");
        execute(
            &support::postgres_dsn(),
            &format!("CREATE DATABASE \"{name}\""),
        );
        let dsn = with_database(&support::postgres_dsn(), &name);
        Fresh { name, dsn }
    }

    fn secret(&self) -> Secret {
        Secret::new(&self.dsn)
    }

    fn open(&self) -> Database {
        Database::open(&self.secret(), DatabaseSettings::default()).unwrap()
    }

    fn ledger(&self) -> AdmissionLedger {
        AdmissionLedger::new(self.open())
    }

    /// Runs statements from outside of the program.
    fn execute(&self, sql: &str) {
        execute(&self.dsn, sql);
    }

    /// Rows of a query from outside of the program; `~` for null.
    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&self.dsn, sql)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
        let _ = try_rows(&support::postgres_dsn(), &drop);
    }
}

/// The same server, another database.
fn with_database(dsn: &str, name: &str) -> String {
    let (address, query) = dsn
        .split_once('?')
        .map_or((dsn, String::new()), |(address, query)| {
            (address, format!("?{query}"))
        });
    let (server, _database) = address.rsplit_once('/').unwrap();
    format!("{server}/{name}{query}")
}

fn execute(dsn: &str, sql: &str) {
    rows(dsn, sql);
}

fn rows(dsn: &str, sql: &str) -> Vec<Vec<String>> {
    try_rows(dsn, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

fn try_rows(dsn: &str, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
    block_on(async {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
        handle().spawn(connection);
        let mut rows = Vec::new();
        for message in client.simple_query(sql).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let text = |column| row.get(column).unwrap_or("~").to_owned();
                rows.push((0..row.len()).map(text).collect());
            }
        }
        Ok(rows)
    })
}

fn context() -> Arc<ReceiptContext> {
    Arc::new(ReceiptContext {
        event_type: "s3_event_stream_with_fraud_6B".to_owned(),
        event_class: "traffic_fraud".to_owned(),
        manifest_fingerprint: "f".repeat(64),
        pins: serde_json::json!({"seed": 42, "platform_run_id": RUN, "run_id": null}),
        platform_run_id: RUN.to_owned(),
        scenario_run_id: None,
        schema_version: Some("v1".to_owned()),
        producer: None,
        topic: TOPIC.to_owned(),
        partitioning_profile_id: "ig.partitioning.v0.traffic.fraud".to_owned(),
        actor: Actor {
            actor_id: "SYSTEM::a".to_owned(),
            source_type: "SYSTEM".to_owned(),
            auth_mode: "disabled".to_owned(),
            principal: "a".to_owned(),
        },
        policy_rev: PolicyRev {
            policy_id: "ig_policy".to_owned(),
            revision: "v0".to_owned(),
            content_digest: "d".repeat(64),
        },
        provenance: serde_json::json!({"environment": "test"}),
    })
}

/// Event `n` of the tests: its id, key and hash.
fn event_id(n: u64) -> String {
    Hash32::of(format!("event {n}").as_bytes()).to_string()
}

fn key_of(n: u64) -> Hash32 {
    Hash32::of(format!("key {n}").as_bytes())
}

fn hash_of(n: u64) -> Hash32 {
    Hash32::of(format!("payload {n}").as_bytes())
}

fn sequence(n: u64) -> BusOffset {
    let text = format!("4959033827149025660855969253836157109592{n:016}");
    BusOffset::Sequence(SequenceNumber::parse(&text).unwrap())
}

fn admitted(n: u64) -> Admitted {
    Admitted {
        dedupe_key: key_of(n),
        place: BusPlace {
            topic: TOPIC.into(),
            partition: (n % 2) as u32,
            offset: sequence(n),
        },
    }
}

/// A writer of one shard with what its flushes need.
struct TestWriter {
    ledger: AdmissionLedger,
    writer: Writer,
    shard: u16,
    next_segment: u32,
}

impl TestWriter {
    fn open(ledger: &AdmissionLedger, shard: u16) -> Self {
        Self::open_for(ledger, shard, LONG)
    }

    fn open_for(ledger: &AdmissionLedger, shard: u16, ttl: Duration) -> Self {
        let writer = ledger.open_writer(&run(), shard, "node-a", ttl).unwrap();
        TestWriter {
            ledger: ledger.clone(),
            next_segment: writer.block.first_segment,
            writer,
            shard,
        }
    }

    fn id(&self) -> WriterId {
        self.writer.writer
    }

    fn next_flush(&mut self) -> FlushKey {
        let segment = self.next_segment;
        self.next_segment += 1;
        FlushKey {
            run: run(),
            shard: self.shard,
            segment,
        }
    }

    /// Claims events in a flush of their own.
    fn claim(
        &mut self,
        events: &[u64],
    ) -> Result<(FlushKey, Vec<ClaimResult>), wellspring_domain::ports::StoreError> {
        let flush = self.next_flush();
        let results = claim_in(&self.ledger, self.id(), &flush, events)?;
        Ok((flush, results))
    }

    fn mark(
        &self,
        flush: &FlushKey,
        events: &[u64],
    ) -> Result<(), wellspring_domain::ports::StoreError> {
        let admitted: Vec<Admitted> = events.iter().map(|&n| admitted(n)).collect();
        self.ledger.mark(&MarkBatch {
            flush: head(self.id(), flush, &segment_ref(flush), admitted.len()),
            admitted: &admitted,
            contexts: &[],
            decisions: &[],
            positions: &[],
        })
    }
}

/// What the row of a flush says.
fn head<'a>(
    writer: WriterId,
    key: &'a FlushKey,
    segment_ref: &'a str,
    rows: usize,
) -> FlushHead<'a> {
    FlushHead {
        writer,
        key,
        rows: rows as u32,
        positions: &[],
        decided_at: DECIDED_AT,
        segment_ref,
        quarantine_root: QUARANTINE_ROOT,
    }
}

fn segment_ref(flush: &FlushKey) -> String {
    format!(
        "s3://b/{}/ig/journal/shard-{:03}/segment-{:08}.wsr",
        flush.run.as_str(),
        flush.shard,
        flush.segment
    )
}

fn claim_in(
    ledger: &AdmissionLedger,
    writer: WriterId,
    flush: &FlushKey,
    events: &[u64],
) -> Result<Vec<ClaimResult>, wellspring_domain::ports::StoreError> {
    let ids: Vec<String> = events.iter().map(|&n| event_id(n)).collect();
    let claims: Vec<Claim<'_>> = events
        .iter()
        .zip(&ids)
        .enumerate()
        .map(|(row, (&n, event_id))| Claim {
            row: row as u32,
            context: 0,
            event_id,
            ts_utc: "2026-01-01T00:00:00.250000Z",
            dedupe_key: key_of(n),
            payload_hash: hash_of(n),
            partition_key: Hash32::of(&n.to_be_bytes()),
        })
        .collect();
    let outcome = ledger.claim(&ClaimBatch {
        flush: head(writer, flush, &segment_ref(flush), events.len()),
        contexts: &[context()],
        claims: &claims,
    })?;
    Ok(outcome.results)
}

fn won(results: &[ClaimResult]) -> usize {
    results
        .iter()
        .filter(|result| **result == ClaimResult::Won)
        .count()
}
