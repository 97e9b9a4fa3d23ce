//! The two threads behind a run's index: one writes frozen tables, one merges runs, so that a long
//! merge never holds up a full table.

use super::shared::Shared;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use wellspring_domain::ports::StoreError;

/// Waiting work per thread. A shard has at most one frozen table, so the writer's queue never fills.
const QUEUE_MAX: usize = 1024;

/// Niceness of both threads: a merge takes a core for as long as a hundred flushes, and admission goes first.
/// When admission leaves nothing, a full table makes it wait, so they never fall behind for good.
const NICENESS: i32 = 10;

/// Both threads. Dropping the last reference stops and joins them; what was not finished is made
/// again from the journal.
pub struct Background {
    to_writer: Option<SyncSender<Arc<Shared>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    /// Starts the threads.
    pub fn start() -> Result<Background, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (to_writer, writer_work) = sync_channel::<Arc<Shared>>(QUEUE_MAX);
        let (to_merger, merger_work) = sync_channel::<Arc<Shared>>(QUEUE_MAX);
        let (writer_stop, merger_stop) = (Arc::clone(&stop), Arc::clone(&stop));
        let writer = spawn("index-writer", move || {
            write_tables(&writer_work, &to_merger, &writer_stop);
        })?;
        let merger = spawn("index-merger", move || {
            merge_runs(&merger_work, &merger_stop)
        })?;
        Ok(Background {
            to_writer: Some(to_writer),
            stop,
            threads: vec![writer, merger],
        })
    }

    /// Has the shard's frozen table written.
    pub fn write(&self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        let sent = self
            .to_writer
            .as_ref()
            .is_some_and(|to_writer| to_writer.send(Arc::clone(shared)).is_ok());
        match sent {
            true => Ok(()),
            false => Err(StoreError::Unavailable {
                operation: "write index run",
                key: shared.place.folder.display().to_string(),
                cause: "the index writer thread has ended".to_owned(),
            }),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.to_writer = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an index thread has panicked");
            }
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let give_way_and_work = move || {
        // Linux has a niceness per thread. Without it they compete with admission, slower and as right.
        if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
            tracing::debug!(%error, "an index thread keeps its priority");
        }
        body();
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(give_way_and_work)
        .map_err(|error| StoreError::Unavailable {
            operation: "start thread",
            key: name.to_owned(),
            cause: error.to_string(),
        })
}

fn write_tables(
    work: &Receiver<Arc<Shared>>,
    to_merger: &SyncSender<Arc<Shared>>,
    stop: &AtomicBool,
) {
    for shared in work {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match shared.write_frozen(stop) {
            // A full merge queue holds this shard already, or will look at it with the next run.
            Ok(()) => drop(to_merger.try_send(shared)),
            Err(error) => shared.fail(error),
        }
    }
}

fn merge_runs(work: &Receiver<Arc<Shared>>, stop: &AtomicBool) {
    for shared in work {
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match shared.merge_once(stop) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error @ StoreError::Damaged { .. }) => {
                    shared.give_up_runs(&error);
                    break;
                }
                Err(error) => {
                    shared.fail(error);
                    break;
                }
            }
        }
    }
}
