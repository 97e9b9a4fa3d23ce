//! Whoever lost their time writes nothing any more: writers, leases, checkpoints, runs.

use super::*;
use std::thread::sleep;
use wellspring::control_bus::positions::{ControlPositions, Settled};
use wellspring::state_store::postgres::authority::PostgresAuthority;
use wellspring::state_store::postgres::checkpoints::PostgresCheckpoints;
use wellspring::state_store::postgres::control_positions::PostgresControlPositions;
use wellspring::state_store::postgres::leases::{LeaseProof, PostgresLeases};
use wellspring::state_store::postgres::nodes::{NodeIdentity, NodeRegistry};
use wellspring_domain::ports::{
    CheckpointStore, Cursor, EquivalenceOutcome, LeaseGrant, Leases, RunEquivalence,
};

#[test]
fn a_fenced_writer_claims_and_marks_nothing_and_is_not_renewed() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut frozen = TestWriter::open(&ledger, 0);
    let lives = TestWriter::open(&ledger, 1);
    let (flush, _) = frozen.claim(&[1]).unwrap();
    ledger
        .renew_writers(&[frozen.id()], Duration::ZERO)
        .unwrap();
    let error = frozen.claim(&[2]).unwrap_err();
    assert_eq!(error.code(), "WRITER_FENCED", "its time is over");
    assert!(ledger.fence(frozen.id()).unwrap());
    let error = frozen.mark(&flush, &[1]).unwrap_err();
    assert_eq!(error.code(), "WRITER_FENCED");
    let renewed = ledger
        .renew_writers(&[lives.id(), frozen.id()], LONG)
        .unwrap();
    assert_eq!(renewed, [lives.id()]);
    assert_eq!(ledger.summary(&run()).unwrap().in_flight, 1);
    let nobody = claim_in(&ledger, WriterId(4_711), &flush, &[3]).unwrap_err();
    assert_eq!(nobody.code(), "WRITER_FENCED");
}

#[test]
fn a_writer_whose_time_is_over_may_finish_until_somebody_fences_it() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut slow = TestWriter::open(&ledger, 0);
    let (flush, _) = slow.claim(&[1]).unwrap();
    ledger.renew_writers(&[slow.id()], Duration::ZERO).unwrap();
    slow.mark(&flush, &[1]).unwrap();
    assert_eq!(
        ledger.renew_writers(&[slow.id()], LONG).unwrap(),
        [slow.id()]
    );
    assert_eq!(won(&slow.claim(&[2]).unwrap().1), 1);
}

#[test]
fn while_a_claim_is_under_way_its_writer_cannot_be_fenced() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let ended = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|shard| TestWriter::open(&ledger, shard))
            .collect();
        let ids: Vec<_> = writers.iter().map(TestWriter::id).collect();
        let claimers: Vec<_> = writers
            .into_iter()
            .enumerate()
            .map(|(shard, mut writer)| {
                scope.spawn(move || {
                    for round in 0u64.. {
                        let first = shard as u64 * 1_000_000 + round * 100;
                        let events: Vec<u64> = (first..first + 100).collect();
                        let claimed = writer.claim(&events);
                        let marked = claimed.and_then(|(flush, _)| writer.mark(&flush, &events));
                        if let Err(error) = marked {
                            assert_eq!(error.code(), "WRITER_FENCED");
                            return;
                        }
                    }
                })
            })
            .collect();
        sleep(Duration::from_millis(200));
        for &id in &ids {
            ledger.renew_writers(&[id], Duration::ZERO).unwrap();
            assert!(ledger.fence(id).unwrap());
            // From here on nothing of it may change.
            let before = ledger.unsettled(id).unwrap();
            sleep(Duration::from_millis(50));
            assert_eq!(ledger.unsettled(id).unwrap(), before);
        }
        claimers
            .into_iter()
            .map(|claimer| claimer.join().unwrap())
            .count()
    });
    assert_eq!(ended, 4);
}

