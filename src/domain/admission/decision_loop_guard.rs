//! Start-up guard: the event types of the decision loop are configured as a whole (contract 7.6).

use crate::admission::policy::{ClassMap, PolicyError, SchemaEntry, SchemaPolicy};

/// The three event types of the decision loop come together or not at all (contract 7.6).
pub(super) fn check(classes: &ClassMap, schemas: &SchemaPolicy) -> Result<(), PolicyError> {
    let entry_of = |event_type: &str| {
        schemas
            .policies
            .iter()
            .find(|entry| entry.event_type == event_type)
    };
    let is_named = |event_type: &str| {
        entry_of(event_type).is_some() || classes.event_types.contains_key(event_type)
    };
    if !DECISION_LOOP
        .iter()
        .any(|(event_type, _)| is_named(event_type))
    {
        return Ok(());
    }
    let mut problems = Vec::new();
    for (event_type, class) in DECISION_LOOP {
        let found = decision_loop_problems(classes, entry_of(event_type), event_type, class);
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("{event_type}:{problem}")),
        );
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(PolicyError::DecisionLoopAlignment(problems.join(",")))
    }
}

/// Event types of the decision loop and their classes.
const DECISION_LOOP: [(&str, &str); 3] = [
    ("decision_response", "rtdl_decision"),
    ("action_intent", "rtdl_action_intent"),
    ("action_outcome", "rtdl_action_outcome"),
];

/// Pins of the decision loop: all but `run_id`.
const DECISION_LOOP_PINS: [&str; 6] = [
    "platform_run_id",
    "scenario_run_id",
    "manifest_fingerprint",
    "parameter_hash",
    "seed",
    "scenario_id",
];

fn decision_loop_problems(
    classes: &ClassMap,
    entry: Option<&SchemaEntry>,
    event_type: &str,
    class: &str,
) -> Vec<&'static str> {
    let pins = classes
        .classes
        .get(class)
        .map(|entry| entry.required_pins.as_slice())
        .unwrap_or_default();
    let pinned = |pin: &str| pins.iter().any(|have| have == pin);
    let mapped = classes
        .event_types
        .get(event_type)
        .is_some_and(|mapped| mapped == class);
    let named = |entry: &SchemaEntry| entry.class.as_deref().is_none_or(|named| named == class);
    let allows_v1 = |entry: &SchemaEntry| {
        entry
            .allowed_schema_versions
            .iter()
            .any(|version| version == "v1")
    };
    let checks = [
        ("schema_policy_missing", entry.is_some()),
        ("class_map_mismatch", mapped),
        ("class_mismatch", entry.is_some_and(named)),
        (
            "schema_version_not_required",
            entry.is_some_and(|entry| entry.schema_version_required),
        ),
        ("v1_not_allowed", entry.is_some_and(allows_v1)),
        ("run_id_pinned", !pinned("run_id")),
        (
            "pins_missing",
            DECISION_LOOP_PINS.iter().all(|pin| pinned(pin)),
        ),
    ];
    checks
        .iter()
        .filter(|(_, holds)| !holds)
        .map(|(name, _)| *name)
        .collect()
}
