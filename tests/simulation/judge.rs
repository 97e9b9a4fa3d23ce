//! The judge: sees everything that was promised and everything that is durable, and compares.
//!
//! | Promise | Seen at |
//! |---|---|
//! | an acknowledged event is durable, and on the bus once in effect | every answer; the end |
//! | order per key | the end |
//! | a receipt for every decision, which never changes | every commit, every recovery, the end |
//! | a cursor is never ahead of acknowledgement | every checkpoint |
//! | no READY is settled before its run has ended | every settling |
//! | streamed = admitted + duplicate + quarantined + refused | the end of a run; the end |
//! | one writer a shard, rows and offsets without gaps | every commit (`gate_store.rs`) |
//! | credits come back | every orderly end (`process.rs`) |

use crate::disk::{Decided, Frame, Place, RunDisk};
use crate::plan::{Plan, RUNS};
use crate::world::part_name;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::ports::{Cursor, EnvelopeBatch, ItemOutcome};

/// A platform run and an event id.
type EventKey = (String, String);

/// What was promised so far.
#[derive(Default)]
pub struct Judge {
    broken: Vec<String>,
    receipts: BTreeMap<(String, RowRef), String>,
    decided: BTreeSet<EventKey>,
    /// Payload texts that were answered ADMIT or DUPLICATE.
    pub promised: BTreeMap<EventKey, BTreeSet<String>>,
    /// Rows an attempt's sender heard a decision of, by attempt and output.
    heard: BTreeMap<(String, String), BTreeSet<u64>>,
    /// Rows proven to be heard, from the first on.
    proven: BTreeMap<(String, String), u64>,
    ended: BTreeSet<String>,
    tallies: BTreeMap<String, Tally>,
    rows_total: BTreeMap<String, u64>,
}

/// What a sender heard, item by item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    admitted: u64,
    duplicate: u64,
    quarantined: u64,
    refused: u64,
    retried: u64,
}

/// An envelope, as far as the judge looks at it.
pub struct Seen {
    pub run: String,
    pub event_id: String,
    pub event_type: String,
    pub attempt: String,
    pub payload: Value,
}

impl Seen {
    pub fn of(envelope: &[u8]) -> Option<Seen> {
        let value: Value = serde_json::from_slice(envelope).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Seen {
            run: text("platform_run_id")?,
            event_id: text("event_id")?,
            event_type: text("event_type")?,
            attempt: text("trace_id").unwrap_or_default(),
            payload: value["payload"].clone(),
        })
    }

    pub fn number(&self) -> Option<u64> {
        self.payload["n"].as_u64()
    }

    pub fn key(&self) -> EventKey {
        (self.run.clone(), self.event_id.clone())
    }
}

impl Judge {
    pub fn new(plan: &Plan) -> Judge {
        let total = |o: &crate::plan::PlannedOutput| (o.output_id.clone(), o.parts.iter().sum());
        Judge {
            rows_total: plan.outputs.iter().map(total).collect(),
            ..Judge::default()
        }
    }

    pub fn broken(&mut self, what: impl Into<String>) {
        self.broken.push(what.into());
    }

    pub fn violations(&self) -> &[String] {
        &self.broken
    }

    /// A frame is durable: its rows are receipts from now on, and are what they are.
    pub fn committed(&mut self, run: &str, frame: &Frame) {
        let flush = &frame.flush;
        for (at, row, decided) in frame.rows() {
            let context = &flush.contexts[usize::from(row.context)];
            let event_id = String::from_utf8_lossy(row.event_id.of(&flush.arena)).into_owned();
            let receipt = format!(
                "{event_id} {} {decided:?} {:?} {} {}",
                context.event_type,
                row.payload_hash,
                flush.decided_at.0,
                context.policy_rev.content_digest
            );
            self.decided.insert((run.to_owned(), event_id));
            let known = self.receipts.entry((run.to_owned(), at));
            let known = known.or_insert_with(|| receipt.clone()).clone();
            if known != receipt {
                self.broken(format!("receipt {at:?} of {run} was {known}, is {receipt}"));
            }
        }
    }

