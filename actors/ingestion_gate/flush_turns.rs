//! Whose flush is written next: runs take turns, so that one with many events never keeps the others waiting.

use std::collections::VecDeque;

/// Those that wait, in the order they began to.
pub struct FlushTurns<K>(VecDeque<K>);

impl<K: PartialEq + Clone> FlushTurns<K> {
    /// Nobody waits.
    pub fn new() -> Self {
        FlushTurns(VecDeque::new())
    }

    /// Puts one behind those that wait; it keeps its place when it waits already.
    pub fn line_up(&mut self, one: &K) {
        if !self.0.contains(one) {
            self.0.push_back(one.clone());
        }
    }

    /// The one that has waited longest.
    pub fn next(&mut self) -> Option<K> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_always_has_more_comes_after_those_that_wait() {
        let mut turns = FlushTurns::new();
        let mut served = Vec::new();
        for round in 0..6 {
            turns.line_up(&"busy");
            if round == 1 {
                turns.line_up(&"quiet");
            }
            served.extend(turns.next());
            turns.line_up(&"busy");
        }
        assert_eq!(served, ["busy", "busy", "quiet", "busy", "busy", "busy"]);
    }
}
