//! Floor of the whole path: decode, frame, validate, hash, claim, log, decide, commit.
//!
//! Straight-line on one thread; on two, each thread prepares every other group of rows while the groups are
//! committed in their order, so order per key and exact claims hold. A sync is waited for by the thread that
//! asks for it. Rows are validated as columns, before they are bytes: a program without senders to distrust
//! need not read its own text again. Refused rows and copies are told apart but no refusal is recorded.

use super::columns::{Columns, Decoder};
use super::disk::{Log, ROW_BYTES};
use super::framing::{PAYLOAD_HASH_TAIL, Template, hex, push_i64};
use super::key_set::{Claimed, KeySet};
use arrow::array::RecordBatch;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use wellspring_domain::ids::Hash32;
use wellspring_domain::sha256::HashBatch;
use wellspring_domain::time_text::Micros;

/// Rows framed, hashed and written together: what they need stays in the processor's cache.
pub const GROUP_ROWS: usize = 512;

/// What the floor is asked to do.
pub struct PipelineRequest<'a> {
    pub parts: &'a [PathBuf],
    pub template: &'a Template,
    pub folder: &'a Path,
    pub partitions: usize,
    /// Rows of all parts, to size the claims.
    pub rows: usize,
    /// When the lines say they were published.
    pub now: &'a (dyn Fn() -> Micros + Sync),
}

/// What became of the rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub admitted: u64,
    pub copies: u64,
}

/// One thread.
pub fn run_one(request: &PipelineRequest<'_>) -> Done {
    let mut end = End::new(request);
    let mut group = Group::default();
    for batch in Decoder::new(request.parts) {
        let columns = Columns::of(&batch);
        for first in (0..columns.rows).step_by(GROUP_ROWS) {
            let rows = first..(first + GROUP_ROWS).min(columns.rows);
            group.prepare(request, &columns, rows);
            end.take(&group);
        }
    }
    end.finish()
}

