//! Digests of what should be on the bus and of what is: the sum over all envelopes of their SHA-256.
//!
//! The world's side frames every row of a stream view again; the bus's side takes the envelope out of every
//! line. Equal sums and counts mean that the same envelopes are on both sides, each as often.

use crate::event_bus::embedded_log::{BusReader, ReadBound};
use crate::state_store::embedded::verify::DigestSum;
use std::sync::Arc;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;
use wellspring_domain::sha256::HashBatch;
use wellspring_domain::stream::framing::{FrameContext, FrameMemo, FramePlan};
use wellspring_domain::stream::source::WorldSource;

/// Records of the bus between two tellings of how far it is.
const TOLD_EVERY: u64 = 4096;

/// Bytes of envelopes hashed together.
const HASHED_BYTES: usize = 128 * 1024;

/// How many envelopes there are, and the sum of their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeDigest {
    /// Number of envelopes.
    pub count: u64,
    /// Sum of their digests.
    pub sum: DigestSum,
}

/// Gathers envelopes and hashes them together.
#[derive(Default)]
struct Digesting {
    digest: EnvelopeDigest,
    hashes: HashBatch,
    found: Vec<Hash32>,
}

impl Digesting {
    fn add(&mut self, envelope: &[u8]) {
        self.hashes.push(&[envelope]);
        if self.hashes.bytes() >= HASHED_BYTES {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.hashes.finish(&mut self.found);
        self.digest.count += self.found.len() as u64;
        for hash in &self.found {
            self.digest.sum.add(hash);
        }
    }

    fn finish(mut self) -> EnvelopeDigest {
        self.settle();
        self.digest
    }
}

impl EnvelopeDigest {
    /// Adds another digest.
    pub fn join(&mut self, other: &EnvelopeDigest) {
        self.count += other.count;
        self.sum.join(&other.sum);
    }
}

/// Frames a whole stream view.
pub fn of_view(
    source: &dyn WorldSource,
    context: &Arc<FrameContext>,
    on_events: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<EnvelopeDigest> {
    let mut view = source.open(&context.output_id, None)?;
    let mut digest = Digesting::default();
    let mut memo = FrameMemo::default();
    let mut envelope = Vec::with_capacity(1024);
    while let Some(block) = view.reader.next_block()? {
        let columns = block.columns();
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let plan = FramePlan::new(context, &names)?;
        let mut framer = plan.bind(&columns, &mut memo)?;
        for row in 0..block.rows() {
            envelope.clear();
            framer.frame(row, &mut envelope)?;
            digest.add(&envelope);
        }
        on_events(block.rows() as u64);
    }
    Ok(digest.finish())
}

/// Replays one topic partition from its first record to its committed end.
pub fn of_partition(
    paths: &RunPaths,
    topic: &str,
    partition: u32,
    on_events: &(dyn Fn(u64) + Sync),
) -> Result<EnvelopeDigest, StoreError> {
    let mut reader = BusReader::open(paths, topic, partition, ReadBound::Journal)?;
    let mut records = reader.stream(0)?;
    let mut digest = Digesting::default();
    let mut untold = 0;
    while let Some((offset, line)) = records.next_line()? {
        let Some(envelope) = envelope_of(line) else {
            let key = format!("{topic}/{partition}@{offset}");
            return Err(StoreError::Damaged {
                key,
                offset: 0,
                cause: "the line is no bus record".to_owned(),
            });
        };
        digest.add(envelope);
        untold += 1;
        if untold == TOLD_EVERY {
            on_events(std::mem::take(&mut untold));
        }
    }
    on_events(untold);
    Ok(digest.finish())
}

/// The envelope inside a bus line (contract 8): what stands between two fixed texts.
fn envelope_of(line: &[u8]) -> Option<&[u8]> {
    const HEAD: &[u8] = b"{\"partition_key\":\"";
    const MIDDLE: &[u8] = b"\",\"payload\":";
    const TAIL: &[u8] = b",\"published_at_utc\":\"";
    let rest = line.strip_prefix(HEAD)?.get(64..)?.strip_prefix(MIDDLE)?;
    // The stamp is at most 32 characters, so the tail is looked for near the end only.
    let near_end = rest.len().saturating_sub(TAIL.len() + 40);
    let at = rest[near_end..]
        .windows(TAIL.len())
        .rposition(|window| window == TAIL)?;
    Some(&rest[..near_end + at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_found_inside_its_line() {
        let key = "a".repeat(64);
        let envelope = r#"{"event_id":"x","payload":{"published_at_utc":"y"}}"#;
        for stamp in [
            "2026-01-31T06:57:31.123456+00:00",
            "2026-01-31T06:57:31+00:00",
        ] {
            let line = format!(
                "{{\"partition_key\":\"{key}\",\"payload\":{envelope},\"published_at_utc\":\"{stamp}\"}}"
            );
            assert_eq!(envelope_of(line.as_bytes()), Some(envelope.as_bytes()));
        }
        assert_eq!(envelope_of(b"{}"), None);
    }

    #[test]
    fn a_digest_depends_on_every_envelope_and_not_on_their_order() {
        let of = |envelopes: &[&str]| {
            let mut digest = Digesting::default();
            envelopes
                .iter()
                .for_each(|envelope| digest.add(envelope.as_bytes()));
            digest.finish()
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "c"]));
        assert_ne!(of(&["a", "a"]), of(&["a"]));
    }
}
