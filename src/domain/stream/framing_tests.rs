//! Framing against a reference that builds value trees, and against the golden event id.

use super::*;
use crate::canonical_json::{to_cj, to_ij};
use crate::ids::engine_event_id;
use crate::stream::column::{NestedValues, Validity};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn pins() -> EnvelopePins {
    EnvelopePins {
        manifest_fingerprint: "a".repeat(64),
        parameter_hash: "b".repeat(64),
        seed: 42,
        scenario_id: "baseline_v1".to_owned(),
        run_id: "abcd".repeat(8),
        platform_run_id: "platform_20260101T000000Z".to_owned(),
        scenario_run_id: "e4f2285913cc771d0d8dd1ad475f7a01".to_owned(),
    }
}

fn context(primary_key: &[&str]) -> FrameContext {
    FrameContext {
        output_id: "s3_event_stream_with_fraud_6B".to_owned(),
        primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
        pins: pins(),
        producer: "svc:world_stream_producer".to_owned(),
        trace_id: "d2a78e4a6b863ceff6a92870ccd30512b0e1db0db13caadf411e5fb195e5e230".to_owned(),
        span_id: Some("local".to_owned()),
    }
}

fn int(values: &[i64]) -> Column<'_> {
    Column::Int64 {
        values,
        validity: Validity::ALL,
    }
}

fn text<'a>(offsets: &'a [i32], bytes: &'a [u8]) -> Column<'a> {
    Column::Text {
        offsets,
        bytes,
        validity: Validity::ALL,
    }
}

fn named<'a>(columns: &[(&'a str, Column<'a>)]) -> Vec<NamedColumn<'a>> {
    columns
        .iter()
        .map(|&(name, column)| NamedColumn { name, column })
        .collect()
}

