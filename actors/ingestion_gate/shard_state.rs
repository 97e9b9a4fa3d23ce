//! What an admission shard knows and decides, without an actor around it.
//!
//! A batch is decided in two steps with the claims between them: [`ShardRun::plan`] finds the keys that
//! must be claimed, [`ShardRun::decide`] turns the answers into rows of the next flush. A copy of an event
//! this shard has in flight needs no claim: its row is known, and it commits no later than the copy's.

use super::index_shard::{ClaimAnswer, ClaimAnswers};
use super::messages::{Answer, Portion, RunKey, ShardBatch, Verdict};
use super::writer_thread::FlushJob;
use crate::runtime::credit::Credit;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::decision::{Flush, IndexEntry, RowRef};
use wellspring_domain::admission::flush_builder::{FLUSHES_UNDER_WAY, FlushBuilder, LogEnds};
use wellspring_domain::admission::intake::{JudgedBatch, JudgedItem};
use wellspring_domain::admission::key_table::{FETCHED_AT_ONCE, KeyTable, Place};
use wellspring_domain::admission::quarantine::QuarantineDraft;
use wellspring_domain::ids::Hash32;
use wellspring_domain::prefetch::{EVENTS_AHEAD, prefetch, prefetch_value};
use wellspring_domain::time_text::Micros;

/// How many events ahead what was judged of one is asked for: before its text is, because it says where that lies.
const ITEMS_AHEAD: usize = 2 * EVENTS_AHEAD;

/// One open run of a shard.
pub struct ShardRun {
    run: RunKey,
    ends: LogEnds,
    /// Keys this shard has claimed and not settled yet.
    in_flight: KeyTable<InFlight>,
    /// Copies that wait for another shard's claim, by key.
    parked: HashMap<Hash32, Vec<ParkedCopy>>,
    next: Option<NextFlush>,
    /// Memory of lists of admitted keys, to be filled again.
    spare: Vec<Vec<(Hash32, IndexEntry)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InFlight {
    /// Asked for in the batch being decided; index into its plan.
    Asked(u32),
    /// Written to a flush that is not durable yet.
    Written(IndexEntry),
}

struct ParkedCopy {
    judged: Arc<JudgedBatch>,
    position: u32,
    reply: mpsc::Sender<Portion>,
    credit: Option<Credit>,
}

struct NextFlush {
    builder: FlushBuilder,
    admitted: Vec<(Hash32, IndexEntry)>,
    portions: Vec<(mpsc::Sender<Portion>, Portion)>,
    credits: Vec<Credit>,
}

/// What must be claimed before a batch can be decided.
#[derive(Default)]
pub struct Plan {
    /// Distinct keys, in batch order.
    pub keys: Vec<Hash32>,
    /// What each item of the batch waits for, in batch order.
    items: Vec<Planned>,
}

#[derive(Clone, Copy)]
enum Planned {
    /// The claim of its key is its own: index into [`Plan::keys`], and where the key is noted.
    Asked(u32, Place),
    /// This shard has its key in flight, or nothing is to be claimed.
    NotAsked,
}

impl ShardRun {
    /// A run whose journal and partitions end at `ends`.
    pub fn new(run: RunKey, ends: LogEnds) -> ShardRun {
        ShardRun {
            run,
            ends,
            in_flight: KeyTable::default(),
            parked: HashMap::new(),
            next: None,
            spare: Vec::new(),
        }
    }

    /// The keys of a batch that this shard does not hold yet.
    pub fn plan(&mut self, batch: &ShardBatch) -> Plan {
        let mut plan = Plan {
            keys: Vec::with_capacity(batch.items.len()),
            items: Vec::with_capacity(batch.items.len()),
        };
        let item = |position: &u32| &batch.judged.items[*position as usize];
        let mut ahead = batch.items.iter().skip(FETCHED_AT_ONCE);
        for some in batch.items.chunks(FETCHED_AT_ONCE) {
            let next = ahead.by_ref().take(FETCHED_AT_ONCE);
            next.for_each(|position| prefetch_value(item(position)));
            let keys = some.iter().map(|position| &item(position).dedupe_key);
            self.in_flight.fetch(keys);
            for item in some.iter().map(item) {
                let planned = match item.quarantine {
                    Some(_) => Planned::NotAsked,
                    None => self.ask(&mut plan.keys, item.dedupe_key),
                };
                plan.items.push(planned);
            }
        }
        plan
    }

    fn ask(&mut self, keys: &mut Vec<Hash32>, key: Hash32) -> Planned {
        let asked = keys.len() as u32;
        let (place, is_new) = self.in_flight.find_or_insert(key, InFlight::Asked(asked));
        if !is_new {
            return Planned::NotAsked;
        }
        keys.push(key);
        Planned::Asked(asked, place)
    }

