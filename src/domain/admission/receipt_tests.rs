use super::*;
use crate::admission::bus_offset::BusOffset;
use crate::admission::decision::{Actor, PolicyRev, ReceiptContext};
use crate::admission::journal_row::JournalOutcome;
use crate::admission::receipt_check::check_receipt;
use crate::canonical_json::to_cj;
use crate::run_paths::PlatformRunId;
use crate::time_text::Micros;
use serde_json::json;
use std::sync::Arc;

const RUN: &str = "platform_20260101T000000Z";
const EVENT: &str = "592744f12c168a1be92d2719947290c1d2a8c49eff71bd48c99b60734fc5e15c";

fn paths() -> RunPaths {
    RunPaths::new("runs", &PlatformRunId::parse(RUN).unwrap())
}

fn context() -> ReceiptContext {
    ReceiptContext {
        event_type: "s3_event_stream_with_fraud_6B".into(),
        event_class: "traffic_fraud".into(),
        manifest_fingerprint: "a".repeat(64),
        pins: json!({"platform_run_id": RUN, "seed": 42, "scenario_id": null}),
        platform_run_id: RUN.into(),
        scenario_run_id: Some("e4f2285913cc771d0d8dd1ad475f7a01".into()),
        schema_version: Some("v1".into()),
        producer: Some("svc:world_stream_producer".into()),
        topic: "fp.bus.traffic.fraud.v1".into(),
        partitioning_profile_id: "ig.partitioning.v0.traffic.fraud".into(),
        actor: Actor {
            actor_id: "SYSTEM::ANONYMOUS".into(),
            source_type: "SYSTEM".into(),
            auth_mode: "disabled".into(),
            principal: "ANONYMOUS".into(),
        },
        policy_rev: PolicyRev {
            policy_id: "ig_policy".into(),
            revision: "local-v0".into(),
            content_digest: "c".repeat(64),
        },
        provenance: json!({"service_release_id": "dev-local", "environment": "local",
            "run_config_digest": "c".repeat(64)}),
    }
}

fn row(number: u32, outcome: JournalOutcome) -> JournalRow {
    JournalRow {
        row_ref: RowRef {
            shard: 1,
            segment: 2,
            row: number,
        },
        decided_at: Micros(1_767_225_601_250_000),
        context: Arc::new(context()),
        event_id: EVENT.into(),
        ts_utc: "2026-01-01T00:00:01.250000Z".into(),
        dedupe_key: crate::ids::dedupe_key(RUN.as_bytes(), b"traffic_fraud", EVENT.as_bytes()),
        payload_hash: Hash32::of(b"payload"),
        partition_key: Hash32::of(b"1234567890123456789"),
        outcome,
    }
}

fn admit(number: u32) -> JournalRow {
    row(
        number,
        JournalOutcome::Admit {
            topic: "fp.bus.traffic.fraud.v1".into(),
            partition: 0,
            offset: BusOffset::Line(7),
        },
    )
}

fn render(row: &JournalRow, original: Option<&JournalRow>, layout: ReceiptsLayout) -> Value {
    let receipt = render_receipt(
        row,
        original,
        &ReceiptPlaces {
            paths: &paths(),
            layout,
        },
    )
    .unwrap();
    check_receipt(&receipt).unwrap();
    receipt
}

#[test]
fn an_admit_receipt_has_exactly_the_bytes_of_the_contract() {
    let receipt = render(&admit(5), None, ReceiptsLayout::Segments);
    let a64 = "a".repeat(64);
    let c64 = "c".repeat(64);
    let payload_hash = Hash32::of(b"payload");
    let expected = format!(
        concat!(
            r#"{{"actor":{{"actor_id":"SYSTEM::ANONYMOUS","auth_mode":"disabled","principal":"ANONYMOUS","source_type":"SYSTEM"}},"#,
            r#""admitted_at_utc":"2026-01-01T00:00:01.250000+00:00","decision":"ADMIT","#,
            r#""dedupe_key":"ad6e724ddfd666ae4612083e2380e863d051dbcfd6db9066ac539731e5bda9c2","#,
            r#""eb_ref":{{"offset":"7","offset_kind":"file_line","partition":0,"#,
            r#""published_at_utc":"2026-01-01T00:00:01.250000+00:00","topic":"fp.bus.traffic.fraud.v1"}},"#,
            r#""environment":"local","event_class":"traffic_fraud","event_id":"{event}","#,
            r#""event_type":"s3_event_stream_with_fraud_6B","manifest_fingerprint":"{a64}","#,
            r#""partition_key":"22085aa929bcd7af4b23d9d9c046a1d4fde8be51f79d91392efafef96574ab01","#,
            r#""partitioning_profile_id":"ig.partitioning.v0.traffic.fraud","#,
            r#""payload_hash":{{"algo":"sha256","hex":"{hash}"}},"#,
            r#""pins":{{"platform_run_id":"{run}","seed":42}},"platform_run_id":"{run}","#,
            r#""policy_rev":{{"content_digest":"{c64}","policy_id":"ig_policy","revision":"local-v0"}},"#,
            r#""producer":"svc:world_stream_producer","#,
            r#""provenance":{{"environment":"local","run_config_digest":"{c64}","service_release_id":"dev-local"}},"#,
            r#""receipt_id":"2e13119588b2f2fa0f144b727798facf","run_config_digest":"{c64}","#,
            r#""scenario_run_id":"e4f2285913cc771d0d8dd1ad475f7a01","schema_version":"v1","#,
            r#""service_release_id":"dev-local","ts_utc":"2026-01-01T00:00:01.250000Z"}}"#,
            "\n"
        ),
        event = EVENT,
        a64 = a64,
        c64 = c64,
        run = RUN,
        hash = payload_hash,
    );
    assert_eq!(
        String::from_utf8(receipt_bytes(&receipt)).unwrap(),
        expected
    );
}

