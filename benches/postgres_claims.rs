//! What admission costs in PostgreSQL: claims and marks in batches of 500 and of 2,000 rows, by one writer
//! and by four, and a batch that is all duplicates.
//!
//! Needs a server: `infra/parity/with cargo bench --bench postgres_claims`. It works in a database of its
//! own and drops it. `WELLSPRING_BENCH_ROWS` is the number of rows of each case (default 200,000).

// A benchmark measures real time.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};
use wellspring::blocking_runtime::{block_on, handle};
use wellspring::settings::secret::Secret;
use wellspring::state_store::postgres::admissions::{
    AdmissionLedger, Admitted, BusPlace, Claim, ClaimBatch, ClaimResult, FlushHead, FlushKey,
    MarkBatch,
};
use wellspring::state_store::postgres::{Database, DatabaseSettings};
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::decision::{Actor, PolicyRev, ReceiptContext};
use wellspring_domain::ids::Hash32;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::time_text::Micros;

const DSN: &str = "WELLSPRING_TEST_POSTGRES_DSN";
const RUN: &str = "platform_20260101T000000Z";
const TOPIC: &str = "fp.bus.traffic.fraud.v1";
const DATABASE: &str = "ws_bench_claims";
/// Kernel ticks of CPU time a second.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let Ok(dsn) = std::env::var(DSN) else {
        eprintln!(
            "{DSN} is not set: `infra/parity/with cargo bench --bench postgres_claims` sets it"
        );
        std::process::exit(1);
    };
    let rows = std::env::var("WELLSPRING_BENCH_ROWS").ok();
    let rows: u64 = rows.and_then(|text| text.parse().ok()).unwrap_or(200_000);
    query(&dsn, &format!("DROP DATABASE IF EXISTS {DATABASE}"));
    query(&dsn, &format!("CREATE DATABASE {DATABASE}"));
    let (server, _) = dsn.rsplit_once('/').expect("the DSN names a database");
    let own = format!("{server}/{DATABASE}");
    let open = Database::open(&Secret::new(&own), DatabaseSettings::default());
    let ledger = AdmissionLedger::new(open.expect("the server answers"));
    println!("{rows} rows each; CPU seconds per million rows");
    println!("case                     rows/s   server   client");
    let mut first = 0;
    for (batch, writers) in [(500, 1), (2_000, 1), (500, 4), (2_000, 4)] {
        let events = first..first + rows;
        first += rows;
        measure(&own, &format!("admit {batch} x{writers}"), rows, || {
            let share = rows / writers;
            std::thread::scope(|scope| {
                for writer in 0..writers {
                    let begin = events.start + writer * share;
                    let ledger = &ledger;
                    scope.spawn(move || admit(ledger, writer as u16, begin..begin + share, batch));
                }
            });
        });
    }
    measure(&own, "duplicates 2000 x1", rows, || {
        admit(&ledger, 9, 0..rows, 2_000)
    });
    let size = "SELECT pg_total_relation_size('admissions') / count(*), pg_relation_size('admissions') / count(*),
                (SELECT n_tup_hot_upd * 100 / greatest(n_tup_upd, 1) FROM pg_stat_user_tables
                 WHERE relname = 'admissions') FROM admissions";
    let size = &query(&own, size)[0];
    println!(
        "bytes a row with indexes {}, without {}; updates on their page {} %",
        size[0], size[1], size[2]
    );
    drop(ledger);
    query(&dsn, &format!("DROP DATABASE {DATABASE} WITH (FORCE)"));
}

fn measure(dsn: &str, case: &str, rows: u64, work: impl FnOnce()) {
    let (server, client, begun) = (server_cpu(dsn), own_cpu(), Instant::now());
    work();
    let seconds = begun.elapsed().as_secs_f64();
    let million = rows as f64 / 1e6;
    let server = (server_cpu(dsn) - server) / million;
    let client = (own_cpu() - client) / million;
    println!(
        "{case:22} {:>8.0} {server:>8.1} {client:>8.1}",
        rows as f64 / seconds
    );
}

