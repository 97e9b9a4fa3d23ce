//! Claims and marks: one winner per key, no deadlock, and rows as they were decided.

use super::*;
use wellspring::state_store::postgres::admissions::{
    DecisionOutcome, DecisionRecord, HolderState, StreamPosition,
};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::JournalOutcome;
use wellspring_domain::ids::receipt_id;
use wellspring_domain::ports::StoreError;

#[test]
fn of_racing_writers_exactly_one_wins_each_key_and_overlapping_batches_never_deadlock() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let wins: usize = std::thread::scope(|scope| {
        let racer = |shard: u16| {
            let mut writer = TestWriter::open(&ledger, shard);
            scope.spawn(move || {
                let mut wins = 0;
                for round in 0..6u64 {
                    // Every writer wants the same keys, each in an order of its own.
                    let mut events: Vec<u64> =
                        (round * 1_500..(round + 1) * 1_500 + 1_000).collect();
                    events.rotate_left(usize::from(shard) * 331);
                    let (flush, results) = writer.claim(&events).unwrap();
                    let mine: Vec<u64> = events
                        .iter()
                        .zip(&results)
                        .filter(|(_, result)| **result == ClaimResult::Won)
                        .map(|(&n, _)| n)
                        .collect();
                    writer.mark(&flush, &mine).unwrap();
                    wins += mine.len();
                }
                wins
            })
        };
        let racers: Vec<_> = (0..4).map(racer).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(wins, 10_000, "6 rounds of 1500 and the last 1000");
    let stored = fresh.rows("SELECT state, count(*) FROM admissions GROUP BY state");
    assert_eq!(stored, [["ADMITTED", "10000"]]);
    assert_eq!(
        ledger.summary(&run()).unwrap().admitted,
        [(TOPIC.to_owned(), 10_000)]
    );
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(fresh.rows(deadlocks), [["0"]]);
}

#[test]
fn who_has_a_key_is_told_with_its_place_or_its_writer() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut first = TestWriter::open(&ledger, 0);
    let mut second = TestWriter::open(&ledger, 1);
    let (flush, results) = first.claim(&[1, 2]).unwrap();
    assert_eq!(won(&results), 2);
    let (_, results) = second.claim(&[2, 3]).unwrap();
    let ClaimResult::Taken(holder) = &results[0] else {
        panic!("{results:?}");
    };
    assert_eq!(holder.payload_hash, hash_of(2));
    let row = RowRef {
        shard: 0,
        segment: flush.segment,
        row: 1,
    };
    assert_eq!(holder.row, Some(row));
    let in_flight = HolderState::InFlight {
        writer: first.id(),
        writer_lives: true,
    };
    assert_eq!(holder.state, in_flight);
    assert_eq!(results[1], ClaimResult::Won);
    first.mark(&flush, &[1, 2]).unwrap();
    let (_, results) = second.claim(&[1]).unwrap();
    let ClaimResult::Taken(holder) = &results[0] else {
        panic!("{results:?}");
    };
    let place = admitted(1).place;
    let state = HolderState::Admitted {
        place,
        admitted_at_utc: DECIDED_AT.format_off(),
        receipt_ref: format!("{}#0", segment_ref(&flush)),
    };
    assert_eq!(holder.state, state);
}

#[test]
fn released_keys_are_free_and_a_mark_takes_exactly_what_was_claimed() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut writer = TestWriter::open(&ledger, 0);
    let (flush, _) = writer.claim(&[1, 2, 3]).unwrap();
    assert_eq!(
        ledger
            .release(writer.id(), &[key_of(2), key_of(9)])
            .unwrap(),
        1
    );
    let error = writer.mark(&flush, &[1, 2, 3]).unwrap_err();
    assert_eq!(error.code(), "WRITER_FENCED", "one of them is not ours");
    assert_eq!(
        ledger.summary(&run()).unwrap().in_flight,
        2,
        "nothing was marked"
    );
    writer.mark(&flush, &[1, 3]).unwrap();
    let again = writer.mark(&flush, &[1, 3]).unwrap_err();
    assert_eq!(again.code(), "WRITER_FENCED", "a flush is marked once");
    let (_, results) = writer.claim(&[2]).unwrap();
    assert_eq!(won(&results), 1);
}

#[test]
fn a_segment_number_is_used_once_and_blocks_do_not_overlap() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut first = TestWriter::open(&ledger, 0);
    let second = TestWriter::open(&ledger, 0);
    let end = first.writer.block.first_segment + first.writer.block.segments;
    assert_eq!(second.writer.block.first_segment, end);
    let more = ledger.next_segments(&run(), 0).unwrap();
    assert_eq!(more.first_segment, end + second.writer.block.segments);
    let (flush, _) = first.claim(&[1]).unwrap();
    let error = claim_in(&ledger, second.id(), &flush, &[2]).unwrap_err();
    assert_eq!(error.code(), "SEGMENT_TAKEN");
}

