//! A writer dies: its flushes are settled, once, by whoever comes first.

use super::*;
use wellspring::state_store::postgres::admissions::{
    FlushState, HolderState, Settled, StreamPosition, WRITER_FENCED,
};

/// A writer whose time is over, with a claimed flush.
fn dead_writer(ledger: &AdmissionLedger, events: &[u64]) -> (TestWriter, FlushKey) {
    let mut writer = TestWriter::open(ledger, 0);
    let (flush, _) = writer.claim(events).unwrap();
    ledger
        .renew_writers(&[writer.id()], Duration::ZERO)
        .unwrap();
    (writer, flush)
}

#[test]
fn what_is_on_the_bus_is_admitted_there_and_the_rest_is_free_again() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let (dead, flush) = dead_writer(&ledger, &[1, 2, 3]);
    let expired = ledger.expired_writers(Some(&run())).unwrap();
    assert_eq!(expired.len(), 1);
    assert_eq!((expired[0].writer, expired[0].fenced), (dead.id(), false));
    assert!(ledger.fence(dead.id()).unwrap());
    assert!(
        ledger.fence(dead.id()).unwrap(),
        "fencing twice is no error"
    );
    assert!(
        ledger.expired_writers(None).unwrap()[0].fenced,
        "not finished yet"
    );
    assert!(!ledger.close_writer(dead.id()).unwrap(), "a flush is open");
    let unsettled = ledger.unsettled(dead.id()).unwrap();
    assert_eq!((unsettled.len(), unsettled[0].claims.len()), (1, 3));
    let claim = &unsettled[0].claims[1];
    assert_eq!((claim.row, &*claim.event_id), (1, &*event_id(2)));
    assert_eq!(claim.context.topic, TOPIC);
    let settled = ledger
        .settle_flush(&unsettled[0].flush, &[admitted(2)])
        .unwrap();
    assert_eq!(
        settled,
        Settled {
            admitted: 1,
            released: 2
        }
    );
    let again = ledger
        .settle_flush(&unsettled[0].flush, &[admitted(2)])
        .unwrap();
    assert_eq!(again, Settled::default());
    assert!(ledger.close_writer(dead.id()).unwrap());
    assert!(ledger.expired_writers(None).unwrap().is_empty());
    let rows = ledger.flush_rows(&flush).unwrap();
    assert_eq!(
        (rows.len(), rows[0].row_ref.row),
        (1, 1),
        "the other rows are gaps"
    );
    let unstored = ledger.unstored_flushes(&run(), Duration::ZERO, 10).unwrap();
    assert_eq!(unstored.len(), 1);
    assert_eq!(
        (&unstored[0].key, unstored[0].state),
        (&flush, FlushState::Marked)
    );
    assert!(
        ledger
            .unstored_flushes(&run(), LONG, 10)
            .unwrap()
            .is_empty(),
        "it is too young"
    );
    ledger.stored(&[flush]).unwrap();
    assert!(
        ledger
            .unstored_flushes(&run(), Duration::ZERO, 10)
            .unwrap()
            .is_empty()
    );
    let mut next = TestWriter::open(&ledger, 1);
    let (_, results) = next.claim(&[1, 2, 3]).unwrap();
    assert_eq!(won(&results), 2);
}

#[test]
fn a_flush_with_nothing_on_the_bus_needs_no_segment() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let (dead, flush) = dead_writer(&ledger, &[1]);
    assert!(ledger.fence(dead.id()).unwrap());
    let unsettled = ledger.unsettled(dead.id()).unwrap();
    ledger.settle_flush(&unsettled[0].flush, &[]).unwrap();
    assert!(
        ledger
            .unstored_flushes(&run(), Duration::ZERO, 10)
            .unwrap()
            .is_empty()
    );
    let flushes = ledger.flushes_after(&run(), None, 10).unwrap();
    assert_eq!(
        (&flushes[0].key, flushes[0].state),
        (&flush, FlushState::Released)
    );
}

