//! Payload schemas: what fits, what does not, what stops the start.

use super::*;
use serde_json::json;

fn check(schema: Value, payload: Value) -> Result<(), SchemaViolation> {
    let schema = PayloadSchema::compile(&schema).unwrap();
    let text = crate::canonical_json::to_cj(&payload).unwrap();
    schema.check_members(text.as_bytes(), &scan_members(text.as_bytes()))
}

fn row() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["id", "name"], "properties": {
        "id": {"type": "integer", "minimum": 1, "maximum": 18446744073709551615u64},
        "name": {"type": "string", "pattern": "^[a-f0-9]{4}$"},
        "note": {"type": ["string", "null"], "maxLength": 3},
        "state": {"enum": ["PASS", "FAIL"]},
        "inner": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
        "list": {"type": "array", "items": {"type": "boolean"}},
        "link": {"$ref": "#/$defs/id", "nullable": true}},
        "$defs": {"id": {"type": "string", "minLength": 1}}})
}

#[test]
fn a_fitting_payload_passes() {
    let full = json!({"id": 7.0, "name": "00ff", "note": null, "state": "PASS", "inner": {"x": 1, "y": 2},
        "list": [true, false], "link": null});
    assert_eq!(check(row(), full), Ok(()));
    assert_eq!(
        check(
            row(),
            json!({"id": u64::MAX, "name": "00ff", "note": "äöü", "link": "a"})
        ),
        Ok(())
    );
}

#[test]
fn each_broken_rule_is_named_with_its_path() {
    for (payload, path) in [
        (json!({"name": "00ff"}), "payload.id"),
        (json!({"id": 0, "name": "00ff"}), "payload.id"),
        (json!({"id": 1.5, "name": "00ff"}), "payload.id"),
        (json!({"id": true, "name": "00ff"}), "payload.id"),
        (json!({"id": "1", "name": "00ff"}), "payload.id"),
        (json!({"id": 1, "name": "00FF"}), "payload.name"),
        (
            json!({"id": 1, "name": "00ff", "note": "long"}),
            "payload.note",
        ),
        (
            json!({"id": 1, "name": "00ff", "state": "MAYBE"}),
            "payload.state",
        ),
        (
            json!({"id": 1, "name": "00ff", "inner": {}}),
            "payload.inner.x",
        ),
        (
            json!({"id": 1, "name": "00ff", "list": [true, 1]}),
            "payload.list[1]",
        ),
        (json!({"id": 1, "name": "00ff", "link": ""}), "payload.link"),
        (
            json!({"id": 1, "name": "00ff", "extra": 1}),
            "payload.extra",
        ),
    ] {
        assert_eq!(
            check(row(), payload.clone()).unwrap_err().path,
            path,
            "{payload}"
        );
    }
}

#[test]
fn a_keyword_that_is_not_understood_stops_the_start() {
    let error =
        PayloadSchema::compile(&json!({"type": "object", "properties": {"a": {"multipleOf": 2}}}))
            .unwrap_err();
    assert_eq!(error.path, "#/properties/a");
    assert!(PayloadSchema::compile(&json!({"$ref": "other.json"})).is_err());
    assert!(
        PayloadSchema::compile(
            &json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})
        )
        .is_err()
    );
}
