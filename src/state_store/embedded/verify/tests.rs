use super::*;
use crate::event_bus::embedded_log::layout;
use crate::object_store::LocalFiles;
use crate::state_store::embedded::projections::{
    JournalProjection, QuarantineRecords, ReceiptObjects,
};
use crate::state_store::embedded::prune::{PrunedTopics, prune_bus, prune_index};
use crate::state_store::embedded::test_run::{Decided, TOPICS, TestRun, event_id};
use std::fs;
use std::sync::Arc;
use wellspring_actors::ingestion_gate::projector::Projection;
use wellspring_domain::admission::receipt::{ReceiptsLayout, quarantine_object};
use wellspring_domain::ids::receipt_id;

/// Both topics filled, over two segments, with a duplicate and a quarantine.
fn filled() -> TestRun {
    let mut run = TestRun::new();
    let admits: Vec<Decided> = (0..40).map(Decided::Admit).collect();
    let rows = run.commit(0, &admits);
    run.commit(
        0,
        &[Decided::Duplicate(7, rows[7]), Decided::Quarantine(900)],
    );
    run.next_segment(0);
    run.commit(0, &[Decided::Admit(40), Decided::Admit(41)]);
    let admits: Vec<Decided> = (100..130).map(Decided::Admit).collect();
    run.commit(1, &admits);
    run.close();
    run
}

fn store(run: &TestRun) -> LocalFiles {
    LocalFiles::new(run.folder.path())
}

fn project(run: &TestRun) {
    let root = run.folder.path().to_string_lossy();
    let writer = QuarantineRecords {
        layout: ReceiptsLayout::Segments,
    };
    let quarantines = JournalProjection::new(Arc::new(store(run)), &root, writer);
    quarantines.catch_up(run.paths.run_id()).unwrap();
    let objects = JournalProjection::new(Arc::new(store(run)), &root, ReceiptObjects);
    objects.catch_up(run.paths.run_id()).unwrap();
}

fn bus_file(run: &TestRun, topic: usize) -> String {
    layout::partition_path(&run.paths, TOPICS[topic], 0)
}

fn edit_bus(run: &TestRun, topic: usize, edit: impl Fn(&mut Vec<String>)) {
    let path = bus_file(run, topic);
    let mut lines: Vec<String> = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    edit(&mut lines);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
}

fn codes(report: &BusReport) -> Vec<&'static str> {
    let mut codes: Vec<&'static str> = report
        .differences
        .first
        .iter()
        .map(|found| found.code)
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[test]
fn an_untouched_bus_verifies_and_is_counted_by_partition() {
    let run = filled();
    let report = verify_bus(&run.paths).unwrap();
    assert_eq!(report.differences, Differences::default());
    assert!(report.verified);
    assert_eq!((report.records, report.admitted), (72, 72));
    let counts: Vec<(u64, u64)> = report
        .partitions
        .iter()
        .map(|p| (p.records, p.admitted))
        .collect();
    assert_eq!(counts, [(30, 30), (42, 42)]);
}

#[test]
fn every_kind_of_damage_on_the_bus_is_found_with_its_place() {
    type Damage = fn(&mut Vec<String>);
    let cases: [(&str, Damage); 6] = [
        ("EVENT_DIFFERS", |lines| lines.swap(3, 4)),
        ("PAYLOAD_DIFFERS", |lines| {
            lines[5] = lines[5].replace("25.99", "25.98")
        }),
        ("PARTITION_KEY_DIFFERS", |lines| {
            let key = lines[8][18..82].to_owned();
            lines[8] = lines[8].replace(&key, &"0".repeat(64));
        }),
        ("TIME_DIFFERS", |lines| {
            lines[9] = lines[9].replace("01.250000Z", "01.350000Z")
        }),
        ("RECORD_UNREADABLE", |lines| lines[2] = "{}".to_owned()),
        ("RECORD_MISSING", |lines| lines.truncate(30)),
    ];
    for (code, edit) in cases {
        let run = filled();
        edit_bus(&run, 0, edit);
        let report = verify_bus(&run.paths).unwrap();
        assert!(!report.verified, "{code}");
        assert!(
            codes(&report).contains(&code),
            "{code}: {:?}",
            report.differences
        );
        assert!(report.differences.first[0].location.starts_with(TOPICS[0]));
    }
}

