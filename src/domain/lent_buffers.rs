//! Buffers of batches that are filled again as soon as everybody has let go of them: fresh pages cost more than
//! what is written to them.

use std::collections::VecDeque;
use std::sync::Arc;

/// Buffers kept for another use.
const KEPT_MAX: usize = 64;
/// Buffers looked at before a new one is made: batches are let go of in about the order they were lent.
const LOOKED_AT: usize = 4;

/// Buffers that were lent, the oldest first.
#[derive(Debug, Default)]
pub struct LentBuffers {
    lent: VecDeque<Arc<Vec<u8>>>,
}

impl LentBuffers {
    /// A buffer that nobody holds any more, with what was in it; a new one when all are held.
    pub fn take(&mut self) -> Vec<u8> {
        for _ in 0..LOOKED_AT.min(self.lent.len()) {
            let Some(oldest) = self.lent.pop_front() else {
                break;
            };
            match Arc::try_unwrap(oldest) {
                Ok(buffer) => return buffer,
                Err(held) => self.lent.push_back(held),
            }
        }
        Vec::new()
    }

    /// Shares a buffer, to be taken back when its holders are gone.
    pub fn lend(&mut self, buffer: Vec<u8>) -> Arc<Vec<u8>> {
        let shared = Arc::new(buffer);
        if self.lent.len() < KEPT_MAX {
            self.lent.push_back(shared.clone());
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_holders_are_gone_and_not_before() {
        let mut buffers = LentBuffers::default();
        let held = buffers.lend(vec![1, 2, 3]);
        assert_eq!(buffers.take(), [0u8; 0], "it is held");
        assert_eq!(*held, [1, 2, 3]);
        let memory = held.as_ptr();
        drop(held);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), &again[..]), (memory, &[1, 2, 3][..]));
        assert_eq!(buffers.take(), [0u8; 0], "it was taken");
    }

    #[test]
    fn so_many_are_kept_and_those_behind_held_ones_are_found() {
        let mut buffers = LentBuffers::default();
        let mut held: Vec<_> = (0..KEPT_MAX + 10)
            .map(|n| buffers.lend(vec![n as u8]))
            .collect();
        assert_eq!(buffers.lent.len(), KEPT_MAX);
        held.remove(2);
        assert_eq!(buffers.take(), [2]);
        assert_eq!(buffers.take(), [0u8; 0]);
    }
}
