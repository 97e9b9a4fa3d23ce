//! The data plane piece by piece beside its floor: decode, framing, envelope validation, canonical check, hashing.
//!
//! `cargo bench --bench data_plane`; a word on the command line picks work by name. `WELLSPRING_BENCH_EVENTS` is
//! the size of the world (default 200,000).

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use arrow::array::RecordBatch;
use floor::columns::{Columns, Decoder, decode_all};
use floor::digests::{in_lanes, one_by_one};
use floor::framing::{PAYLOAD_HASH_TAIL, Template, hex, push_i64};
use std::hint::black_box;
use std::sync::Arc;
use support::measure::Watch;
use support::session::Session;
use support::world::{BATCH, CLASS, OUTPUT, World};
use wellspring::gate::policy_files::load_policy;
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::admission::envelope::{Envelope, Field};
use wellspring_domain::admission::envelope_reader::{Compared, EnvelopeReader, Reading};
use wellspring_domain::admission::intake::{
    IntakeContext, IntakeMemory, ProofState, VerifyGates, judge,
};
use wellspring_domain::admission::policy::AdmissionPolicy;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::EnvelopeBatch;
use wellspring_domain::sha256::HashBatch;
use wellspring_domain::stream::framing::{FrameContext, FrameMemo, FramePlan};
use wellspring_domain::stream::source::{RowBlock, WorldSource};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times a batch that lies in the cache is worked through.
const TIMES: u64 = if cfg!(debug_assertions) { 10 } else { 400 };

fn main() {
    // Floor and product alike: as the program does.
    wellspring::process::without_huge_pages();
    let mut session = Session::start("data_plane");
    let world = World::make(support::number("WELLSPRING_BENCH_EVENTS", 200_000));
    let context = world.context();
    let template = Template::new(&context, CLASS);
    decode(&mut session, &world);
    framing(&mut session, &world, &context, &template);
    let batches = world.batches(BATCH);
    let batch = &batches[0];
    validation(&mut session, &world, &template, batch);
    canonical_check(&mut session, &template, batch);
    hashing(&mut session, &template, batch);
    session.finish();
}

fn decode(session: &mut Session, world: &World) {
    let parts = world.view_parts();
    let settings = world.settings(&world.folder.path().join("runs"), &[]);
    let prepared = world.prepare(&settings);
    let work = session.work("parquet decode", world.events);
    work.way("floor: arrow batches of 8192", |watch| {
        watch.measure(|| assert_eq!(decode_all(&parts), world.events));
    })
    .way("stream view reader", |watch| {
        watch.measure(|| {
            let mut view = prepared.source.open(OUTPUT, None).expect("a view");
            let mut rows = 0;
            while let Some(block) = view.reader.next_block().expect("rows") {
                black_box(block.columns().len());
                rows += block.rows() as u64;
            }
            assert_eq!(rows, world.events);
        });
    })
    .run();
}

/// Event ids and envelopes of rows that are decoded already.
fn framing(session: &mut Session, world: &World, context: &FrameContext, template: &Template) {
    let parts = world.view_parts();
    let decoded: Vec<RecordBatch> = Decoder::new(&parts).collect();
    let settings = world.settings(&world.folder.path().join("runs"), &[]);
    let mut view = world.prepare(&settings).source.open(OUTPUT, None);
    let reader = &mut view.as_mut().expect("a view").reader;
    let mut blocks: Vec<Box<dyn RowBlock>> = Vec::new();
    while let Some(block) = reader.next_block().expect("rows") {
        blocks.push(block);
    }
    let (mut by_hand, mut ours) = (Digesting::default(), Digesting::default());
    let work = session.work("framing with event ids", world.events);
    work.way("floor: by hand", |watch| {
        by_hand = Digesting::default();
        watch.measure(|| frame_by_hand(&decoded, template, &mut by_hand));
    })
    .way("frame plan", |watch| {
        ours = Digesting::default();
        watch.measure(|| frame_by_plan(&blocks, context, &mut ours));
    })
    .run();
    assert_eq!(by_hand.bytes, ours.bytes, "both frame the same bytes");
}