#[test]
fn lines_behind_the_committed_end_are_counted_and_no_difference() {
    let run = filled();
    edit_bus(&run, 0, |lines| lines.push(lines[0].clone()));
    let report = verify_bus(&run.paths).unwrap();
    assert!(report.verified);
    assert_eq!(report.partitions[1].uncommitted, 1);
    let folder = layout::topic_folder(&run.paths, "fp.bus.foreign.v1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/partition=0.jsonl"), "{}\n{}\n").unwrap();
    let report = verify_bus(&run.paths).unwrap();
    assert_eq!(codes(&report), ["RECORD_WITHOUT_RECEIPT"]);
    assert_eq!(report.differences.count, 2);
}

#[test]
fn a_head_that_promises_more_than_the_log_has_is_found() {
    let run = filled();
    fs::write(
        layout::head_path(&run.paths, TOPICS[1], 0),
        "{\"next_offset\":31}",
    )
    .unwrap();
    assert_eq!(codes(&verify_bus(&run.paths).unwrap()), ["HEAD_AHEAD"]);
}

#[test]
fn an_event_that_was_admitted_twice_is_found() {
    let mut run = TestRun::new();
    run.commit(
        0,
        &[Decided::Admit(1), Decided::Admit(2), Decided::Admit(1)],
    );
    run.commit(1, &[Decided::Admit(2)]);
    let report = verify_bus(&run.paths).unwrap();
    assert_eq!(codes(&report), ["ADMITTED_TWICE"]);
    assert_eq!(report.differences.count, 2);
}

#[test]
fn receipts_verify_with_their_objects_and_missing_or_changed_objects_are_found() {
    let run = filled();
    let verify = |layout| verify_receipts(&run.paths, layout, &store(&run)).unwrap();
    let report = verify(ReceiptsLayout::Segments);
    assert!(report.verified, "{report:?}");
    assert_eq!(report.pending_objects, 1, "not projected yet");
    project(&run);
    for layout in [ReceiptsLayout::Segments, ReceiptsLayout::Objects] {
        let report = verify(layout);
        assert!(report.verified, "{report:?}");
        assert_eq!(
            (
                report.receipts,
                report.admitted,
                report.duplicates,
                report.quarantined,
                report.pending_objects
            ),
            (74, 72, 1, 1, 0)
        );
    }
    let path = quarantine_object(&run.paths, &receipt_id("QUARANTINE", &event_id(900)));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, "{}\n").unwrap();
    assert_eq!(
        verify(ReceiptsLayout::Segments).differences.first[0].code,
        "OBJECT_DIFFERS"
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(
        verify(ReceiptsLayout::Segments).differences.first[0].code,
        "QUARANTINE_RECORD"
    );
    fs::write(&path, whole).unwrap();
    assert!(verify(ReceiptsLayout::Segments).verified);
}

#[test]
fn a_repeated_quarantine_keeps_its_first_record_and_still_verifies() {
    let mut run = TestRun::new();
    run.commit(0, &[Decided::Quarantine(5)]);
    run.commit(0, &[Decided::Quarantine(5)]);
    project(&run);
    let report = verify_receipts(&run.paths, ReceiptsLayout::Objects, &store(&run)).unwrap();
    assert!(report.verified, "{report:?}");
}

#[test]
fn a_duplicate_that_names_a_wrong_original_is_found() {
    let mut run = TestRun::new();
    let rows = run.commit(0, &[Decided::Admit(1), Decided::Admit(2)]);
    run.commit(
        0,
        &[
            Decided::Duplicate(1, rows[1]),
            Decided::Duplicate(9, rows[0]),
        ],
    );
    let report = verify_receipts(&run.paths, ReceiptsLayout::Segments, &store(&run)).unwrap();
    let codes: Vec<_> = report
        .differences
        .first
        .iter()
        .map(|found| found.code)
        .collect();
    assert!(
        codes.contains(&"ORIGINAL_DIFFERS") && codes.contains(&"ORIGINAL_MISSING"),
        "{codes:?}"
    );
}

