//! What is committed is read back, by iteration, by reference and after a restart.

use super::fixture::{Feeder, Plan, TOPICS, TestRun, context};
use crate::event_bus::embedded_log::JournalReader;
use wellspring_domain::admission::bus_offset::BusOffset;
use wellspring_domain::admission::decision::{Flush, RowOutcome, RowRef};
use wellspring_domain::admission::journal_row::JournalOutcome;
use wellspring_domain::ports::GateStore;

fn mixed() -> Plan {
    Plan {
        admits: vec![(0, 0), (1, 3), (0, 0), (0, 2)],
        duplicates: 2,
        quarantines: 2,
        new_segment: false,
    }
}

#[test]
fn every_row_comes_back_as_it_was_decided() {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    let flushes: Vec<Flush> = (0..3).map(|_| feeder.flush(&mixed())).collect();
    for flush in &flushes {
        open.shards[0].log.commit(flush).unwrap();
    }
    let rows = run.rows(0);
    let decided = flushes
        .iter()
        .flat_map(|flush| flush.rows.iter().map(move |row| (flush, row)));
    assert_eq!(rows.len(), decided.clone().count());
    let reader = JournalReader::new(&run.paths());
    for ((read, (flush, row)), number) in rows.iter().zip(decided).zip(0u32..) {
        assert_eq!((read.row_ref.segment, read.row_ref.row), (0, number));
        assert_eq!(read.decided_at, flush.decided_at);
        assert_eq!(*read.context, context());
        assert_eq!(read.event_id.as_bytes(), row.event_id.of(&flush.arena));
        assert_eq!(read.ts_utc.as_bytes(), row.ts_utc.of(&flush.arena));
        assert_eq!(read.dedupe_key, row.dedupe_key);
        assert_eq!(read.payload_hash, row.payload_hash);
        assert_eq!(read.partition_key, row.partition_key);
        assert_eq!(read.outcome, expected_outcome(flush, &row.outcome));
        assert_eq!(reader.row(read.row_ref).unwrap().as_ref(), Some(read));
    }
    run.check_bus_equals_journal();
}

fn expected_outcome(flush: &Flush, outcome: &RowOutcome) -> JournalOutcome {
    match *outcome {
        RowOutcome::Admit { append, offset } => JournalOutcome::Admit {
            topic: flush.appends[usize::from(append)].topic.clone(),
            partition: flush.appends[usize::from(append)].partition,
            offset: BusOffset::Line(offset),
        },
        RowOutcome::Duplicate { original } => JournalOutcome::Duplicate { original },
        RowOutcome::Quarantine { code, record } => JournalOutcome::Quarantine {
            code: code.into(),
            record: record.of(&flush.arena).to_vec(),
        },
    }
}

#[test]
fn rows_are_read_from_any_row_on_across_segments() {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    for number in 0..6 {
        let plan = Plan {
            new_segment: number % 2 == 0,
            ..mixed()
        };
        open.shards[0].log.commit(&feeder.flush(&plan)).unwrap();
    }
    let all = run.rows(0);
    assert_eq!(all.len(), 48);
    assert_eq!(
        all.last().unwrap().row_ref,
        RowRef {
            shard: 0,
            segment: 2,
            row: 15
        }
    );
    let reader = JournalReader::new(&run.paths());
    for (index, row) in all.iter().enumerate() {
        let rest: Vec<_> = reader
            .rows_from(row.row_ref)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rest, all[index..]);
    }
    assert_eq!(
        reader.end(0).unwrap(),
        RowRef {
            shard: 0,
            segment: 2,
            row: 16
        }
    );
    let beyond = RowRef {
        shard: 0,
        segment: 2,
        row: 16,
    };
    assert_eq!(reader.row(beyond).unwrap(), None);
    assert_eq!(reader.rows_from(beyond).unwrap().count(), 0);
    assert_eq!(
        reader
            .row(RowRef {
                shard: 9,
                segment: 0,
                row: 0
            })
            .unwrap(),
        None
    );
}

#[test]
fn a_reader_follows_a_live_journal() {
    let run = TestRun::new();
    let mut open = run.open(1);
    let mut feeder = Feeder::new(&run, &open, 0);
    let reader = JournalReader::new(&run.paths());
    let mut rows = reader.rows_from(RowRef::default()).unwrap();
    let mut seen = 0;
    for number in 0..4 {
        let plan = Plan {
            new_segment: number == 2,
            ..Plan::admit(3)
        };
        open.shards[0].log.commit(&feeder.flush(&plan)).unwrap();
        seen += rows.by_ref().map(Result::unwrap).count();
        assert_eq!(seen, 3 * (number + 1));
    }
}

