//! Saves the checkpoint of one output in the background, one save at a time (contract 6.7).
//!
//! It only ever knows rows the gate took over together with everything before them. Saves block, so
//! they run beside the async threads; while one runs, later rows only move the next one.

use super::batch::StreamBatch;
use crate::runtime::StageFailure;
use crate::runtime::blocking;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wellspring_domain::ports::{CheckpointStore, Clock, Cursor, StoreError};
use wellspring_domain::stream::cursor::{FlushPolicy, SaveReason};

/// Called after every save, on the blocking thread: the session ledger's `checkpoint_saved`.
pub type SavedHook = Arc<dyn Fn(&Cursor, SaveReason) + Send + Sync>;

/// What a checkpointer needs.
#[derive(Clone)]
pub struct CheckpointSettings {
    /// Where cursors are kept.
    pub store: Arc<dyn CheckpointStore>,
    /// Stamps the saves.
    pub clock: Arc<dyn Clock>,
    /// Checkpoint pack key (V19).
    pub pack_key: String,
    /// When a periodic save is due.
    pub flush: FlushPolicy,
    /// Told of every save.
    pub on_saved: SavedHook,
}

/// The checkpoint of one output of one generation.
pub struct Checkpointer {
    settings: CheckpointSettings,
    output_id: String,
    stream_view_id: String,
    cursor: Option<Cursor>,
    accepted_since_save: u64,
    last_began: Instant,
    wanted: Option<SaveReason>,
    saving: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Checkpointer {
    /// A checkpointer that has seen nothing yet.
    pub fn new(settings: CheckpointSettings, output_id: String, stream_view_id: String) -> Self {
        Checkpointer {
            settings,
            output_id,
            stream_view_id,
            cursor: None,
            accepted_since_save: 0,
            last_began: Instant::now(),
            wanted: None,
            saving: None,
        }
    }

    /// The rows up to the end of this batch are accepted.
    pub fn accepted(&mut self, batch: &StreamBatch) {
        self.cursor = Some(Cursor {
            pack_key: self.settings.pack_key.clone(),
            output_id: self.output_id.clone(),
            last_file: batch.part.file.clone(),
            last_row_index: batch.last_row,
            last_ts_utc: Some(batch.last_ts.format_env()),
            stream_view_id: Some(self.stream_view_id.clone()),
            part_name: Some(batch.part.name.clone()),
        });
        self.accepted_since_save += batch.events();
    }

    /// Saves as soon as the running save has ended. A stronger reason replaces a waiting one.
    pub fn want(&mut self, reason: SaveReason) {
        self.wanted = self.wanted.max(Some(reason));
    }

    /// Drives saves; returns an error when one failed. Waits for ever when nothing is to be saved.
    /// May be dropped and called again at any time.
    pub async fn drive(&mut self) -> Result<(), StageFailure> {
        loop {
            if self.saving.is_some() {
                self.finish().await?;
            }
            if let Some(reason) = self.wanted.take() {
                self.begin(reason);
                continue;
            }
            let since = self.last_began.elapsed().as_micros() as u64;
            if self.settings.flush.is_due(self.accepted_since_save, since) {
                self.begin(SaveReason::PeriodicFlush);
                continue;
            }
            match self
                .settings
                .flush
                .next_look_micros(self.accepted_since_save, since)
            {
                Some(micros) => tokio::time::sleep(Duration::from_micros(micros.max(1))).await,
                None => return std::future::pending().await,
            }
        }
    }

    /// Saves what is accepted and waits until it is durable.
    pub async fn save_now(&mut self, reason: SaveReason) -> Result<(), StageFailure> {
        self.finish().await?;
        self.wanted = None;
        self.begin(reason);
        self.finish().await
    }

    fn begin(&mut self, reason: SaveReason) {
        self.last_began = Instant::now();
        self.accepted_since_save = 0;
        let Some(cursor) = self.cursor.clone() else {
            return;
        };
        let settings = self.settings.clone();
        self.saving = Some(blocking::run("checkpoint-save", move || {
            settings.store.save(&cursor, settings.clock.now())?;
            (settings.on_saved)(&cursor, reason);
            Ok(())
        }));
    }

    async fn finish(&mut self) -> Result<(), StageFailure> {
        let Some(saving) = &mut self.saving else {
            return Ok(());
        };
        let saved = saving.await;
        self.saving = None;
        match saved {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StageFailure::transient(
                "CHECKPOINT_SAVE_FAILED",
                error.to_string(),
            )),
            Err(panic) => Err(StageFailure::transient(
                "CHECKPOINT_SAVE_FAILED",
                panic.to_string(),
            )),
        }
    }
}