    /// Every receipt that was ever given is in the journals.
    pub fn still_there(&mut self, run: &str, disk: &RunDisk) {
        let rows: BTreeSet<RowRef> = disk
            .frames()
            .flat_map(|frame| frame.rows().map(|(at, ..)| at).collect::<Vec<_>>())
            .collect();
        let of_run = self.receipts.keys().filter(|(of, _)| of == run);
        let gone: Vec<_> = of_run
            .filter(|(_, at)| !rows.contains(at))
            .cloned()
            .collect();
        for (run, at) in gone {
            self.broken(format!("receipt {at:?} of {run} is gone"));
        }
    }

    /// The gate answered, whether or not the answer arrives.
    pub fn answered(&mut self, batch: &EnvelopeBatch, outcomes: &[ItemOutcome]) {
        if outcomes.len() != batch.len() {
            self.broken(format!(
                "{} answers for {} events",
                outcomes.len(),
                batch.len()
            ));
        }
        for (at, outcome) in outcomes.iter().enumerate() {
            let Some(seen) = Seen::of(batch.envelope(at)) else {
                if !matches!(outcome, ItemOutcome::Rejected { .. }) {
                    self.broken(format!("an unreadable event was answered {outcome:?}"));
                }
                continue;
            };
            let durable = self.decided.contains(&seen.key());
            match outcome {
                ItemOutcome::Admitted | ItemOutcome::Duplicate => {
                    let promised = self.promised.entry(seen.key()).or_default();
                    promised.insert(seen.payload.to_string());
                }
                ItemOutcome::Quarantined { .. } => {}
                ItemOutcome::Retry { .. } | ItemOutcome::Rejected { .. } => continue,
            }
            if !durable {
                let what = format!("{} was answered before it was durable", seen.event_id);
                self.broken(what);
            }
        }
    }

    /// The sender hears an answer.
    pub fn heard(&mut self, sender: &str, batch: &EnvelopeBatch, outcomes: &[ItemOutcome]) {
        let tally = self.tallies.entry(sender.to_owned()).or_default();
        for (at, outcome) in outcomes.iter().enumerate() {
            let counter = match outcome {
                ItemOutcome::Admitted => &mut tally.admitted,
                ItemOutcome::Duplicate => &mut tally.duplicate,
                ItemOutcome::Quarantined { .. } => &mut tally.quarantined,
                ItemOutcome::Rejected { .. } => &mut tally.refused,
                ItemOutcome::Retry { .. } => &mut tally.retried,
            };
            *counter += 1;
            let decided = !matches!(
                outcome,
                ItemOutcome::Retry { .. } | ItemOutcome::Rejected { .. }
            );
            let seen = Seen::of(batch.envelope(at)).filter(|_| decided);
            if let Some((seen, number)) = seen.and_then(|s| s.number().map(|n| (s, n))) {
                let place = (seen.attempt, seen.event_type);
                self.heard.entry(place).or_default().insert(number);
            }
        }
    }

    /// A cursor is about to be durable.
    pub fn saved(&mut self, plan: &Plan, cursor: &Cursor) {
        let output = plan
            .outputs
            .iter()
            .find(|o| o.output_id == cursor.output_id);
        let Some(output) = output else {
            return self.broken(format!("a cursor of output {}", cursor.output_id));
        };
        let name = cursor.part_name.as_deref().unwrap_or_default();
        let Some(part) = (0..output.parts.len()).find(|part| part_name(*part) == name) else {
            return self.broken(format!("a cursor in part {name}"));
        };
        let before: u64 = output.parts[..part].iter().sum();
        self.all_heard(
            &cursor.pack_key,
            &cursor.output_id,
            before + cursor.last_row_index + 1,
        );
    }

    fn all_heard(&mut self, attempt: &str, output_id: &str, rows: u64) {
        let place = (attempt.to_owned(), output_id.to_owned());
        let from = self.proven.get(&place).copied().unwrap_or_default();
        let heard = self.heard.entry(place.clone()).or_default();
        let missing = (from..rows).find(|number| !heard.contains(number));
        match missing {
            Some(row) => self.broken(format!(
                "the cursor of {attempt} {output_id} is at {rows}, row {row} was not answered"
            )),
            None => drop(self.proven.insert(place, from.max(rows))),
        }
    }

    /// A run has ended in a way that settles its message.
    pub fn ended(&mut self, message_id: &str) {
        self.ended.insert(message_id.to_owned());
    }

    /// A run was streamed to its end: every row of every output was answered.
    pub fn streamed(&mut self, attempt: &str) {
        for (output_id, rows) in self.rows_total.clone() {
            self.all_heard(attempt, &output_id, rows);
        }
    }