/// Takes framed bytes in a way no side can leave out.
#[derive(Default)]
struct Digesting {
    bytes: u64,
}

impl Digesting {
    fn take(&mut self, text: &[u8]) {
        self.bytes += black_box(text).len() as u64;
    }
}

fn frame_by_hand(decoded: &[RecordBatch], template: &Template, out: &mut Digesting) {
    let (mut hashes, mut ids) = (HashBatch::default(), Vec::new());
    let (mut preimage, mut text) = (Vec::new(), Vec::new());
    for batch in decoded {
        let columns = Columns::of(batch);
        for first in (0..columns.rows).step_by(BATCH) {
            let rows = first..(first + BATCH).min(columns.rows);
            for row in rows.clone() {
                preimage.clear();
                template.push_id_text(&columns, row, &mut preimage);
                hashes.push(&[&preimage]);
            }
            hashes.finish(&mut ids);
            text.clear();
            for (row, id) in rows.zip(&ids) {
                template.check(&columns, row);
                template.frame(&columns, row, &hex(id), &mut text);
            }
            out.take(&text);
        }
    }
}

fn frame_by_plan(blocks: &[Box<dyn RowBlock>], context: &FrameContext, out: &mut Digesting) {
    let mut memo = FrameMemo::default();
    let mut text = Vec::new();
    for block in blocks {
        let columns = block.columns();
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let plan = FramePlan::new(context, &names).expect("a plan");
        let mut framer = plan.bind(&columns, &mut memo).expect("columns that fit");
        for first in (0..block.rows()).step_by(BATCH) {
            text.clear();
            for row in first..(first + BATCH).min(block.rows()) {
                framer.frame(row, &mut text).expect("a row that frames");
            }
            out.take(&text);
        }
    }
}

fn validation(session: &mut Session, world: &World, template: &Template, batch: &EnvelopeBatch) {
    let settings = world.settings(&world.folder.path().join("runs"), &[]);
    let policy = load_policy(&settings).expect("a policy");
    let events = TIMES * batch.len() as u64;
    let work = session.work("envelope validation", events);
    work.way("floor: known shape", |watch| {
        read_by_shape(watch, template, batch)
    })
    .way("serde_json, syntax only", |watch| {
        watch.measure(|| {
            for at in again(batch) {
                let text = black_box(batch.envelope(at));
                let read: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(text);
                assert!(read.is_ok());
            }
        });
    })
    .way(
        "envelope alone, every rule and the payload schema",
        |watch| {
            watch.measure(|| {
                for at in again(batch) {
                    let envelope = Envelope::read(black_box(batch.envelope(at)));
                    let envelope = envelope.expect("JSON").expect("an object");
                    assert!(envelope.validate().is_ok() && keeps_schema(&policy, &envelope));
                }
            });
        },
    )
    .way(
        "envelopes of a batch, each beside the one before",
        |watch| {
            watch.measure(|| {
                let mut reader = EnvelopeReader::default();
                for at in again(batch) {
                    let read = reader.read(black_box(batch.envelope(at)));
                    let Reading { envelope, compared } = read.expect("JSON").expect("an object");
                    let own = [Field::EventId, Field::TsUtc, Field::Payload];
                    let valid = match compared {
                        Compared::Alike { .. } => envelope.validate_only(&own),
                        Compared::Unknown => envelope.validate(),
                    };
                    assert!(valid.is_ok() && keeps_schema(&policy, &envelope));
                }
            });
        },
    )
    .run();
    judging(session, &policy, template, batch);
}

/// One walk along the shape all envelopes have.
fn read_by_shape(watch: &mut Watch, template: &Template, batch: &EnvelopeBatch) {
    watch.measure(|| {
        for at in again(batch) {
            assert!(template.read(black_box(batch.envelope(at))).is_some());
        }
    });
}