/// Claims and marks the events; those that are taken already are left alone.
fn admit(ledger: &AdmissionLedger, shard: u16, events: std::ops::Range<u64>, batch: u64) {
    let run = PlatformRunId::parse(RUN).expect("a run id");
    let ttl = Duration::from_secs(600);
    let writer = ledger
        .open_writer(&run, shard, "bench", ttl)
        .expect("a writer");
    let contexts = [context()];
    let mut segment = writer.block.first_segment;
    let mut begin = events.start;
    while begin < events.end {
        let flush = FlushKey {
            run: run.clone(),
            shard,
            segment,
        };
        let ids: Vec<String> = (begin..(begin + batch).min(events.end))
            .map(event_id)
            .collect();
        let claims: Vec<Claim<'_>> = ids
            .iter()
            .enumerate()
            .map(|(row, id)| claim(row as u32, id))
            .collect();
        let segment_ref =
            format!("s3://bucket/{RUN}/ig/journal/shard-{shard:03}/segment-{segment:08}.wsr");
        let head = FlushHead {
            writer: writer.writer,
            key: &flush,
            rows: claims.len() as u32,
            positions: &[],
            decided_at: Micros(1_767_225_600_250_000),
            segment_ref: &segment_ref,
            quarantine_root: "q",
        };
        let outcome = ledger.claim(&ClaimBatch {
            flush: head,
            contexts: &contexts,
            claims: &claims,
        });
        let results = outcome.expect("claims").results;
        let won = claims
            .iter()
            .zip(&results)
            .filter(|(_, result)| **result == ClaimResult::Won);
        let admitted: Vec<Admitted> = won.map(|(claim, _)| admitted(claim, begin)).collect();
        let marked = ledger.mark(&MarkBatch {
            flush: head,
            admitted: &admitted,
            contexts: &[],
            decisions: &[],
            positions: &[],
        });
        marked.expect("marks");
        segment += 1;
        begin += batch;
    }
}

fn event_id(n: u64) -> String {
    Hash32::of(&n.to_be_bytes()).to_string()
}

fn claim(row: u32, event_id: &str) -> Claim<'_> {
    Claim {
        row,
        context: 0,
        event_id,
        ts_utc: "2026-01-01T00:00:00.250000Z",
        dedupe_key: Hash32::of(event_id.as_bytes()),
        payload_hash: Hash32::of(&event_id.as_bytes()[1..]),
        partition_key: Hash32::of(&event_id.as_bytes()[2..]),
    }
}

fn admitted(claim: &Claim<'_>, begin: u64) -> Admitted {
    let sequence = format!(
        "4959033827149025660855969253836157109592{:016}",
        begin + u64::from(claim.row)
    );
    let sequence = SequenceNumber::parse(&sequence).expect("a sequence number");
    Admitted {
        dedupe_key: claim.dedupe_key,
        place: BusPlace {
            topic: TOPIC.into(),
            partition: 3,
            offset: BusOffset::Sequence(sequence),
        },
    }
}

fn context() -> Arc<ReceiptContext> {
    Arc::new(ReceiptContext {
        event_type: "s3_event_stream_with_fraud_6B".to_owned(),
        event_class: "traffic_fraud".to_owned(),
        manifest_fingerprint: "f".repeat(64),
        pins: serde_json::json!({"seed": 42}),
        platform_run_id: RUN.to_owned(),
        scenario_run_id: None,
        schema_version: None,
        producer: None,
        topic: TOPIC.to_owned(),
        partitioning_profile_id: "p".to_owned(),
        actor: Actor {
            actor_id: "SYSTEM::bench".to_owned(),
            source_type: "SYSTEM".to_owned(),
            auth_mode: "disabled".to_owned(),
            principal: "bench".to_owned(),
        },
        policy_rev: PolicyRev {
            policy_id: "ig_policy".to_owned(),
            revision: "v0".to_owned(),
            content_digest: "d".repeat(64),
        },
        provenance: serde_json::json!({}),
    })
}

fn query(dsn: &str, sql: &str) -> Vec<Vec<String>> {
    block_on(async {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls)
            .await
            .expect("the server answers");
        handle().spawn(connection);
        let messages = client
            .simple_query(sql)
            .await
            .expect("the statement is right");
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or("").to_owned())
                    .collect(),
            ),
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    })
}

/// CPU seconds of this process, its threads that have ended included.
fn own_cpu() -> f64 {
    cpu_of(
        &std::fs::read_to_string("/proc/self/stat").unwrap_or_default(),
        11..13,
    )
}

/// CPU seconds of the server: all processes below the one that listens, ended ones included.
fn server_cpu(dsn: &str) -> f64 {
    let backend = &query(dsn, "SELECT pg_backend_pid()")[0][0];
    // The backend has just ended or is about to; its parent is asked for by another.
    let living = query(dsn, "SELECT pid FROM pg_stat_activity").concat();
    let parent = living.iter().chain([backend]).find_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)
            .map(str::to_owned)
    });
    let Some(parent) = parent else { return 0.0 };
    let own = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.unwrap_or_default();
    let child = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        cpu_of(&stat, 11..13)
    };
    cpu_of(&own, 11..15) + children.split_whitespace().map(child).sum::<f64>()
}

/// The sum of tick columns of a process's line, counted after its name.
fn cpu_of(stat: &str, columns: std::ops::Range<usize>) -> f64 {
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace();
    let ticks = fields.skip(columns.start).take(columns.len());
    ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS_PER_SECOND
}
