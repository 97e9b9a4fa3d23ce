//! Leases under any order of takers, renewals, releases and clocks: one holder at most, and tokens that grow.

use super::authority::AuthorityStore;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use wellspring_domain::ports::{Clock, LeaseGrant, Leases};
use wellspring_domain::time_text::Micros;

const TTL_SECONDS: u64 = 30;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::Relaxed))
    }
    fn monotonic_micros(&self) -> u64 {
        0
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire(usize),
    Renew(usize),
    Release(usize),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..3).prop_map(Step::Acquire),
        (0usize..3).prop_map(Step::Renew),
        (0usize..3).prop_map(Step::Release),
        (1i64..25).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_holder_at_most_and_fencing_tokens_grow(steps in prop::collection::vec(step(), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicI64::new(1_767_225_600_000_000)));
        let store = AuthorityStore::open(folder.path().join("a.db"), clock.clone()).unwrap();
        let mut grants: [Option<LeaseGrant>; 3] = Default::default();
        let mut newest = 0;
        for step in steps {
            match step {
                Step::Acquire(who) => {
                    let free = !holders(&store, &grants).iter().any(|held| *held);
                    let grant = store.acquire("run", &format!("owner-{who}"), TTL_SECONDS).unwrap();
                    prop_assert_eq!(grant.is_some(), free, "a held lease is refused, a free one granted");
                    if let Some(grant) = grant {
                        prop_assert!(grant.epoch > newest, "{} after {}", grant.epoch, newest);
                        newest = grant.epoch;
                        grants[who] = Some(grant);
                    }
                }
                Step::Renew(who) => {
                    let held = holders(&store, &grants)[who];
                    let Some(grant) = &grants[who] else { continue };
                    let renewed = store.renew("run", &grant.token, TTL_SECONDS).unwrap();
                    prop_assert_eq!(renewed.is_some(), held, "only its holder renews a lease");
                }
                Step::Release(who) => {
                    let before = holders(&store, &grants);
                    let Some(grant) = &grants[who] else { continue };
                    store.release("run", &grant.token).unwrap();
                    let after = holders(&store, &grants);
                    prop_assert!(!after[who]);
                    for other in (0..3).filter(|other| *other != who) {
                        prop_assert_eq!(after[other], before[other], "nobody releases another's lease");
                    }
                }
                Step::Wait(seconds) => drop(clock.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed)),
            }
            let held = holders(&store, &grants).into_iter().filter(|held| *held).count();
            prop_assert!(held <= 1, "{} holders", held);
        }
    }
}

/// Which of the grants still hold; an older grant of the same owner was replaced by the newer one.
fn holders(store: &AuthorityStore, grants: &[Option<LeaseGrant>; 3]) -> [bool; 3] {
    grants
        .clone()
        .map(|grant| grant.is_some_and(|grant| store.holds("run", &grant.token).unwrap()))
}
