//! Opening an index: trust what the manifests vouch for, take the rest from the journal.

use super::background::Background;
use super::files::{entry_names, remove_folder};
use super::index_memory::IndexMemory;
use super::manifest::{Coverage, Manifest};
use super::shard::IndexShard;
use super::shared::{ShardPlace, Shared};
use crate::state_store::embedded::journal_source::JournalSource;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_domain::admission::decision::{IndexEntry, RowRef};
use wellspring_domain::admission::routing::index_shard_of;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{AdmissionIndex, RunLayout, StoreError};
use wellspring_domain::run_paths::RunPaths;

/// Keys handed to a shard at once while the journal is read.
const INSERT_BATCH: usize = 4096;

/// Opens the index of a run and brings it up to the end of the journal. The caller holds the run's
/// lock; the shards come back in order.
pub fn open(
    paths: &RunPaths,
    layout: &RunLayout,
    journal: &dyn JournalSource,
    memory: &IndexMemory,
) -> Result<Vec<Box<dyn AdmissionIndex>>, StoreError> {
    let shards = open_shards(paths, layout, journal, memory)?;
    let boxed = |shard| Box::new(shard) as Box<dyn AdmissionIndex>;
    Ok(shards.into_iter().map(boxed).collect())
}

/// Where a run's index lies.
pub fn index_folder(paths: &RunPaths) -> PathBuf {
    PathBuf::from(paths.ig()).join("index")
}

/// Number of keys of a run's index and a digest over all of them and what is known of each. Equal
/// digests mean equal contents, however they are spread over tables, runs and shards.
pub fn digest(
    paths: &RunPaths,
    layout: &RunLayout,
    journal: &dyn JournalSource,
    memory: &IndexMemory,
) -> Result<(u64, Hash32), StoreError> {
    let (mut keys, mut sum) = (0, [0u64; 4]);
    for shard in open_shards(paths, layout, journal, memory)? {
        shard.visit(&mut |slot| {
            keys += 1;
            let row = slot.entry.row;
            let mut bytes = Vec::with_capacity(80);
            bytes.extend_from_slice(&slot.key.0);
            bytes.extend_from_slice(&slot.entry.payload_hash.0);
            bytes.extend_from_slice(&row.shard.to_be_bytes());
            bytes.extend_from_slice(&row.segment.to_be_bytes());
            bytes.extend_from_slice(&row.row.to_be_bytes());
            add(&mut sum, &Hash32::of(&bytes));
        })?;
    }
    let mut text = Vec::with_capacity(40);
    sum.iter()
        .for_each(|part| text.extend_from_slice(&part.to_be_bytes()));
    Ok((keys, Hash32::of(&text)))
}

fn add(sum: &mut [u64; 4], hash: &Hash32) {
    for (part, bytes) in sum.iter_mut().zip(hash.0.chunks_exact(8)) {
        let bytes: [u8; 8] = bytes.try_into().expect("chunks of eight");
        *part = part.wrapping_add(u64::from_be_bytes(bytes));
    }
}

/// Opens the shards. Damage that a merge meets while the tail is inserted has dropped the manifest of
/// its shard: the second attempt makes that shard again.
pub(super) fn open_shards(
    paths: &RunPaths,
    layout: &RunLayout,
    journal: &dyn JournalSource,
    memory: &IndexMemory,
) -> Result<Vec<IndexShard>, StoreError> {
    match try_open_shards(paths, layout, journal, memory) {
        Err(StoreError::Damaged { .. }) => try_open_shards(paths, layout, journal, memory),
        opened_or_refused => opened_or_refused,
    }
}

fn try_open_shards(
    paths: &RunPaths,
    layout: &RunLayout,
    journal: &dyn JournalSource,
    memory: &IndexMemory,
) -> Result<Vec<IndexShard>, StoreError> {
    let root = index_folder(paths);
    drop_other_layout(&root, layout.index_shards)?;
    let ends = journal_ends(journal)?;
    let background = Arc::new(Background::start()?);
    let mut shards = Vec::with_capacity(usize::from(layout.index_shards));
    for shard in 0..layout.index_shards {
        let place = ShardPlace {
            shard,
            index_shards: layout.index_shards,
            folder: root.join(shard_name(shard)),
            buffer_bytes: memory.tables.buffer_bytes(),
            pool: Arc::clone(&memory.resident),
        };
        let shared = open_or_drop(place, &ends)?;
        let background = Arc::clone(&background);
        shards.push(IndexShard::new(shared, background, &memory.tables));
    }
    for admission_shard in ends.keys() {
        insert_tail(&mut shards, journal, *admission_shard)?;
    }
    Ok(shards)
}