#[test]
fn a_flush_that_claims_nothing_has_no_row_before_its_mark() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut first = TestWriter::open(&ledger, 0);
    let (flush, _) = first.claim(&[1]).unwrap();
    first.mark(&flush, &[1]).unwrap();
    let mut second = TestWriter::open(&ledger, 1);
    let (nothing, results) = second.claim(&[1]).unwrap();
    assert_eq!(won(&results), 0);
    assert!(ledger.unsettled(second.id()).unwrap().is_empty());
    second.mark(&nothing, &[]).unwrap();
    let twice = second.mark(&nothing, &[]).unwrap_err();
    assert_eq!(twice.code(), WRITER_FENCED, "it is done");
    let flushes = ledger.flushes_after(&run(), Some(&flush), 10).unwrap();
    let found = (flushes.len(), &flushes[0].key, flushes[0].state);
    assert_eq!(found, (1, &nothing, FlushState::Marked));
    // Claims of one part are enough for a row.
    let (both, results) = second.claim(&[1, 2]).unwrap();
    assert_eq!(won(&results), 1);
    assert_eq!(ledger.unsettled(second.id()).unwrap()[0].flush.key, both);
}

#[test]
fn two_that_settle_at_once_agree_on_one_outcome() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let events: Vec<u64> = (0..3_000).collect();
    let (dead, flush) = dead_writer(&ledger, &events);
    assert!(ledger.fence(dead.id()).unwrap());
    let unsettled = ledger.unsettled(dead.id()).unwrap();
    // One has read further than the other.
    let found = [1_000, 2_000].map(|end| (0..end).map(admitted).collect::<Vec<_>>());
    let settle = |found: &[Admitted]| ledger.settle_flush(&unsettled[0].flush, found).unwrap();
    let [first, second] = std::thread::scope(|scope| {
        let both = [&found[0], &found[1]].map(|found| scope.spawn(move || settle(found)));
        both.map(|settler| settler.join().unwrap())
    });
    assert_eq!(
        first.admitted + second.admitted,
        ledger.flush_rows(&flush).unwrap().len() as u64
    );
    assert_eq!(
        first.admitted + second.admitted + first.released + second.released,
        3_000
    );
    assert!(first == Settled::default() || second == Settled::default());
}

#[test]
fn a_holder_whose_writer_died_is_told_so_and_its_flush_knows_where_to_read() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut writer = TestWriter::open(&ledger, 0);
    let flush = writer.next_flush();
    let positions = [StreamPosition {
        stream: TOPIC.to_owned(),
        shard_id: "shardId-000000000000".to_owned(),
        sequence: Some("42".to_owned()),
    }];
    let id = event_id(1);
    let batch = ClaimBatch {
        flush: FlushHead {
            positions: &positions,
            ..head(writer.id(), &flush, "s", 1)
        },
        contexts: &[context()],
        claims: &[Claim {
            row: 0,
            context: 0,
            event_id: &id,
            ts_utc: "t",
            dedupe_key: key_of(1),
            payload_hash: hash_of(1),
            partition_key: hash_of(1),
        }],
    };
    ledger.claim(&batch).unwrap();
    assert!(!ledger.fence(writer.id()).unwrap(), "it lives");
    ledger
        .renew_writers(&[writer.id()], Duration::ZERO)
        .unwrap();
    let mut other = TestWriter::open(&ledger, 1);
    let (_, results) = other.claim(&[1]).unwrap();
    let ClaimResult::Taken(holder) = &results[0] else {
        panic!("{results:?}");
    };
    let dead = HolderState::InFlight {
        writer: writer.id(),
        writer_lives: false,
    };
    assert_eq!(holder.state, dead);
    let unsettled = ledger.unsettled(writer.id()).unwrap();
    assert_eq!(unsettled[0].flush.positions, positions);
    assert_eq!(unsettled[0].flush.decided_at, DECIDED_AT);
}