fn leases_are_kept_and_fenced(leases: &dyn Leases, end_all: &dyn Fn()) -> LeaseGrant {
    let first = leases.acquire("run/1", "node-a", 300).unwrap().unwrap();
    assert_eq!(leases.acquire("run/1", "node-b", 300).unwrap(), None);
    assert!(leases.holds("run/1", &first.token).unwrap());
    let renewed = leases.renew("run/1", &first.token, 300).unwrap().unwrap();
    assert_eq!((&renewed.token, renewed.epoch), (&first.token, first.epoch));
    end_all();
    assert!(!leases.holds("run/1", &first.token).unwrap());
    assert_eq!(leases.renew("run/1", &first.token, 300).unwrap(), None);
    let second = leases.acquire("run/1", "node-b", 300).unwrap().unwrap();
    assert!(second.epoch > first.epoch && second.token != first.token);
    leases.release("run/1", &first.token).unwrap();
    assert!(
        leases.holds("run/1", &second.token).unwrap(),
        "only the holder gives it back"
    );
    leases.release("run/1", &second.token).unwrap();
    let third = leases.acquire("run/1", "node-a", 300).unwrap().unwrap();
    assert!(third.epoch > second.epoch, "also after it was given back");
    third
}

#[test]
fn leases_of_nodes_are_fenced_by_a_growing_epoch() {
    let fresh = Fresh::new();
    let leases = PostgresLeases::new(fresh.open());
    let end = || fresh.execute("UPDATE ws_leases SET expires_at = clock_timestamp()");
    let last = leases_are_kept_and_fenced(&leases, &end);
    leases.acquire("other", "node-c", 300).unwrap().unwrap();
    let listed = leases.list("run/").unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&*listed[0].owner, listed[0].epoch, listed[0].held),
        ("node-a", last.epoch, true)
    );
    end();
    assert_eq!(leases.forget("other", Duration::ZERO).unwrap(), 1);
    assert_eq!(leases.list("").unwrap().len(), 1);
}

#[test]
fn run_leases_of_the_scenario_runner_are_in_the_contracts_table() {
    let fresh = Fresh::new();
    let authority = PostgresAuthority::new(fresh.open());
    let past = "2026-01-01T00:00:00+00:00";
    let end = || fresh.execute(&format!("UPDATE sr_run_leases SET expires_at = '{past}'"));
    let last = leases_are_kept_and_fenced(&authority, &end);
    let stored = fresh.rows("SELECT run_id, owner_id, lease_token, expires_at FROM sr_run_leases");
    assert_eq!(stored[0][..3], ["run/1", "node-a", last.token.as_str()]);
    assert_eq!(stored[0][3], last.expires_at.format_off());
    fresh.execute("UPDATE sr_run_leases SET expires_at = 'soon'");
    assert!(
        authority.acquire("run/1", "b", 1).unwrap().is_some(),
        "an unreadable end has passed"
    );
}

#[test]
fn of_many_that_want_a_lease_at_once_one_gets_it() {
    let fresh = Fresh::new();
    let database = fresh.open();
    let leases = PostgresLeases::new(database.clone());
    let authority = PostgresAuthority::new(database);
    for port in [&leases as &dyn Leases, &authority] {
        let granted: usize = std::thread::scope(|scope| {
            let ask = |n: usize| {
                scope.spawn(move || {
                    port.acquire("key", &format!("node-{n}"), 300)
                        .unwrap()
                        .is_some()
                })
            };
            let asked: Vec<_> = (0..8).map(ask).collect();
            asked
                .into_iter()
                .map(|ask| usize::from(ask.join().unwrap()))
                .sum()
        });
        assert_eq!(granted, 1);
    }
}

#[test]
fn a_key_stands_for_one_intent_whoever_asks_first() {
    let fresh = Fresh::new();
    let authority = PostgresAuthority::new(fresh.open());
    let ask = |n: usize| {
        authority
            .resolve("key", &format!("run-{n}"), "intent")
            .unwrap()
    };
    let answers: Vec<EquivalenceOutcome> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    let intent_fingerprint = "intent".to_owned();
    let collision = EquivalenceOutcome::Collision { intent_fingerprint };
    assert_eq!(authority.resolve("key", "run", "other").unwrap(), collision);
}

fn cursor(row: u64) -> Cursor {
    Cursor {
        pack_key: "k".to_owned(),
        output_id: "arrivals".to_owned(),
        last_file: "s3://w/stream_view/part-000000.parquet".to_owned(),
        last_row_index: row,
        last_ts_utc: Some("2026-01-01T00:00:01.250000Z".to_owned()),
        stream_view_id: Some("v".to_owned()),
        part_name: Some("part-000000.parquet".to_owned()),
    }
}

