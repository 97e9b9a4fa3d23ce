//! Keys drawn unevenly: rank `r` of `n` with a probability proportional to `1 / r^skew`.
//!
//! Rejection-inversion after Hörmann and Derflinger: constant time and memory whatever the number of keys,
//! one try in nearly all draws. A skew of 0 is uniform.

/// Mixes the bits of a number: equal numbers give equal draws, neighbours have nothing in common.
pub fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A number from 0 up to and without 1, from mixed bits.
pub fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A distribution over ranks `0..ranks`; rank 0 is the most frequent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zipf {
    ranks: u64,
    skew: f64,
    /// Integral of the density at both ends, and the shortcut that accepts most draws.
    low: f64,
    high: f64,
    shortcut: f64,
}

impl Zipf {
    /// `ranks` of at least 1, `skew` from 0 on.
    pub fn new(ranks: u64, skew: f64) -> Zipf {
        assert!(ranks >= 1 && skew >= 0.0 && skew.is_finite());
        let mut zipf = Zipf {
            ranks,
            skew,
            low: 0.0,
            high: 0.0,
            shortcut: 0.0,
        };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(ranks as f64 + 0.5);
        zipf.shortcut = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    /// The rank that belongs to these bits.
    pub fn rank(&self, bits: u64) -> u64 {
        if self.skew == 0.0 {
            return ((u128::from(bits) * u128::from(self.ranks)) >> 64) as u64;
        }
        let mut bits = bits;
        loop {
            let at = self.high + fraction(bits) * (self.low - self.high);
            let place = self.integral_inverse(at);
            let rank = place.round().clamp(1.0, self.ranks as f64);
            let accepted = rank - place <= self.shortcut
                || at >= self.integral(rank + 0.5) - self.density(rank);
            if accepted {
                return rank as u64 - 1;
            }
            bits = mix(bits);
        }
    }

    fn density(&self, place: f64) -> f64 {
        (-self.skew * place.ln()).exp()
    }

    fn integral(&self, place: f64) -> f64 {
        let log = place.ln();
        exp_minus_one_over((1.0 - self.skew) * log) * log
    }

    fn integral_inverse(&self, area: f64) -> f64 {
        let scaled = (area * (1.0 - self.skew)).max(-1.0);
        (log_one_plus_over(scaled) * area).exp()
    }
}

/// `(e^x - 1) / x`, also near 0.
fn exp_minus_one_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.exp_m1() / x
    } else {
        1.0 + x / 2.0 * (1.0 + x / 3.0)
    }
}

/// `ln(1 + x) / x`, also near 0.
fn log_one_plus_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.ln_1p() / x
    } else {
        1.0 - x * (0.5 - x / 3.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DRAWS: u64 = 200_000;

    fn counts(ranks: u64, skew: f64) -> Vec<u64> {
        let zipf = Zipf::new(ranks, skew);
        let mut counts = vec![0; ranks as usize];
        for draw in 0..DRAWS {
            counts[zipf.rank(mix(draw)) as usize] += 1;
        }
        counts
    }

    #[test]
    fn ranks_are_as_frequent_as_the_law_says() {
        for skew in [0.0, 0.5, 0.99, 1.0, 1.2, 2.0] {
            let counts = counts(50, skew);
            let weight = |rank: usize| 1.0 / ((rank + 1) as f64).powf(skew);
            let sum: f64 = (0..50).map(weight).sum();
            for (rank, count) in counts.iter().enumerate() {
                let expected = DRAWS as f64 * weight(rank) / sum;
                // Five standard deviations of a count, and a little for the small ones.
                let allowed = 5.0 * expected.sqrt() + 5.0;
                let off = (*count as f64 - expected).abs();
                assert!(
                    off <= allowed,
                    "skew {skew} rank {rank}: {count}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn the_same_bits_give_the_same_rank_and_one_key_is_always_the_same() {
        let zipf = Zipf::new(1_000_000_000, 0.99);
        assert_eq!(zipf.rank(mix(7)), zipf.rank(mix(7)));
        assert!((0..100).all(|draw| Zipf::new(1, 1.5).rank(mix(draw)) == 0));
    }

    proptest! {
        #[test]
        fn every_rank_is_inside(ranks in 1u64..=10_000_000_000, skew in 0.0f64..4.0, bits: u64) {
            prop_assert!(Zipf::new(ranks, skew).rank(bits) < ranks);
        }

        #[test]
        fn more_skew_never_makes_the_first_rank_rarer(ranks in 2u64..1000, skew in 0.1f64..2.0) {
            let first = |skew: f64| {
                let zipf = Zipf::new(ranks, skew);
                (0..20_000).filter(|draw| zipf.rank(mix(*draw)) == 0).count() as f64
            };
            prop_assert!(first(skew + 0.5) >= first(skew) - 3.0 * first(skew).sqrt() - 1.0);
        }
    }
}
