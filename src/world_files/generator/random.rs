//! Counter-based randomness: a value is a pure function of (seed, purpose, index).
//!
//! Nothing is drawn from a stream, so any row can be computed alone, on any thread, in any order, and
//! a world is the same for every part count. Only integer arithmetic and exact divisions are used:
//! no library function whose last bit could differ between machines.

/// What a random value is for; separate purposes never share values.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(super) enum Purpose {
    Merchant = 1,
    Flow = 2,
    SessionLink = 3,
    Campaign = 4,
    CampaignTarget = 5,
    Outcome = 6,
}

/// A well-mixed 64-bit value for (seed, purpose, index).
pub(super) fn value(seed: u64, purpose: Purpose, index: u64) -> u64 {
    let lane = finish(seed ^ (purpose as u64).wrapping_mul(0xD1B5_4A32_D192_ED03));
    finish(lane.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// A bijection of 64-bit values (the finisher of splitmix64).
pub(super) fn finish(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A bijection of 0..2^62 onto itself, shifted by 1: unique positive ids out of row numbers.
pub(super) fn unique_id(seed: u64, salt: u64, index: u64) -> i64 {
    const MASK: u64 = (1 << 62) - 1;
    let offset = finish(seed ^ salt);
    let spread = index
        .wrapping_add(offset)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        & MASK;
    let mixed = (spread ^ (spread >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9) & MASK;
    (mixed ^ (mixed >> 31)).cast_signed() + 1
}

/// A short sequence of values that belong to one row.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        Self(value(seed, purpose, index))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        finish(self.0)
    }

    /// Uniform in 0..1 with 53 bits.
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    /// Uniform in 0..limit; `limit` must not be 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        below(self.next(), limit)
    }

    /// True in `per_million` of a million cases.
    pub(super) fn chance(&mut self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million
    }
}

/// A random value as a fraction in 0..1.
pub(super) fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// A random value scaled to 0..limit.
pub(super) fn below(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

/// Zipf-like pick in 0..limit: the probability of k falls about as 1/k. Piecewise linear in the
/// exponent, so it needs no logarithm.
pub(super) fn skewed_below(random: u64, limit: u64) -> u64 {
    let octaves = 64 - limit.leading_zeros();
    let position = u128::from(random) * u128::from(octaves);
    let octave = (position >> 64) as u32;
    let low = 1u64 << octave;
    let within = ((u128::from(position as u64) * u128::from(low)) >> 64) as u64;
    (low + within - 1) % limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn unique_ids_are_positive_and_never_repeat() {
        let ids: BTreeSet<i64> = (0..100_000).map(|i| unique_id(7, 1, i)).collect();
        assert_eq!(ids.len(), 100_000);
        assert!(ids.first().is_some_and(|id| *id > 0));
    }

    #[test]
    fn purposes_give_different_values_for_the_same_index() {
        assert_ne!(value(7, Purpose::Flow, 1), value(7, Purpose::Merchant, 1));
        assert_ne!(value(7, Purpose::Flow, 1), value(8, Purpose::Flow, 1));
    }

    #[test]
    fn a_skewed_pick_stays_in_range_and_prefers_small_numbers() {
        let picks: Vec<u64> = (0..10_000u64)
            .map(|i| skewed_below(finish(i), 1000))
            .collect();
        assert!(picks.iter().all(|pick| *pick < 1000));
        let small = picks.iter().filter(|pick| **pick < 10).count();
        assert!(small > 2_000, "only {small} of 10000 fell on the first ten");
    }
}
