//! What an index shard shares with the background threads: its runs, the frozen table, the manifest.

use super::files::{entry_names, failed, remove_file};
use super::manifest::{self, Coverage, Manifest, run_path};
use super::memory::MemTable;
use super::merge;
use super::resident_pool::ResidentPool;
use super::rests::Turns;
use super::run_file::Run;
use super::run_writer::RunWriter;
use super::shared_filter::SharedFilter;
use crate::blocking_runtime::wait_here;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use wellspring_domain::ports::StoreError;

/// Which shard of how many, where it lies, and its memory beside tables.
#[derive(Clone, Debug)]
pub struct ShardPlace {
    /// This shard.
    pub shard: u16,
    /// Number of shards.
    pub index_shards: u16,
    /// Folder of the shard.
    pub folder: PathBuf,
    /// Bytes of one read or write buffer.
    pub buffer_bytes: usize,
    /// Memory for what is kept of runs.
    pub pool: Arc<ResidentPool>,
}

/// The state of one shard beside its active table.
pub struct Shared {
    /// Place and plan.
    pub place: ShardPlace,
    state: Mutex<State>,
    /// Signalled when the frozen table is gone or the shard has failed.
    changed: Condvar,
    /// Held while runs are added or replaced, so that manifests are written one after the other.
    publishing: Mutex<()>,
    /// Whether admission waits for the frozen table to be written, or soon will.
    in_a_hurry: AtomicBool,
}

struct State {
    frozen: Option<Frozen>,
    /// A table that was written, to be filled again; there is none beside a frozen one.
    spare: Option<Arc<MemTable>>,
    /// Oldest first.
    runs: Arc<Vec<Arc<Run>>>,
    /// Oldest first; together they hold all keys of filtered runs.
    filters: Arc<Vec<Arc<SharedFilter>>>,
    coverage: Coverage,
    next_run: u64,
    failure: Option<StoreError>,
}

struct Frozen {
    table: Arc<MemTable>,
    coverage: Coverage,
}

/// What a lookup reads: it stays valid while runs are replaced.
pub struct View {
    /// The table that is being written.
    pub frozen: Option<Arc<MemTable>>,
    /// Oldest first.
    pub runs: Arc<Vec<Arc<Run>>>,
    /// Together they hold all keys of those runs that are filtered.
    pub filters: Arc<Vec<Arc<SharedFilter>>>,
}

impl Shared {
    /// Opens the runs the manifest lists and removes every other file of the shard.
    pub fn open(place: ShardPlace) -> Result<Shared, StoreError> {
        std::fs::create_dir_all(&place.folder).map_err(failed("create folder", &place.folder))?;
        let manifest = Manifest::load(&place.folder)?;
        let (ids, next_run, coverage) = match &manifest {
            Some(manifest) => (
                manifest.runs.clone(),
                manifest.next_run,
                manifest.coverage(),
            ),
            None => (Vec::new(), 0, Coverage::new()),
        };
        remove_unlisted(&place, &ids)?;
        let mut runs = Vec::with_capacity(ids.len());
        for id in ids.iter().rev() {
            // Newest first: small runs are asked most often per byte they take.
            let run = Run::open(&run_path(&place.folder, *id), *id, &place.pool, 0)?;
            runs.push(Arc::new(run));
        }
        runs.reverse();
        Ok(Shared {
            place,
            state: Mutex::new(State {
                frozen: None,
                spare: None,
                runs: Arc::new(runs),
                filters: Arc::default(),
                coverage,
                next_run,
                failure: None,
            }),
            changed: Condvar::new(),
            publishing: Mutex::new(()),
            in_a_hurry: AtomicBool::new(false),
        })
    }

    /// What lookups read now.
    pub fn view(&self) -> Result<View, StoreError> {
        let state = self.lock();
        state.check()?;
        Ok(View {
            frozen: state
                .frozen
                .as_ref()
                .map(|frozen| Arc::clone(&frozen.table)),
            runs: Arc::clone(&state.runs),
            filters: Arc::clone(&state.filters),
        })
    }

    /// Journal rows whose keys are in runs.
    pub fn coverage(&self) -> Coverage {
        self.lock().coverage.clone()
    }