fn shard_name(shard: u16) -> String {
    format!("shard-{shard:03}")
}

/// Keys are spread by the number of shards: with another number nothing is where it is looked for.
fn drop_other_layout(root: &Path, index_shards: u16) -> Result<(), StoreError> {
    for name in entry_names(root)? {
        let made_for = match Manifest::load(&root.join(&name)) {
            Ok(manifest) => manifest.map(|manifest| manifest.index_shards),
            Err(StoreError::Damaged { .. }) => None, // handled when that shard is opened
            Err(error) => return Err(error),
        };
        if made_for.is_some_and(|shards| shards != index_shards) {
            tracing::info!(
                folder = %root.display(),
                from = made_for,
                to = index_shards,
                "number of index shards has changed, the index is made again from the journal"
            );
            return remove_folder(root);
        }
    }
    Ok(())
}

fn journal_ends(journal: &dyn JournalSource) -> Result<BTreeMap<u16, RowRef>, StoreError> {
    let shards = journal.shards()?;
    let end = |shard| journal.end(shard).map(|end| (shard, end));
    shards.into_iter().map(end).collect()
}

/// Opens a shard's runs, or an empty shard when they are damaged or ahead of the journal.
fn open_or_drop(place: ShardPlace, ends: &BTreeMap<u16, RowRef>) -> Result<Shared, StoreError> {
    let why = match Shared::open(place.clone()) {
        Ok(shared) if within(&shared.coverage(), ends) => return Ok(shared),
        Ok(_ahead) => "runs hold rows the journal does not have".to_owned(),
        Err(error @ StoreError::Damaged { .. }) => error.to_string(),
        Err(error) if is_missing(&error) => error.to_string(),
        Err(error) => return Err(error),
    };
    tracing::warn!(
        shard = place.shard,
        why,
        "index shard is made again from the journal"
    );
    remove_folder(&place.folder)?;
    Shared::open(place)
}

/// True when every covered row is in the journal.
fn within(coverage: &Coverage, ends: &BTreeMap<u16, RowRef>) -> bool {
    coverage
        .iter()
        .all(|(shard, last)| ends.get(shard).is_some_and(|end| last < end))
}

/// A run the manifest lists is not there.
fn is_missing(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { operation: "open", key, .. } if !Path::new(key).exists())
}

/// Inserts the admitted keys of one journal that lie behind what each shard's runs hold.
fn insert_tail(
    shards: &mut [IndexShard],
    journal: &dyn JournalSource,
    admission_shard: u16,
) -> Result<(), StoreError> {
    let known: Vec<Option<RowRef>> = shards
        .iter()
        .map(|shard| shard.inserted_through(admission_shard))
        .collect();
    let mut from = RowRef {
        shard: admission_shard,
        ..RowRef::default()
    };
    if let Some(Some(last)) = known.iter().min() {
        from = RowRef {
            row: last.row + 1,
            ..*last
        };
    }
    let mut batches: Vec<Vec<(Hash32, IndexEntry)>> = vec![Vec::new(); shards.len()];
    let index_shards = shards.len() as u16;
    let last = journal.visit_admitted(from, &mut |(row, key, payload_hash)| {
        let number = usize::from(index_shard_of(&key, index_shards));
        if known[number] >= Some(row) {
            return Ok(());
        }
        let batch = &mut batches[number];
        batch.push((key, IndexEntry { payload_hash, row }));
        if batch.len() >= INSERT_BATCH {
            shards[number].insert(batch, row)?;
            batch.clear();
        }
        Ok(())
    })?;
    let Some(last) = last else {
        return Ok(());
    };
    for (shard, batch) in shards.iter_mut().zip(&batches) {
        shard.insert(batch, last)?;
    }
    Ok(())
}
