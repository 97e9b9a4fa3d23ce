//! Pass 2: sorts bucket by bucket and writes the parts. Sorting and encoding run beside each other.

use crate::world_files::part_location::PartLocation;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, interleave_record_batch};

use super::error::SortError;
use super::keys::{KeyPlan, Place};
use super::part_sink::PartSink;
use super::scan::{Held, Loaded};
use super::spill::Spill;

/// Rows gathered and encoded at a time.
const CHUNK_ROWS: usize = 8_192;
/// Gathered chunks that may wait for the encoder.
const CHUNKS_WAITING: usize = 4;

/// Sorted rows on their way to the encoder.
struct Chunk {
    rows: RecordBatch,
    leading: Vec<u64>,
}

/// Writes all held rows in order; gives the parts.
pub(super) fn merge(
    held: Held,
    keys: &KeyPlan,
    mut sink: PartSink<'_>,
) -> Result<Vec<PartLocation>, SortError> {
    let (sender, receiver) = sync_channel::<Chunk>(CHUNKS_WAITING);
    std::thread::scope(|scope| {
        let sorting = scope.spawn(move || sort_held(held, keys, &sender));
        let written = encode(&mut sink, receiver);
        let sorted = match sorting.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // When the encoder failed, the sorter only noticed a closed channel.
        written.and(sorted)
    })?;
    sink.finish()
}

/// Takes the receiver, so that the sorter notices when encoding has failed.
fn encode(sink: &mut PartSink<'_>, receiver: Receiver<Chunk>) -> Result<(), SortError> {
    receiver
        .into_iter()
        .try_for_each(|chunk| sink.write(&chunk.rows, &chunk.leading))
}

/// Cuts the sorted rows into chunks of equal size, whatever the buckets are: the bytes of the parts
/// must not depend on the memory limit or on timing.
struct Sorter<'a> {
    keys: &'a KeyPlan,
    sender: &'a SyncSender<Chunk>,
    /// The rows after the last full chunk.
    rest: Option<Chunk>,
}

fn sort_held(held: Held, keys: &KeyPlan, sender: &SyncSender<Chunk>) -> Result<(), SortError> {
    let mut sorter = Sorter {
        keys,
        sender,
        rest: None,
    };
    match held {
        Held::Memory(loaded) => {
            if sorter.sort_bucket(&loaded)?.is_break() {
                return Ok(());
            }
        }
        Held::Spilled { spills, buckets } => {
            for bucket in 0..buckets {
                if sorter
                    .sort_bucket(&load(&spills, bucket, keys)?)?
                    .is_break()
                {
                    return Ok(());
                }
            }
        }
    }
    // A closed channel is reported by the encoder.
    let _ = sorter.rest.take().map(|rest| sender.send(rest));
    Ok(())
}

fn load(spills: &[Spill], bucket: usize, keys: &KeyPlan) -> Result<Loaded, SortError> {
    let mut loaded = Loaded::default();
    for spill in spills {
        loaded.batches.extend(spill.read(bucket)?);
    }
    for batch in &loaded.batches {
        loaded.leading.push(keys.leading(batch)?);
    }
    Ok(loaded)
}

impl Sorter<'_> {
    /// Breaks when the encoder is gone: it has failed, and its error is the one to report.
    fn sort_bucket(&mut self, loaded: &Loaded) -> Result<ControlFlow<()>, SortError> {
        let places = self.keys.order(&loaded.batches, &loaded.leading)?;
        let batches: Vec<&RecordBatch> = loaded.batches.iter().collect();
        let mut places = places.as_slice();
        while !places.is_empty() {
            let waiting = self.rest.as_ref().map_or(0, |rest| rest.leading.len());
            let (next, later) = places.split_at(places.len().min(CHUNK_ROWS - waiting));
            places = later;
            let chunk = self.behind_rest(gather(&batches, loaded, next)?)?;
            if chunk.leading.len() < CHUNK_ROWS {
                self.rest = Some(chunk);
            } else if self.sender.send(chunk).is_err() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn behind_rest(&mut self, chunk: Chunk) -> Result<Chunk, SortError> {
        let Some(mut rest) = self.rest.take() else {
            return Ok(chunk);
        };
        let schema = chunk.rows.schema();
        let rows = concat_batches(&schema, [&rest.rows, &chunk.rows]);
        rest.leading.extend(chunk.leading);
        let rows = rows.map_err(|error| SortError::rows(&error))?;
        Ok(Chunk {
            rows,
            leading: rest.leading,
        })
    }
}

fn gather(batches: &[&RecordBatch], loaded: &Loaded, places: &[Place]) -> Result<Chunk, SortError> {
    let schema = batches[0].schema();
    let rows = if schema.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        RecordBatch::try_new_with_options(schema, Vec::new(), &options)
    } else {
        let indices: Vec<(usize, usize)> = places
            .iter()
            .map(|place| (place.batch as usize, place.row as usize))
            .collect();
        interleave_record_batch(batches, &indices)
    };
    let key = |place: &Place| loaded.leading[place.batch as usize][place.row as usize];
    let leading = places.iter().map(key).collect();
    let rows = rows.map_err(|error| SortError::rows(&error))?;
    Ok(Chunk { rows, leading })
}