fn frame(context: &FrameContext, columns: &[(&str, Column<'_>)]) -> Result<String, FrameError> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let plan = FramePlan::new(context, &names)?;
    let columns = named(columns);
    let mut memo = FrameMemo::default();
    let mut out = b"before".to_vec();
    let framed = plan.bind(&columns, &mut memo)?.frame(0, &mut out);
    if framed.is_err() {
        assert_eq!(out, b"before", "a failed row leaves no bytes");
    }
    framed?;
    Ok(String::from_utf8(out.split_off(6)).unwrap())
}

const TS: &[u8] = b"2026-01-01T00:00:01.250000Z";
const KEY: &[&str] = &[
    "seed",
    "manifest_fingerprint",
    "scenario_id",
    "flow_id",
    "event_seq",
];

#[test]
fn the_golden_row_becomes_the_golden_envelope() {
    let (mf, ph) = ("a".repeat(64), "b".repeat(64));
    let one_text = |bytes: &'static [u8]| text(Box::leak(Box::new([0, bytes.len() as i32])), bytes);
    let hash_text = |hash: &str| one_text(Box::leak(hash.to_owned().into_bytes().into()));
    let columns = [
        ("flow_id", int(&[1_234_567_890_123_456_789])),
        ("event_seq", int(&[1])),
        ("event_type", one_text(b"AUTH_REQUEST")),
        ("ts_utc", one_text(TS)),
        (
            "amount",
            Column::Float64 {
                values: &[25.99],
                validity: Validity::ALL,
            },
        ),
        ("seed", int(&[42])),
        ("manifest_fingerprint", hash_text(&mf)),
        ("parameter_hash", hash_text(&ph)),
        ("scenario_id", one_text(b"baseline_v1")),
        (
            "fraud_flag",
            Column::Bool {
                bits: &[0],
                offset: 0,
                validity: Validity::ALL,
            },
        ),
        ("campaign_id", Column::Null),
    ];
    let expected = format!(
        "{{\"event_id\":\"592744f12c168a1be92d2719947290c1d2a8c49eff71bd48c99b60734fc5e15c\",\
         \"event_type\":\"s3_event_stream_with_fraud_6B\",\"schema_version\":\"v1\",\
         \"ts_utc\":\"2026-01-01T00:00:01.250000Z\",\"manifest_fingerprint\":\"{mf}\",\
         \"parameter_hash\":\"{ph}\",\"seed\":42,\"scenario_id\":\"baseline_v1\",\
         \"run_id\":\"abcdabcdabcdabcdabcdabcdabcdabcd\",\
         \"platform_run_id\":\"platform_20260101T000000Z\",\
         \"scenario_run_id\":\"e4f2285913cc771d0d8dd1ad475f7a01\",\
         \"producer\":\"svc:world_stream_producer\",\"payload\":{{\"amount\":25.99,\
         \"campaign_id\":null,\"event_seq\":1,\"event_type\":\"AUTH_REQUEST\",\
         \"flow_id\":1234567890123456789,\"fraud_flag\":false,\"manifest_fingerprint\":\"{mf}\",\
         \"parameter_hash\":\"{ph}\",\"scenario_id\":\"baseline_v1\",\"seed\":42,\
         \"ts_utc\":\"2026-01-01T00:00:01.250000Z\"}},\"trace_id\":\
         \"d2a78e4a6b863ceff6a92870ccd30512b0e1db0db13caadf411e5fb195e5e230\",\
         \"span_id\":\"local\"}}"
    );
    assert_eq!(frame(&context(KEY), &columns).unwrap(), expected);
}

#[test]
fn an_unknown_engine_release_leaves_the_span_out() {
    let context = FrameContext {
        span_id: None,
        ..context(&["id"])
    };
    let framed = frame(
        &context,
        &[("id", int(&[1])), ("ts_utc", text(&[0, 27], TS))],
    )
    .unwrap();
    assert!(framed.ends_with("e5e230\"}"), "{framed}");
}

#[test]
fn any_form_of_time_becomes_six_digits_and_z_while_the_payload_keeps_the_row() {
    let forms = [
        "2026-01-01T00:00:01.25Z",
        "2026-01-01T02:00:01.250000+02:00",
        "2026-01-01 00:00:01.250",
        "2026-01-01T00:00:01.250000999Z",
    ];
    for form in forms {
        let offsets = [0, form.len() as i32];
        let columns = [
            ("id", int(&[1])),
            ("ts_utc", text(&offsets, form.as_bytes())),
        ];
        let framed = frame(&context(&["id"]), &columns).unwrap();
        assert!(
            framed.contains("\"ts_utc\":\"2026-01-01T00:00:01.250000Z\",\"manifest"),
            "{framed}"
        );
        assert!(
            framed.contains(&format!("\"ts_utc\":\"{form}\"}}")),
            "{framed}"
        );
    }
}

#[test]
fn a_payload_json_column_replaces_the_payload_and_drops_the_rest_of_the_row() {
    let instant = Column::Instant {
        micros: &[1_250_000],
        validity: Validity::ALL,
    };
    let json = br#"{"b":[1,{"z":1.0,"a":"\u00e9"}],"a":null}"#;
    let offsets = [0, json.len() as i32];
    let columns = [
        ("id", int(&[1])),
        ("ts_utc", instant),
        ("payload_json", text(&offsets, json)),
    ];
    let framed = frame(&context(&["id"]), &columns).unwrap();
    assert!(
        framed.contains("\"ts_utc\":\"1970-01-01T00:00:01.250000Z\""),
        "{framed}"
    );
    let payload = r#""payload":{"a":null,"b":[1,{"a":"\u00e9","z":1.0}]},"trace_id""#;
    assert!(framed.contains(payload), "{framed}");
}

/// Columns, the code and a word of the error.
type FailureCase<'a> = (Vec<(&'a str, Column<'a>)>, &'a str, &'a str);

#[test]
fn what_json_cannot_carry_fails_with_the_column_and_the_code() {
    let nulls = Validity::from_bits(&[0], 0);
    let id = ("id", int(&[1]));
    let ts = ("ts_utc", text(&[0, 27], TS));
    let float = |values| Column::Float64 {
        values,
        validity: Validity::ALL,
    };
    let instant = Column::Instant {
        micros: &[0],
        validity: Validity::ALL,
    };
    let table: Vec<FailureCase<'_>> = vec![
        (vec![ts], "PRIMARY_KEY_MISSING", "id"),
        (
            vec![
                (
                    "id",
                    Column::Int64 {
                        values: &[0],
                        validity: nulls,
                    },
                ),
                ts,
            ],
            "PRIMARY_KEY_MISSING",
            "id",
        ),
        (vec![id], "STREAM_FAILED", "no such column"),
        (
            vec![id, ("ts_utc", Column::Null)],
            "STREAM_FAILED",
            "ts_utc",
        ),
        (
            vec![id, ("ts_utc", text(&[0, 5], b"later"))],
            "STREAM_FAILED",
            "later",
        ),
        (
            vec![id, ts, ("x", float(&[f64::NAN]))],
            "STREAM_FAILED",
            "x",
        ),
        (
            vec![id, ts, ("x", float(&[f64::NEG_INFINITY]))],
            "STREAM_FAILED",
            "x",
        ),
        (vec![id, ts, ("x", instant)], "STREAM_FAILED", "timestamp"),
        (
            vec![id, ts, ("x", Column::Unsupported("binary"))],
            "STREAM_FAILED",
            "binary",
        ),
        (
            vec![id, ts, ("payload_json", text(&[0, 1], b"{"))],
            "STREAM_FAILED",
            "not JSON",
        ),
    ];
    for (columns, code, word) in table {
        let error = frame(&context(&["id"]), &columns).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            error.to_string().contains(word),
            "{error} does not name {word}"
        );
    }
}