#[test]
fn a_checkpoint_is_saved_under_the_lease_and_refused_once_it_is_lost() {
    let fresh = Fresh::new();
    let database = fresh.open();
    let leases = PostgresLeases::new(database.clone());
    let under = |grant: &LeaseGrant| {
        let proof = LeaseProof {
            key: "run/1".to_owned(),
            token: grant.token.clone(),
        };
        PostgresCheckpoints::new(database.clone(), Some(proof))
    };
    let first = leases.acquire("run/1", "node-a", 300).unwrap().unwrap();
    let old = under(&first);
    assert_eq!(old.load("k", "arrivals").unwrap(), None);
    old.save(&cursor(3), DECIDED_AT).unwrap();
    old.save(&cursor(9), DECIDED_AT).unwrap();
    assert_eq!(old.load("k", "arrivals").unwrap(), Some(cursor(9)));
    fresh.execute("UPDATE ws_leases SET expires_at = clock_timestamp()");
    assert_eq!(
        old.save(&cursor(10), DECIDED_AT).unwrap_err().code(),
        "LEASE_LOST"
    );
    let second = leases.acquire("run/1", "node-b", 300).unwrap().unwrap();
    assert_eq!(
        old.save(&cursor(11), DECIDED_AT).unwrap_err().code(),
        "LEASE_LOST"
    );
    let new = under(&second);
    assert_eq!(new.load("k", "arrivals").unwrap(), Some(cursor(9)));
    new.save(&cursor(20), DECIDED_AT).unwrap();
    let stored = fresh.rows(
        "SELECT last_row_index, to_char(updated_at_utc AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
                ws_lease_epoch FROM wsp_checkpoint",
    );
    assert_eq!(stored, [["20", "2026-01-01 00:00:00.250000", "2"]]);
    let too_far = cursor(1 << 31);
    assert_eq!(
        new.save(&too_far, DECIDED_AT).unwrap_err().code(),
        "CHECKPOINT_ROW_TOO_LARGE"
    );
}

#[test]
fn a_checkpoint_without_a_lease_is_just_saved() {
    let fresh = Fresh::new();
    let checkpoints = PostgresCheckpoints::new(fresh.open(), None);
    checkpoints.save(&cursor(3), DECIDED_AT).unwrap();
    checkpoints.save(&cursor(4), DECIDED_AT).unwrap();
    assert_eq!(checkpoints.load("k", "arrivals").unwrap(), Some(cursor(4)));
}

#[test]
fn nodes_show_when_they_were_seen_last() {
    let fresh = Fresh::new();
    let nodes = NodeRegistry::new(fresh.open());
    let node = |name: &str| NodeIdentity {
        node: name.to_owned(),
        host: "h".to_owned(),
        pid: 7,
        url: Some("http://127.0.0.1:8081".to_owned()),
        build: "1".to_owned(),
    };
    nodes.beat(&node("a")).unwrap();
    nodes.beat(&node("b")).unwrap();
    fresh.execute("UPDATE ws_nodes SET seen_at = seen_at - interval '1 hour' WHERE node = 'a'");
    let listed = nodes.list().unwrap();
    assert_eq!(listed[0].identity, node("a"));
    assert!(listed[0].silent_for > Duration::from_secs(3_599));
    assert!(listed[1].silent_for < Duration::from_secs(60));
    nodes.beat(&node("a")).unwrap();
    assert!(nodes.list().unwrap()[0].silent_for < Duration::from_secs(60));
    nodes.leave("b").unwrap();
    assert_eq!(nodes.forget(Duration::ZERO).unwrap(), 1);
    assert!(nodes.list().unwrap().is_empty());
}

#[test]
fn settled_control_records_are_kept_by_name_until_the_position_passes_them() {
    let fresh = Fresh::new();
    let positions = PostgresControlPositions::new(fresh.open());
    let number = |n: u64| SequenceNumber::parse(&n.to_string()).unwrap();
    let settle = |n: u64, through: Option<u64>| {
        let settled = Settled {
            shard_id: "shardId-000000000000",
            sequence: number(n),
            through: through.map(number),
        };
        positions.settle("sr-control-bus", &settled).unwrap();
    };
    let known = || {
        let mut shards = positions.load("sr-control-bus").unwrap();
        assert_eq!(shards.len(), 1);
        let shard = shards.remove(0);
        (shard.through, shard.settled)
    };
    assert!(positions.load("sr-control-bus").unwrap().is_empty());
    settle(100, None);
    settle(20, None);
    settle(20, None);
    assert_eq!(known(), (None, vec![number(20), number(100)]));
    settle(9, Some(20));
    assert_eq!(known(), (Some(number(20)), vec![number(100)]));
    settle(15, Some(9));
    assert_eq!(
        known(),
        (Some(number(20)), vec![number(100)]),
        "it never steps back"
    );
    settle(21, Some(100));
    assert_eq!(known(), (Some(number(100)), vec![]));
    assert!(positions.load("another").unwrap().is_empty());
}
