//! Positions of control streams in memory: what two nodes and two lives of a node share in a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use wellspring::control_bus::{ControlPositions, Settled, ShardProgress};
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::ports::StoreError;

type Progress = (Option<SequenceNumber>, BTreeSet<SequenceNumber>);

#[derive(Default)]
pub struct MemoryPositions {
    shards: Mutex<BTreeMap<(String, String), Progress>>,
}

impl ControlPositions for MemoryPositions {
    fn load(&self, stream: &str) -> Result<Vec<ShardProgress>, StoreError> {
        let shards = self.shards.lock().unwrap();
        let of_stream = shards.iter().filter(|((name, _), _)| name == stream);
        let progress = of_stream.map(|((_, shard_id), (through, settled))| ShardProgress {
            shard_id: shard_id.clone(),
            through: *through,
            settled: settled.iter().copied().collect(),
        });
        Ok(progress.collect())
    }

    fn settle(&self, stream: &str, settled: &Settled<'_>) -> Result<(), StoreError> {
        let mut shards = self.shards.lock().unwrap();
        let key = (stream.to_owned(), settled.shard_id.to_owned());
        let (through, beyond) = shards.entry(key).or_default();
        *through = settled.through.max(*through);
        beyond.insert(settled.sequence);
        let through = *through;
        beyond.retain(|sequence| Some(*sequence) > through);
        Ok(())
    }
}
