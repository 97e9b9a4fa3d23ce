//! What a consumer has read from a shard and is not done with.
//!
//! Records are done with in any order, a reader goes on from one place. So that a record that waits is never
//! lost, the place is the last record before which everything is settled; what is settled beyond it is kept
//! by name until the gap closes.

use std::collections::{BTreeSet, VecDeque};

use crate::admission::bus_offset::SequenceNumber;

/// One record that was read.
struct Held<T> {
    sequence: SequenceNumber,
    /// `None` once it is settled: only its place in the row is still needed.
    record: Option<T>,
}

/// The records of one shard between the contiguous position and the reader.
pub struct Unsettled<T> {
    through: Option<SequenceNumber>,
    beyond: BTreeSet<SequenceNumber>,
    held: VecDeque<Held<T>>,
    waiting: usize,
}

impl<T> Unsettled<T> {
    /// Begins behind `through`; records of `beyond` are settled already.
    pub fn new(
        through: Option<SequenceNumber>,
        beyond: impl IntoIterator<Item = SequenceNumber>,
    ) -> Self {
        Unsettled {
            through,
            beyond: beyond.into_iter().collect(),
            held: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Everything up to this record is settled.
    pub fn through(&self) -> Option<SequenceNumber> {
        self.through
    }

    /// Takes a record in, in the shard's order. One that is settled already, or was taken in before, is not
    /// held again.
    pub fn take_in(&mut self, sequence: SequenceNumber, record: T) {
        let repeated = self.through.is_some_and(|through| sequence <= through)
            || self
                .held
                .back()
                .is_some_and(|last| sequence <= last.sequence);
        if repeated {
            return;
        }
        let settled = self.beyond.contains(&sequence);
        self.waiting += usize::from(!settled);
        self.held.push_back(Held {
            sequence,
            record: (!settled).then_some(record),
        });
        self.advance();
    }

    /// Settles a record, held or not.
    pub fn settle(&mut self, sequence: SequenceNumber) {
        if self.through.is_some_and(|through| sequence <= through) {
            return;
        }
        self.beyond.insert(sequence);
        if let Ok(at) = self
            .held
            .binary_search_by(|held| held.sequence.cmp(&sequence))
        {
            self.waiting -= usize::from(self.held[at].record.take().is_some());
        }
        self.advance();
    }

    /// Settles what another consumer is known to have settled.
    pub fn merge(
        &mut self,
        through: Option<SequenceNumber>,
        beyond: impl IntoIterator<Item = SequenceNumber>,
    ) {
        let covered = |held: &Held<T>| through.is_some_and(|through| held.sequence <= through);
        let theirs: Vec<SequenceNumber> = self
            .held
            .iter()
            .take_while(|held| covered(held))
            .map(|held| held.sequence)
            .collect();
        for sequence in theirs.into_iter().chain(beyond) {
            self.settle(sequence);
        }
    }

    /// The shard is read from its beginning: its old position means nothing any more, what was settled by name
    /// stays settled.
    pub fn from_the_beginning(&mut self) {
        self.through = None;
        self.held.clear();
        self.waiting = 0;
    }

    fn advance(&mut self) {
        while self
            .held
            .front()
            .is_some_and(|oldest| oldest.record.is_none())
        {
            let oldest = self.held.pop_front().expect("there is a front");
            self.beyond.remove(&oldest.sequence);
            self.through = Some(oldest.sequence);
        }
    }

    /// Records that wait, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = (SequenceNumber, &T)> {
        self.held
            .iter()
            .filter_map(|held| Some((held.sequence, held.record.as_ref()?)))
    }

    /// Number of records that wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting
    }

    /// Number of places kept, settled ones behind the first gap included.
    pub fn held_count(&self) -> usize {
        self.held.len() + self.beyond.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(value: u32) -> SequenceNumber {
        SequenceNumber::parse(&value.to_string()).unwrap()
    }

    fn waiting(unsettled: &Unsettled<u32>) -> Vec<u32> {
        unsettled.waiting().map(|(_, record)| *record).collect()
    }

    fn with_records(records: impl IntoIterator<Item = u32>) -> Unsettled<u32> {
        let mut unsettled = Unsettled::new(None, []);
        for record in records {
            unsettled.take_in(number(record), record);
        }
        unsettled
    }

    #[test]
    fn the_position_moves_only_over_a_gapless_row() {
        let mut unsettled = with_records(1..=4);
        unsettled.settle(number(2));
        assert_eq!(unsettled.through(), None);
        assert_eq!(waiting(&unsettled), [1, 3, 4]);
        unsettled.settle(number(1));
        assert_eq!(unsettled.through(), Some(number(2)));
        unsettled.settle(number(4));
        assert_eq!(unsettled.through(), Some(number(2)));
        assert_eq!(
            (waiting(&unsettled), unsettled.waiting_count()),
            (vec![3], 1)
        );
    }

    #[test]
    fn after_a_restart_what_waited_waits_again_and_what_was_settled_does_not() {
        let mut again = Unsettled::new(Some(number(2)), [number(4)]);
        for record in [2, 3, 4, 5, 5, 3] {
            again.take_in(number(record), record);
        }
        assert_eq!(waiting(&again), [3, 5]);
        again.settle(number(3));
        assert_eq!(again.through(), Some(number(4)));
        assert_eq!(again.held_count(), 1);
    }

    #[test]
    fn what_another_consumer_settled_waits_no_longer() {
        let mut unsettled = with_records(1..=5);
        unsettled.merge(Some(number(2)), [number(4)]);
        assert_eq!(waiting(&unsettled), [3, 5]);
        assert_eq!(unsettled.through(), Some(number(2)));
        unsettled.merge(Some(number(1)), [number(1)]);
        assert_eq!(unsettled.through(), Some(number(2)));
    }

    #[test]
    fn a_shard_read_from_its_beginning_keeps_what_was_settled_by_name() {
        let mut unsettled = Unsettled::new(Some(number(90)), [number(2)]);
        unsettled.from_the_beginning();
        for record in 1..=3 {
            unsettled.take_in(number(record), record);
        }
        assert_eq!(waiting(&unsettled), [1, 3]);
    }

    #[test]
    fn a_record_settled_before_it_is_read_is_not_held() {
        let mut unsettled = Unsettled::new(None, []);
        unsettled.settle(number(1));
        unsettled.take_in(number(1), 1);
        assert_eq!(unsettled.through(), Some(number(1)));
        assert_eq!(unsettled.held_count(), 0);
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_settling_a_restart_shows_exactly_the_rest(
            settled in prop::collection::vec(1u32..30, 0..60),
            cut in 0usize..60,
        ) {
            let mut unsettled = with_records(1..30);
            let mut beyond = BTreeSet::new();
            for sequence in settled.iter().take(cut) {
                unsettled.settle(number(*sequence));
                beyond.insert(number(*sequence));
            }
            let through = unsettled.through();
            let mut again = Unsettled::new(through, beyond);
            for record in 1..30 {
                again.take_in(number(record), record);
            }
            let expected: Vec<u32> =
                (1..30).filter(|record| !settled[..cut.min(settled.len())].contains(record)).collect();
            prop_assert_eq!(waiting(&again), expected.clone());
            prop_assert_eq!(waiting(&unsettled), expected);
        }
    }
}
