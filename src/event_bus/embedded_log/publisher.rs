//! Publishes heads and sync marks behind the commits, on a thread of its own.
//!
//! A commit only notes where partitions and journal end. Heads follow at once when the last ones are
//! older than `head_interval`, else when it has passed; both also follow at a clean close. Heads and
//! marks never run ahead of a commit, so losing them costs nothing but reading a little more.

use super::frame_decode::ConfirmedEnd;
use super::head::publish_head;
use super::journal_writer::JournalEnd;
use super::layout;
use super::run_state::{EndMap, LineEnd, PartitionKey, RunState, lock};
use super::synced_mark::SyncedMark;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wellspring_domain::ports::StoreError;

/// How long an idle thread sleeps; a commit wakes it.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// The thread that publishes for one shard.
pub struct Publisher {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

struct Desk {
    state: Arc<RunState>,
    shard: u16,
    notes: Mutex<Notes>,
    changed: Condvar,
}

struct Notes {
    ends: EndMap,
    heads: BTreeMap<PartitionKey, LineEnd>,
    journal: JournalEnd,
    unmarked_bytes: u64,
    marked_at: Instant,
    closing: bool,
}

impl Notes {
    fn mark_due_in(&self, state: &RunState) -> Option<Duration> {
        let options = state.options();
        if self.unmarked_bytes == 0 {
            return None;
        }
        if self.unmarked_bytes >= options.mark_bytes || self.closing {
            return Some(Duration::ZERO);
        }
        Some(
            options
                .mark_interval
                .saturating_sub(self.marked_at.elapsed()),
        )
    }
}

impl Publisher {
    /// Starts the thread. `ends` are all partition ends known when the journal stood at `journal`.
    pub fn start(
        state: Arc<RunState>,
        shard: u16,
        journal: JournalEnd,
        ends: EndMap,
    ) -> Result<Publisher, StoreError> {
        let desk = Arc::new(Desk {
            shard,
            notes: Mutex::new(Notes {
                ends,
                heads: BTreeMap::new(),
                journal,
                unmarked_bytes: 0,
                marked_at: Instant::now(),
                closing: false,
            }),
            changed: Condvar::new(),
            state,
        });
        let own = desk.clone();
        let thread = std::thread::Builder::new()
            .name(format!("log-heads-{shard}"))
            .spawn(move || own.work())
            .map_err(|cause| StoreError::Unavailable {
                operation: "start thread",
                key: layout::shard_folder(desk.state.run(), shard),
                cause: cause.to_string(),
            })?;
        Ok(Publisher {
            desk,
            thread: Some(thread),
        })
    }

    /// Notes a commit: the ends it confirmed, where the journal ends, and how many bytes it wrote.
    pub fn note(
        &self,
        confirmed: impl Iterator<Item = ConfirmedEnd>,
        journal: JournalEnd,
        bytes: u64,
    ) {
        let mut notes = lock(&self.desk.notes);
        for end in confirmed {
            notes.ends.advance(&end);
            let head = LineEnd {
                next_offset: end.next_offset,
                next_byte: end.next_byte,
            };
            notes.heads.insert((end.topic, end.partition), head);
        }
        notes.journal = journal;
        notes.unmarked_bytes += bytes;
        drop(notes);
        self.desk.changed.notify_one();
    }

    /// All partition ends known now.
    pub fn ends(&self) -> Vec<ConfirmedEnd> {
        lock(&self.desk.notes).ends.confirmed().collect()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        lock(&self.desk.notes).closing = true;
        self.desk.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened; heads and marks are hints.
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn work(&self) {
        loop {
            let notes = self.wait_for_work();
            let closing = notes.closing;
            self.publish(notes);
            if closing {
                return;
            }
            let notes = lock(&self.notes);
            let interval = self.state.options().head_interval;
            let waited = self
                .changed
                .wait_timeout_while(notes, interval, |notes| !notes.closing);
            drop(waited);
        }
    }

    fn wait_for_work(&self) -> MutexGuard<'_, Notes> {
        let mut notes = lock(&self.notes);
        loop {
            let mark_due_in = notes.mark_due_in(&self.state);
            if notes.closing || !notes.heads.is_empty() || mark_due_in == Some(Duration::ZERO) {
                return notes;
            }
            let wait = mark_due_in.unwrap_or(IDLE_WAIT);
            notes = match self.changed.wait_timeout(notes, wait) {
                Ok((notes, _)) => notes,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn publish(&self, mut notes: MutexGuard<'_, Notes>) {
        let heads = std::mem::take(&mut notes.heads);
        let mark_is_due = notes.mark_due_in(&self.state) == Some(Duration::ZERO);
        let mark = mark_is_due.then(|| {
            notes.unmarked_bytes = 0;
            notes.marked_at = Instant::now();
            let ends: Vec<ConfirmedEnd> = notes.ends.confirmed().collect();
            SyncedMark::new(&notes.journal, &ends)
        });
        drop(notes);
        for ((topic, partition), end) in heads {
            let path = layout::head_path(self.state.run(), &topic, partition);
            warn_if_failed(publish_head(Path::new(&path), end.next_offset));
        }
        if let Some(mark) = mark {
            warn_if_failed(mark.write(self.state.run(), self.shard));
        }
    }
}

/// A head or mark that cannot be written hides nothing for good: the next commit or start writes it.
fn warn_if_failed(published: Result<(), StoreError>) {
    if let Err(cause) = published {
        tracing::warn!(%cause, "head or sync mark not published");
    }
}
