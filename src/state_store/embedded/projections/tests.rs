use super::*;
use crate::object_store::LocalFiles;
use crate::state_store::embedded::test_run::{Decided, RUN, TestRun, event_id};
use std::fs;
use std::path::PathBuf;
use wellspring_domain::admission::receipt::{ReceiptsLayout, quarantine_object, receipt_object};
use wellspring_domain::ids::receipt_id;

fn store(run: &TestRun) -> Arc<dyn ObjectStore> {
    Arc::new(LocalFiles::new(run.folder.path()))
}

fn projection<W: RowWriter>(run: &TestRun, writer: W) -> JournalProjection<W> {
    JournalProjection::new(store(run), &run.folder.path().to_string_lossy(), writer)
}

fn quarantines(run: &TestRun) -> JournalProjection<QuarantineRecords> {
    projection(
        run,
        QuarantineRecords {
            layout: ReceiptsLayout::Segments,
        },
    )
}

fn record_path(run: &TestRun, number: u32) -> PathBuf {
    quarantine_object(&run.paths, &receipt_id("QUARANTINE", &event_id(number))).into()
}

#[test]
fn every_quarantine_becomes_an_object_and_a_fact_once_and_only_new_rows_are_read_again() {
    let mut run = TestRun::new();
    run.commit(0, &[Decided::Admit(1), Decided::Quarantine(2)]);
    let projection = quarantines(&run);
    let id = run.paths.run_id().clone();
    assert_eq!(projection.catch_up(&id).unwrap(), 2);
    assert_eq!(projection.catch_up(&id).unwrap(), 0);
    let first = fs::read_to_string(record_path(&run, 2)).unwrap();
    assert!(first.ends_with("}\n") && first.contains("PINS_MISSING"));
    run.commit(1, &[Decided::Quarantine(3), Decided::Quarantine(2)]);
    run.next_segment(0);
    run.commit(0, &[Decided::Quarantine(4)]);
    assert_eq!(projection.catch_up(&id).unwrap(), 3);
    assert_eq!(
        quarantines(&run).catch_up(&id).unwrap(),
        0,
        "the cursor is durable"
    );
    assert_eq!(
        fs::read_to_string(record_path(&run, 2)).unwrap(),
        first,
        "write-once"
    );
    assert!(record_path(&run, 3).exists() && record_path(&run, 4).exists());
    let facts = format!("{}/obs/governance/events.jsonl", run.paths.run_root());
    let facts = fs::read_to_string(facts).unwrap();
    assert_eq!(facts.lines().count(), 3, "one fact per event and code");
    assert!(facts.contains("CORRIDOR_ANOMALY") && facts.contains("SCHEMA_POLICY_MISSING"));
}

#[test]
fn a_lost_damaged_or_too_far_cursor_only_repeats_work() {
    let mut run = TestRun::new();
    run.commit(0, &[Decided::Quarantine(2), Decided::Admit(1)]);
    let id = run.paths.run_id().clone();
    quarantines(&run).catch_up(&id).unwrap();
    let path = format!("{}/projections/quarantine_records.json", run.paths.ig());
    fs::write(&path, "{").unwrap();
    fs::remove_file(record_path(&run, 2)).unwrap();
    assert_eq!(quarantines(&run).catch_up(&id).unwrap(), 2);
    assert!(record_path(&run, 2).exists());
    let stored = fs::read_to_string(&path).unwrap();
    fs::write(&path, stored.replace("\"row\":2", "\"row\":900")).unwrap();
    let projection = quarantines(&run);
    assert_eq!(projection.catch_up(&id).unwrap(), 0);
    run.commit(0, &[Decided::Quarantine(5)]);
    assert_eq!(projection.catch_up(&id).unwrap(), 1);
    assert!(record_path(&run, 5).exists());
}

#[test]
fn a_cursor_of_an_unknown_version_is_refused_by_name() {
    let mut run = TestRun::new();
    run.commit(0, &[Decided::Quarantine(2)]);
    let id = run.paths.run_id().clone();
    quarantines(&run).catch_up(&id).unwrap();
    let path = format!("{}/projections/quarantine_records.json", run.paths.ig());
    let stored = fs::read_to_string(&path).unwrap();
    fs::write(&path, stored.replace("\"version\":1", "\"version\":2")).unwrap();
    let error = quarantines(&run).catch_up(&id).unwrap_err();
    assert_eq!(error.code(), "FORMAT_VERSION_UNKNOWN");
    assert!(
        error
            .to_string()
            .contains("projections/quarantine_records.json"),
        "{error}"
    );
}

#[test]
fn receipt_objects_hold_the_rendered_receipts_and_refer_to_each_other() {
    let mut run = TestRun::new();
    let rows = run.commit(0, &[Decided::Admit(1), Decided::Quarantine(2)]);
    run.commit(0, &[Decided::Duplicate(1, rows[0])]);
    projection(&run, ReceiptObjects)
        .catch_up(run.paths.run_id())
        .unwrap();
    let read = |decision: &str, number| {
        let id = receipt_id(decision, &event_id(number));
        fs::read_to_string(receipt_object(&run.paths, &id)).unwrap()
    };
    assert!(read("ADMIT", 1).starts_with("{\"actor\":"));
    assert!(read("QUARANTINE", 2).contains("quarantine_record"));
    let original = receipt_object(&run.paths, &receipt_id("ADMIT", &event_id(1)));
    assert!(read("DUPLICATE", 1).contains(&original));
    assert!(original.contains(RUN));
}