#[test]
fn the_remembered_digest_state_never_leaks_into_another_prefix() {
    let long = "x".repeat(80);
    let texts = [
        long.clone(),
        long.replace('x', "y"),
        long,
        "short".to_owned(),
    ];
    let bytes = texts.concat().into_bytes();
    let mut offsets = vec![0];
    texts
        .iter()
        .for_each(|t| offsets.push(offsets.last().unwrap() + t.len() as i32));
    let times = TS.repeat(4);
    let columns = named(&[
        ("id", text(&offsets, &bytes)),
        ("ts_utc", text(&[0, 27, 54, 81, 108], &times)),
    ]);
    let context = context(&["id"]);
    let plan = FramePlan::new(&context, &["id", "ts_utc"]).unwrap();
    let mut memo = FrameMemo::default();
    let mut framer = plan.bind(&columns, &mut memo).unwrap();
    let (mf, ph) = (
        &context.pins.manifest_fingerprint,
        &context.pins.parameter_hash,
    );
    for (row, id) in texts.iter().enumerate() {
        let mut out = Vec::new();
        framer.frame(row, &mut out).unwrap();
        let key = [id.as_str()].into_iter();
        let expected = engine_event_id(&context.output_id, key, &[mf, ph, "42", "baseline_v1"]);
        assert_eq!(std::str::from_utf8(&out[13..77]).unwrap(), expected);
    }
}

/// A row of the property test: one value of each kind, `None` is null.
#[derive(Clone, Debug)]
struct Row {
    id: i64,
    big: u64,
    ratio: Option<f64>,
    flag: Option<bool>,
    words: Option<String>,
    nested: Value,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let float = any::<f64>().prop_filter("finite", |value| value.is_finite());
    let nested = prop_oneof![
        Just(Value::Null),
        ".{0,6}".prop_map(|text| json!([text, {"é": 1, "b": [true, null], "a": -0.0}])),
    ];
    let words = prop::option::of(prop_oneof![any::<String>(), "[ -~]{0,40}"]);
    let row = (
        any::<i64>(),
        any::<u64>(),
        prop::option::of(float),
        any::<Option<bool>>(),
        words,
        nested,
    )
        .prop_map(|(id, big, ratio, flag, words, nested)| Row {
            id,
            big,
            ratio,
            flag,
            words,
            nested,
        });
    // At times a number is the same in all rows.
    let rows = prop::collection::vec(row, 1..20);
    (rows, any::<bool>(), any::<bool>()).prop_map(|(mut rows, same_id, same_big)| {
        let first = rows[0].clone();
        for row in &mut rows {
            row.id = if same_id { first.id } else { row.id };
            row.big = if same_big { first.big } else { row.big };
        }
        rows
    })
}

struct NestedRows(Vec<Value>);

impl NestedValues for NestedRows {
    fn value(&self, row: usize) -> Result<Value, String> {
        Ok(self.0[row].clone())
    }
}

