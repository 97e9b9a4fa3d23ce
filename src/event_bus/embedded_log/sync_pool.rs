//! Syncs several files at the same time. A sync is all waiting, so a few sleeping threads are enough.

use super::disk::LogFile;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use wellspring_domain::ports::StoreError;

/// Files synced at once; more share a thread.
const THREADS_MAX: usize = 7;

/// Files waiting for one thread; the caller of a sync waits for room.
const JOBS_MAX: usize = 64;

type Job = (Arc<LogFile>, SyncSender<Result<(), StoreError>>);

/// Threads started when they are first needed, one fewer than files touched by a flush.
#[derive(Default)]
pub struct SyncPool {
    workers: Vec<Worker>,
}

struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl SyncPool {
    /// Syncs all files; the first error, after all syncs have ended.
    pub fn sync_data(&mut self, files: &[Arc<LogFile>]) -> Result<(), StoreError> {
        let Some((own, others)) = files.split_first() else {
            return Ok(());
        };
        if others.is_empty() {
            return own.sync_data();
        }
        let (done, results) = sync_channel(others.len());
        for (index, file) in others.iter().enumerate() {
            self.hand_over(index % THREADS_MAX, file.clone(), done.clone());
        }
        drop(done);
        let own_result = own.sync_data();
        let answered: Vec<Result<(), StoreError>> = results.iter().collect();
        if answered.len() != others.len() {
            return Err(StoreError::Unavailable {
                operation: "fsync",
                key: own.path().display().to_string(),
                cause: "a sync thread ended".to_owned(),
            });
        }
        answered
            .into_iter()
            .fold(own_result, |first, next| first.and(next))
    }

    fn hand_over(
        &mut self,
        index: usize,
        file: Arc<LogFile>,
        done: SyncSender<Result<(), StoreError>>,
    ) {
        while self.workers.len() <= index {
            self.workers.push(Worker::start());
        }
        if let Some(jobs) = &self.workers[index].jobs {
            // A worker that ended drops its `done`: the missing answer is an error of the caller.
            let _ = jobs.send((file, done));
        }
    }
}

impl Worker {
    fn start() -> Worker {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name("log-sync".to_owned())
            .spawn(move || work(&queue))
            .ok();
        Worker {
            jobs: Some(jobs),
            thread,
        }
    }
}

fn work(queue: &Receiver<Job>) {
    for (file, done) in queue {
        // The caller waits for all answers; it can only be gone when it panicked.
        let _ = done.send(file.sync_data());
    }
}

impl Drop for SyncPool {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.jobs = None;
        }
        for thread in self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.thread.take())
        {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
