//! Fraud campaigns: who is hit, when, how hard, and what the bank notices.
//!
//! A campaign has a window, a target group (accounts or merchants) and a share of the target's flows in
//! that window. Everything downstream follows from the one hit: the flag and campaign id of the
//! with-fraud outputs, the truth labels, the bank's view (which misses some and doubts a few honest
//! flows) and the case timeline.

use super::random::{self, Draws, Purpose};

/// What a kind of fraud looks like.
struct Kind {
    name: &'static str,
    hits_merchants: bool,
    /// Amount of a hit flow, per hundred of the honest amount.
    amount_percent: u64,
    /// How often the bank notices, per million.
    noticed_per_million: u64,
}

const KINDS: [Kind; 6] = [
    kind("CARD_TESTING_BURST", true, 7, 550_000),
    kind("ACCOUNT_TAKEOVER_SWEEP", false, 640, 620_000),
    kind("REFUND_ABUSE", false, 130, 260_000),
    kind("MERCHANT_COLLUSION", true, 310, 330_000),
    kind("BONUS_ABUSE", false, 55, 180_000),
    // The name is not ASCII: every reader and every hash has to get its escape right.
    kind("GIFT_CARD_RING_KÖLN", true, 420, 480_000),
];

const fn kind(
    name: &'static str,
    hits_merchants: bool,
    amount_percent: u64,
    noticed_per_million: u64,
) -> Kind {
    Kind {
        name,
        hits_merchants,
        amount_percent,
        noticed_per_million,
    }
}

/// One campaign.
pub(super) struct Campaign {
    /// Value of `campaign_id`.
    pub(super) id: String,
    kind: &'static Kind,
    number: u64,
    from_micros: i64,
    to_micros: i64,
    target_per_million: u64,
    hit_per_million: u64,
}

impl Campaign {
    /// The name of its kind, used as the truth label.
    pub(super) fn label(&self) -> &'static str {
        self.kind.name
    }

    /// Amount of a hit flow in cents.
    pub(super) fn amount_cents(&self, honest_cents: u64) -> u64 {
        (honest_cents * self.kind.amount_percent / 100).max(1)
    }

    /// Whether the bank sees this hit for what it is.
    pub(super) fn is_noticed(&self, draws: &mut Draws) -> bool {
        draws.chance(self.kind.noticed_per_million)
    }
}

/// All campaigns of a world.
pub(super) struct Campaigns {
    seed: u64,
    list: Vec<Campaign>,
}

impl Campaigns {
    /// Lays campaigns over the window; about 2 % of all flows are hit.
    pub(super) fn new(seed: u64, start_micros: i64, length_micros: i64) -> Self {
        let list = (0..12u64)
            .map(|n| campaign(seed, n, start_micros, length_micros))
            .collect();
        Self { seed, list }
    }

    /// The campaign that hits this flow, if any: the first one wins.
    pub(super) fn hit(
        &self,
        flow: u64,
        time_micros: i64,
        merchant_id: u64,
        account_id: i64,
    ) -> Option<&Campaign> {
        self.list.iter().find(|campaign| {
            (campaign.from_micros..campaign.to_micros).contains(&time_micros)
                && self.is_target(campaign, merchant_id, account_id)
                && self.is_picked(campaign, flow)
        })
    }

    fn is_target(&self, campaign: &Campaign, merchant_id: u64, account_id: i64) -> bool {
        let subject = if campaign.kind.hits_merchants {
            merchant_id
        } else {
            account_id.cast_unsigned()
        };
        let index = subject ^ random::finish(campaign.number + 1);
        let random = random::value(self.seed, Purpose::CampaignTarget, index);
        random::below(random, 1_000_000) < campaign.target_per_million
    }

    fn is_picked(&self, campaign: &Campaign, flow: u64) -> bool {
        let index = flow.wrapping_mul(64).wrapping_add(campaign.number);
        let random = random::value(self.seed, Purpose::Campaign, index);
        random::below(random, 1_000_000) < campaign.hit_per_million
    }
}

fn campaign(seed: u64, number: u64, start_micros: i64, length_micros: i64) -> Campaign {
    let kind = &KINDS[(number % KINDS.len() as u64) as usize];
    let mut draws = Draws::new(seed, Purpose::Campaign, u64::MAX - number);
    let window = length_micros / 8
        + draws
            .below((length_micros / 4).cast_unsigned())
            .cast_signed();
    let from_micros = start_micros
        + draws
            .below((length_micros - window).cast_unsigned())
            .cast_signed();
    Campaign {
        id: format!("C{number:03}_{}", kind.name),
        kind,
        number,
        from_micros,
        to_micros: from_micros + window,
        target_per_million: 12_000 + draws.below(16_000),
        hit_per_million: 250_000 + draws.below(300_000),
    }
}
