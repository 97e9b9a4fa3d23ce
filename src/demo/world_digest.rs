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
use wellspring_domain::stream::framing::{FrameContext, FrameMemo, FramePlan};
use wellspring_domain::stream::source::WorldSource;

/// Records of the bus between two tellings of how far it is.
const TOLD_EVERY: u64 = 4096;

/// How many envelopes there are, and the sum of their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeDigest {
    /// Number of envelopes.
    pub count: u64,
    /// Sum of their digests.
    pub sum: DigestSum,
}

impl EnvelopeDigest {
    fn add(&mut self, envelope: &[u8]) {
        self.count += 1;
        self.sum.add(&Hash32::of(envelope));
    }

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
    let mut digest = EnvelopeDigest::default();
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
    Ok(digest)
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
    let mut digest = EnvelopeDigest::default();
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
        if digest.count.is_multiple_of(TOLD_EVERY) {
            on_events(TOLD_EVERY);
        }
    }
    on_events(digest.count % TOLD_EVERY);
    Ok(digest)
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
            let mut digest = EnvelopeDigest::default();
            envelopes
                .iter()
                .for_each(|envelope| digest.add(envelope.as_bytes()));
            digest
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "c"]));
        assert_ne!(of(&["a", "a"]), of(&["a"]));
    }
}