/// Two threads.
pub fn run_two(request: &PipelineRequest<'_>) -> Done {
    let source = Mutex::new(Decoder::new(request.parts).enumerate());
    let end = Mutex::new((0, End::new(request)));
    let turn = Condvar::new();
    let work = || {
        let mut groups = Vec::new();
        while let Some((number, batch)) = next(&source) {
            prepare_all(request, &batch, &mut groups);
            let mut guard = end.lock().expect("no panic");
            guard = turn
                .wait_while(guard, |(next, _)| *next != number)
                .expect("no panic");
            groups.iter().for_each(|group| guard.1.take(group));
            guard.0 += 1;
            turn.notify_all();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    end.into_inner().expect("no panic").1.finish()
}

fn next(source: &Mutex<std::iter::Enumerate<Decoder>>) -> Option<(usize, RecordBatch)> {
    source.lock().expect("no panic").next()
}

fn prepare_all(request: &PipelineRequest<'_>, batch: &RecordBatch, groups: &mut Vec<Group>) {
    let columns = Columns::of(batch);
    groups.resize_with(columns.rows.div_ceil(GROUP_ROWS), Group::default);
    for (number, group) in groups.iter_mut().enumerate() {
        let first = number * GROUP_ROWS;
        group.prepare(
            request,
            &columns,
            first..(first + GROUP_ROWS).min(columns.rows),
        );
    }
}

/// Rows that are ready to be claimed.
#[derive(Default)]
pub struct Group {
    /// Bus lines of each partition.
    lines: Vec<Vec<u8>>,
    rows: Vec<Row>,
    hashes: HashBatch,
    ids: Vec<Hash32>,
    id_texts: Vec<[u8; 64]>,
    keys: Vec<Hash32>,
    payloads: Vec<Hash32>,
    text: Vec<u8>,
}

struct Row {
    partition: usize,
    line: Range<usize>,
    event_id: Hash32,
    dedupe_key: Hash32,
    partition_key: Hash32,
    payload_hash: Hash32,
    time: Micros,
}

impl Group {
    /// Frames and hashes some rows of a batch.
    pub fn prepare(
        &mut self,
        request: &PipelineRequest<'_>,
        columns: &Columns<'_>,
        rows: Range<usize>,
    ) {
        let template = request.template;
        self.lines.resize_with(request.partitions, Vec::new);
        self.lines.iter_mut().for_each(Vec::clear);
        self.rows.clear();
        self.hash_identities(template, columns, rows.clone());
        let tail = format!(
            ",\"published_at_utc\":\"{}\"}}\n",
            (request.now)().format_off()
        );
        for (number, row) in rows.enumerate() {
            template.check(columns, row);
            let (event_id, partition_key) = (self.ids[number], self.keys[2 * number + 1]);
            let partition = partition_key.leading_u64() % request.partitions as u64;
            let lines = &mut self.lines[partition as usize];
            let start = lines.len();
            lines.extend_from_slice(b"{\"partition_key\":\"");
            lines.extend_from_slice(&hex(&partition_key));
            lines.extend_from_slice(b"\",\"payload\":");
            let payload = template.frame(columns, row, &self.id_texts[number], lines);
            let payload = &lines[payload];
            self.hashes
                .push(&[&template.payload_hash_head, payload, PAYLOAD_HASH_TAIL]);
            lines.extend_from_slice(tail.as_bytes());
            self.rows.push(Row {
                partition: partition as usize,
                line: start..lines.len(),
                event_id,
                dedupe_key: self.keys[2 * number],
                partition_key,
                payload_hash: Hash32::default(),
                time: Micros::parse_env(columns.ts_utc.value(row).as_bytes()).expect("checked"),
            });
        }
        self.hashes.finish(&mut self.payloads);
        for (row, hash) in self.rows.iter_mut().zip(&self.payloads) {
            row.payload_hash = *hash;
        }
    }

    /// Event ids first; then, with them, dedupe keys and partition keys.
    fn hash_identities(&mut self, template: &Template, columns: &Columns<'_>, rows: Range<usize>) {
        for row in rows.clone() {
            self.text.clear();
            template.push_id_text(columns, row, &mut self.text);
            self.hashes.push(&[&self.text]);
        }
        self.hashes.finish(&mut self.ids);
        self.id_texts.clear();
        self.id_texts.extend(self.ids.iter().map(hex));
        for (id, row) in self.id_texts.iter().zip(rows) {
            self.hashes.push(&[&template.dedupe_head, id]);
            self.text.clear();
            push_i64(&mut self.text, columns.flow_id[row]);
            self.hashes.push(&[&self.text]);
        }
        self.hashes.finish(&mut self.keys);
    }
}

/// The only owner of claims and files.
struct End {
    claims: KeySet,
    log: Log,
    done: Done,
}

impl End {
    fn new(request: &PipelineRequest<'_>) -> End {
        End {
            claims: KeySet::with_capacity(request.rows),
            log: Log::create(request.folder, request.partitions),
            done: Done::default(),
        }
    }

    /// Claims a group's rows, writes the lines of the new ones and keeps every decision.
    fn take(&mut self, group: &Group) {
        let mut written = vec![(0, 0); group.lines.len()];
        for row in &group.rows {
            let claimed = self.claims.claim(row.dedupe_key, row.payload_hash);
            let (from, lines) = &mut written[row.partition];
            let offset = self.log.next_offset(row.partition) + *lines;
            match claimed {
                Claimed::New => {
                    *lines += 1;
                    self.done.admitted += 1;
                }
                Claimed::Copy(_) | Claimed::Conflict(_) => {
                    // Lines before the copy go out, the copy's line is left out.
                    let bytes = &group.lines[row.partition][*from..row.line.start];
                    self.log.append(row.partition, bytes, *lines);
                    (*from, *lines) = (row.line.end, 0);
                    self.done.copies += 1;
                }
            }
            self.log.decide(&decision_row(row, claimed, offset));
        }
        for (partition, (from, lines)) in written.into_iter().enumerate() {
            let bytes = &group.lines[partition][from..];
            self.log.append(partition, bytes, lines);
        }
        self.log.commit_when_due();
    }

    fn finish(mut self) -> Done {
        self.log.commit();
        assert_eq!(
            self.log.committed(),
            self.done.admitted + self.done.copies,
            "every decision is durable"
        );
        self.done
    }
}

/// All a receipt needs that is not the same for the whole stream.
fn decision_row(row: &Row, claimed: Claimed, offset: u64) -> [u8; ROW_BYTES] {
    let (decision, large) = match claimed {
        Claimed::New => (1u8, offset),
        Claimed::Copy(first) => (2, u64::from(first)),
        Claimed::Conflict(first) => (3, u64::from(first)),
    };
    let mut out = [0; ROW_BYTES];
    out[0] = decision;
    out[2..4].copy_from_slice(&(row.partition as u16).to_le_bytes());
    out[8..40].copy_from_slice(&row.event_id.0);
    out[40..48].copy_from_slice(&row.time.0.to_le_bytes());
    out[48..80].copy_from_slice(&row.dedupe_key.0);
    out[80..112].copy_from_slice(&row.payload_hash.0);
    out[112..144].copy_from_slice(&row.partition_key.0);
    out[144..152].copy_from_slice(&large.to_le_bytes());
    out
}
