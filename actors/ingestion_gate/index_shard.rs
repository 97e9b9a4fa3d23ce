//! Index shard: one owner of the dedupe keys that hash to it, for every open run.
//!
//! Durable: nothing of its own. Admitted keys are a projection of the decision journals and live in the
//! [`AdmissionIndex`]; claims live in memory, because a claim ends with the generation that holds it. When
//! this actor fails the gate fails with it: the next start rebuilds the index from the journals.

use super::admission_shard::AdmissionShardMsg;
use super::messages::RunKey;
use crate::runtime::slot::SlotReader;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::HashMap;
use tokio::sync::oneshot;
use wellspring_domain::admission::claims::{Claim, ClaimTable};
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::key_table::{FETCHED_AT_ONCE, Place};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{AdmissionIndex, StoreError};

/// Answer to one claim. Nearly all are won, so what is known of the others lies apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The key is yours, and its row will be noted under this.
    Won(ClaimPlace),
    /// The key was yours before: look there for its row.
    Yours(ClaimPlace),
    /// The event was admitted before: its place in [`ClaimAnswers::known`].
    Known(u32),
    /// Another shard holds the key; [`AdmissionShardMsg::ClaimEnded`] follows.
    Parked,
}

/// Where a claim is noted, for as long as it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPlace {
    /// The index shard that granted it.
    pub index_shard: u16,
    /// Its place there.
    pub place: Place,
}

/// Answers to the claims of one message, or of all those of one batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClaimAnswers {
    /// In the order of the keys.
    pub answers: Vec<ClaimAnswer>,
    /// Admitted before.
    pub known: Vec<IndexEntry>,
}

impl ClaimAnswers {
    /// For so many keys, all parked until their answers are put in place.
    pub fn parked(keys: usize) -> ClaimAnswers {
        ClaimAnswers {
            answers: vec![ClaimAnswer::Parked; keys],
            known: Vec::new(),
        }
    }

    /// Puts the answers to some of the keys in place.
    pub fn place(&mut self, positions: &[u32], some: &ClaimAnswers) {
        let before = self.known.len() as u32;
        for (position, answer) in positions.iter().zip(&some.answers) {
            self.answers[*position as usize] = match answer {
                ClaimAnswer::Known(place) => ClaimAnswer::Known(before + place),
                other => *other,
            };
        }
        self.known.extend(&some.known);
    }
}

/// Messages of an index shard.
pub enum IndexShardMsg {
    /// Who to tell when a parked claim ends; sent once, before any claim.
    Peers(Vec<SlotReader<ActorRef<AdmissionShardMsg>>>),
    /// A run was opened.
    OpenRun {
        /// The run.
        run: RunKey,
        /// Its admitted keys.
        index: Box<dyn AdmissionIndex>,
        /// Per admission shard the first row the index does not know of.
        next_rows: Vec<RowRef>,
    },
    /// A run was closed; its index is dropped.
    CloseRun {
        /// The run.
        run: RunKey,
    },
    /// Claims keys for an admission shard. Answers come in the order of `keys`.
    Claim {
        /// The run.
        run: RunKey,
        /// The asking shard.
        shard: u16,
        /// The keys.
        keys: Vec<Hash32>,
        /// Where the answers go.
        reply: oneshot::Sender<ClaimAnswers>,
    },
    /// These claims' events are durable.
    Settle {
        /// The run.
        run: RunKey,
        /// Key and row.
        entries: Vec<(Hash32, IndexEntry)>,
        /// Last row of the flush.
        through: RowRef,
    },
    /// A claim that was granted is given back unused.
    Release {
        /// The run.
        run: RunKey,
        /// The key.
        key: Hash32,
    },
    /// A shard's generation has ended: what it admitted is settled, everything else it held is released.
    EndGeneration {
        /// The run.
        run: RunKey,
        /// The shard.
        shard: u16,
        /// Keys found in the journal behind the rows this index knew of.
        admitted: Vec<(Hash32, IndexEntry)>,
        /// Row the next decision gets.
        next_row: RowRef,
        /// Answered when it is done.
        reply: oneshot::Sender<()>,
    },
    /// Asks for the first row of a shard's journal this index does not know of.
    NextRow {
        /// The run.
        run: RunKey,
        /// The shard.
        shard: u16,
        /// Where the answer goes; nothing is sent for a run that is not open.
        reply: oneshot::Sender<RowRef>,
    },
}

struct RunKeys {
    index: Box<dyn AdmissionIndex>,
    claims: ClaimTable,
    /// By admission shard: the first row that is not in `index`.
    next_rows: Vec<RowRef>,
}

/// The actor. Its argument is its number.
pub struct IndexShard;

/// State of an index shard.
pub struct IndexShardState {
    number: u16,
    runs: HashMap<RunKey, RunKeys>,
    peers: Vec<SlotReader<ActorRef<AdmissionShardMsg>>>,
    found: Vec<Option<IndexEntry>>,
}