    /// Takes a full table to be written and gives back the one before it, for its memory to be filled again. Waits
    /// while that one is being written: this is what bounds the memory.
    pub fn freeze(
        &self,
        table: MemTable,
        coverage: Coverage,
    ) -> Result<Option<MemTable>, StoreError> {
        let spare = {
            let mut state = self.wait_until_written()?;
            self.hurry(false);
            state.frozen = Some(Frozen {
                table: Arc::new(table),
                coverage,
            });
            state.spare.take()
        };
        // A lookup may still read the table that was written.
        Ok(spare.and_then(Arc::into_inner))
    }

    /// Says whether the frozen table is written without rests from now on.
    pub fn hurry(&self, in_a_hurry: bool) {
        self.in_a_hurry.store(in_a_hurry, Ordering::Relaxed);
    }

    /// Waits until no frozen table is left.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.wait_until_written().map(drop)
    }

    fn wait_until_written(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        self.hurry(true);
        let mut state = self.lock();
        if state.waits_for_the_writer() {
            let written = || {
                let waiting = |state: &mut State| state.waits_for_the_writer();
                self.changed.wait_while(state, waiting)
            };
            state = wait_here(written).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state.check()?;
        Ok(state)
    }

    /// Bytes in use beside the active table.
    pub fn memory_bytes(&self) -> usize {
        let state = self.lock();
        let frozen = state
            .frozen
            .as_ref()
            .map_or(0, |frozen| frozen.table.memory_bytes());
        let spare = state.spare.as_ref();
        frozen
            + state
                .filters
                .iter()
                .map(|filter| filter.memory_bytes())
                .sum::<usize>()
            + spare.map_or(0, |table| table.memory_bytes())
            + state
                .runs
                .iter()
                .map(|run| run.memory_bytes())
                .sum::<usize>()
    }

    /// Ends the shard with an error: every later call returns it.
    pub fn fail(&self, error: StoreError) {
        self.lock().failure.get_or_insert(error);
        self.changed.notify_all();
    }

    /// A run does not hold what was written: the manifest is dropped, so that the next open makes the
    /// shard again from the journal.
    pub fn give_up_runs(&self, error: &StoreError) {
        let _publishing = self.publishing_lock();
        tracing::error!(shard = self.place.shard, %error, "index run is damaged, the next open rebuilds it");
        self.fail(error.clone());
        if let Err(cause) = remove_file(&self.place.folder.join(manifest::FILE_NAME)) {
            tracing::error!(shard = self.place.shard, %cause, "manifest of a damaged index shard stays");
        }
    }

    /// Writes the frozen table as a run, in turns unless `stop` is set. Called by the writer thread.
    pub fn write_frozen(&self, stop: &AtomicBool) -> Result<(), StoreError> {
        let (table, id) = {
            let mut state = self.lock();
            state.check()?;
            let Some(frozen) = &state.frozen else {
                return Ok(());
            };
            let table = Arc::clone(&frozen.table);
            (table, state.take_run_id())
        };
        let path = run_path(&self.place.folder, id);
        let keys = table.len() as u64;
        let ShardPlace {
            pool, buffer_bytes, ..
        } = &self.place;
        let filter = self.filter_with_room(keys);
        let free = self.free_for_filter(filter.is_some(), 0);
        let mut writer = RunWriter::create(&path, keys, free, *buffer_bytes)?;
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let mut turns = Turns::new(|| is_set(&self.in_a_hurry) || is_set(stop));
        for slot in table.sorted() {
            writer.push(&slot.to_bytes())?;
            if let Some(filter) = &filter {
                filter.add(&slot.key);
            }
            turns.step();
        }
        writer.finish()?;
        let run = Run::open(&path, id, pool, 0)?.filtered(filter.is_some());
        let publishing = self.publishing_lock();
        let (mut runs, coverage) = {
            let state = self.lock();
            let frozen = state.frozen.as_ref().map(|frozen| frozen.coverage.clone());
            (
                state.runs.to_vec(),
                frozen.unwrap_or_else(|| state.coverage.clone()),
            )
        };
        runs.push(Arc::new(run));
        self.publish(runs, coverage, |state| {
            state.spare = state.frozen.take().map(|frozen| frozen.table);
        })?;
        drop(table);
        drop(publishing);
        self.changed.notify_all();
        Ok(())
    }

    /// The newest filter while that has room for so many more keys, else a new one if memory allows. A key is added before
    /// its run is seen, and its filter is seen no later.
    fn filter_with_room(&self, keys: u64) -> Option<Arc<SharedFilter>> {
        let newest = self.lock().filters.last().cloned();
        if let Some(newest) = newest.as_ref().filter(|newest| newest.reserve(keys)) {
            return Some(Arc::clone(newest));
        }
        let next = SharedFilter::behind(newest.as_deref(), keys, &self.place.pool)?;
        next.reserve(keys).then(|| {
            let next = Arc::new(next);
            Arc::make_mut(&mut self.lock().filters).push(Arc::clone(&next));
            next
        })
    }

    /// Free memory that a new run's own filter may go by, when `going` bytes are given back; none for a run that filters of
    /// the shard are over, because its own is hardly asked.
    fn free_for_filter(&self, is_filtered: bool, going: usize) -> usize {
        match is_filtered {
            true => 0,
            false => self.place.pool.free(going),
        }
    }

    /// Merges one group of runs; false when there is none or `stop` was set. Called by the merger.
    pub fn merge_once(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        let (group, id) = {
            let mut state = self.lock();
            state.check()?;
            let sizes: Vec<u64> = state.runs.iter().map(|run| run.entries()).collect();
            let Some(range) = merge::pick(&sizes) else {
                return Ok(false);
            };
            (state.runs[range].to_vec(), state.take_run_id())
        };
        let path = run_path(&self.place.folder, id);
        let newest = group.last().map(|run| run.id);
        let in_a_hurry = || merge::is_waited_for(group.len(), self.runs_behind(newest));
        let going = group.iter().map(|run| run.memory_bytes()).sum();
        let is_filtered = group.iter().all(|run| run.is_filtered());
        let free = self.free_for_filter(is_filtered, going);
        if !merge::merge(
            &group,
            &path,
            free,
            self.place.buffer_bytes,
            in_a_hurry,
            stop,
        )? {
            return Ok(false);
        }
        let merged = Run::open(&path, id, &self.place.pool, going)?.filtered(is_filtered);
        let merged = Arc::new(merged);
        let publishing = self.publishing_lock();
        let (runs, coverage) = {
            let state = self.lock();
            (
                replaced(&state.runs, &group, merged),
                state.coverage.clone(),
            )
        };
        self.publish(runs, coverage, |_| ())?;
        drop(publishing);
        // Lookups that still read these runs hold them open; only the names go.
        group.iter().try_for_each(|run| remove_file(run.path()))?;
        Ok(true)
    }

    /// Runs that came after this one.
    fn runs_behind(&self, run: Option<u64>) -> usize {
        let runs = &self.lock().runs;
        let newer = runs.iter().rev().take_while(|newer| Some(newer.id) != run);
        newer.count()
    }

    /// Saves the manifest, then makes the runs visible. The caller holds `publishing`.
    fn publish(
        &self,
        runs: Vec<Arc<Run>>,
        coverage: Coverage,
        also: impl FnOnce(&mut State),
    ) -> Result<(), StoreError> {
        let next_run = {
            let state = self.lock();
            state.check()?;
            state.next_run
        };
        let place = &self.place;
        let ids = runs.iter().map(|run| run.id).collect();
        Manifest::new(place.index_shards, place.shard, ids, next_run, &coverage)
            .save(&place.folder)?;
        let mut state = self.lock();
        state.runs = Arc::new(runs);
        state.coverage = coverage;
        also(&mut state);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn publishing_lock(&self) -> MutexGuard<'_, ()> {
        self.publishing
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn waits_for_the_writer(&self) -> bool {
        self.frozen.is_some() && self.failure.is_none()
    }

    fn take_run_id(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run - 1
    }
}

/// `runs` with the neighbours `group` replaced by `merged`.
fn replaced(runs: &[Arc<Run>], group: &[Arc<Run>], merged: Arc<Run>) -> Vec<Arc<Run>> {
    let mut merged = Some(merged);
    let mut kept = Vec::with_capacity(runs.len());
    for run in runs {
        if group.iter().all(|gone| gone.id != run.id) {
            kept.push(Arc::clone(run));
        } else if let Some(merged) = merged.take() {
            kept.push(merged);
        }
    }
    kept
}

fn remove_unlisted(place: &ShardPlace, listed: &[u64]) -> Result<(), StoreError> {
    for name in entry_names(&place.folder)? {
        let path = place.folder.join(&name);
        let known = name == manifest::FILE_NAME
            || listed.iter().any(|id| run_path(&place.folder, *id) == path);
        if !known {
            remove_file(&path)?;
        }
    }
    Ok(())
}
