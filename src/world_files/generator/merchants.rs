//! The merchants of a world: ids over the whole uint64 range, a skewed share of the flows, a home zone.
//!
//! Flows are numbered 0..F in merchant order, so merchant `m` owns one contiguous range of flow
//! numbers and a part is a range of flows. That is also why parts are not sorted by time.

use super::random::{self, Purpose};
use super::zones::ZONES;

/// One merchant.
#[derive(Debug, Clone)]
pub(super) struct Merchant {
    /// Anywhere in 1..=u64::MAX.
    pub(super) id: u64,
    /// Number of its first flow.
    pub(super) first_flow: u64,
    /// Flows it has.
    pub(super) flows: u64,
    /// Index into the zone table.
    pub(super) zone: usize,
    /// Sells online only: its arrivals have no site.
    pub(super) is_virtual: bool,
    /// Multiplies its amounts, per hundred.
    pub(super) price_level: u64,
    /// Settles in another zone than it sells in.
    pub(super) settlement_zone: Option<usize>,
}

/// All merchants in the order of their flow ranges.
pub(super) struct Merchants(Vec<Merchant>);

impl Merchants {
    /// Shares `flows` between merchants: the share of rank r falls as 1/(r + 8).
    pub(super) fn new(seed: u64, flows: u64) -> Self {
        let count = (flows / 60).clamp(3, 40_000);
        let mut ranked: Vec<(u64, u64)> = (0..count)
            .map(|rank| (merchant_id(seed, rank), rank))
            .collect();
        ranked.sort_unstable();
        let weight = |rank: u64| 1.0 / (rank + 8) as f64;
        let total: f64 = ranked.iter().map(|(_, rank)| weight(*rank)).sum();
        let mut shared = 0.0;
        let mut first_flow = 0;
        let mut merchants = Vec::with_capacity(ranked.len());
        for (position, (id, rank)) in ranked.iter().enumerate() {
            shared += weight(*rank);
            let is_last = position + 1 == ranked.len();
            let share = (flows as f64 * (shared / total)) as u64;
            let next_flow = if is_last {
                flows
            } else {
                share.clamp(first_flow, flows)
            };
            merchants.push(merchant(seed, *id, first_flow, next_flow - first_flow));
            first_flow = next_flow;
        }
        Self(merchants)
    }

    /// Number of merchants.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The merchant that owns this flow number.
    pub(super) fn owner_of(&self, flow: u64) -> &Merchant {
        let after = self
            .0
            .partition_point(|merchant| merchant.first_flow <= flow);
        // Merchants without flows share their neighbour's first flow: the last one owns it.
        &self.0[after - 1]
    }
}

fn merchant_id(seed: u64, rank: u64) -> u64 {
    // `finish` is a bijection, so ids are unique; 0 is no merchant id.
    match random::finish(rank.wrapping_add(random::finish(seed ^ 0x6D65_7263))) {
        0 => u64::MAX,
        id => id,
    }
}

fn merchant(seed: u64, id: u64, first_flow: u64, flows: u64) -> Merchant {
    let mut draws = random::Draws::new(seed, Purpose::Merchant, id);
    let zone = random::skewed_below(draws.next(), ZONES.len() as u64) as usize;
    let settles_elsewhere = draws.chance(150_000);
    let other_zone = draws.below(ZONES.len() as u64) as usize;
    Merchant {
        id,
        first_flow,
        flows,
        zone,
        is_virtual: draws.chance(300_000),
        price_level: 40 + draws.below(240),
        settlement_zone: settles_elsewhere.then_some(other_zone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_one_owner_and_shares_are_skewed() {
        let merchants = Merchants::new(7, 20_000);
        let total: u64 = merchants.0.iter().map(|merchant| merchant.flows).sum();
        assert_eq!(total, 20_000);
        for flow in [0, 1, 777, 19_999] {
            let owner = merchants.owner_of(flow);
            assert!((owner.first_flow..owner.first_flow + owner.flows).contains(&flow));
        }
        let largest = merchants
            .0
            .iter()
            .map(|merchant| merchant.flows)
            .max()
            .unwrap();
        assert!(largest > 5 * 20_000 / merchants.len() as u64);
    }

    #[test]
    fn merchant_ids_use_the_upper_half_of_the_range_too() {
        let merchants = Merchants::new(7, 20_000);
        assert!(
            merchants
                .0
                .iter()
                .any(|merchant| merchant.id > i64::MAX as u64)
        );
        assert!(
            merchants
                .0
                .iter()
                .any(|merchant| merchant.id < i64::MAX as u64)
        );
    }
}
