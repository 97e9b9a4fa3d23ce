//! The pump of one output: releases batches when they are due, hands them to the gate, and moves the
//! checkpoint over what was decided (contract 6.6, 6.7, 6.8, design 3.10, 3.11).

use super::batch::{FrameEnd, Framed, PartEnd, StreamBatch};
use super::checkpointer::Checkpointer;
use super::gate_sender::{GateSender, SenderEvent};
use super::pace::{PaceReceiver, RunControl};
use super::progress::OutputProgress;
use crate::runtime::StageFailure;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use wellspring_domain::stream::batch_cut::Paced;
use wellspring_domain::stream::cursor::SaveReason;

/// How a pump ended when nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpEnd {
    /// Every row of the output is accepted.
    Complete,
    /// The cap is reached and everything up to it accepted.
    CapReached,
    /// Stopped on request; everything sent is accepted.
    Stopped,
}

/// Everything one pump works with.
pub struct Pump {
    /// Batches from the framing thread.
    pub framed: mpsc::Receiver<Framed>,
    /// The way to the gate.
    pub sender: GateSender,
    /// The output's checkpoint.
    pub checkpointer: Checkpointer,
    /// When events are due.
    pub pace: PaceReceiver,
    /// What the run is asked to do.
    pub run_control: watch::Receiver<RunControl>,
    /// What this stage is asked to do.
    pub stage_control: watch::Receiver<RunControl>,
    /// Logs how far the output is.
    pub log: ProgressLog,
}

/// What has happened, and what the pump does about it.
enum Step {
    Sender(SenderEvent),
    Framed(Option<Framed>),
    Due,
    Control,
}

impl Pump {
    /// Runs until the output ends, is stopped or fails. Whatever was accepted is saved before a
    /// return without an error.
    pub async fn run(mut self) -> Result<PumpEnd, StageFailure> {
        let mut waiting: Option<StreamBatch> = None;
        let mut end: Option<FrameEnd> = None;
        loop {
            let command = self.command();
            if self.sender.is_idle() {
                if command >= RunControl::Stop {
                    self.checkpointer.save_now(SaveReason::Stop).await?;
                    return Ok(PumpEnd::Stopped);
                }
                if let (None, Some(end)) = (&waiting, &end) {
                    return self.ended(end.clone()).await;
                }
            }
            let sending = command == RunControl::Run;
            let due = waiting.as_ref().map(|batch| self.due(batch));
            let wants_batch = sending && waiting.is_none() && end.is_none();
            let may_send = sending && waiting.is_some() && self.sender.has_room();
            let step = tokio::select! {
                biased;
                event = self.sender.next() => Step::Sender(event?),
                () = changed(&mut self.run_control) => Step::Control,
                () = changed(&mut self.stage_control) => Step::Control,
                failed = self.checkpointer.drive() => { failed?; Step::Control }
                () = until(due), if may_send => Step::Due,
                framed = self.framed.recv(), if wants_batch => Step::Framed(framed),
            };
            match step {
                Step::Sender(SenderEvent::Decided(batch)) => self.decided(batch),
                Step::Sender(SenderEvent::Taken) | Step::Control => {}
                // The sender was looked at first: an answer it took in may have left events that go first.
                Step::Due if !self.sender.has_room() => {}
                Step::Due => self.release(waiting.take(), due),
                Step::Framed(Some(Framed::Batch(batch))) => waiting = Some(batch),
                Step::Framed(Some(Framed::End(framed_end))) => end = Some(framed_end),
                Step::Framed(None) => end = Some(FrameEnd::Failed(framing_lost())),
            }
        }
    }

    fn command(&self) -> RunControl {
        (*self.run_control.borrow()).max(*self.stage_control.borrow())
    }

    /// When a batch is due; at once without a schedule.
    fn due(&self, batch: &StreamBatch) -> Option<Instant> {
        let pace = (*self.pace.borrow())?;
        (pace.paced() == Paced::Yes).then(|| pace.due(batch.last_ts))
    }

    fn release(&mut self, batch: Option<StreamBatch>, due: Option<Option<Instant>>) {
        let Some(batch) = batch else {
            return;
        };
        let late = due
            .flatten()
            .map(|due| Instant::now().saturating_duration_since(due));
        self.sender.push(batch, late.unwrap_or_default());
    }

    fn decided(&mut self, batch: StreamBatch) {
        self.checkpointer.accepted(&batch);
        if batch.ends_part == PartEnd::Yes {
            self.checkpointer.want(SaveReason::FileComplete);
        }
        self.log.accepted(&batch);
    }

    async fn ended(&mut self, end: FrameEnd) -> Result<PumpEnd, StageFailure> {
        match end {
            FrameEnd::ViewComplete => {
                self.checkpointer
                    .save_now(SaveReason::OutputComplete)
                    .await?;
                Ok(PumpEnd::Complete)
            }
            FrameEnd::CapReached => {
                self.checkpointer.save_now(SaveReason::MaxEvents).await?;
                Ok(PumpEnd::CapReached)
            }
            FrameEnd::Failed(failure) => {
                self.checkpointer.save_now(SaveReason::Stop).await?;
                Err(failure)
            }
        }
    }
}

/// Waits for the next command; for ever when nobody can give one any more.
async fn changed(control: &mut watch::Receiver<RunControl>) {
    if control.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Sleeps until a batch is due; ready at once when it is or when nothing waits for a time.
async fn until(due: Option<Option<Instant>>) {
    if let Some(Some(due)) = due {
        tokio::time::sleep_until(due).await;
    }
}

fn framing_lost() -> StageFailure {
    StageFailure::transient(
        "STREAM_FAILED",
        "the framing thread ended without a last word",
    )
}

/// How often an output says how far it is (contract 6.9).
#[derive(Clone, Copy, Debug)]
pub struct ProgressLogSettings {
    /// `WSP_PROGRESS_EVERY`: events between two lines.
    pub events: u64,
    /// `WSP_PROGRESS_SECONDS`: longest time between two lines.
    pub seconds: u64,
}

impl Default for ProgressLogSettings {
    fn default() -> Self {
        ProgressLogSettings {
            events: 1_000,
            seconds: 30,
        }
    }
}

/// Says how far an output is: every so many events, but at most one line a second.
pub struct ProgressLog {
    settings: ProgressLogSettings,
    output_id: String,
    progress: Arc<OutputProgress>,
    since_line: u64,
    last_line: Instant,
}

impl ProgressLog {
    /// A log that has said nothing yet.
    pub fn new(
        settings: ProgressLogSettings,
        output_id: String,
        progress: Arc<OutputProgress>,
    ) -> Self {
        ProgressLog {
            settings,
            output_id,
            progress,
            since_line: 0,
            last_line: Instant::now(),
        }
    }

    fn accepted(&mut self, batch: &StreamBatch) {
        self.since_line += batch.events();
        let quiet = self.last_line.elapsed();
        let enough = self.since_line >= self.settings.events && quiet >= Duration::from_secs(1);
        if !enough && quiet < Duration::from_secs(self.settings.seconds.max(1)) {
            return;
        }
        self.since_line = 0;
        self.last_line = Instant::now();
        tracing::info!(
            "WSP stream_view progress output_id={} emitted={} last_file={} row={} ts={}",
            self.output_id,
            self.progress.accepted(),
            batch.part.file,
            batch.last_row,
            batch.last_ts.format_env()
        );
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