fn again(batch: &EnvelopeBatch) -> impl Iterator<Item = usize> {
    let events = batch.len();
    (0..TIMES).flat_map(move |_| 0..events)
}

fn keeps_schema(policy: &AdmissionPolicy, envelope: &Envelope<'_>) -> bool {
    let event_type = envelope.string(Field::EventType).unwrap_or_default();
    let schema = policy.rule(&event_type).schema.as_ref();
    let payload = schema.and_then(|schema| schema.payload.as_ref());
    let payload = payload.expect("the output has a payload schema");
    let checked = payload.check_members(envelope.payload_json(), envelope.payload_members());
    checked.is_ok()
}

/// Everything the gate does in front of its shards: validate, hash, place.
fn judging(
    session: &mut Session,
    policy: &AdmissionPolicy,
    template: &Template,
    batch: &EnvelopeBatch,
) {
    let actor = Actor {
        actor_id: "SYSTEM::bench".to_owned(),
        source_type: "SYSTEM".to_owned(),
        auth_mode: "in_process".to_owned(),
        principal: "bench".to_owned(),
    };
    let (provenance, partitions) = (serde_json::json!({}), vec![4; policy.topics().len()]);
    let context = IntakeContext {
        policy,
        partitions: &partitions,
        shards: 2,
        actor: &actor,
        provenance: &provenance,
        verify_gates: VerifyGates::Off,
        proofs: &|_, _| ProofState::Absent,
    };
    let events = TIMES * batch.len() as u64;
    let work = session.work("judge: validate, hash, place", events);
    work.way("floor: known shape and lanes", |watch| {
        let (mut hashes, mut digests) = (HashBatch::default(), Vec::new());
        watch.measure(|| {
            for _ in 0..TIMES {
                digests_of(template, black_box(batch), &mut hashes, &mut digests);
            }
        });
    })
    .way("judge", |watch| {
        let mut memory = IntakeMemory::default();
        watch.measure(|| {
            for _ in 0..TIMES {
                let judged = judge(black_box(batch), &context, &mut memory);
                assert!(judged.items.iter().all(|item| item.quarantine.is_none()));
            }
        });
    })
    .run();
    let (mut hashes, mut digests) = (HashBatch::default(), Vec::new());
    digests_of(template, batch, &mut hashes, &mut digests);
    let judged = judge(batch, &context, &mut IntakeMemory::default());
    for (item, floor) in judged.items.iter().zip(digests.chunks_exact(3)) {
        let ours = [item.dedupe_key, item.payload_hash, item.partition_key];
        assert_eq!(ours, *floor, "both sides make the same digests");
    }
}

/// The three digests of every envelope.
fn digests_of(
    template: &Template,
    batch: &EnvelopeBatch,
    hashes: &mut HashBatch,
    digests: &mut Vec<Hash32>,
) {
    let mut some = Vec::new();
    digests.clear();
    for at in 0..batch.len() {
        let text = batch.envelope(at);
        let found = template.read(text).expect("the known shape");
        hashes.push(&[&template.dedupe_head, &text[found.event_id]]);
        let payload = &text[found.payload];
        hashes.push(&[&template.payload_hash_head, payload, PAYLOAD_HASH_TAIL]);
        hashes.push(&[&text[found.flow_id]]);
        if hashes.bytes() > 128 * 1024 {
            hashes.finish(&mut some);
            digests.append(&mut some);
        }
    }
    hashes.finish(&mut some);
    digests.append(&mut some);
}

