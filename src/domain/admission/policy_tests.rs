//! Policy files: routing, mistakes, digests.

use super::*;

/// A small policy: one traffic type with a schema, one audit type, the fallback class.
pub(crate) fn small_files() -> PolicyFiles {
    let pins = json!([
        "platform_run_id",
        "scenario_run_id",
        "manifest_fingerprint",
        "parameter_hash",
        "seed",
        "scenario_id",
        "run_id"
    ]);
    PolicyFiles {
        revision: "test-v0".to_owned(),
        class_map: (
            "class_map.yaml".to_owned(),
            json!({"classes": {"traffic": {"required_pins": pins}, "traffic_fraud": {"required_pins": pins},
                    "own": {"required_pins": ["platform_run_id"], "partitioning_profile_id": "own.profile"}},
                "event_types": {"s3_event_stream_with_fraud_6B": "traffic_fraud", "own_event": "own"}}),
        ),
        partitioning: (
            "profiles.yaml".to_owned(),
            json!({"profiles": {
                "ig.partitioning.v0.traffic": {"stream": "fp.bus.traffic.v1", "key_precedence": ["payload.flow_id", "event_id"]},
                "ig.partitioning.v0.traffic.fraud": {"stream": "fp.bus.traffic.fraud.v1", "hash_algo": "sha256",
                    "key_precedence": ["payload.flow_id", "payload.merchant_id", "event_id"]},
                "own.profile": {"stream": "own.topic", "key_precedence": ["payload.ref.id", "seed"]}}}),
        ),
        schema_policy: (
            "schemas.yaml".to_owned(),
            json!({"policies": [
                {"event_type": "s3_event_stream_with_fraud_6B", "payload_schema_ref": "row.json"},
                {"event_type": "own_event", "schema_version_required": true, "allowed_schema_versions": ["v1"]}]}),
        ),
        payload_schemas: BTreeMap::from([(
            "row.json".to_owned(),
            json!({"type": "object", "required": ["flow_id"], "properties": {"flow_id": {"type": "integer"}}}),
        )]),
        default_profile_id: "ig.partitioning.v0.traffic".to_owned(),
        required_gates: BTreeMap::from([(
            "s3_event_stream_with_fraud_6B".to_owned(),
            vec!["gate.6B".to_owned()],
        )]),
    }
}

#[test]
fn classes_find_their_profile_and_topic() {
    let policy = AdmissionPolicy::compile(&small_files()).unwrap();
    let fraud = policy.rule("s3_event_stream_with_fraud_6B");
    assert_eq!(
        (&*fraud.topic, fraud.required_gates.len()),
        ("fp.bus.traffic.fraud.v1", 1)
    );
    assert_eq!(&*policy.rule("own_event").topic, "own.topic");
    let unknown = policy.rule("never heard of");
    assert_eq!(
        (unknown.class.as_str(), unknown.schema.is_none()),
        ("traffic", true)
    );
    assert_eq!(policy.classes(), ["own", "traffic", "traffic_fraud"]);
}

#[test]
fn mistakes_in_the_files_stop_the_start() {
    let mut files = small_files();
    files.class_map.1["event_types"]["x"] = json!("nowhere");
    assert_eq!(
        AdmissionPolicy::compile(&files).unwrap_err().code(),
        "IG_POLICY_INVALID"
    );
    let mut files = small_files();
    files.payload_schemas.clear();
    assert!(
        AdmissionPolicy::compile(&files)
            .unwrap_err()
            .to_string()
            .contains("row.json")
    );
    let mut files = small_files();
    files
        .payload_schemas
        .insert("row.json".to_owned(), json!({"oneOf": []}));
    assert_eq!(
        AdmissionPolicy::compile(&files).unwrap_err().code(),
        "IG_PAYLOAD_SCHEMA_INVALID"
    );
}

#[test]
fn half_a_decision_loop_is_refused_by_name() {
    let mut files = small_files();
    files.class_map.1["event_types"]["decision_response"] = json!("traffic");
    let error = AdmissionPolicy::compile(&files).unwrap_err();
    assert_eq!(error.code(), "IG_RTLD_POLICY_ALIGNMENT_FAILED");
    assert!(
        error
            .to_string()
            .contains("action_intent:schema_policy_missing"),
        "{error}"
    );
}

#[test]
fn the_digest_covers_paths_and_contents() {
    let first = AdmissionPolicy::compile(&small_files())
        .unwrap()
        .policy_rev
        .content_digest;
    let mut files = small_files();
    files.class_map.0 = "other.yaml".to_owned();
    assert_ne!(
        AdmissionPolicy::compile(&files)
            .unwrap()
            .policy_rev
            .content_digest,
        first
    );
}
