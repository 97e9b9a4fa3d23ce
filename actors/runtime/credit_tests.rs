//! Whatever is taken, split, merged and dropped: in use and free are the limit.

use super::credit::{Credit, CreditLimits, Credits};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Take(u32, u32),
    Split(usize, u32, u32),
    Merge(usize, usize),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u32..8, 0u32..80).prop_map(|(events, bytes)| Step::Take(events, bytes)),
        (0usize..8, 0u32..8, 0u32..80)
            .prop_map(|(at, events, bytes)| Step::Split(at, events, bytes)),
        (0usize..8, 0usize..8).prop_map(|(from, to)| Step::Merge(from, to)),
        (0usize..8).prop_map(Step::Drop),
    ]
}

fn apply(credits: &Credits, held: &mut Vec<Credit>, step: Step) {
    match step {
        Step::Take(events, bytes) => held.extend(credits.try_take(events, bytes)),
        Step::Split(at, events, bytes) if at < held.len() => {
            let part = held[at].split(events, bytes);
            held.extend(part);
        }
        Step::Merge(from, to) if from < held.len() && to < held.len() && from != to => {
            let other = held.swap_remove(from);
            // The last one took the place of the one that was removed.
            let to = if to == held.len() { from } else { to };
            held[to].merge(other);
        }
        Step::Drop(at) if at < held.len() => drop(held.swap_remove(at)),
        _nothing_there => {}
    }
}

proptest! {
    #[test]
    fn in_use_and_free_are_the_limit(steps in prop::collection::vec(step(), 1..60)) {
        let limits = CreditLimits { events_max: 20, bytes_max: 200 };
        let credits = Credits::new(limits);
        let mut held = Vec::new();
        for step in steps {
            apply(&credits, &mut held, step);
            let gauges = credits.gauges();
            prop_assert_eq!(gauges.events_in_use, held.iter().map(Credit::events).sum::<u32>());
            prop_assert_eq!(gauges.bytes_in_use, held.iter().map(Credit::bytes).sum::<u32>());
            prop_assert!(gauges.events_in_use <= 20 && gauges.bytes_in_use <= 200);
        }
        held.clear();
        prop_assert_eq!((credits.gauges().events_in_use, credits.gauges().bytes_in_use), (0, 0));
        prop_assert!(credits.try_take(20, 200).is_some(), "all of it can be taken again");
    }
}
