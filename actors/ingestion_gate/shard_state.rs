//! What an admission shard knows and decides, without an actor around it.
//!
//! The keys of a batch are claimed first; [`ShardRun::decide`] turns the answers into rows of the next flush. A copy
//! of an event this shard has in flight is told so: its row is known, and it commits no later than the copy's.

use super::in_flight::{Admitted, InFlight};
use super::index_shard::{ClaimAnswer, ClaimAnswers, ClaimPlace};
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
use wellspring_domain::admission::quarantine::QuarantineDraft;
use wellspring_domain::ids::Hash32;
use wellspring_domain::prefetch::{EVENTS_AHEAD, prefetch, prefetch_value};
use wellspring_domain::time_text::Micros;

/// One open run of a shard.
pub struct ShardRun {
    run: RunKey,
    ends: LogEnds,
    /// Rows of the claims this shard has and has not settled yet.
    in_flight: InFlight,
    /// Copies that wait for another shard's claim, by key.
    parked: HashMap<Hash32, Vec<ParkedCopy>>,
    next: Option<NextFlush>,
    /// Memory of lists of admitted keys, to be filled again.
    spare: Vec<Vec<Admitted>>,
}

struct ParkedCopy {
    judged: Arc<JudgedBatch>,
    position: u32,
    reply: mpsc::Sender<Portion>,
    credit: Option<Credit>,
}

struct NextFlush {
    builder: FlushBuilder,
    admitted: Vec<Admitted>,
    portions: Vec<(mpsc::Sender<Portion>, Portion)>,
    credits: Vec<Credit>,
}

impl ShardRun {
    /// A run whose journal and partitions end at `ends`.
    pub fn new(run: RunKey, ends: LogEnds) -> ShardRun {
        ShardRun {
            run,
            ends,
            in_flight: InFlight::default(),
            parked: HashMap::new(),
            next: None,
            spare: Vec::new(),
        }
    }

    /// Decides every item of the batch; `claims` are the answers for those that may be published. Returns keys that
    /// were granted but not used: the caller gives them back.
    pub fn decide(
        &mut self,
        mut batch: ShardBatch,
        claims: &ClaimAnswers,
        now: impl FnOnce() -> Micros,
    ) -> Vec<Hash32> {
        let mut next = self.next_flush(now);
        let mut answers = Vec::with_capacity(batch.items.len());
        let mut held_keys: Vec<Hash32> = Vec::new();
        let mut unused: Vec<(Hash32, ClaimPlace)> = Vec::new();
        let mut claimed = claims.answers.iter();
        let items = std::mem::take(&mut batch.items);
        for (at, &position) in items.iter().enumerate() {
            prefetch_behind(&batch.judged, &items[at..]);
            let item = &batch.judged.items[position as usize];
            let claim = match item.quarantine {
                Some(_) => None,
                None => claimed.next(),
            };
            let known = self.known(item, claim, claims, &unused);
            let holds = held_keys.contains(&item.partition_key) && item.quarantine.is_none();
            if let (true, Some(ClaimAnswer::Won(claim))) = (holds, claim) {
                unused.push((item.dedupe_key, *claim));
            }
            let outcome = match known {
                _ if holds => Some(Answer::retry("PRECEDING_ITEM_RETRY")),
                Known::Parked => {
                    held_keys.push(item.partition_key);
                    self.park(&mut batch, position);
                    None
                }
                Known::Free(claim) => Some(self.admit(&mut next, &batch.judged, item, claim)),
                Known::Quarantine => Some(self.quarantine(&mut next, &batch.judged, item)),
                Known::Admitted(entry) => Some(self.copy_of(&mut next, &batch.judged, item, entry)),
                Known::InDoubt => Some(Answer::retry("PUBLISH_IN_FLIGHT_RETRY")),
            };
            answers.extend(outcome.map(|answer| (position, answer)));
        }
        if !answers.is_empty() {
            next.portions.push((batch.reply, Portion { answers }));
        }
        next.credits.push(batch.credit);
        self.next = Some(next);
        // A copy behind the item that won may have used its claim.
        unused.retain(|(_, claim)| self.in_flight.at(*claim).is_none());
        unused.into_iter().map(|(key, _)| key).collect()
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

    /// These claims have ended: their keys are known to the index now, or free again.
    pub fn ended(&mut self, ended: &[Admitted]) {
        self.in_flight.forget(ended);
    }

    /// Takes the memory of a durable flush back.
    pub fn recycle(&mut self, flush: Flush, mut admitted: Vec<Admitted>) {
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

    /// What is known of an item. `claim` answers for its key; `unused` are the claims of this batch that were granted
    /// to items that could not use them.
    fn known(
        &self,
        item: &JudgedItem,
        claim: Option<&ClaimAnswer>,
        claims: &ClaimAnswers,
        unused: &[(Hash32, ClaimPlace)],
    ) -> Known {
        if item.quarantine.is_some() {
            return Known::Quarantine;
        }
        match claim {
            Some(ClaimAnswer::Won(claim)) => Known::Free(*claim),
            Some(ClaimAnswer::Yours(claim)) => match self.in_flight.at(*claim) {
                Some(entry) => Known::Admitted(entry),
                None if unused.iter().any(|(_, granted)| granted == claim) => Known::Free(*claim),
                None => Known::InDoubt,
            },
            Some(ClaimAnswer::Known(known)) => Known::Admitted(claims.known[*known as usize]),
            Some(ClaimAnswer::Parked) | None => Known::Parked,
        }
    }

    fn admit(
        &mut self,
        next: &mut NextFlush,
        judged: &JudgedBatch,
        item: &JudgedItem,
        claim: ClaimPlace,
    ) -> Answer {
        let (row, offset) = next.builder.admit(&mut self.ends, judged, item);
        let entry = IndexEntry {
            payload_hash: item.payload_hash,
            row,
        };
        self.in_flight.note(claim, entry);
        next.admitted.push(Admitted {
            key: item.dedupe_key,
            entry,
            claim,
        });
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
}

enum Known {
    Quarantine,
    Free(ClaimPlace),
    Admitted(IndexEntry),
    Parked,
    /// Claimed by this shard, which does not know what for.
    InDoubt,
}

/// Asks for what the next items need: what was judged of each before its text, because it says where that lies.
fn prefetch_behind(judged: &JudgedBatch, items: &[u32]) {
    let item = |ahead: usize| Some(&judged.items[*items.get(ahead)? as usize]);
    if let Some(ahead) = item(2 * EVENTS_AHEAD) {
        prefetch_value(ahead);
    }
    if let Some(ahead) = item(EVENTS_AHEAD) {
        prefetch(judged.text(&ahead.text));
    }
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
