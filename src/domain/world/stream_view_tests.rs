//! Golden vector 17, sort keys, and every refusal of readers and sorters.

use super::*;

fn identity() -> SortIdentity {
    SortIdentity {
        output_id: "o".into(),
        stream_view_id: "v".into(),
        source_locator_digest: "d".into(),
        partition_granularity: "flat".into(),
    }
}

fn receipt() -> Value {
    json!({
        "status": "OK", "source_locator_digest": "d", "output_id": "o",
        "stream_view_id": "v", "partition_granularity": "flat",
    })
}

#[test]
fn the_stream_view_id_is_golden_vector_17() {
    let id = expected_stream_view_id(
        "s3://oracle-store/local_full_run-5/run1",
        "baseline_v1",
        "s3_event_stream_with_fraud_6B",
    );
    assert_eq!(
        id,
        "e10665092377a5add947226af25655d1dcea1d501ddaccafbb490d9e0a2d653a"
    );
}

#[test]
fn sort_keys_follow_the_table_and_the_overrides() {
    let keys = |output, overrides: &SortKeyOverrides| sort_keys(output, overrides).join(",");
    let none = SortKeyOverrides::default();
    assert_eq!(keys("any", &none), "ts_utc,filename,file_row_number");
    let labels = keys("s4_event_labels_6B", &none);
    assert_eq!(labels, "flow_id,event_seq,filename,file_row_number");
    let time = SortKeyOverrides {
        time_column: Some("t_utc".into()),
        ..none.clone()
    };
    assert_eq!(
        keys("s4_event_labels_6B", &time),
        "t_utc,filename,file_row_number"
    );
    let all = SortKeyOverrides {
        keys: Some(vec!["a".into(), "filename".into()]),
        ..time
    };
    assert_eq!(keys("any", &all), "a,filename,file_row_number");
}

#[test]
fn a_reader_refuses_each_defect_with_its_own_code() {
    let manifest = json!({"stream_view_id": "v", "output_id": "o"});
    let ok = json!({"status": "OK"});
    let code = |manifest: Option<&Value>, receipt: Option<&Value>| {
        verify_for_streaming("v", "o", manifest, receipt).map_err(|refusal| refusal.code())
    };
    assert_eq!(code(Some(&manifest), Some(&ok)), Ok(()));
    assert_eq!(
        code(Some(&json!({})), Some(&json!({"status": null}))),
        Ok(())
    );
    assert_eq!(code(Some(&json!({})), Some(&json!({"status": ""}))), Ok(()));
    assert_eq!(code(None, Some(&ok)), Err("STREAM_VIEW_MISSING"));
    assert_eq!(code(Some(&manifest), None), Err("STREAM_VIEW_MISSING"));
    let failed = json!({"status": "FAILED"});
    assert_eq!(
        code(Some(&manifest), Some(&failed)),
        Err("STREAM_VIEW_RECEIPT_BAD")
    );
    let other = json!({"stream_view_id": "w", "output_id": "o"});
    assert_eq!(
        code(Some(&other), Some(&ok)),
        Err("STREAM_VIEW_ID_MISMATCH")
    );
    let other = json!({"stream_view_id": "v", "output_id": "p"});
    assert_eq!(
        code(Some(&other), Some(&ok)),
        Err("STREAM_VIEW_OUTPUT_MISMATCH")
    );
}

#[test]
fn a_sort_builds_skips_or_refuses_by_what_it_finds() {
    let decide = |has_manifest, receipt, has_parts| {
        let existing = ExistingView {
            has_manifest,
            receipt,
            has_parts,
        };
        decide_sort(&existing, &identity()).map_err(|refusal| refusal.code())
    };
    assert_eq!(decide(false, None, false), Ok(SortDecision::Build));
    assert_eq!(decide(true, Some(receipt()), true), Ok(SortDecision::Skip));
    assert_eq!(decide(true, None, true), Err("STREAM_RECEIPT_MISSING"));
    assert_eq!(decide(true, None, false), Err("STREAM_RECEIPT_MISSING"));
    assert_eq!(decide(false, None, true), Err("STREAM_VIEW_PARTIAL_EXISTS"));
    for member in [
        "status",
        "source_locator_digest",
        "output_id",
        "stream_view_id",
        "partition_granularity",
    ] {
        let mut different = receipt();
        different[member] = json!("different");
        assert_eq!(
            decide(true, Some(different), true),
            Err("STREAM_RECEIPT_MISMATCH")
        );
    }
    assert_eq!(
        decide(true, Some(Value::Null), true),
        Err("STREAM_RECEIPT_MISMATCH")
    );
}
