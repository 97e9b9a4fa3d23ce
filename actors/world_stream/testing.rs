//! A gate and a checkpoint store that do as they are told.

use super::batch::{PartEnd, StreamBatch};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use wellspring_domain::ports::{
    BoxFuture, CheckpointStore, Clock, Cursor, EnvelopeBatch, GateClient, ItemOutcome,
    PendingOutcomes, PushError, StoreError,
};
use wellspring_domain::stream::source::PartName;
use wellspring_domain::time_text::Micros;

/// What the gate does with one submit.
pub enum Answer {
    /// The same outcome for every item.
    All(ItemOutcome),
    /// One outcome an item.
    Items(Vec<ItemOutcome>),
    /// The batch is not taken.
    NotTaken(PushError),
    /// The batch is taken and has no answers.
    NoAnswers(PushError),
    /// The answer comes later.
    After(Duration, Box<Answer>),
}

/// A gate that answers by script, `Admitted` when the script is over.
pub struct FakeGate {
    window: usize,
    script: Mutex<VecDeque<Answer>>,
    submits: Mutex<Vec<Vec<String>>>,
    room: Semaphore,
}

impl FakeGate {
    pub fn new(window: usize, script: Vec<Answer>) -> Arc<Self> {
        Arc::new(FakeGate {
            window,
            script: Mutex::new(script.into()),
            submits: Mutex::new(Vec::new()),
            room: Semaphore::new(1_000_000),
        })
    }

    /// A gate that takes only so many batches until more room is given.
    pub fn with_room(window: usize, batches: usize) -> Arc<Self> {
        let gate = FakeGate::new(window, Vec::new());
        gate.room.forget_permits(1_000_000 - batches);
        gate
    }

    pub fn answer_next(&self, answer: Answer) {
        self.script.lock().unwrap().push_back(answer);
    }

    pub fn give_room(&self, batches: usize) {
        self.room.add_permits(batches);
    }

    /// The event names of every batch taken, in order.
    pub fn submits(&self) -> Vec<Vec<String>> {
        self.submits.lock().unwrap().clone()
    }

    pub fn events(&self) -> Vec<String> {
        self.submits().concat()
    }
}

impl GateClient for FakeGate {
    fn submit(&self, batch: EnvelopeBatch) -> BoxFuture<'_, Result<PendingOutcomes, PushError>> {
        Box::pin(async move {
            self.room.acquire().await.unwrap().forget();
            let names =
                (0..batch.len()).map(|at| String::from_utf8(batch.envelope(at).to_vec()).unwrap());
            self.submits.lock().unwrap().push(names.collect());
            let answer = self.script.lock().unwrap().pop_front();
            answer_of(
                answer.unwrap_or(Answer::All(ItemOutcome::Admitted)),
                batch.len(),
            )
        })
    }

    fn window(&self) -> usize {
        self.window
    }
}

fn answer_of(answer: Answer, items: usize) -> Result<PendingOutcomes, PushError> {
    match answer {
        Answer::All(outcome) => Ok(Box::pin(async move { Ok(vec![outcome; items]) })),
        Answer::Items(outcomes) => Ok(Box::pin(async move { Ok(outcomes) })),
        Answer::NotTaken(error) => Err(error),
        Answer::NoAnswers(error) => Ok(Box::pin(async move { Err(error) })),
        Answer::After(delay, answer) => Ok(Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer_of(*answer, items)?.await
        })),
    }
}

/// Remembers every cursor ever saved.
#[derive(Default)]
pub struct FakeCheckpoints {
    pub saved: Mutex<Vec<Cursor>>,
}

impl FakeCheckpoints {
    pub fn rows(&self) -> Vec<u64> {
        self.saved
            .lock()
            .unwrap()
            .iter()
            .map(|cursor| cursor.last_row_index)
            .collect()
    }
}

impl CheckpointStore for FakeCheckpoints {
    fn load(&self, _pack_key: &str, _output_id: &str) -> Result<Option<Cursor>, StoreError> {
        Ok(self.saved.lock().unwrap().last().cloned())
    }

    fn save(&self, cursor: &Cursor, _updated_at: Micros) -> Result<(), StoreError> {
        self.saved.lock().unwrap().push(cursor.clone());
        Ok(())
    }
}

/// A clock that stands still.
pub struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Micros {
        Micros(1_767_225_600_000_000)
    }

    fn monotonic_micros(&self) -> u64 {
        0
    }
}

/// A batch of rows `rows` whose envelopes are the row numbers, due at `ts_seconds`.
pub fn batch(rows: std::ops::Range<u64>, ts_seconds: i64, ends_part: PartEnd) -> StreamBatch {
    let mut bytes = Vec::new();
    let mut ranges = Vec::new();
    for row in rows.clone() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(row.to_string().as_bytes());
        ranges.push(start..bytes.len() as u32);
    }
    StreamBatch {
        envelopes: EnvelopeBatch {
            bytes: Arc::new(bytes),
            ranges,
        },
        part: Arc::new(PartName {
            file: "/v/part-0".to_owned(),
            name: "part-0".to_owned(),
        }),
        last_row: rows.end - 1,
        last_ts: Micros(ts_seconds * 1_000_000),
        ends_part,
    }
}