/// Marks a flush with one row of each decision; returns it.
fn one_of_each(ledger: &AdmissionLedger, odd_id: &str) -> FlushKey {
    let mut writer = TestWriter::open(ledger, 2);
    let (flush, _) = writer.claim(&[7]).unwrap();
    let original = RowRef {
        shard: 2,
        segment: flush.segment,
        row: 0,
    };
    let decision = |row, event_id, outcome| DecisionRecord {
        row,
        context: 0,
        event_id,
        ts_utc: "not a time\0",
        dedupe_key: key_of(7),
        payload_hash: hash_of(7),
        outcome,
    };
    let copy = event_id(7);
    let record = "{\"quarantine_id\":\"q\",\"reason\":\"\\u0000\"}";
    let decisions = [
        decision(1, &*copy, DecisionOutcome::Duplicate { original }),
        DecisionRecord {
            dedupe_key: Hash32::default(),
            payload_hash: Hash32::default(),
            ..decision(
                2,
                odd_id,
                DecisionOutcome::Quarantine {
                    code: "PINS_MISSING",
                    record,
                },
            )
        },
    ];
    let position = |shard: &str, sequence: &str| StreamPosition {
        stream: TOPIC.to_owned(),
        shard_id: shard.to_owned(),
        sequence: Some(sequence.to_owned()),
    };
    ledger
        .mark(&MarkBatch {
            flush: head(writer.id(), &flush, &segment_ref(&flush), 3),
            admitted: &[admitted(7)],
            contexts: &[context()],
            decisions: &decisions,
            positions: &[position("b", "10"), position("a", "9")],
        })
        .unwrap();
    flush
}

#[test]
fn every_decision_is_read_back_as_it_was_made_by_row_key_and_receipt() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    // A text no PostgreSQL text can hold.
    let odd_id = "odd\0id \u{1F980}";
    let flush = one_of_each(&ledger, odd_id);
    let rows = ledger.flush_rows(&flush).unwrap();
    assert_eq!(rows.len(), 3);
    let (admit, duplicate, quarantine) = (&rows[0], &rows[1], &rows[2]);
    assert_eq!(admit.context, context());
    assert_eq!(
        (admit.decided_at, admit.partition_key),
        (DECIDED_AT, Hash32::of(&7u64.to_be_bytes()))
    );
    let place = JournalOutcome::Admit {
        topic: TOPIC.into(),
        partition: 1,
        offset: sequence(7),
    };
    assert_eq!(admit.outcome, place);
    let original = admit.row_ref;
    assert_eq!(duplicate.outcome, JournalOutcome::Duplicate { original });
    assert_eq!(
        (quarantine.event_id.as_str(), quarantine.ts_utc.as_str()),
        (odd_id, "not a time\0")
    );
    for row in &rows {
        assert_eq!(
            ledger.decision_at(&run(), row.row_ref).unwrap().as_ref(),
            Some(row)
        );
        let found = ledger
            .decisions_of_receipt(Some(&run()), &row.receipt_id())
            .unwrap();
        assert_eq!(found, std::slice::from_ref(row));
    }
    assert_eq!(ledger.decisions_of_keys(&[key_of(7)]).unwrap(), rows[..2]);
    let twice = [key_of(7), key_of(1), key_of(7)];
    let by_key = ledger.admitted_of_keys(&twice).unwrap();
    assert_eq!(by_key, [Some(admit.clone()), None, Some(admit.clone())]);
    let flushes = ledger.flushes_after(&run(), None, 10).unwrap();
    assert_eq!(flushes.len(), 1);
    assert!(
        ledger
            .flushes_after(&run(), Some(&flush), 10)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn other_programs_read_receipts_and_quarantines_as_the_contract_says() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let flush = one_of_each(&ledger, "bad-event");
    let receipts = fresh.rows(
        "SELECT receipt_id, decision, eb_offset, receipt_ref, reason_codes_json, evidence_refs_json,
                pins_json, created_at_utc FROM receipts ORDER BY decision",
    );
    let segment = segment_ref(&flush);
    let id = event_id(7);
    let pins = format!("{{\"platform_run_id\":\"{RUN}\",\"seed\":42}}");
    let quarantine_id = receipt_id("QUARANTINE", "bad-event");
    let record = format!("s3://b/{RUN}/ig/quarantine/{quarantine_id}.json");
    let at = DECIDED_AT.format_off();
    let offset = sequence(7).to_string();
    let expected = [
        [
            receipt_id("ADMIT", &id),
            "ADMIT".into(),
            offset.clone(),
            format!("{segment}#0"),
            "[]".into(),
            "[]".into(),
            pins.clone(),
            at.clone(),
        ],
        [
            receipt_id("DUPLICATE", &id),
            "DUPLICATE".into(),
            offset,
            format!("{segment}#1"),
            "[\"DUPLICATE\"]".into(),
            format!("[{{\"kind\":\"receipt_ref\",\"ref\":\"{segment}#0\"}}]"),
            pins.clone(),
            at.clone(),
        ],
        [
            quarantine_id.clone(),
            "QUARANTINE".into(),
            "~".into(),
            format!("{segment}#2"),
            "[\"PINS_MISSING\"]".into(),
            format!("[{{\"kind\":\"quarantine_record\",\"ref\":\"{record}\"}}]"),
            pins.clone(),
            at.clone(),
        ],
    ];
    assert_eq!(receipts, expected);
    let quarantines = fresh.rows(
        "SELECT quarantine_id, event_id, decision, reason_codes_json, evidence_ref FROM quarantines",
    );
    let expected = [
        quarantine_id.as_str(),
        "bad-event",
        "QUARANTINE",
        "[\"PINS_MISSING\"]",
        &record,
    ];
    assert_eq!(quarantines, [expected]);
    let by_id = format!(
        "SELECT decision FROM receipts WHERE receipt_id = '{}'",
        receipt_id("ADMIT", &id)
    );
    assert_eq!(fresh.rows(&by_id), [["ADMIT"]]);
    let plan = fresh.rows(&format!("SET enable_seqscan = off; EXPLAIN {by_id}"));
    let plan = plan.concat().join("\n");
    assert!(plan.contains("ix_ws_admissions_receipt_id"), "{plan}");
}