#[test]
fn a_duplicate_carries_the_original_place_and_points_to_its_receipt() {
    let original = admit(5);
    let mut copy = row(
        9,
        JournalOutcome::Duplicate {
            original: original.row_ref,
        },
    );
    copy.decided_at = Micros(copy.decided_at.0 + 1_000_000);
    let receipt = render(&copy, Some(&original), ReceiptsLayout::Segments);
    assert_eq!(receipt["receipt_id"], "cf44722a1ab050c3f4258ac0819de6c4");
    assert_eq!(
        receipt["admitted_at_utc"],
        "2026-01-01T00:00:01.250000+00:00"
    );
    assert_eq!(receipt["eb_ref"]["offset"], "7");
    assert_eq!(receipt["reason_codes"], json!(["DUPLICATE"]));
    assert_eq!(
        receipt["evidence_refs"],
        json!([{"kind": "receipt_ref", "ref":
            format!("runs/fraud-platform/{RUN}/ig/journal/shard-001/segment-00000002.wsj#5")}])
    );
    let receipt = render(&copy, Some(&original), ReceiptsLayout::Objects);
    assert_eq!(
        receipt["evidence_refs"][0]["ref"],
        format!("runs/fraud-platform/{RUN}/ig/receipts/2e13119588b2f2fa0f144b727798facf.json")
    );
}

#[test]
fn a_duplicate_without_its_admitted_row_has_no_receipt() {
    let original = admit(5);
    let copy = row(
        9,
        JournalOutcome::Duplicate {
            original: original.row_ref,
        },
    );
    let paths = paths();
    let places = ReceiptPlaces {
        paths: &paths,
        layout: ReceiptsLayout::Segments,
    };
    let code = |original: Option<&JournalRow>| {
        render_receipt(&copy, original, &places).unwrap_err().code()
    };
    assert_eq!(code(None), "RECEIPT_ORIGINAL_MISSING");
    assert_eq!(code(Some(&admit(6))), "RECEIPT_ORIGINAL_DIFFERS");
    let mut other_event = admit(5);
    other_event.dedupe_key = Hash32::of(b"other");
    assert_eq!(code(Some(&other_event)), "RECEIPT_ORIGINAL_DIFFERS");
}

#[test]
fn a_quarantine_points_to_its_record_and_claims_no_place_on_the_bus() {
    let outcome = JournalOutcome::Quarantine {
        code: "PINS_MISSING".into(),
        record: b"{}".to_vec(),
    };
    let mut refused = row(3, outcome);
    refused.dedupe_key = Hash32::default();
    let receipt = render(&refused, None, ReceiptsLayout::Segments);
    assert_eq!(receipt["dedupe_key"], "");
    assert_eq!(receipt["reason_codes"], json!(["PINS_MISSING"]));
    assert_eq!(
        receipt["evidence_refs"],
        json!([{"kind": "quarantine_record",
            "ref": format!("runs/fraud-platform/{RUN}/ig/quarantine/5e6237763a6d9f53e2537b4c7a871bab.json")}])
    );
    for absent in ["eb_ref", "payload_hash", "admitted_at_utc", "partition_key"] {
        assert!(receipt.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_segment_reference_reads_back() {
    let at = RowRef {
        shard: 12,
        segment: 345,
        row: 67_890,
    };
    let text = segment_receipt_ref(&paths(), at);
    assert_eq!(parse_segment_receipt_ref(&text), Some(at));
    for bad in [
        "",
        "#1",
        "x/shard-001/segment-00000001.wsj",
        "shard-1/segment-00000001.wsj#1",
        "shard-001/segment-1.wsj#1",
    ] {
        assert_eq!(parse_segment_receipt_ref(bad), None, "{bad}");
    }
}

#[test]
fn the_check_names_the_field_that_is_wrong() {
    let good = render(&admit(5), None, ReceiptsLayout::Segments);
    let broken = |pointer: &str, value: Value| {
        let mut receipt = good.clone();
        *receipt.pointer_mut(pointer).unwrap() = value;
        check_receipt(&receipt).unwrap_err().field
    };
    assert_eq!(broken("/decision", json!("MAYBE")), "decision");
    assert_eq!(broken("/event_id", json!("")), "event_id");
    assert_eq!(broken("/receipt_id", json!("A")), "receipt_id");
    assert_eq!(broken("/platform_run_id", json!("x")), "platform_run_id");
    assert_eq!(broken("/eb_ref/offset", json!(7)), "eb_ref");
    assert_eq!(broken("/payload_hash/hex", json!("00")), "payload_hash");
    assert_eq!(broken("/actor/principal", Value::Null), "actor.principal");
    assert_eq!(broken("/pins/seed", Value::Null), "pins");
    let mut extra = good.clone();
    extra["extra"] = json!(1);
    assert_eq!(check_receipt(&extra).unwrap_err().field, "extra");
    let mut missing = good.clone();
    missing.as_object_mut().unwrap().remove("eb_ref");
    assert_eq!(check_receipt(&missing).unwrap_err().field, "eb_ref");
    assert!(to_cj(&good).is_ok());
}
