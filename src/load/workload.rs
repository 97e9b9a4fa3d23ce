//! Which events are sent: a pure function from an event's number to what it is.
//!
//! Nothing is remembered, so any part of the load can be made again: this is how a verification knows what
//! must be on the bus. Producer `p` of `P` sends the numbers `p`, `p + P`, `p + 2 P`, ... and owns the keys
//! that leave `p` when divided by `P`, so one key has one sender and its order has a meaning.

use super::zipf::{Zipf, fraction, mix};

/// What a load is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// Another seed is another load.
    pub seed: u64,
    /// Partition keys there are; at least one for each producer.
    pub keys: u64,
    /// How unevenly keys are used; 0 is evenly.
    pub skew: f64,
    /// Share of events that repeat an earlier one, byte for byte.
    pub duplicates: f64,
    /// Share of events the gate must quarantine.
    pub invalid: f64,
    /// Producers that take turns.
    pub producers: u64,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be admitted.
    Fresh,
    /// A copy of an earlier event.
    Copy,
    /// Breaks its payload schema.
    Invalid,
}

/// One event of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// The number that makes its bytes: its own, or that of the event it repeats.
    pub identity: u64,
    /// Its partition key.
    pub key: u64,
}

/// How many of the producer's own events a copy reaches back at most, before it looks for a fresh one.
const COPY_REACH: u64 = 256;

const KIND: u64 = 1;
const KEY: u64 = 2;
const BACK: u64 = 3;

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    mixture: Mixture,
    /// Keys of one producer; the first producers have one more when it does not divide.
    key_ranks: Zipf,
    key_ranks_of_first: Zipf,
}

impl Workload {
    /// Prepares the draws.
    pub fn new(mixture: Mixture) -> Workload {
        let Mixture {
            keys, producers, ..
        } = mixture;
        assert!(
            producers >= 1 && keys >= producers,
            "every producer needs a key"
        );
        Workload {
            mixture,
            key_ranks: Zipf::new(keys / producers, mixture.skew),
            key_ranks_of_first: Zipf::new(keys.div_ceil(producers), mixture.skew),
        }
    }

    /// The mixture it was made of.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// The number of the event a producer sends after `sent` others.
    pub fn number(&self, producer: u64, sent: u64) -> u64 {
        producer + sent * self.mixture.producers
    }

    /// What event `number` is.
    pub fn event(&self, number: u64) -> Event {
        let drawn = self.drawn_kind(number);
        let original = match drawn {
            Kind::Copy => self.original_of(number),
            Kind::Fresh | Kind::Invalid => None,
        };
        match (drawn, original) {
            (Kind::Copy, Some(identity)) => Event {
                kind: Kind::Copy,
                identity,
                key: self.key(identity),
            },
            // There is nothing to repeat yet.
            (Kind::Copy, None) => self.own(number, Kind::Fresh),
            (kind, _) => self.own(number, kind),
        }
    }

    fn own(&self, number: u64, kind: Kind) -> Event {
        Event {
            kind,
            identity: number,
            key: self.key(number),
        }
    }

    fn bits(&self, number: u64, purpose: u64) -> u64 {
        mix(mix(self.mixture.seed ^ (purpose << 56)) ^ number)
    }

    fn drawn_kind(&self, number: u64) -> Kind {
        let Mixture {
            duplicates,
            invalid,
            ..
        } = self.mixture;
        if duplicates == 0.0 && invalid == 0.0 {
            return Kind::Fresh;
        }
        let draw = fraction(self.bits(number, KIND));
        if draw < invalid {
            Kind::Invalid
        } else if draw < invalid + duplicates {
            Kind::Copy
        } else {
            Kind::Fresh
        }
    }

    /// The event a copy repeats: the same producer's, a while ago, and fresh.
    fn original_of(&self, number: u64) -> Option<u64> {
        let step = self.mixture.producers;
        let own_before = number / step;
        let back = 1 + self.bits(number, BACK) % COPY_REACH;
        let mut candidate = number - back.min(own_before) * step;
        while candidate == number || self.drawn_kind(candidate) != Kind::Fresh {
            candidate = candidate.checked_sub(step)?;
        }
        Some(candidate)
    }

    fn key(&self, number: u64) -> u64 {
        let Mixture {
            keys, producers, ..
        } = self.mixture;
        let producer = number % producers;
        let ranks = match producer < keys % producers {
            true => &self.key_ranks_of_first,
            false => &self.key_ranks,
        };
        ranks.rank(self.bits(number, KEY)) * producers + producer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mixture() -> Mixture {
        Mixture {
            seed: 7,
            keys: 1000,
            skew: 0.0,
            duplicates: 0.2,
            invalid: 0.05,
            producers: 4,
        }
    }

    #[test]
    fn the_shares_are_what_was_asked_for() {
        let load = Workload::new(mixture());
        let of = |kind| (0..100_000).filter(|n| load.event(*n).kind == kind).count();
        assert!((19_000..21_000).contains(&of(Kind::Copy)));
        assert!((4_700..5_300).contains(&of(Kind::Invalid)));
    }

    #[test]
    fn without_shares_every_event_is_fresh_and_its_own() {
        let load = Workload::new(Mixture {
            duplicates: 0.0,
            invalid: 0.0,
            ..mixture()
        });
        for number in 0..1000 {
            let event = load.event(number);
            assert_eq!((event.kind, event.identity), (Kind::Fresh, number));
        }
    }

    #[test]
    fn another_seed_is_another_load() {
        let one = Workload::new(mixture());
        let other = Workload::new(Mixture {
            seed: 8,
            ..mixture()
        });
        let same = (0..1000)
            .filter(|n| one.event(*n).key == other.event(*n).key)
            .count();
        assert!(same < 50, "{same} of 1000 keys are the same");
    }

    proptest! {
        #[test]
        fn a_copy_repeats_an_earlier_fresh_event_of_its_own_producer(
            seed: u64,
            producers in 1u64..20,
            duplicates in 0.0f64..0.9,
            invalid in 0.0f64..0.09,
            skew in 0.0f64..1.5,
        ) {
            let keys = producers * 3 + 1;
            let load = Workload::new(Mixture { seed, keys, skew, duplicates, invalid, producers });
            for number in 0..500 {
                let event = load.event(number);
                prop_assert!(event.key < keys);
                prop_assert_eq!(event.key % producers, number % producers, "keys have one owner");
                match event.kind {
                    Kind::Fresh | Kind::Invalid => prop_assert_eq!(event.identity, number),
                    Kind::Copy => {
                        prop_assert!(event.identity < number);
                        prop_assert_eq!(event.identity % producers, number % producers);
                        let original = load.event(event.identity);
                        prop_assert_eq!(original.kind, Kind::Fresh);
                        prop_assert_eq!(original.key, event.key);
                    }
                }
            }
        }
    }
}
