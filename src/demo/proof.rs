//! The proof at the end of a demo: world, bus, journal and receipts say the same.

use super::world_digest::{EnvelopeDigest, of_partition, of_view};
use crate::event_bus::embedded_log::bus_partitions;
use crate::gate::policy_files::load_policy;
use crate::settings::Settings;
use crate::state_store::embedded::verify::{Difference, verify_bus, verify_receipts};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::run_paths::RunPaths;
use wellspring_domain::stream::framing::FrameContext;
use wellspring_domain::stream::source::WorldSource;

/// World against bus, for one output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutputProof {
    /// The output.
    pub output_id: String,
    /// Where its events are.
    pub topic: String,
    /// Rows of the stream view.
    pub world_rows: u64,
    /// Records replayed from the bus.
    pub bus_records: u64,
    /// Sum of the digests of the world's envelopes.
    pub world_digest: String,
    /// Sum of the digests of the envelopes on the bus.
    pub bus_digest: String,
    /// True when both agree.
    pub equal: bool,
}

/// Everything that was compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// World against bus.
    pub outputs: Vec<OutputProof>,
    /// Records on the bus, all topics.
    pub bus_records: u64,
    /// ADMIT receipts.
    pub admit_receipts: u64,
    /// DUPLICATE receipts.
    pub duplicate_receipts: u64,
    /// QUARANTINE receipts.
    pub quarantine_receipts: u64,
    /// Every record has exactly one ADMIT receipt and the other way round.
    pub bus_verified: bool,
    /// Every receipt is what the contract says.
    pub receipts_verified: bool,
    /// The first differences, if any.
    pub differences: Vec<Difference>,
}

impl Proof {
    /// True when nothing differs.
    pub fn holds(&self) -> bool {
        self.bus_verified
            && self.receipts_verified
            && self.quarantine_receipts == 0
            && self.outputs.iter().all(|output| output.equal)
            && self.bus_records
                == self
                    .outputs
                    .iter()
                    .map(|output| output.world_rows)
                    .sum::<u64>()
    }
}

/// Replays the bus and compares it with the receipts and the world. `on_events` is told how many events of
/// either side have been read.
pub fn prove(
    settings: &Settings,
    paths: &RunPaths,
    source: &dyn WorldSource,
    outputs: &[Arc<FrameContext>],
    on_events: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<Proof> {
    let store = settings.object_stores().open(settings.runs_root())?;
    let (digests, bus, receipts) = std::thread::scope(|scope| {
        let digests = scope.spawn(|| compare_world(settings, paths, source, outputs, on_events));
        let bus = verify_bus(paths);
        let receipts = verify_receipts(paths, ReceiptsLayout::default(), &*store);
        (digests.join(), bus, receipts)
    });
    let outputs = digests.map_err(|_| anyhow::anyhow!("comparing world and bus panicked"))??;
    let (bus, receipts) = (bus?, receipts?);
    Ok(Proof {
        outputs,
        bus_records: bus.records,
        admit_receipts: receipts.admitted,
        duplicate_receipts: receipts.duplicates,
        quarantine_receipts: receipts.quarantined,
        bus_verified: bus.verified,
        receipts_verified: receipts.verified,
        differences: bus
            .differences
            .first
            .into_iter()
            .chain(receipts.differences.first)
            .collect(),
    })
}

fn compare_world(
    settings: &Settings,
    paths: &RunPaths,
    source: &dyn WorldSource,
    outputs: &[Arc<FrameContext>],
    on_events: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<Vec<OutputProof>> {
    let policy = load_policy(settings)?;
    let mut topics: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (topic, partition) in bus_partitions(paths)? {
        topics.entry(topic).or_default().push(partition);
    }
    let mut proofs = Vec::new();
    for context in outputs {
        let topic = policy.rule(&context.output_id).topic.to_string();
        let world = of_view(source, context, on_events)?;
        let mut bus = EnvelopeDigest::default();
        for partition in topics.get(&topic).into_iter().flatten() {
            bus.join(&of_partition(paths, &topic, *partition, on_events)?);
        }
        proofs.push(OutputProof {
            output_id: context.output_id.clone(),
            topic,
            world_rows: world.count,
            bus_records: bus.count,
            world_digest: world.sum.hex(),
            bus_digest: bus.sum.hex(),
            equal: world == bus,
        });
    }
    Ok(proofs)
}
