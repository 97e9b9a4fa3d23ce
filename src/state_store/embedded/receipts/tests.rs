use super::*;
use crate::state_store::embedded::test_run::{Decided, TestRun, event_id, key_of};
use std::fs;
use wellspring_domain::admission::decision::{Decision, RowRef};
use wellspring_domain::admission::receipt::{ReceiptsLayout, parse_segment_receipt_ref};
use wellspring_domain::admission::receipt_check::check_receipt;

/// Three segments in shard 0, the last one live, and one in shard 1.
fn run() -> (TestRun, Vec<RowRef>) {
    let mut run = TestRun::new();
    let first = run.commit(
        0,
        &[
            Decided::Admit(1),
            Decided::Admit(2),
            Decided::Quarantine(90),
        ],
    );
    run.next_segment(0);
    run.commit(0, &[Decided::Duplicate(1, first[0]), Decided::Admit(3)]);
    run.next_segment(0);
    run.commit(0, &[Decided::Admit(4), Decided::Duplicate(1, first[0])]);
    run.commit(1, &[Decided::Admit(50), Decided::Quarantine(1)]);
    (run, first)
}

#[test]
fn an_event_is_found_at_its_earliest_row_and_a_receipt_at_its_newest() {
    let (run, first) = run();
    let journal = run.journal();
    let lookup = ReceiptLookup::new(&run.paths, ReceiptsLayout::Segments, &journal);
    for _ in ["sidecars are made", "sidecars are there"] {
        let row = lookup.by_event_id(&event_id(1)).unwrap().unwrap();
        assert_eq!((row.row_ref, row.decision()), (first[0], Decision::Admit));
        let newest = RowRef {
            shard: 0,
            segment: 2,
            row: 1,
        };
        let id = wellspring_domain::ids::receipt_id("DUPLICATE", &event_id(1));
        let row = lookup.by_receipt_id(&id).unwrap().unwrap();
        assert_eq!(row.row_ref, newest);
        let answer = lookup.answer(&row);
        assert_eq!(parse_segment_receipt_ref(&answer.receipt_ref), Some(newest));
        assert_eq!(answer.receipt_id, id);
        for number in [2, 3, 4, 50, 90] {
            let row = lookup
                .by_dedupe_key(&key_of(number).to_string())
                .unwrap()
                .unwrap();
            assert_eq!(row.event_id, event_id(number));
            check_receipt(&lookup.render(&row).unwrap()).unwrap();
        }
    }
}

#[test]
fn what_is_not_there_or_no_id_at_all_is_not_found() {
    let (run, _) = run();
    let journal = run.journal();
    let lookup = ReceiptLookup::new(&run.paths, ReceiptsLayout::Segments, &journal);
    assert_eq!(lookup.by_event_id("nobody").unwrap(), None);
    assert_eq!(lookup.by_receipt_id("xyz").unwrap(), None);
    assert_eq!(lookup.by_receipt_id(&"0".repeat(32)).unwrap(), None);
    assert_eq!(lookup.by_dedupe_key(&"0".repeat(64)).unwrap(), None);
    assert_eq!(lookup.by_dedupe_key("é").unwrap(), None);
}

#[test]
fn a_damaged_sidecar_is_made_again_and_an_unknown_version_is_refused() {
    let (run, first) = run();
    let journal = run.journal();
    let lookup = ReceiptLookup::new(&run.paths, ReceiptsLayout::Segments, &journal);
    let key = key_of(2).to_string();
    lookup.by_dedupe_key(&key).unwrap();
    let path = lookup_folder(&run.paths).join("shard-000/segment-00000000.wsl");
    let whole = fs::read(&path).unwrap();
    for at in [0, 20, 30, whole.len() - 1] {
        let mut broken = whole.clone();
        broken[at] ^= 1;
        fs::write(&path, broken).unwrap();
        assert_eq!(
            lookup.by_dedupe_key(&key).unwrap().unwrap().row_ref,
            first[1],
            "byte {at}"
        );
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    let mut newer = whole;
    newer[8] = 9;
    fs::write(&path, newer).unwrap();
    assert_eq!(
        lookup.by_dedupe_key(&key).unwrap_err().code(),
        "FORMAT_VERSION_UNKNOWN"
    );
}