    /// Forgets keys that are not claimed any more: they were not granted, or ended without an admission.
    pub fn abandon(&mut self, keys: &[Hash32]) {
        for key in keys {
            self.in_flight.remove(key);
        }
    }

    /// Decides every item of the batch; `claims` answers [`Plan::keys`] in order. Returns keys that were
    /// granted but not used: the caller gives them back.
    pub fn decide(
        &mut self,
        mut batch: ShardBatch,
        plan: &Plan,
        claims: &ClaimAnswers,
        now: impl FnOnce() -> Micros,
    ) -> Vec<Hash32> {
        let mut next = self.next_flush(now);
        let mut answers = Vec::with_capacity(batch.items.len());
        let mut held_keys: Vec<Hash32> = Vec::new();
        let mut unused: Vec<(u32, Place)> = Vec::new();
        let items = std::mem::take(&mut batch.items);
        for (at, (&position, planned)) in items.iter().zip(&plan.items).enumerate() {
            if let Some(ahead) = items.get(at + ITEMS_AHEAD) {
                prefetch_value(&batch.judged.items[*ahead as usize]);
            }
            if let Some(ahead) = items.get(at + EVENTS_AHEAD) {
                let ahead = &batch.judged.items[*ahead as usize];
                prefetch(batch.judged.text(&ahead.text));
            }
            let item = &batch.judged.items[position as usize];
            let known = self.known(item, *planned, claims);
            let holds = held_keys.contains(&item.partition_key) && item.quarantine.is_none();
            if let Planned::Asked(asked, place) = planned
                && (holds || !matches!(known, Known::Free(_)))
            {
                unused.push((*asked, *place));
            }
            let outcome = match known {
                _ if holds => Some(Answer::retry("PRECEDING_ITEM_RETRY")),
                Known::Parked => {
                    held_keys.push(item.partition_key);
                    self.park(&mut batch, position);
                    None
                }
                Known::Free(place) => Some(self.admit(&mut next, &batch.judged, item, place)),
                Known::Quarantine => Some(self.quarantine(&mut next, &batch.judged, item)),
                Known::Admitted(entry) => Some(self.copy_of(&mut next, &batch.judged, item, entry)),
            };
            answers.extend(outcome.map(|answer| (position, answer)));
        }
        if !answers.is_empty() {
            next.portions.push((batch.reply, Portion { answers }));
        }
        next.credits.push(batch.credit);
        self.next = Some(next);
        self.release_unused(&unused, plan, claims)
    }

    /// A parked claim has ended: `admitted` is the winner's row, `None` when it was released.
    pub fn claim_ended(
        &mut self,
        key: &Hash32,
        admitted: Option<IndexEntry>,
        now: impl FnOnce() -> Micros,
    ) {
        let Some(copies) = self.parked.remove(key) else {
            return;
        };
        let mut next = self.next_flush(now);
        for copy in copies {
            let item = &copy.judged.items[copy.position as usize];
            let answer = match admitted {
                Some(entry) => self.copy_of(&mut next, &copy.judged, item, entry),
                None => Answer::retry("PUBLISH_IN_FLIGHT_RETRY"),
            };
            next.portions.push((
                copy.reply,
                Portion {
                    answers: vec![(copy.position, answer)],
                },
            ));
            next.credits.extend(copy.credit);
        }
        self.next = Some(next);
    }

    /// The flush gathered so far, if anything waits for it.
    pub fn take_flush(&mut self) -> Option<Box<FlushJob>> {
        let next = self.next.take()?;
        Some(Box::new(FlushJob {
            run: self.run.clone(),
            flush: next.builder.finish(&mut self.ends),
            admitted: next.admitted,
            portions: next.portions,
            credits: next.credits,
        }))
    }

    /// Bytes gathered for the next flush.
    pub fn gathered_bytes(&self) -> usize {
        self.next.as_ref().map_or(0, |next| next.builder.bytes())
    }

    /// True when nothing of this run is undecided or unsettled here.
    pub fn is_idle(&self) -> bool {
        self.next.is_none() && self.in_flight.is_empty() && self.parked.is_empty()
    }

    /// True when something waits for the next flush.
    pub fn has_gathered(&self) -> bool {
        self.next.is_some()
    }

    /// These keys are durable and known to the index: they are no longer in flight.
    pub fn settled(&mut self, admitted: &[(Hash32, IndexEntry)]) {
        for some in admitted.chunks(FETCHED_AT_ONCE) {
            self.in_flight.fetch(some.iter().map(|(key, _)| key));
            for (key, _) in some {
                self.in_flight.remove(key);
            }
        }
    }