#[test]
fn admitted_rows_come_in_the_order_of_the_bus_page_by_page() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut writer = TestWriter::open(&ledger, 0);
    let events: Vec<u64> = (0..2_500).rev().collect();
    let (flush, _) = writer.claim(&events).unwrap();
    writer.mark(&flush, &events).unwrap();
    let mut seen = Vec::new();
    let mut pages = 0;
    ledger
        .visit_in_bus_order(&run(), 1_000, &mut |page| {
            pages += 1;
            for row in page {
                let JournalOutcome::Admit {
                    partition, offset, ..
                } = row.outcome
                else {
                    panic!("{row:?}");
                };
                seen.push((partition, offset));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!((seen.len(), pages), (2_500, 3));
    assert!(seen.is_sorted());
    let stop = StoreError::Locked {
        key: "enough".to_owned(),
    };
    let stopped = ledger.visit_in_bus_order(&run(), 10, &mut |_| Err(stop.clone()));
    assert_eq!(stopped, Err(stop));
    assert!(ledger.database().ping().is_ok());
}

#[test]
fn an_admitted_row_stays_on_its_page_and_touches_no_index() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    let mut writer = TestWriter::open(&ledger, 0);
    for round in 0..10u64 {
        let events: Vec<u64> = (round * 1_000..(round + 1) * 1_000).collect();
        let (flush, _) = writer.claim(&events).unwrap();
        writer.mark(&flush, &events).unwrap();
    }
    let counts =
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'admissions'";
    // Sessions tell their counts when they are idle for a while.
    crate::support::wait_until("the server counted", LONG, || {
        fresh.rows(counts)[0][0] == "10000"
    });
    let hot: u64 = fresh.rows(counts)[0][1].parse().unwrap();
    assert!(hot > 9_500, "{hot} of 10000 updates stayed on their page");
}

#[test]
fn stream_positions_only_grow() {
    let fresh = Fresh::new();
    let ledger = fresh.ledger();
    one_of_each(&ledger, "x");
    let positions = ledger.stream_positions(&[TOPIC]).unwrap();
    let sequences: Vec<_> = positions.iter().map(|at| at.sequence.as_deref()).collect();
    assert_eq!(sequences, [Some("9"), Some("10")]);
    fresh.execute("UPDATE ws_stream_positions SET sequence = '100' WHERE shard_id = 'a'");
    let mut writer = TestWriter::open(&ledger, 3);
    let (flush, _) = writer.claim(&[70]).unwrap();
    let position = |shard: &str| StreamPosition {
        stream: TOPIC.to_owned(),
        shard_id: shard.to_owned(),
        sequence: Some("99".to_owned()),
    };
    ledger
        .mark(&MarkBatch {
            flush: head(writer.id(), &flush, "s", 1),
            admitted: &[admitted(70)],
            contexts: &[],
            decisions: &[],
            positions: &[position("a"), position("b")],
        })
        .unwrap();
    let positions = ledger.stream_positions(&[TOPIC]).unwrap();
    let sequences: Vec<_> = positions.iter().map(|at| at.sequence.as_deref()).collect();
    assert_eq!(sequences, [Some("100"), Some("99")]);
}