/// Is this text canonical; and what a text costs that is not.
fn canonical_check(session: &mut Session, template: &Template, batch: &EnvelopeBatch) {
    let events = TIMES * batch.len() as u64;
    let work = session.work("canonical check, canonical text", events);
    work.way("floor: known shape", |watch| {
        read_by_shape(watch, template, batch)
    })
    .way("envelope alone", |watch| {
        watch.measure(|| assert_eq!(unchanged(batch), events));
    })
    .way(
        "envelopes of a batch, each beside the one before",
        |watch| {
            watch.measure(|| {
                let mut reader = EnvelopeReader::default();
                for at in again(batch) {
                    let read = reader.read(black_box(batch.envelope(at)));
                    let reading = read.expect("JSON").expect("an object");
                    assert!(reading.envelope.is_unchanged());
                }
            });
        },
    )
    .run();
    let spaced = respelled(batch);
    let work = session.work("canonical check, another spelling", events);
    work.way("floor: serde_json value and back", |watch| {
        watch.measure(|| {
            for at in again(&spaced) {
                let text = black_box(spaced.envelope(at));
                let value: serde_json::Value = serde_json::from_slice(text).expect("JSON");
                black_box(serde_json::to_vec(&value).expect("JSON"));
            }
        });
    })
    .way("envelope rewrite", |watch| {
        watch.measure(|| assert_eq!(unchanged(&spaced), 0));
    })
    .run();
}

fn unchanged(batch: &EnvelopeBatch) -> u64 {
    let read = |at| Envelope::read(black_box(batch.envelope(at)));
    let read = |at| read(at).expect("JSON").expect("an object");
    again(batch).filter(|at| read(*at).is_unchanged()).count() as u64
}

/// The same envelopes with spaces, as another program may send them.
fn respelled(batch: &EnvelopeBatch) -> EnvelopeBatch {
    let mut other = EnvelopeBatch::default();
    let mut bytes = Vec::new();
    for index in 0..batch.len() {
        let value: serde_json::Value = serde_json::from_slice(batch.envelope(index)).expect("JSON");
        let start = bytes.len() as u32;
        bytes.extend(serde_json::to_vec_pretty(&value).expect("JSON"));
        other.ranges.push(start..bytes.len() as u32);
    }
    other.bytes = Arc::new(bytes);
    other
}

/// The four digests of an event, from texts that are at hand.
fn hashing(session: &mut Session, template: &Template, batch: &EnvelopeBatch) {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for at in 0..batch.len() {
        let text = batch.envelope(at);
        let found = template.read(text).expect("the known shape");
        let flow = &text[found.flow_id];
        texts.push(template.id_text(flow, b"1"));
        texts.push([&template.dedupe_head[..], &text[found.event_id]].concat());
        let payload = &text[found.payload];
        texts.push([&template.payload_hash_head[..], payload, PAYLOAD_HASH_TAIL].concat());
        texts.push(flow.to_vec());
    }
    let times = TIMES.div_ceil(4);
    let all = || texts.iter().map(Vec::as_slice);
    let (mut lanes, mut single, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let work = session.work("hashing, four digests an event", times * batch.len() as u64);
    work.way("floor: lanes, whole messages", |watch| {
        watch.measure(|| (0..times).for_each(|_| in_lanes(all(), &mut lanes)));
    })
    .way("sha2 crate, one by one", |watch| {
        watch.measure(|| (0..times).for_each(|_| one_by_one(all(), &mut single)));
    })
    .way("hash batch, messages in parts", |watch| {
        watch.measure(|| (0..times).for_each(|_| in_parts(&texts, &mut ours)));
    })
    .run();
    assert_eq!((&lanes, &single), (&ours, &ours), "all roads agree");
    let mut number = Vec::new();
    push_i64(&mut number, i64::MIN);
    assert_eq!(number, i64::MIN.to_string().as_bytes());
}

/// As the gate does it: messages are given in parts and finished when the cache is full.
fn in_parts(texts: &[Vec<u8>], digests: &mut Vec<Hash32>) {
    let (mut hashes, mut some) = (HashBatch::default(), Vec::new());
    digests.clear();
    for text in texts {
        let (first, rest) = text.split_at(text.len() / 2);
        hashes.push(&[first, rest]);
        if hashes.bytes() >= 128 * 1024 {
            hashes.finish(&mut some);
            digests.append(&mut some);
        }
    }
    hashes.finish(&mut some);
    digests.append(&mut some);
}