#[test]
fn fingerprints_see_records_and_order_per_key_but_not_order_between_keys() {
    let run = filled();
    let of = |run: &TestRun, keys| fingerprint_bus(&run.paths, keys).unwrap().remove(1);
    let original = of(&run, KEYS_MAX);
    assert_eq!(original.records, 42);
    assert_eq!(
        original,
        of(&run, 2),
        "few keys in memory only take more passes"
    );
    // Events 0, 1, 2 share a key; event 3 has the next one.
    edit_bus(&run, 0, |lines| lines.swap(2, 3));
    assert_eq!(of(&run, KEYS_MAX), original);
    edit_bus(&run, 0, |lines| lines.swap(0, 1));
    let reordered = of(&run, KEYS_MAX);
    assert_eq!(reordered.records_digest, original.records_digest);
    assert_ne!(reordered.order_digest, original.order_digest);
    edit_bus(&run, 0, |lines| {
        lines[5] = lines[5].replace("25.99", "25.98")
    });
    assert_ne!(of(&run, KEYS_MAX).records_digest, original.records_digest);
}

#[test]
fn pruning_keeps_a_run_verifiable_and_never_takes_the_index_before_the_bus() {
    let run = filled();
    assert_eq!(
        prune_index(&run.paths).unwrap_err().code(),
        "PRUNE_INDEX_BEFORE_BUS"
    );
    let fingerprints = fingerprint_bus(&run.paths, KEYS_MAX).unwrap();
    let report = prune_bus(&run.paths).unwrap();
    assert_eq!((report.topics.len(), report.records), (2, 72));
    assert!(report.freed_bytes > 10_000);
    assert!(!fs::exists(bus_file(&run, 0)).unwrap());
    assert_eq!(fingerprint_bus(&run.paths, KEYS_MAX).unwrap(), fingerprints);
    let verified = verify_bus(&run.paths).unwrap();
    assert!(
        verified.verified && verified.partitions.iter().all(|p| p.pruned),
        "{verified:?}"
    );
    assert_eq!(verified.records, 72);
    let again = prune_bus(&run.paths).unwrap();
    assert_eq!((again.records, again.freed_bytes), (72, 0));
    assert!(prune_index(&run.paths).is_ok());
    assert!(prune_index(&run.paths).is_ok(), "pruning can be repeated");
    let receipts = verify_receipts(&run.paths, ReceiptsLayout::Segments, &store(&run)).unwrap();
    assert!(receipts.verified);
}

#[test]
fn a_crash_between_stub_and_removal_is_finished_by_the_next_call() {
    let run = filled();
    let kept = fs::read(bus_file(&run, 0)).unwrap();
    prune_bus(&run.paths).unwrap();
    fs::write(bus_file(&run, 0), kept).unwrap();
    assert!(verify_bus(&run.paths).unwrap().verified);
    assert!(prune_bus(&run.paths).unwrap().freed_bytes > 0);
    assert!(!fs::exists(bus_file(&run, 0)).unwrap());
    let stub = layout::topic_folder(&run.paths, TOPICS[0]) + "/pruned.json";
    let text = fs::read_to_string(&stub).unwrap();
    fs::write(
        &stub,
        text.replacen("\"next_offset\": 42", "\"next_offset\": 41", 1),
    )
    .unwrap();
    assert_eq!(
        codes(&verify_bus(&run.paths).unwrap()),
        ["PRUNED_END_DIFFERS"]
    );
}

#[test]
fn a_bus_that_does_not_verify_or_is_in_use_is_not_pruned() {
    let run = filled();
    edit_bus(&run, 0, |lines| {
        lines[5] = lines[5].replace("25.99", "25.98")
    });
    assert_eq!(
        prune_bus(&run.paths).unwrap_err().code(),
        "PRUNE_NOT_VERIFIED"
    );
    assert!(PrunedTopics::load(&run.paths).unwrap().is_empty());
    assert!(fs::exists(bus_file(&run, 1)).unwrap());
    let open = TestRun::new();
    assert_eq!(prune_bus(&open.paths).unwrap_err().code(), "STORE_LOCKED");
}