#[test]
fn a_reopened_run_goes_on_where_it_ended() {
    let run = TestRun::new();
    for round in 0..4u32 {
        let mut open = run.open(1);
        assert_eq!(
            open.shards[0].next_row,
            RowRef {
                shard: 0,
                segment: round,
                row: 0
            }
        );
        let mut feeder = Feeder::new(&run, &open, 0);
        open.shards[0].log.commit(&feeder.flush(&mixed())).unwrap();
    }
    assert_eq!(run.rows(0).len(), 32);
    run.check_bus_equals_journal();
    let open = run.open(1);
    let end = open
        .ends
        .iter()
        .find(|end| &*end.topic == TOPICS[0] && end.partition == 0);
    assert_eq!(end.unwrap().next_offset, 8);
    assert_eq!(
        open.ends.len(),
        8,
        "all partitions of both topics are known"
    );
}

#[test]
fn partitions_may_move_to_another_shard_when_the_shard_count_changes() {
    let run = TestRun::new();
    let mut open = run.open(2);
    let mut second = Feeder::new(&run, &open, 1);
    open.shards[1].log.commit(&second.flush(&mixed())).unwrap();
    drop(open);
    let mut open = run.open(1);
    let mut first = Feeder::new(&run, &open, 0);
    open.shards[0].log.commit(&first.flush(&mixed())).unwrap();
    drop(open);
    let open = run.open(3);
    let end = open
        .ends
        .iter()
        .find(|end| &*end.topic == TOPICS[0] && end.partition == 0);
    assert_eq!(end.unwrap().next_offset, 4);
    assert_eq!(open.shards[0].next_row.segment, 1);
    assert_eq!(open.shards[1].next_row.segment, 1);
    assert_eq!(open.shards[2].next_row.segment, 0);
}

#[test]
fn a_shard_is_recovered_while_others_keep_running() {
    let run = TestRun::new();
    let store = run.store();
    let layout = wellspring_domain::ports::RunLayout {
        admission_shards: 2,
        index_shards: 0,
    };
    let mut open = store.open_run(&run.id(), &layout).unwrap();
    let mut other = Feeder::new(&run, &open, 1);
    let other_plan = Plan {
        admits: vec![(1, 1)],
        ..Plan::default()
    };
    let mut feeder = Feeder::new(&run, &open, 0);
    let first = feeder.flush(&mixed());
    let second = feeder.flush(&mixed());
    open.shards[0].log.commit(&first).unwrap();
    open.shards[0].log.commit(&second).unwrap();
    open.shards[1]
        .log
        .commit(&other.flush(&other_plan))
        .unwrap();
    open.shards.remove(0);
    let (again, ends) = store.reopen_shard(&run.id(), 0, second.first_row).unwrap();
    assert_eq!(
        again.next_row,
        RowRef {
            shard: 0,
            segment: 1,
            row: 0
        }
    );
    let keys: Vec<_> = again
        .recovered
        .iter()
        .map(|(key, entry)| (*key, entry.row.row))
        .collect();
    let wanted = second
        .rows
        .iter()
        .zip(8..)
        .take(4)
        .map(|(row, number)| (row.dedupe_key, number));
    assert_eq!(keys, wanted.collect::<Vec<_>>());
    assert_eq!(ends.len(), 3);
    open.shards[0]
        .log
        .commit(&other.flush(&other_plan))
        .unwrap();
    open.shards.insert(0, again);
    let mut feeder = Feeder::new(&run, &open, 0);
    for end in ends {
        feeder.learn(&end);
    }
    open.shards[0].log.commit(&feeder.flush(&mixed())).unwrap();
    drop(open);
    run.check_bus_equals_journal();
    drop(run.open(2));
}

#[test]
fn a_recovered_shard_knows_the_partitions_it_has_not_written_since_the_start() {
    let run = TestRun::new();
    let mut open = run.open(2);
    let mut feeder = Feeder::new(&run, &open, 0);
    open.shards[0].log.commit(&feeder.flush(&mixed())).unwrap();
    drop(open);
    let store = run.store();
    let layout = wellspring_domain::ports::RunLayout {
        admission_shards: 2,
        index_shards: 0,
    };
    let mut open = store.open_run(&run.id(), &layout).unwrap();
    let first = open.shards.remove(0); // it fails before it has written anything
    let from = first.next_row;
    drop(first);
    let (again, ends) = store.reopen_shard(&run.id(), 0, from).unwrap();
    open.shards.insert(0, again);
    open.ends = ends;
    let mut feeder = Feeder::new(&run, &open, 0);
    open.shards[0].log.commit(&feeder.flush(&mixed())).unwrap();
    drop(open);
    run.check_bus_equals_journal();
}
