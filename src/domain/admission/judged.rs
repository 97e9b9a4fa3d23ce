//! What judging needs and what it yields: contexts, items, answers given at once.

use crate::admission::decision::{Actor, ReceiptContext};
use crate::admission::policy::AdmissionPolicy;
use crate::admission::quarantine::QuarantineDraft;
use crate::ids::Hash32;
use crate::run_paths::PlatformRunId;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// What is known about the gates of a run (D5).
#[derive(Clone, Debug)]
pub enum ProofState {
    /// The facts view was read; these gates passed.
    Proven(Arc<BTreeSet<String>>),
    /// There is no facts view for this run.
    Absent,
    /// The store did not answer: the event must wait.
    Unavailable,
    /// Not looked up yet: the caller must look it up and judge again.
    NotLoaded,
}

/// What to do when a gate is not proven (D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyGates {
    /// Do not look.
    Off,
    /// Admit, but count and log.
    Warn,
    /// Quarantine with `GATE_PASS_MISSING`.
    Enforce,
}

/// What judging needs besides the bytes.
pub struct IntakeContext<'a> {
    /// Compiled policy.
    pub policy: &'a AdmissionPolicy,
    /// Number of partitions per topic index.
    pub partitions: &'a [u32],
    /// Number of admission shards.
    pub shards: u16,
    /// Caller, from authentication.
    pub actor: &'a Actor,
    /// Provenance block stamped on receipts (contract 1.5).
    pub provenance: &'a Value,
    /// Gate verification switch.
    pub verify_gates: VerifyGates,
    /// Gate proofs by platform run and scenario run.
    pub proofs: &'a dyn Fn(&str, &str) -> ProofState,
}

/// A piece of a judged batch's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextRef {
    /// In the batch as received.
    Source(Range<u32>),
    /// In [`JudgedBatch::extra`].
    Extra(Range<u32>),
}

/// One event that gets a decision. Holds nothing that has to be let go of: by then it is in no cache any more.
#[derive(Debug)]
pub struct JudgedItem {
    /// Position in the batch as received.
    pub index: u32,
    /// Index into [`JudgedBatch::runs`].
    pub run: u16,
    /// Index into [`JudgedBatch::contexts`].
    pub context: u16,
    /// Admission shard that decides.
    pub shard: u16,
    /// Partition in the context's topic.
    pub partition: u32,
    /// The envelope's canonical bytes.
    pub text: TextRef,
    /// Decoded event id.
    pub event_id: TextRef,
    /// Event time as received.
    pub ts_utc: TextRef,
    /// Uniqueness (V11).
    pub dedupe_key: Hash32,
    /// Payload hash (V12).
    pub payload_hash: Hash32,
    /// Partition key (V14).
    pub partition_key: Hash32,
    /// Set when the event is refused with a record instead of being published: its place in
    /// [`JudgedBatch::quarantines`].
    pub quarantine: Option<u32>,
}

/// An answer that is given at once, without a decision on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Immediate {
    /// Not an event at all; sending it again will not help.
    Refused {
        /// HTTP status.
        status: u16,
        /// Reason code.
        code: &'static str,
        /// A sentence.
        detail: String,
    },
    /// The gate cannot decide now.
    Retry {
        /// Reason code.
        code: &'static str,
        /// A sentence.
        detail: String,
    },
}

/// A batch after judging.
#[derive(Debug, Default)]
pub struct JudgedBatch {
    /// The batch as received.
    pub source: Arc<Vec<u8>>,
    /// Rewritten envelopes and decoded texts.
    pub extra: Vec<u8>,
    /// Platform runs the items belong to.
    pub runs: Vec<PlatformRunId>,
    /// Receipt constants the items share.
    pub contexts: Vec<Arc<ReceiptContext>>,
    /// Items that get a decision, in batch order.
    pub items: Vec<JudgedItem>,
    /// Records of the items that are refused with one.
    pub quarantines: Vec<QuarantineDraft>,
    /// Items answered at once: position and answer.
    pub immediate: Vec<(u32, Immediate)>,
    /// Gate proofs that must be looked up before these items can be judged.
    pub unproven: BTreeSet<(String, String)>,
    /// Items admitted although a gate is not proven (`warn`).
    pub gate_warnings: u32,
}

impl JudgedBatch {
    /// The bytes a reference stands for.
    pub fn text<'a>(&'a self, reference: &TextRef) -> &'a [u8] {
        match reference {
            TextRef::Source(range) => &self.source[range.start as usize..range.end as usize],
            TextRef::Extra(range) => &self.extra[range.start as usize..range.end as usize],
        }
    }

    /// The record of an item that is refused with one.
    pub fn quarantine(&self, item: &JudgedItem) -> Option<&QuarantineDraft> {
        self.quarantines.get(item.quarantine? as usize)
    }

    pub(super) fn push_extra(&mut self, bytes: &[u8]) -> TextRef {
        let start = self.extra.len() as u32;
        self.extra.extend_from_slice(bytes);
        TextRef::Extra(start..self.extra.len() as u32)
    }
}