fn bits(values: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut out = Vec::new();
    for (row, value) in values.enumerate() {
        if row % 8 == 0 {
            out.push(0);
        }
        *out.last_mut().unwrap() |= u8::from(value) << (row % 8);
    }
    out
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut pairs: Vec<_> = members.iter().collect();
            pairs.sort_by_key(|(name, _)| name.as_str());
            Value::Object(
                pairs
                    .into_iter()
                    .map(|(k, v)| (k.clone(), sorted(v)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

fn reference(context: &FrameContext, row: &Row) -> (String, String) {
    let payload = sorted(&json!({
        "id": row.id, "big": row.big, "ratio": row.ratio, "flag": row.flag,
        "clé \"x\"": row.words, "nested": row.nested, "ts_utc": "2026-01-01T00:00:01.250000Z",
    }));
    let pins = &context.pins;
    let (mf, ph) = (&pins.manifest_fingerprint, &pins.parameter_hash);
    let key = [row.id.to_string(), row.big.to_string()];
    let tail = [mf.as_str(), ph, "42", &pins.scenario_id];
    let event_id = engine_event_id(&context.output_id, key.iter().map(String::as_str), &tail);
    let mut envelope = Map::new();
    let mut set = |name: &str, value: Value| envelope.insert(name.to_owned(), value);
    set("event_id", json!(event_id));
    set("event_type", json!(context.output_id));
    set("schema_version", json!("v1"));
    set("ts_utc", json!("2026-01-01T00:00:01.250000Z"));
    set("manifest_fingerprint", json!(mf));
    set("parameter_hash", json!(ph));
    set("seed", json!(42));
    set("scenario_id", json!(pins.scenario_id));
    set("run_id", json!(pins.run_id));
    set("platform_run_id", json!(pins.platform_run_id));
    set("scenario_run_id", json!(pins.scenario_run_id));
    set("producer", json!(context.producer));
    set("payload", payload.clone());
    set("trace_id", json!(context.trace_id));
    set("span_id", json!(context.span_id));
    (to_ij(&envelope).unwrap(), to_cj(&payload).unwrap())
}

proptest! {
    #[test]
    fn framing_equals_the_reference_built_from_value_trees(rows in rows()) {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let bigs: Vec<u64> = rows.iter().map(|row| row.big).collect();
        let ratios: Vec<f64> = rows.iter().map(|row| row.ratio.unwrap_or(f64::NAN)).collect();
        let ratio_bits = bits(rows.iter().map(|row| row.ratio.is_some()));
        let flags = bits(rows.iter().map(|row| row.flag.unwrap_or(true)));
        let flag_bits = bits(rows.iter().map(|row| row.flag.is_some()));
        let words = rows.iter().map(|row| row.words.clone().unwrap_or_default());
        let words: Vec<String> = words.collect();
        let mut offsets = vec![0i32];
        words.iter().for_each(|word| offsets.push(offsets.last().unwrap() + word.len() as i32));
        let word_bytes = words.concat().into_bytes();
        let word_bits = bits(rows.iter().map(|row| row.words.is_some()));
        let nested = NestedRows(rows.iter().map(|row| row.nested.clone()).collect());
        let times = TS.repeat(rows.len());
        let time_offsets: Vec<i32> = (0..=rows.len() as i32).map(|row| row * 27).collect();
        let columns = named(&[
            ("ts_utc", text(&time_offsets, &times)),
            ("id", int(&ids)),
            ("ratio", Column::Float64 {
                values: &ratios, validity: Validity::from_bits(&ratio_bits, 0) }),
            ("big", Column::UInt64 { values: &bigs, validity: Validity::ALL }),
            ("flag", Column::Bool {
                bits: &flags, offset: 0, validity: Validity::from_bits(&flag_bits, 0) }),
            ("clé \"x\"", Column::Text {
                offsets: &offsets, bytes: &word_bytes, validity: Validity::from_bits(&word_bits, 0) }),
            ("nested", Column::Nested(&nested)),
        ]);
        let context = context(&["id", "big"]);
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let plan = FramePlan::new(&context, &names).unwrap();
        let mut memo = FrameMemo::default();
        let mut framer = plan.bind(&columns, &mut memo).unwrap();
        for (index, row) in rows.iter().enumerate() {
            let mut out = Vec::new();
            framer.frame(index, &mut out).unwrap();
            let framed = String::from_utf8(out).unwrap();
            let (envelope, payload) = reference(&context, row);
            prop_assert_eq!(&framed, &envelope);
            let member = format!("\"payload\":{payload},\"trace_id\"");
            prop_assert!(framed.contains(&member), "payload is not canonical");
        }
    }
}
