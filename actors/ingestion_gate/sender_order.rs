//! Keeps one sender's events in order when a shard is replaced (design 3.2).
//!
//! A sender has several batches on their way. When a shard dies, those it held are answered "send again",
//! but a later batch may already wait for the shard's next generation: it would overtake them. So a new
//! generation takes nothing from a sender that began its submit while something older was unanswered;
//! such events are answered "send again" too, until the sender has heard of everything it lost.

use ractor::ActorId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The order of one sender.
#[derive(Debug, Default)]
pub struct SenderOrder {
    on_their_way: AtomicUsize,
    generations: Mutex<BTreeMap<u16, ActorId>>,
}

/// One batch of the sender, from the start of its submit to its answer.
#[derive(Debug)]
pub struct Submission {
    order: Arc<SenderOrder>,
    /// Everything that was submitted before is answered.
    pub(super) nothing_older: bool,
}

impl SenderOrder {
    /// A submit begins.
    pub fn begin(self: &Arc<Self>) -> Submission {
        let older = self.on_their_way.fetch_add(1, Ordering::AcqRel);
        Submission {
            order: self.clone(),
            nothing_older: older == 0,
        }
    }
}

impl Submission {
    /// Whether events of this batch may go to this generation of a shard.
    pub fn may_reach(&self, shard: u16, generation: ActorId) -> bool {
        let known = &self.order.generations;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&shard) {
            Some(known) if *known == generation => true,
            Some(_replaced) if !self.nothing_older => false,
            _ => {
                known.insert(shard, generation);
                true
            }
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.order.on_their_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ActorId = ActorId::Local(1);
    const SECOND: ActorId = ActorId::Local(2);

    #[test]
    fn a_new_generation_takes_nothing_until_everything_older_is_answered() {
        let order = Arc::new(SenderOrder::default());
        let lost = order.begin();
        assert!(lost.may_reach(0, FIRST));
        let waiting = order.begin();
        drop(lost); // answered "send again" while the next batch waits for the shard
        assert!(!waiting.may_reach(0, SECOND));
        assert!(
            waiting.may_reach(1, FIRST),
            "another shard was not replaced"
        );
        drop(waiting);
        let again = order.begin();
        assert!(again.may_reach(0, SECOND));
        let next = order.begin();
        assert!(next.may_reach(0, SECOND));
    }

    #[test]
    fn a_submit_that_is_given_up_is_no_longer_on_its_way() {
        let order = Arc::new(SenderOrder::default());
        drop(order.begin());
        let first = order.begin();
        assert!(first.may_reach(0, FIRST) && first.may_reach(0, SECOND));
    }
}
