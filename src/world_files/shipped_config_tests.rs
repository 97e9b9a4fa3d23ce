//! The shipped configuration against the fixture world: every row of every output has the payload its schema
//! describes, and the gate's policy compiles and routes each streamed output.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use serde_json::{Map, Value, json};
use wellspring_domain::admission::payload_schema::{PayloadSchema, scan_members};
use wellspring_domain::admission::policy::{AdmissionPolicy, PolicyFiles};
use wellspring_domain::canonical_json::to_cj;

use super::evidence_digest::matched_files;
use super::parquet_reader::PartReader;
use super::part_location::PartLocation;
use super::test_world::TestWorld;
use crate::settings::refs::yaml_value;
use crate::settings::shipped;

const ROWS_PER_PART: usize = 300;

fn shipped_value(name: &str) -> Value {
    yaml_value(shipped::text_of(name).unwrap(), name).unwrap()
}

fn cell(column: &Arc<dyn Array>, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => json!(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        other => panic!("no engine column has type {other}"),
    }
}

fn payload(rows: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = rows.schema();
    let fields = schema.fields().iter().zip(rows.columns());
    fields
        .map(|(field, column)| (field.name().clone(), cell(column, row)))
        .collect()
}

fn violation(schema: &PayloadSchema, payload: &Map<String, Value>) -> Option<String> {
    let text = to_cj(payload).unwrap();
    let checked = schema.check_members(text.as_bytes(), &scan_members(text.as_bytes()));
    checked
        .err()
        .map(|violation| format!("{}: {}", violation.path, violation.rule))
}

/// An output with its schema and rows of each of its parts.
type OutputRows = (String, PayloadSchema, Vec<Map<String, Value>>);

fn outputs(world: &TestWorld) -> Vec<OutputRows> {
    let mut outputs = Vec::new();
    for entry in world.contract.catalogue.outputs() {
        let Some(schema_ref) = &entry.schema_ref else {
            continue;
        };
        let schema = PayloadSchema::compile(&shipped_value(schema_ref)).unwrap();
        let path = entry.render_path(&world.tokens()).unwrap();
        let mut rows = Vec::new();
        for part in matched_files(&world.store, &path).unwrap() {
            let mut reader = PartReader::open(
                &PartLocation::of_file(&world.root.join(part.key)),
                ROWS_PER_PART,
                0,
            )
            .unwrap();
            let batch = reader.next().unwrap().unwrap().rows;
            rows.extend((0..batch.num_rows()).map(|row| payload(&batch, row)));
        }
        assert!(!rows.is_empty());
        outputs.push((entry.output_id.clone(), schema, rows));
    }
    outputs
}

#[test]
fn rows_of_every_output_satisfy_its_schema_and_lose_it_with_a_required_column() {
    let world = TestWorld::copy();
    for (output_id, schema, rows) in outputs(&world) {
        for row in &rows {
            assert_eq!(violation(&schema, row), None, "{output_id}: {row:?}");
        }
        let name = format!("config/platform/ig/payload_schemas/{output_id}.schema.json");
        let required = shipped_value(&name)["required"].clone();
        for column in required.as_array().unwrap() {
            let mut row = rows[0].clone();
            row.remove(column.as_str().unwrap());
            assert!(
                violation(&schema, &row).is_some(),
                "{output_id} without {column}"
            );
        }
    }
}

#[test]
fn only_arrivals_and_their_entities_may_carry_columns_nobody_knows() {
    let world = TestWorld::copy();
    for (output_id, schema, rows) in outputs(&world) {
        let mut row = rows[0].clone();
        row.insert("a_new_column".to_owned(), json!(1));
        let open = ["arrival_events_5B", "s1_arrival_entities_6B"].contains(&output_id.as_str());
        assert_eq!(violation(&schema, &row).is_none(), open, "{output_id}");
    }
}

fn policy() -> AdmissionPolicy {
    let file = |path: &str| (path.to_owned(), shipped_value(path));
    let schemas = shipped::names().filter(|name| name.ends_with(".schema.json"));
    AdmissionPolicy::compile(&PolicyFiles {
        revision: "local-v0".to_owned(),
        class_map: file("config/platform/ig/class_map_v0.yaml"),
        partitioning: file("config/platform/ig/partitioning_profiles_v0.yaml"),
        schema_policy: file("config/platform/ig/schema_policy_v0.yaml"),
        payload_schemas: schemas
            .map(|name| (name.to_owned(), shipped_value(name)))
            .collect(),
        default_profile_id: "ig.partitioning.v0.traffic".to_owned(),
        required_gates: BTreeMap::new(),
    })
    .unwrap()
}

#[test]
fn the_shipped_policy_routes_each_event_type_as_the_contract_says() {
    let policy = policy();
    let expected = [
        (
            "s2_event_stream_baseline_6B",
            "traffic_baseline",
            "fp.bus.traffic.baseline.v1",
            7,
        ),
        (
            "s3_event_stream_with_fraud_6B",
            "traffic_fraud",
            "fp.bus.traffic.fraud.v1",
            7,
        ),
        (
            "arrival_events_5B",
            "context_arrival",
            "fp.bus.context.arrival_events.v1",
            7,
        ),
        (
            "s1_arrival_entities_6B",
            "context_arrival_entities",
            "fp.bus.context.arrival_entities.v1",
            7,
        ),
        (
            "s2_flow_anchor_baseline_6B",
            "context_flow_baseline",
            "fp.bus.context.flow_anchor.baseline.v1",
            7,
        ),
        (
            "s3_flow_anchor_with_fraud_6B",
            "context_flow_fraud",
            "fp.bus.context.flow_anchor.fraud.v1",
            7,
        ),
        ("decision_response", "rtdl_decision", "fp.bus.rtdl.v1", 6),
        ("action_intent", "rtdl_action_intent", "fp.bus.rtdl.v1", 6),
        ("action_outcome", "rtdl_action_outcome", "fp.bus.rtdl.v1", 6),
        ("case_trigger", "case_trigger", "fp.bus.case.triggers.v1", 6),
        ("ig.audit.verify", "audit", "fp.bus.audit.v1", 3),
        ("never_heard_of", "traffic", "fp.bus.traffic.v1", 7),
    ];
    for (event_type, class, topic, pins) in expected {
        let rule = policy.rule(event_type);
        assert_eq!(
            (rule.class.as_str(), &*rule.topic),
            (class, topic),
            "{event_type}"
        );
        assert_eq!(rule.pins.len(), pins, "{event_type}");
        assert_eq!(rule.schema.is_some(), event_type != "never_heard_of");
        let versioned = pins == 6;
        let required = rule
            .schema
            .as_ref()
            .is_some_and(|schema| schema.version_required);
        assert_eq!(required, versioned, "{event_type}");
    }
}
