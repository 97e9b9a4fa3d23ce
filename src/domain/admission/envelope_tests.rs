//! Envelopes: canonical bytes, other spellings, every rule.

use super::*;

fn base() -> serde_json::Value {
    serde_json::json!({
        "event_id": "e1", "event_type": "t", "ts_utc": "2026-01-01T00:00:01.250000Z",
        "manifest_fingerprint": "a".repeat(64), "seed": 42, "payload": {"a": 1, "b": {"c": 2}}
    })
}

fn with(field: &str, value: serde_json::Value) -> String {
    let mut envelope = base();
    envelope[field] = value;
    serde_json::to_string(&envelope).unwrap()
}

#[test]
fn canonical_bytes_are_read_in_place() {
    let text = serde_json::to_string(&base()).unwrap();
    let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
    assert!(envelope.is_unchanged());
    assert_eq!(envelope.validate(), Ok(()));
    assert_eq!(envelope.payload_json(), br#"{"a":1,"b":{"c":2}}"#);
    assert_eq!(envelope.payload_members().len(), 2);
    assert_eq!(envelope.string(Field::EventId).unwrap(), "e1");
    assert_eq!(envelope.json(Field::Seed).unwrap(), b"42");
}

#[test]
fn other_spellings_are_rewritten_and_only_the_hash_is_sorted() {
    let text = " {\"payload\": {\"b\": 1.50, \"a\": \"\\/\"}, \"event_id\" : \"e\\u00E9\"}";
    let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
    assert_eq!(
        envelope.text(),
        br#"{"payload":{"b":1.5,"a":"/"},"event_id":"e\u00e9"}"#
    );
    assert_eq!(envelope.payload_json(), br#"{"a":"/","b":1.5}"#);
    assert_eq!(envelope.string(Field::EventId).unwrap(), "eé");
    assert_eq!(
        envelope.payload_members()[1].key_of(envelope.payload_json()),
        b"b"
    );
}

#[test]
fn an_unsorted_payload_at_any_depth_takes_the_slow_road() {
    for payload in [r#"{"b":1,"a":2}"#, r#"{"a":{"d":1,"c":2}}"#] {
        let text = format!("{{\"event_id\":\"e\",\"payload\":{payload},\"producer\":\"p\"}}");
        let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(envelope.text(), text.as_bytes());
        assert!(!envelope.is_unchanged());
        assert_ne!(envelope.payload_json(), payload.as_bytes());
    }
}

#[test]
fn repeated_keys_are_refused_at_every_level() {
    for text in [
        r#"{"event_id":"a","event_id":"b"}"#,
        r#"{"event_id":"a","payload":{"x":1,"x":2}}"#,
        r#"{"zzz":1,"zzz":2}"#,
        r#"{"zzz":1,"yyy":{"a":1,"a":1},"zzy":1}"#,
    ] {
        assert_eq!(
            Envelope::read(text.as_bytes()).unwrap_err().cause,
            "a key occurs twice in one object",
            "{text}"
        );
    }
    assert!(Envelope::read(b"[1]").unwrap().is_none());
    assert!(Envelope::read(b"nope").is_err());
}

#[test]
fn each_rule_of_the_envelope_is_enforced() {
    use serde_json::json;
    for (field, value, good) in [
        ("event_id", json!(""), false),
        ("event_id", json!("x".repeat(256)), true),
        ("event_id", json!("x".repeat(257)), false),
        ("event_id", json!("é".repeat(256)), true),
        ("event_id", json!(1), false),
        ("ts_utc", json!("2026-01-01T00:00:01Z"), false),
        ("manifest_fingerprint", json!("A".repeat(64)), false),
        ("parameter_hash", json!(null), false),
        ("seed", json!(-1), false),
        ("seed", json!("42"), false),
        ("seed", json!(7.0), true),
        ("seed", json!(7.5), false),
        ("seed", json!(u64::MAX), true),
        ("scenario_id", json!(3), true),
        ("scenario_id", json!(-3), false),
        ("scenario_id", json!(true), false),
        ("run_id", json!("0".repeat(32)), true),
        ("run_id", json!("0".repeat(33)), false),
        ("platform_run_id", json!("platform_20260101T000000Z"), true),
        ("platform_run_id", json!("x"), false),
        ("schema_version", json!("v".repeat(65)), false),
        ("trace_id", json!("v".repeat(129)), false),
        ("payload", json!([1]), false),
        ("extra", json!(1), false),
    ] {
        let text = with(field, value.clone());
        let envelope = Envelope::read(text.as_bytes()).unwrap().unwrap();
        let result = envelope.validate();
        assert_eq!(result.is_ok(), good, "{field} = {value}: {result:?}");
        if let Err(violation) = result {
            assert_eq!(violation.field, field);
        }
    }
}
