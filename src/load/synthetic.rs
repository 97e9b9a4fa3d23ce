//! Batches of synthetic events: buffers that are used again as soon as the gate lets go of them.

use super::template::Template;
use super::workload::{Kind, Workload};
use std::ops::Range;
use std::sync::Arc;
use wellspring_domain::lent_buffers::LentBuffers;

/// What was put into batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Composition {
    /// Events to be admitted.
    pub fresh: u64,
    /// Copies of those.
    pub copies: u64,
    /// Events to be quarantined.
    pub invalid: u64,
}

impl Composition {
    /// Adds another one.
    pub fn join(&mut self, other: &Composition) {
        self.fresh += other.fresh;
        self.copies += other.copies;
        self.invalid += other.invalid;
    }
}

/// A batch ready to be sent: lines, and the envelope in each.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Lines, one after the other.
    pub lines: Arc<Vec<u8>>,
    /// Envelopes in them, without line ends.
    pub envelopes: Vec<Range<u32>>,
    /// What they are.
    pub composition: Composition,
}

/// The events of one producer, a batch at a time.
pub struct SyntheticEvents {
    template: Arc<Template>,
    workload: Workload,
    producer: u64,
    buffers: LentBuffers,
}

impl SyntheticEvents {
    /// The events of this producer.
    pub fn new(template: Arc<Template>, workload: Workload, producer: u64) -> SyntheticEvents {
        SyntheticEvents {
            template,
            workload,
            producer,
            buffers: LentBuffers::default(),
        }
    }

    /// Makes the memory of the first batches, so that waiting for fresh pages is not measured.
    pub fn make_ready(&mut self, batches: u64, events: u64) {
        for _ in 0..batches {
            let mut lines = Vec::new();
            self.resize(&mut lines, events as usize);
            // Nobody holds it, so it comes back at once.
            self.buffers.lend(lines);
        }
    }

    /// The `count` events behind the first `sent`.
    pub fn batch(&mut self, sent: u64, count: u64) -> Batch {
        let mut lines = self.buffers.take();
        self.resize(&mut lines, count as usize);
        let mut composition = Composition::default();
        let width = self.template.line_bytes();
        let mut envelopes = Vec::with_capacity(count as usize);
        for (place, line) in lines.chunks_exact_mut(width).enumerate() {
            let number = self.workload.number(self.producer, sent + place as u64);
            let event = self.workload.event(number);
            match event.kind {
                Kind::Fresh => composition.fresh += 1,
                Kind::Copy => composition.copies += 1,
                Kind::Invalid => composition.invalid += 1,
            }
            self.template.write(&event, line);
            let start = (place * width) as u32;
            envelopes.push(start..start + width as u32 - 1);
        }
        Batch {
            lines: self.buffers.lend(lines),
            envelopes,
            composition,
        }
    }

    fn resize(&self, lines: &mut Vec<u8>, count: usize) {
        let width = self.template.line_bytes();
        lines.truncate(count * width);
        while lines.len() < count * width {
            lines.extend_from_slice(self.template.line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::tests::identity;
    use super::super::workload::Mixture;
    use super::*;
    use std::collections::BTreeSet;

    fn events(producer: u64) -> SyntheticEvents {
        let mixture = Mixture {
            seed: 1,
            keys: 100,
            skew: 1.0,
            duplicates: 0.3,
            invalid: 0.1,
            producers: 2,
        };
        let template = Arc::new(Template::new(&identity(), None).unwrap());
        SyntheticEvents::new(template, Workload::new(mixture), producer)
    }

    fn lines(batch: &Batch) -> Vec<Vec<u8>> {
        let envelope =
            |range: &Range<u32>| batch.lines[range.start as usize..range.end as usize].to_vec();
        batch.envelopes.iter().map(envelope).collect()
    }

    #[test]
    fn memory_that_was_made_ready_is_filled_with_the_same_events() {
        let mut ready = events(0);
        ready.make_ready(2, 5);
        let held = ready.batch(0, 3);
        assert_eq!(held.lines, events(0).batch(0, 3).lines);
        assert_eq!(ready.batch(3, 7).lines, events(0).batch(3, 7).lines);
    }

    #[test]
    fn the_same_events_come_whatever_the_batches_and_whatever_the_buffer_held_before() {
        let whole = lines(&events(1).batch(0, 200));
        let mut again = events(1);
        let mut pieces = Vec::new();
        let mut memory = Vec::new();
        for (sent, count) in [(0, 50), (50, 7), (57, 100), (157, 43)] {
            // Each batch is dropped before the next, so its buffer is used again.
            let batch = again.batch(sent, count);
            pieces.extend(lines(&batch));
            memory.push((batch.lines.as_ptr(), batch.lines.capacity()));
        }
        // A smaller batch fits into what a larger one had.
        assert_eq!(memory[0], memory[1]);
        assert_eq!(memory[2], memory[3]);
        assert_eq!(whole, pieces);
    }

    #[test]
    fn a_batch_that_is_still_held_is_not_written_over() {
        let mut events = events(0);
        let held = events.batch(0, 10);
        let before = lines(&held);
        let next = events.batch(10, 10);
        assert_eq!(lines(&held), before);
        assert_ne!(lines(&next), before);
    }

    #[test]
    fn copies_are_byte_for_byte_what_was_sent_before() {
        let batch = events(0).batch(0, 500);
        let Composition {
            fresh,
            copies,
            invalid,
        } = batch.composition;
        assert_eq!(fresh + copies + invalid, 500);
        let distinct: BTreeSet<_> = lines(&batch).into_iter().collect();
        assert_eq!(distinct.len() as u64, fresh + invalid);
        assert!(copies > 0 && invalid > 0);
    }
}
