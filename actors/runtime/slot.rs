//! A slot holds what callers use of the current generation: a new reference after every restart.

use std::time::Duration;
use tokio::sync::watch;

/// The writing side: owned by the supervisor of the generation.
pub struct Slot<E> {
    sender: watch::Sender<Option<E>>,
}

/// The reading side: what handles keep. Empty while no generation is running.
pub struct SlotReader<E> {
    receiver: watch::Receiver<Option<E>>,
}

impl<E> Clone for SlotReader<E> {
    fn clone(&self) -> Self {
        SlotReader {
            receiver: self.receiver.clone(),
        }
    }
}

impl<E: Clone> Slot<E> {
    /// An empty slot.
    pub fn new() -> (Self, SlotReader<E>) {
        let (sender, receiver) = watch::channel(None);
        (Slot { sender }, SlotReader { receiver })
    }

    /// Publishes a generation's entry.
    pub fn fill(&self, entry: E) {
        self.sender.send_replace(Some(entry));
    }

    /// From now on callers see that nothing is running, not a stale reference.
    pub fn clear(&self) {
        self.sender.send_replace(None);
    }
}

impl<E: Clone> SlotReader<E> {
    /// The current generation's entry, if one is running.
    pub fn current(&self) -> Option<E> {
        self.receiver.borrow().clone()
    }

    /// Waits until a generation is running. `None` after the deadline, or when the pipeline ended.
    pub async fn wait(&self, deadline: Duration) -> Option<E> {
        let mut receiver = self.receiver.clone();
        let filled = tokio::time::timeout(deadline, receiver.wait_for(Option::is_some)).await;
        match filled {
            Ok(Ok(entry)) => entry.clone(),
            Ok(Err(_ended)) => None,
            Err(_too_late) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_sees_the_current_generation_and_nothing_between_two() {
        let (slot, reader) = Slot::new();
        assert_eq!(reader.current(), None);
        slot.fill(1);
        assert_eq!(reader.wait(Duration::from_secs(1)).await, Some(1));
        slot.clear();
        assert_eq!(reader.current(), None);
        assert_eq!(reader.wait(Duration::from_secs(1)).await, None);
        slot.fill(2);
        assert_eq!(reader.current(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_the_pipeline_is_gone() {
        let (slot, reader) = Slot::<u8>::new();
        drop(slot);
        assert_eq!(reader.wait(Duration::from_secs(3600)).await, None);
    }
}
