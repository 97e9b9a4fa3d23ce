//! The floor alone, stage by stage and as a whole: what straight-line code needs on this machine.
//!
//! `cargo bench --bench floor`; `WELLSPRING_BENCH_EVENTS` is the size of the world (default 1,000,000). Before
//! anything is measured the floor's envelopes, digests and event ids are compared with the product's own.

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use arrow::array::RecordBatch;
use floor::columns::{Columns, Decoder, decode_all};
use floor::digests::{in_lanes, one_by_one};
use floor::disk::{COMMIT_EVENTS, Log, ROW_BYTES};
use floor::framing::{PAYLOAD_HASH_TAIL, Template, hex, push_i64};
use floor::key_set::{Claimed, KeySet};
use floor::pipeline::{Done, PipelineRequest, run_one, run_two};
use std::hint::black_box;
use std::path::PathBuf;
use support::session::Session;
use support::world::{CLASS, World, now};
use wellspring_domain::ids::{Hash32, dedupe_key, payload_hash};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut session = Session::start("floor");
    let world = World::make(support::number("WELLSPRING_BENCH_EVENTS", 1_000_000));
    let parts = world.view_parts();
    let context = world.context();
    let template = Template::new(&context, CLASS);
    agree(&world, &parts, &template);
    decode_and_frame(&mut session, &world, &parts, &template);
    hashing(&mut session, &parts, &template);
    claims(&mut session, world.events as u32);
    writing(&mut session);
    whole(&mut session, &world, &parts, &template);
    session.finish();
}

/// The floor's bytes are the product's bytes.
fn agree(world: &World, parts: &[PathBuf], template: &Template) {
    let batches = world.batches(4096);
    let mut envelopes = batches
        .iter()
        .flat_map(|batch| (0..batch.len()).map(|at| batch.envelope(at)));
    let (mut bytes, mut rows) = (0, 0);
    let mut framed = Framed::default();
    for batch in Decoder::new(parts) {
        let columns = Columns::of(&batch);
        framed.fill(template, &columns);
        for row in 0..columns.rows {
            let ours = envelopes.next().expect("as many envelopes as rows");
            assert_eq!(ours, framed.envelope(row), "row {rows}");
            bytes += ours.len();
            rows += 1;
        }
        let text = framed.payload_text(template, 0);
        let payload = framed.payload(0);
        let output = b"\"s3_event_stream_with_fraud_6B\"";
        assert_eq!(Hash32::of(&text), payload_hash(output, b"\"v1\"", payload));
        let id = framed.ids[0].hex();
        let key = [&template.dedupe_head[..], &id[..]].concat();
        let run = support::world::RUN.as_bytes();
        assert_eq!(Hash32::of(&key), dedupe_key(run, CLASS.as_bytes(), &id));
    }
    assert!(envelopes.next().is_none() && rows == world.events);
    println!(
        "the floor's {rows} envelopes are the product's, {} bytes each, payload {} bytes",
        bytes / rows as usize,
        framed.payload(0).len()
    );
}

/// Rows of one batch, framed.
#[derive(Default)]
struct Framed {
    text: Vec<u8>,
    ends: Vec<usize>,
    payloads: Vec<std::ops::Range<usize>>,
    ids: Vec<Hash32>,
}

impl Framed {
    fn fill(&mut self, template: &Template, columns: &Columns<'_>) {
        let texts = id_texts(template, columns);
        in_lanes(texts.iter().map(Vec::as_slice), &mut self.ids);
        self.frame(template, columns);
    }

    /// Frames with the ids at hand.
    fn frame(&mut self, template: &Template, columns: &Columns<'_>) {
        self.text.clear();
        self.ends.clear();
        self.payloads.clear();
        for row in 0..columns.rows {
            template.check(columns, row);
            let id = hex(&self.ids[row]);
            let payload = template.frame(columns, row, &id, &mut self.text);
            self.payloads.push(payload);
            self.ends.push(self.text.len());
        }
    }

    fn envelope(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[row]]
    }

    fn payload(&self, row: usize) -> &[u8] {
        &self.text[self.payloads[row].clone()]
    }

    fn payload_text(&self, template: &Template, row: usize) -> Vec<u8> {
        [
            &template.payload_hash_head[..],
            self.payload(row),
            PAYLOAD_HASH_TAIL,
        ]
        .concat()
    }
}

fn id_texts(template: &Template, columns: &Columns<'_>) -> Vec<Vec<u8>> {
    let text = |row| {
        let mut text = Vec::new();
        template.push_id_text(columns, row, &mut text);
        text
    };
    (0..columns.rows).map(text).collect()
}

