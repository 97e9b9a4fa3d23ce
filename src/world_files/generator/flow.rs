//! One flow as a pure function of its number: who, where, when, how much, and what became of it.
//!
//! Every output of a world is a projection of its flows, so their joins hold by construction. A flow
//! may continue the session of the flow before it (same merchant, a few seconds or minutes later); at
//! most four flows share a session, and a session starts anew at every fourth flow of a merchant.

use super::campaigns::Campaigns;
use super::day_curve::DayCurve;
use super::merchants::{Merchant, Merchants};
use super::options::{GenerateOptions, MICROS_PER_DAY};
use super::random::{self, Draws, Purpose};
use super::zones::ZONES;

/// No flow starts later than this before the end, so that its session and its answer stay inside.
const TAIL_MICROS: i64 = 900_000_000;
const SESSION_FLOWS_MAX: u64 = 4;
const CONTINUES_PER_MILLION: u64 = 140_000;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Amount in cents at each twentieth of the distribution; linear between.
const AMOUNT_CENTS: [u64; 21] = [
    90, 210, 340, 480, 620, 780, 950, 1_150, 1_390, 1_670, 2_000, 2_400, 2_900, 3_550, 4_400,
    5_600, 7_400, 10_400, 16_500, 34_000, 180_000,
];

/// The inhabitants and the rates of one world.
pub(super) struct FlowSource {
    seed: u64,
    parties: u64,
    /// First instant of the world.
    pub(super) start_micros: i64,
    merchants: Merchants,
    campaigns: Campaigns,
    /// One curve per zone.
    curves: Vec<DayCurve>,
}

/// Who acts in a flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entities {
    pub(super) party_id: i64,
    pub(super) account_id: i64,
    pub(super) instrument_id: i64,
    pub(super) device_id: i64,
    pub(super) ip_id: i64,
}

/// The campaign that hit a flow, and what the bank made of it.
pub(super) struct Fraud<'a> {
    pub(super) campaign_id: &'a str,
    pub(super) label: &'static str,
}

/// One arrival and the flow that grows from it.
pub(super) struct Flow<'a> {
    pub(super) number: u64,
    pub(super) merchant: &'a Merchant,
    /// 1-based number of the arrival at its merchant.
    pub(super) arrival_seq: i64,
    pub(super) flow_id: i64,
    pub(super) session_id: i64,
    pub(super) starts_session: bool,
    pub(super) time_micros: i64,
    /// When the answer came.
    pub(super) response_micros: i64,
    pub(super) entities: Entities,
    pub(super) baseline_cents: u64,
    pub(super) fraud_cents: u64,
    pub(super) fraud: Option<Fraud<'a>>,
    /// The bank takes this flow for fraud.
    pub(super) bank_fraud: bool,
    /// The customer complained, right or wrong: a case is opened.
    pub(super) disputed: bool,
}

/// A session as the index lists it.
pub(super) struct Session {
    pub(super) flows: i64,
    pub(super) end_micros: i64,
}

impl FlowSource {
    /// Lays out merchants, campaigns and rates.
    pub(super) fn new(options: &GenerateOptions, start_micros: i64) -> Self {
        let length = i64::from(options.days) * MICROS_PER_DAY - TAIL_MICROS;
        let curve = |offset| DayCurve::new(start_micros, length, offset);
        Self {
            seed: options.seed,
            parties: (options.flows() / 6).max(10),
            start_micros,
            merchants: Merchants::new(options.seed, options.flows()),
            campaigns: Campaigns::new(options.seed, start_micros, length),
            curves: ZONES
                .iter()
                .map(|zone| curve(zone.offset_minutes))
                .collect(),
        }
    }

    /// Number of merchants, for the summary.
    pub(super) fn merchant_count(&self) -> usize {
        self.merchants.len()
    }