    pub fn settled(&mut self, message_id: &str) {
        if !self.ended.contains(message_id) && !message_id.starts_with("garbage") {
            self.broken(format!("{message_id} was settled before its run ended"));
        }
    }

    /// The last word, when everything was pushed, answered and stopped.
    pub fn conclude(&mut self, runs: &BTreeMap<String, RunDisk>, plan: &Plan) {
        let mut on_bus: BTreeMap<EventKey, String> = BTreeMap::new();
        for (run, disk) in runs {
            self.still_there(run, disk);
            self.check_bus(run, disk, &mut on_bus);
        }
        for (key, payloads) in self.promised.clone() {
            match on_bus.get(&key) {
                None => self.broken(format!("{key:?} was acknowledged and is not on the bus")),
                Some(found) if payloads.len() > 1 || !payloads.contains(found) => {
                    self.broken(format!("{key:?} was acknowledged with another payload"));
                }
                Some(_) => {}
            }
        }
        let rows: u64 = self.rows_total.values().sum();
        let streamed = on_bus
            .keys()
            .filter(|(run, id)| run == RUNS[0] && id.len() == 64);
        let streamed = streamed.count() as u64;
        if streamed != rows {
            self.broken(format!(
                "{rows} rows were streamed, {streamed} are on the bus"
            ));
        }
        self.check_sums(plan);
    }

    /// Every producer has heard exactly one decision or refusal of every event; what it pushed is admitted,
    /// duplicate, quarantined or refused.
    fn check_sums(&mut self, plan: &Plan) {
        for (number, producer) in plan.producers.iter().enumerate() {
            let tally = self.tallies.get(&producer_name(number)).copied();
            let tally = tally.unwrap_or_default();
            let heard = tally.admitted + tally.duplicate + tally.quarantined + tally.refused;
            if heard != producer.events {
                let events = producer.events;
                self.broken(format!(
                    "producer {number} pushed {events} events: {tally:?}"
                ));
            }
        }
    }

    /// Rows against the bus: each names its own event, each event stands once, each key is in order.
    fn check_bus(&mut self, run: &str, disk: &RunDisk, on_bus: &mut BTreeMap<EventKey, String>) {
        let bus = disk.bus();
        let mut admitted: BTreeMap<(Place, u64), String> = BTreeMap::new();
        for frame in disk.frames() {
            for (at, row, decided) in frame.rows() {
                let Decided::Admitted(place, offset) = decided else {
                    continue;
                };
                let id = row.event_id.of(&frame.flush.arena);
                let id = String::from_utf8_lossy(id).into_owned();
                if let Some(other) = admitted.insert((place.clone(), *offset), id) {
                    self.broken(format!("{at:?} and the row of {other} name one record"));
                }
            }
        }
        let records: usize = bus.values().map(Vec::len).sum();
        if !disk.ledger.is_used() && records != admitted.len() {
            let rows = admitted.len();
            self.broken(format!("{run} has {rows} admissions and {records} lines"));
        }
        let mut last: BTreeMap<(Place, String), u64> = BTreeMap::new();
        for ((place, offset), id) in admitted {
            let line = bus.get(&place).and_then(|found| found.get(offset as usize));
            let seen = line.and_then(|line| seen_on_bus(line));
            let Some((key, seen)) = seen.filter(|(_, seen)| seen.event_id == id) else {
                self.broken(format!("{id} is not at {place:?} offset {offset}"));
                continue;
            };
            let number = seen.number().filter(|_| seen.payload["o"] == 1);
            if let Some(number) = number
                && last
                    .insert((place, key), number)
                    .is_some_and(|before| before >= number)
            {
                self.broken(format!("{id} stands behind a later event"));
            }
            if on_bus
                .insert(seen.key(), seen.payload.to_string())
                .is_some()
            {
                self.broken(format!("{id} is on the bus twice"));
            }
        }
    }
}

/// The name a producer is counted under.
pub fn producer_name(number: usize) -> String {
    format!("producer {number}")
}

/// The partition key and the event of a bus line.
fn seen_on_bus(line: &[u8]) -> Option<(String, Seen)> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let key = value["partition_key"].as_str()?.to_owned();
    let envelope = value["payload"].to_string();
    Some((key, Seen::of(envelope.as_bytes())?))
}
