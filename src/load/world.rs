//! The rows of a sealed world as a load: one producer for each output, framed as the World Streamer does.
//!
//! Framing runs on a thread of its own, a few batches ahead. The schedule is the load's, not the world's
//! event time.

use super::recorder::Recording;
use super::synthetic::{Batch, Composition};
use crate::machine::thread_nanos;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use wellspring_domain::stream::framing::{FrameContext, FrameMemo, FramePlan};
use wellspring_domain::stream::source::WorldSource;

/// Rows framed together.
const FRAMED_ROWS: usize = 512;
/// Framed batches that may wait.
const BATCHES_AHEAD: usize = 4;

/// What went wrong while a world was read, if anything did.
#[derive(Clone, Debug, Default)]
pub struct WorldFault(Arc<Mutex<Option<String>>>);

impl WorldFault {
    /// The first fault.
    pub fn seen(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, fault: String) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert(fault);
    }
}

/// The rows of one output.
pub struct WorldRows {
    framed: mpsc::Receiver<Batch>,
    held: Batch,
    taken: usize,
}

impl WorldRows {
    /// Starts framing an output.
    pub fn start(
        source: Arc<dyn WorldSource>,
        context: Arc<FrameContext>,
        recording: Arc<Recording>,
        producer: u64,
        fault: WorldFault,
    ) -> WorldRows {
        let (sender, framed) = mpsc::channel(BATCHES_AHEAD);
        std::thread::spawn(move || {
            let metered = |batch: Batch, nanos: u64| {
                recording.part(producer).worked(nanos);
                sender.blocking_send(batch).is_ok()
            };
            if let Err(error) = frame_view(&*source, &context, metered) {
                fault.set(format!("{}: {error:#}", context.output_id));
            }
        });
        WorldRows {
            framed,
            held: Batch::default(),
            taken: 0,
        }
    }

    /// At most `count` rows; `None` behind the last.
    pub async fn batch(&mut self, count: u64) -> Option<Batch> {
        if self.taken == self.held.envelopes.len() {
            self.held = self.framed.recv().await?;
            self.taken = 0;
        }
        let all = self.held.envelopes.len();
        let until = all.min(self.taken + count as usize);
        let batch = match (self.taken, until == all) {
            (0, true) => self.held.clone(),
            (from, _) => part_of(&self.held, from, until),
        };
        self.taken = until;
        Some(batch)
    }
}

/// Some lines of a batch in a buffer of their own: what a gate holds is what it was sent.
fn part_of(batch: &Batch, from: usize, until: usize) -> Batch {
    let first = batch.envelopes[from].start;
    let end = batch.envelopes[until - 1].end + 1;
    let ranges = batch.envelopes[from..until].iter();
    Batch {
        lines: Arc::new(batch.lines[first as usize..end as usize].to_vec()),
        envelopes: ranges
            .map(|range| range.start - first..range.end - first)
            .collect(),
        composition: fresh(until - from),
    }
}

fn fresh(events: usize) -> Composition {
    Composition {
        fresh: events as u64,
        ..Composition::default()
    }
}

/// Frames a whole view. `take` gets each batch with the processor time it took, and says whether to go on.
pub fn frame_view(
    source: &dyn WorldSource,
    context: &FrameContext,
    mut take: impl FnMut(Batch, u64) -> bool,
) -> anyhow::Result<()> {
    let mut began = thread_nanos();
    let mut view = source.open(&context.output_id, None)?;
    let mut memo = FrameMemo::default();
    while let Some(block) = view.reader.next_block()? {
        let columns = block.columns();
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let plan = FramePlan::new(context, &names)?;
        let mut framer = plan.bind(&columns, &mut memo)?;
        for first in (0..block.rows()).step_by(FRAMED_ROWS) {
            let rows = first..block.rows().min(first + FRAMED_ROWS);
            let mut lines = Vec::with_capacity(rows.len() * 1024);
            let mut envelopes = Vec::with_capacity(rows.len());
            for row in rows.clone() {
                let start = lines.len() as u32;
                framer.frame(row, &mut lines)?;
                envelopes.push(start..lines.len() as u32);
                lines.push(b'\n');
            }
            let batch = Batch {
                lines: Arc::new(lines),
                envelopes,
                composition: fresh(rows.len()),
            };
            let now = thread_nanos();
            if !take(batch, now - began) {
                return Ok(());
            }
            began = thread_nanos();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_batch_holds_its_own_lines_only() {
        let batch = Batch {
            lines: Arc::new(b"aa\nbbb\nc\n".to_vec()),
            envelopes: vec![0..2, 3..6, 7..8],
            composition: fresh(3),
        };
        let part = part_of(&batch, 1, 3);
        assert_eq!(**part.lines, *b"bbb\nc\n");
        assert_eq!(part.envelopes, [0..3, 4..5]);
        assert_eq!(part.composition.fresh, 2);
    }

    #[tokio::test]
    async fn rows_come_in_order_whatever_is_asked_for() {
        let (sender, framed) = mpsc::channel(4);
        for text in ["a\nb\nc\n", "d\ne\n"] {
            let events = text.len() / 2;
            let envelopes = (0..events as u32).map(|at| at * 2..at * 2 + 1).collect();
            let batch = Batch {
                lines: Arc::new(text.as_bytes().to_vec()),
                envelopes,
                composition: fresh(events),
            };
            sender.send(batch).await.unwrap();
        }
        drop(sender);
        let mut rows = WorldRows {
            framed,
            held: Batch::default(),
            taken: 0,
        };
        let mut seen = Vec::new();
        while let Some(batch) = rows.batch(2).await {
            seen.push(String::from_utf8(batch.lines.to_vec()).unwrap());
        }
        assert_eq!(seen, ["a\nb\n", "c\n", "d\ne\n"]);
    }
}