impl Actor for IndexShard {
    type Msg = IndexShardMsg;
    type State = IndexShardState;
    type Arguments = u16;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        number: u16,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(IndexShardState {
            number,
            runs: HashMap::new(),
            peers: Vec::new(),
            found: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IndexShardMsg::Peers(peers) => state.peers = peers,
            IndexShardMsg::OpenRun {
                run,
                index,
                next_rows,
            } => {
                state.runs.insert(
                    run,
                    RunKeys {
                        index,
                        claims: ClaimTable::default(),
                        next_rows,
                    },
                );
            }
            IndexShardMsg::CloseRun { run } => {
                state.runs.remove(&run);
            }
            IndexShardMsg::Claim {
                run,
                shard,
                keys,
                reply,
            } => {
                let answers = state.claim(&run, shard, &keys)?;
                // An asker that is gone has no generation any more; its claims end with it.
                let _ = reply.send(answers);
            }
            IndexShardMsg::Settle {
                run,
                entries,
                through,
            } => state.settle(&run, &entries, through)?,
            IndexShardMsg::Release { run, key } => state.release(&run, key),
            IndexShardMsg::EndGeneration {
                run,
                shard,
                admitted,
                next_row,
                reply,
            } => {
                state.end_generation(&run, shard, &admitted, next_row)?;
                let _ = reply.send(());
            }
            IndexShardMsg::NextRow { run, shard, reply } => {
                let next = state
                    .runs
                    .get(&run)
                    .and_then(|keys| keys.next_rows.get(usize::from(shard)).copied());
                if let Some(next) = next {
                    let _ = reply.send(next);
                }
            }
        }
        Ok(())
    }
}

impl IndexShardState {
    /// Without the run there is nothing to claim: the caller gets no answers and asks its sender to retry.
    fn claim(
        &mut self,
        run: &RunKey,
        shard: u16,
        keys: &[Hash32],
    ) -> Result<ClaimAnswers, StoreError> {
        let mut claimed = ClaimAnswers::default();
        let Some(run) = self.runs.get_mut(run) else {
            return Ok(claimed);
        };
        run.index.lookup(keys, &mut self.found)?;
        let claims = &mut run.claims;
        let noted = |place| ClaimPlace {
            index_shard: self.number,
            place,
        };
        let ClaimAnswers { answers, known } = &mut claimed;
        answers.reserve_exact(keys.len());
        let found = self.found.chunks(FETCHED_AT_ONCE);
        for (keys, found) in keys.chunks(FETCHED_AT_ONCE).zip(found) {
            claims.fetch(keys.iter());
            let answer = |(key, found): (&Hash32, &Option<IndexEntry>)| match found {
                Some(entry) => {
                    known.push(*entry);
                    ClaimAnswer::Known(known.len() as u32 - 1)
                }
                None => match claims.claim(*key, shard) {
                    Claim::Won(place) => ClaimAnswer::Won(noted(place)),
                    Claim::Yours(place) => ClaimAnswer::Yours(noted(place)),
                    Claim::Parked => ClaimAnswer::Parked,
                },
            };
            answers.extend(keys.iter().zip(found).map(answer));
        }
        Ok(claimed)
    }

    fn settle(
        &mut self,
        run_key: &RunKey,
        entries: &[(Hash32, IndexEntry)],
        through: RowRef,
    ) -> Result<(), StoreError> {
        let Some(run) = self.runs.get_mut(run_key) else {
            return Ok(());
        };
        run.index.insert(entries, through)?;
        if let Some(next) = run.next_rows.get_mut(usize::from(through.shard)) {
            *next = RowRef {
                row: through.row + 1,
                ..through
            };
        }
        for some in entries.chunks(FETCHED_AT_ONCE) {
            run.claims.fetch(some.iter().map(|(key, _)| key));
            for (key, entry) in some {
                for waiting in run.claims.end(key) {
                    tell(&self.peers, waiting, run_key, *key, Some(*entry));
                }
            }
        }
        Ok(())
    }

    fn release(&mut self, run_key: &RunKey, key: Hash32) {
        let Some(run) = self.runs.get_mut(run_key) else {
            return;
        };
        for waiting in run.claims.end(&key) {
            tell(&self.peers, waiting, run_key, key, None);
        }
    }

    fn end_generation(
        &mut self,
        run_key: &RunKey,
        shard: u16,
        admitted: &[(Hash32, IndexEntry)],
        next_row: RowRef,
    ) -> Result<(), StoreError> {
        if let Some(run) = self.runs.get_mut(run_key) {
            run.claims.forget_waiting(shard);
        }
        if let Some(last) = admitted.iter().map(|(_, entry)| entry.row).max() {
            self.settle(run_key, admitted, last)?;
        }
        let Some(run) = self.runs.get_mut(run_key) else {
            return Ok(());
        };
        if let Some(next) = run.next_rows.get_mut(usize::from(shard)) {
            *next = next_row;
        }
        for key in run.claims.held_by(shard) {
            for waiting in run.claims.end(&key) {
                tell(&self.peers, waiting, run_key, key, None);
            }
        }
        Ok(())
    }
}

fn tell(
    peers: &[SlotReader<ActorRef<AdmissionShardMsg>>],
    shard: u16,
    run: &RunKey,
    key: Hash32,
    admitted: Option<IndexEntry>,
) {
    // An empty slot means that shard's generation ended; its parked copies were answered then.
    if let Some(peer) = peers.get(usize::from(shard)).and_then(SlotReader::current) {
        let _ = peer.cast(AdmissionShardMsg::ClaimEnded {
            run: run.clone(),
            key,
            admitted,
        });
    }
}
