//! What a shard makes of the answers to its claims.

use super::*;
use crate::ingestion_gate::index_shard::{ClaimAnswer, ClaimAnswers, ClaimPlace};
use crate::ingestion_gate::messages::{Answer, Portion, ShardBatch, Verdict};
use crate::ingestion_gate::shard_state::ShardRun;
use tokio::sync::mpsc;
use wellspring_domain::admission::claims::{Claim, ClaimTable};
use wellspring_domain::admission::flush_builder::{LogEnds, SegmentRule};
use wellspring_domain::admission::intake::{IntakeContext, IntakeMemory, JudgedBatch, judge};

fn judged(events: &[(&str, u64, u64)]) -> Arc<JudgedBatch> {
    let (policy, actor, provenance) = (policy(), actor(), json!({}));
    let context = IntakeContext {
        policy: &policy,
        partitions: &[1, 1],
        shards: 1,
        actor: &actor,
        provenance: &provenance,
        verify_gates: VerifyGates::Off,
        proofs: &|_: &str, _: &str| ProofState::Absent,
    };
    Arc::new(judge(
        &batch(events),
        &context,
        &mut IntakeMemory::default(),
    ))
}

fn shard() -> ShardRun {
    let run = PlatformRunId::parse(RUN).unwrap();
    let ends = LogEnds::new(run.clone(), RowRef::default(), SegmentRule::Rows, &[]);
    ShardRun::new(Arc::new(run), ends)
}

/// A claim of its own.
fn claim(table: &mut ClaimTable, number: u8) -> ClaimPlace {
    let Claim::Won(place) = table.claim(Hash32::of(&[number]), 0) else {
        panic!("claimed before");
    };
    ClaimPlace {
        index_shard: 1,
        place,
    }
}

/// The answers to one batch, as far as there are any yet, and the keys that are given back.
fn decide(
    shard: &mut ShardRun,
    events: &[(&str, u64, u64)],
    answers: Vec<ClaimAnswer>,
) -> (Vec<(u32, Answer)>, Vec<Hash32>) {
    let judged = judged(events);
    let limits = CreditLimits {
        events_max: 100,
        bytes_max: 1 << 20,
    };
    let (reply, mut portions) = mpsc::channel(8);
    let batch = ShardBatch {
        run: Arc::new(judged.runs[0].clone()),
        items: (0..judged.items.len() as u32).collect(),
        judged,
        reply,
        credit: Credits::new(limits).try_take(10, 1_000).unwrap(),
    };
    let known = Vec::new();
    let claims = ClaimAnswers { answers, known };
    let returned = shard.decide(batch, &claims, || Micros(0));
    let flush = shard.take_flush().unwrap();
    for (reply, portion) in flush.portions {
        reply.try_send(portion).unwrap();
    }
    let answers = portions.try_recv().map(|Portion { answers }| answers);
    (answers.unwrap_or_default(), returned)
}

fn retry_code(answer: &(u32, Answer)) -> Option<&'static str> {
    match answer.1.verdict {
        Verdict::Retry { code } => Some(code),
        _ => None,
    }
}

#[test]
fn a_copy_of_what_is_in_flight_is_told_its_row_until_the_claim_ends() {
    let (mut shard, mut table) = (shard(), ClaimTable::default());
    let place = claim(&mut table, 1);
    let both = vec![ClaimAnswer::Won(place), ClaimAnswer::Yours(place)];
    let (first, returned) = decide(&mut shard, &[("e", 1, 1), ("e", 1, 1)], both);
    assert!(matches!(first[0].1.verdict, Verdict::Admitted { .. }));
    let original = first[0].1.row;
    assert_eq!(first[1].1.verdict, Verdict::Duplicate { original });
    assert!(returned.is_empty() && !shard.is_idle());

    let (second, _) = decide(&mut shard, &[("e", 1, 1)], vec![ClaimAnswer::Yours(place)]);
    assert_eq!(second[0].1.verdict, Verdict::Duplicate { original });
    let (third, _) = decide(&mut shard, &[("e", 1, 2)], vec![ClaimAnswer::Yours(place)]);
    let code = "PAYLOAD_HASH_MISMATCH";
    assert_eq!(third[0].1.verdict, Verdict::Quarantined { code });
}

#[test]
fn an_event_is_not_admitted_under_a_claim_its_shard_knows_nothing_of() {
    let (mut shard, mut table) = (shard(), ClaimTable::default());
    let place = claim(&mut table, 1);
    let (answers, returned) = decide(&mut shard, &[("e", 1, 1)], vec![ClaimAnswer::Yours(place)]);
    assert_eq!(retry_code(&answers[0]), Some("PUBLISH_IN_FLIGHT_RETRY"));
    assert!(returned.is_empty() && shard.is_idle());
}

#[test]
fn a_claim_that_could_not_be_used_is_given_back_unless_a_copy_used_it() {
    let (mut shard, mut table) = (shard(), ClaimTable::default());
    let (kept, given_back) = (claim(&mut table, 2), claim(&mut table, 3));
    // The first is parked and holds its partition key; the third is a copy of the second with another one.
    let events = [("a", 1, 1), ("b", 1, 1), ("b", 2, 1), ("c", 1, 1)];
    let answers = vec![
        ClaimAnswer::Parked,
        ClaimAnswer::Won(kept),
        ClaimAnswer::Yours(kept),
        ClaimAnswer::Won(given_back),
    ];
    let (answers, returned) = decide(&mut shard, &events, answers);
    assert_eq!(retry_code(&answers[0]), Some("PRECEDING_ITEM_RETRY"));
    assert!(matches!(
        answers[1],
        (
            2,
            Answer {
                verdict: Verdict::Admitted { .. },
                ..
            }
        )
    ));
    assert_eq!(retry_code(&answers[2]), Some("PRECEDING_ITEM_RETRY"));
    assert_eq!(returned, [judged(&events).items[3].dedupe_key]);
}
