//! Pass 1: reads the source once, counts it, and holds it in memory or in spill files by bucket.

use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::buckets::Buckets;
use super::error::SortError;
use super::keys::KeyPlan;
use super::parallel::{Runs, Stop, run_all};
use super::source::{CompactRows, Source, Unit};
use super::spill::Spill;
use super::stats::RowStats;

/// What pass 1 needs.
pub(super) struct ScanContext<'a> {
    pub(super) source: &'a Source,
    pub(super) keys: &'a KeyPlan,
    pub(super) memory_limit: u64,
    pub(super) threads: usize,
    /// Where spill files live.
    pub(super) temp_dir: &'a Path,
    /// Told how many rows are new after each batch.
    pub(super) on_rows: &'a (dyn Fn(u64) + Sync),
}

/// The source after pass 1.
pub(super) struct Scanned {
    pub(super) stats: RowStats,
    pub(super) held: Held,
}

/// Where the rows are.
pub(super) enum Held {
    /// All in memory, in source order.
    Memory(Loaded),
    /// By bucket, one spill file per run, runs in source order.
    Spilled { spills: Vec<Spill>, buckets: usize },
}

/// Rows with their leading keys, batch by batch.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) leading: Vec<Vec<u64>>,
}

/// Reads everything.
pub(super) fn scan(context: &ScanContext<'_>) -> Result<Scanned, SortError> {
    let units = context.source.units();
    let runs = Runs::split(&units, context.threads);
    let shared = Shared {
        context,
        units: &units,
        // Half the limit for waiting rows; the rest is for decoding and for writing segments.
        pending_max: context.memory_limit * 2 / 5 / runs.count().max(1) as u64,
        buckets: Mutex::new(None),
    };
    let workers = run_all(&runs, |run, stop| Worker::new(&shared).read(run, stop))?;
    shared.hold(workers)
}

struct Shared<'a> {
    context: &'a ScanContext<'a>,
    units: &'a [Unit],
    pending_max: u64,
    /// Planned by the first worker that runs out of room.
    buckets: Mutex<Option<Arc<Buckets>>>,
}

impl Shared<'_> {
    /// The buckets; the first caller plans them from the width of the rows it has.
    fn buckets(&self, bytes_per_row: u64) -> Result<Arc<Buckets>, SortError> {
        let mut planned = self
            .buckets
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(buckets) = planned.as_ref() {
            return Ok(buckets.clone());
        }
        let rows: u64 = self.units.iter().map(|unit| unit.rows).sum();
        let bucket_bytes = (self.context.memory_limit / 5).max(1);
        let wanted = rows * bytes_per_row / bucket_bytes + 1;
        let (source, keys) = (self.context.source, self.context.keys);
        let buckets = Arc::new(Buckets::plan(source, keys, self.units, wanted)?);
        *planned = Some(buckets.clone());
        Ok(buckets)
    }

    fn hold(&self, mut workers: Vec<Worker<'_>>) -> Result<Scanned, SortError> {
        let mut stats = RowStats::default();
        workers.iter().for_each(|worker| stats.add(&worker.stats));
        if workers.iter().all(|worker| worker.spill.is_none()) {
            let mut loaded = Loaded::default();
            for worker in workers {
                loaded.batches.extend(worker.pending.batches);
                loaded.leading.extend(worker.pending.leading);
            }
            return Ok(Scanned {
                stats,
                held: Held::Memory(loaded),
            });
        }
        workers.iter_mut().try_for_each(Worker::flush)?;
        let buckets = self.buckets(0)?.count();
        let spills = workers
            .into_iter()
            .filter_map(|worker| worker.spill)
            .collect();
        Ok(Scanned {
            stats,
            held: Held::Spilled { spills, buckets },
        })
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    stats: RowStats,
    pending: Loaded,
    pending_bytes: u64,
    spill: Option<Spill>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        let (stats, pending) = (RowStats::default(), Loaded::default());
        Self {
            shared,
            stats,
            pending,
            pending_bytes: 0,
            spill: None,
        }
    }

    fn read(mut self, run: &[Unit], stop: &Stop) -> Result<Self, SortError> {
        let context = self.shared.context;
        for unit in run {
            let mut reader = context.source.read(*unit)?;
            while let Some(rows) = reader.next_rows()? {
                if stop.is_set() {
                    return Ok(self);
                }
                self.take(rows)?;
            }
        }
        Ok(self)
    }

    fn take(&mut self, rows: CompactRows) -> Result<(), SortError> {
        let leading = self.shared.context.keys.leading(&rows.rows)?;
        self.stats.add_rows(&rows, &leading);
        let columns = rows.rows.columns().iter();
        let bytes: usize = columns.map(|column| column.get_buffer_memory_size()).sum();
        self.pending_bytes +=
            (bytes + leading.len() * self.shared.context.keys.bytes_per_row()) as u64;
        self.pending.batches.push(rows.rows);
        (self.shared.context.on_rows)(leading.len() as u64);
        self.pending.leading.push(leading);
        if self.pending_bytes > self.shared.pending_max {
            self.flush()?;
        }
        Ok(())
    }

    /// Moves the waiting rows to the spill file, bucket by bucket, in source order.
    fn flush(&mut self) -> Result<(), SortError> {
        let rows: u64 = self
            .pending
            .leading
            .iter()
            .map(|keys| keys.len() as u64)
            .sum();
        let buckets = self.shared.buckets(self.pending_bytes / rows.max(1) + 1)?;
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::new(self.shared.context.temp_dir, buckets.count())?),
        };
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let mut members: Vec<Vec<(usize, usize)>> = vec![Vec::new(); buckets.count()];
        for (batch, keys) in pending.leading.iter().enumerate() {
            for (row, key) in keys.iter().enumerate() {
                members[buckets.of(*key)].push((batch, row));
            }
        }
        let batches: Vec<&RecordBatch> = pending.batches.iter().collect();
        for (bucket, members) in members
            .iter()
            .enumerate()
            .filter(|(_, members)| !members.is_empty())
        {
            let rows = interleave_record_batch(&batches, members);
            spill.append(bucket, &rows.map_err(|error| SortError::rows(&error))?)?;
        }
        Ok(())
    }
}