    /// Takes the memory of a durable flush back.
    pub fn recycle(&mut self, flush: Flush, mut admitted: Vec<(Hash32, IndexEntry)>) {
        self.ends.recycle(flush);
        if self.spare.len() < FLUSHES_UNDER_WAY {
            admitted.clear();
            self.spare.push(admitted);
        }
    }

    /// The flush that is being gathered, or a new one.
    fn next_flush(&mut self, now: impl FnOnce() -> Micros) -> NextFlush {
        self.next.take().unwrap_or_else(|| NextFlush {
            builder: self.ends.start_flush(now()),
            admitted: self.spare.pop().unwrap_or_default(),
            portions: Vec::new(),
            credits: Vec::new(),
        })
    }

    fn known(&self, item: &JudgedItem, planned: Planned, claims: &ClaimAnswers) -> Known {
        if item.quarantine.is_some() {
            return Known::Quarantine;
        }
        let place = match planned {
            Planned::Asked(_, place) => Some(place),
            Planned::NotAsked => self.in_flight.find(&item.dedupe_key),
        };
        let noted = place.and_then(|place| Some((place, self.in_flight.at(place)?)));
        let (place, asked) = match noted {
            Some((_, InFlight::Written(entry))) => return Known::Admitted(*entry),
            Some((place, InFlight::Asked(asked))) => (place, *asked),
            None => return Known::Parked,
        };
        match claims.answers.get(asked as usize) {
            Some(ClaimAnswer::Won) => Known::Free(place),
            Some(ClaimAnswer::Known(known)) => Known::Admitted(claims.known[*known as usize]),
            Some(ClaimAnswer::Parked) | None => Known::Parked,
        }
    }

    fn admit(
        &mut self,
        next: &mut NextFlush,
        judged: &JudgedBatch,
        item: &JudgedItem,
        place: Place,
    ) -> Answer {
        let (row, offset) = next.builder.admit(&mut self.ends, judged, item);
        let entry = IndexEntry {
            payload_hash: item.payload_hash,
            row,
        };
        if let Some(in_flight) = self.in_flight.at_mut(place) {
            *in_flight = InFlight::Written(entry);
        }
        next.admitted.push((item.dedupe_key, entry));
        let verdict = Verdict::Admitted {
            partition: item.partition,
            offset: BusOffset::Line(offset),
        };
        next.answer(row, verdict)
    }

    fn copy_of(
        &mut self,
        next: &mut NextFlush,
        judged: &JudgedBatch,
        item: &JudgedItem,
        entry: IndexEntry,
    ) -> Answer {
        if entry.payload_hash == item.payload_hash {
            let row = next
                .builder
                .duplicate(&mut self.ends, judged, item, entry.row);
            return next.answer(
                row,
                Verdict::Duplicate {
                    original: entry.row,
                },
            );
        }
        let draft = QuarantineDraft::payload_mismatch(judged.text(&item.text));
        let row = next
            .builder
            .quarantine(&mut self.ends, judged, item, &draft);
        next.answer(row, Verdict::Quarantined { code: draft.code })
    }

    fn quarantine(
        &mut self,
        next: &mut NextFlush,
        judged: &JudgedBatch,
        item: &JudgedItem,
    ) -> Answer {
        let Some(draft) = judged.quarantine(item) else {
            return Answer::retry("INTERNAL_ERROR");
        };
        let row = next.builder.quarantine(&mut self.ends, judged, item, draft);
        next.answer(row, Verdict::Quarantined { code: draft.code })
    }

    fn park(&mut self, batch: &mut ShardBatch, position: u32) {
        let key = batch.judged.items[position as usize].dedupe_key;
        let copy = ParkedCopy {
            judged: batch.judged.clone(),
            position,
            reply: batch.reply.clone(),
            credit: batch.credit.split(1, 0),
        };
        self.parked.entry(key).or_default().push(copy);
    }

    /// Keys that turned out to be admitted or parked are not ours; granted keys that were not used are
    /// returned. `unused`: those the item that asked did not use; a copy of it behind may have.
    fn release_unused(
        &mut self,
        unused: &[(u32, Place)],
        plan: &Plan,
        claims: &ClaimAnswers,
    ) -> Vec<Hash32> {
        let mut returned = Vec::new();
        for (asked, place) in unused {
            if !matches!(self.in_flight.at(*place), Some(InFlight::Asked(_))) {
                continue;
            }
            let key = plan.keys[*asked as usize];
            self.in_flight.remove(&key);
            if claims.answers.get(*asked as usize) == Some(&ClaimAnswer::Won) {
                returned.push(key);
            }
        }
        returned
    }
}

enum Known {
    Quarantine,
    Free(Place),
    Admitted(IndexEntry),
    Parked,
}

impl NextFlush {
    fn answer(&self, row: RowRef, verdict: Verdict) -> Answer {
        Answer {
            row,
            decided_at: self.builder.decided_at(),
            verdict,
        }
    }
}