fn decode_and_frame(session: &mut Session, world: &World, parts: &[PathBuf], template: &Template) {
    let work = session.work("decode, 11 columns", world.events);
    work.way("batches of 8192", |watch| {
        watch.measure(|| assert_eq!(decode_all(parts), world.events));
    })
    .run();
    let batch: RecordBatch = Decoder::new(parts).next().expect("rows");
    let columns = Columns::of(&batch);
    let mut framed = Framed::default();
    framed.fill(template, &columns);
    let times = 40;
    let work = session.work("check and frame", times * columns.rows as u64);
    work.way("by hand", |watch| {
        watch.measure(|| (0..times).for_each(|_| framed.frame(template, black_box(&columns))));
    })
    .run();
}

fn hashing(session: &mut Session, parts: &[PathBuf], template: &Template) {
    let batch = Decoder::new(parts).next().expect("rows");
    let columns = Columns::of(&batch);
    let mut framed = Framed::default();
    framed.fill(template, &columns);
    let rows = 0..columns.rows;
    let payloads: Vec<Vec<u8>> = rows
        .clone()
        .map(|row| framed.payload_text(template, row))
        .collect();
    let ids = id_texts(template, &columns);
    let keys: Vec<Vec<u8>> = framed
        .ids
        .iter()
        .map(|id| [&template.dedupe_head[..], &id.hex()[..]].concat())
        .collect();
    let flows: Vec<Vec<u8>> = rows
        .map(|row| {
            let mut text = Vec::new();
            push_i64(&mut text, columns.flow_id[row]);
            text
        })
        .collect();
    for (name, messages) in [
        ("event id", &ids),
        ("payload hash", &payloads),
        ("dedupe key", &keys),
        ("partition key", &flows),
    ] {
        hash_stage(session, name, messages);
    }
}

fn hash_stage(session: &mut Session, name: &str, messages: &[Vec<u8>]) {
    let times = 20;
    let mean = messages.iter().map(Vec::len).sum::<usize>() / messages.len();
    let name = format!("SHA-256 of a {name}, {mean} bytes");
    let (mut digests, mut same) = (Vec::new(), Vec::new());
    let texts = || messages.iter().map(Vec::as_slice);
    let work = session.work(name, times * messages.len() as u64);
    work.way("sha2 crate, one by one", |watch| {
        watch.measure(|| (0..times).for_each(|_| one_by_one(texts(), &mut digests)));
    })
    .way("vector lanes of the domain", |watch| {
        watch.measure(|| (0..times).for_each(|_| in_lanes(texts(), &mut same)));
    })
    .run();
    assert_eq!(digests, same, "both roads give the same digests");
}

fn claims(session: &mut Session, keys: u32) {
    let all: Vec<Hash32> = (0..keys).map(|n| Hash32::of(&n.to_be_bytes())).collect();
    let work = session.work(format!("claim of {keys} new keys"), u64::from(keys));
    work.way("hash table sized ahead", |watch| {
        watch.measure(|| {
            let mut set = KeySet::with_capacity(all.len());
            for key in &all {
                assert_eq!(set.claim(*key, *key), Claimed::New);
            }
            black_box(&set);
        });
    })
    .run();
}

/// Lines of an event's size and its decision row, synced every 10,000 events; also into one partition of four.
fn writing(session: &mut Session) {
    let line = vec![b'x'; 1180];
    let group: Vec<u8> = line.repeat(512);
    let events = 512 * 400;
    for partitions in [1, 4] {
        let name = format!(
            "write and fdatasync every {COMMIT_EVENTS}, {} + {ROW_BYTES} bytes, {partitions} partitions",
            line.len()
        );
        let work = session.work(name, events);
        work.way("append", |watch| {
            let folder = support::folder();
            let mut log = Log::create(folder.path(), partitions);
            watch.measure(|| {
                for number in 0..events / 512 {
                    log.append(number as usize % partitions, &group, 512);
                    (0..512).for_each(|_| log.decide(&[7; ROW_BYTES]));
                    log.commit_when_due();
                }
                log.commit();
            });
            assert_eq!(log.committed(), events);
        })
        .run();
    }
}

fn whole(session: &mut Session, world: &World, parts: &[PathBuf], template: &Template) {
    let run = |run: fn(&PipelineRequest<'_>) -> Done, partitions| {
        move |watch: &mut support::measure::Watch| {
            let folder = support::folder();
            let request = PipelineRequest {
                parts,
                template,
                folder: folder.path(),
                partitions,
                rows: world.events as usize,
                now: &now,
            };
            let done = watch.measure(|| run(&request));
            let admitted = world.events;
            assert_eq!(
                done,
                Done {
                    admitted,
                    copies: 0
                }
            );
        }
    };
    for partitions in [1, 4] {
        let name = format!("whole path, durable, {partitions} partitions");
        let work = session.work(name, world.events);
        work.way("one thread", run(run_one, partitions))
            .way("two threads", run(run_two, partitions))
            .run();
    }
}