    /// The flow with this number.
    pub(super) fn flow(&self, number: u64) -> Flow<'_> {
        let merchant = self.merchants.owner_of(number);
        let head = self.session_head(merchant, number);
        let entities = self.entities(head);
        let time_micros = self.time_of(merchant, head, number);
        let mut draws = Draws::new(self.seed, Purpose::Flow, number);
        let baseline_cents = amount_cents(&mut draws, merchant.price_level);
        let response_micros = time_micros + 40_000 + draws.below(1_800_000).cast_signed();
        let campaign = self
            .campaigns
            .hit(number, time_micros, merchant.id, entities.account_id);
        let mut outcome = Draws::new(self.seed, Purpose::Outcome, number);
        let bank_fraud = match campaign {
            Some(campaign) => campaign.is_noticed(&mut outcome),
            None => outcome.chance(400),
        };
        let complains = outcome.chance(if campaign.is_some() { 350_000 } else { 1_500 });
        Flow {
            number,
            merchant,
            arrival_seq: (number - merchant.first_flow + 1).cast_signed(),
            flow_id: random::unique_id(self.seed, 0xF10F, number),
            session_id: random::unique_id(self.seed, 0x5E55, head),
            starts_session: head == number,
            time_micros,
            response_micros,
            entities,
            baseline_cents,
            fraud_cents: campaign.map_or(baseline_cents, |c| c.amount_cents(baseline_cents)),
            fraud: campaign.map(|c| Fraud {
                campaign_id: &c.id,
                label: c.label(),
            }),
            bank_fraud,
            disputed: complains || bank_fraud,
        }
    }

    /// The session that starts with this flow.
    pub(super) fn session(&self, head: &Flow<'_>) -> Session {
        let merchant = head.merchant;
        let end_of_merchant = merchant.first_flow + merchant.flows;
        let mut last = head.number;
        while last + 1 < end_of_merchant && self.continues(merchant, last + 1) {
            last += 1;
        }
        Session {
            flows: (last - head.number + 1).cast_signed(),
            end_micros: self.time_of(merchant, head.number, last),
        }
    }

    fn session_head(&self, merchant: &Merchant, number: u64) -> u64 {
        let mut head = number;
        while self.continues(merchant, head) {
            head -= 1;
        }
        head
    }

    fn continues(&self, merchant: &Merchant, number: u64) -> bool {
        let random = random::value(self.seed, Purpose::SessionLink, number);
        !(number - merchant.first_flow).is_multiple_of(SESSION_FLOWS_MAX)
            && random::below(random, 1_000_000) < CONTINUES_PER_MILLION
    }

    /// Session heads are spread over the merchant's rate in order; the others follow their head.
    fn time_of(&self, merchant: &Merchant, head: u64, number: u64) -> i64 {
        let mut draws = Draws::new(self.seed, Purpose::Flow, !head);
        let position = (head - merchant.first_flow) as f64 + draws.unit();
        let fraction = position / merchant.flows as f64;
        let gaps =
            (head..number).map(|_| 4 * MICROS_PER_SECOND + draws.below(176_000_000).cast_signed());
        self.curves[merchant.zone].time_at(fraction) + gaps.sum::<i64>()
    }

    fn entities(&self, head: u64) -> Entities {
        let mut draws = Draws::new(self.seed, Purpose::SessionLink, !head);
        let is_regular = draws.chance(300_000);
        let party = match is_regular {
            true => random::skewed_below(draws.next(), self.parties),
            false => draws.below(self.parties),
        };
        let party_id = party.cast_signed() + 1;
        let account_id = party_id * 2 + i64::from(draws.chance(220_000));
        let home_ip = 10_000_000_000 + party_id;
        let shared_ip = draws.below(self.parties / 40 + 4).cast_signed() + 1;
        Entities {
            party_id,
            account_id,
            instrument_id: account_id * 2 + i64::from(draws.chance(260_000)),
            device_id: party_id * 3 + draws.below(3).cast_signed(),
            ip_id: if draws.chance(820_000) {
                home_ip
            } else {
                shared_ip
            },
        }
    }
}

fn amount_cents(draws: &mut Draws, price_level: u64) -> u64 {
    let position = draws.unit() * (AMOUNT_CENTS.len() - 1) as f64;
    let below = position as usize;
    let (low, high) = (AMOUNT_CENTS[below], AMOUNT_CENTS[below + 1]);
    let cents = low + ((high - low) as f64 * (position - below as f64)) as u64;
    let scaled = (cents * price_level / 100).max(50);
    // Prices like to end on 99.
    if draws.chance(180_000) {
        scaled / 100 * 100 + 99
    } else {
        scaled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> FlowSource {
        let options = GenerateOptions::new("unused", 20_000, 7, 1);
        FlowSource::new(&options, 0)
    }

    #[test]
    fn flows_of_a_session_share_everything_but_time_and_amount() {
        let source = source();
        let mut shared = 0;
        for number in 0..10_000 {
            let flow = source.flow(number);
            if !flow.starts_session {
                let before = source.flow(number - 1);
                assert_eq!(flow.session_id, before.session_id);
                assert_eq!(flow.entities.account_id, before.entities.account_id);
                assert!(flow.time_micros > before.time_micros);
                shared += 1;
            }
        }
        assert!(shared > 500, "only {shared} flows continue a session");
    }

    #[test]
    fn sessions_cover_every_flow_once() {
        let source = source();
        let heads = (0..10_000)
            .map(|n| source.flow(n))
            .filter(|flow| flow.starts_session);
        let covered: i64 = heads.map(|head| source.session(&head).flows).sum();
        assert_eq!(covered, 10_000);
    }

    #[test]
    fn nothing_happens_outside_the_world() {
        let source = source();
        let end = 7 * MICROS_PER_DAY;
        for number in 0..10_000 {
            let flow = source.flow(number);
            assert!(flow.time_micros >= 0 && flow.response_micros < end);
            assert!(flow.response_micros > flow.time_micros);
        }
    }

    #[test]
    fn fraud_is_rare_and_the_bank_misses_some_of_it() {
        let source = source();
        let flows: Vec<Flow> = (0..10_000).map(|n| source.flow(n)).collect();
        let truth = flows.iter().filter(|flow| flow.fraud.is_some()).count();
        let seen = flows
            .iter()
            .filter(|f| f.fraud.is_some() && f.bank_fraud)
            .count();
        assert!((20..1_000).contains(&truth), "{truth} fraud flows of 10000");
        assert!(seen > 0 && seen < truth);
    }
}
