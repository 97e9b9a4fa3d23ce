//! The run request and its canonical form (contract 5.1).
//!
//! Two requests mean the same run when their canonical intents are equal: the intent fingerprint
//! covers the world, the scenario and the window, and nothing else (contract 1.2, V4).

use serde::{Deserialize, Deserializer, Serialize};

use super::document::{DocumentError, FieldCheck, is_output_id};
use crate::canonical_json::CanonicalError;
use crate::ids;
use crate::time_text::Micros;

/// The document's name in errors.
const KIND: &str = "run_request";

/// Limits of a run request; everything a caller can make long has one.
pub mod limits {
    /// Characters of a run equivalence key.
    pub const EQUIVALENCE_KEY_CHARS_MAX: usize = 512;
    /// Characters of a scenario id (contract 5.1).
    pub const SCENARIO_ID_CHARS_MAX: usize = 512;
    /// Scenarios in one set.
    pub const SCENARIO_SET_MAX: usize = 256;
    /// Outputs of one request.
    pub const OUTPUT_IDS_MAX: usize = 256;
    /// Characters of an invoker (contract 3.5).
    pub const INVOKER_CHARS_MAX: usize = 128;
    /// Characters of free text and paths.
    pub const TEXT_CHARS_MAX: usize = 2048;
}

/// How evidence is to be found (contract 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    /// Prove what lies in the engine root; never invokes the engine.
    Auto,
    /// Run the engine first, then prove what it wrote.
    ForceInvoke,
    /// The same as AUTO, said explicitly.
    ForceReuse,
}

impl Strategy {
    /// The name in plans and requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Auto => "AUTO",
            Strategy::ForceInvoke => "FORCE_INVOKE",
            Strategy::ForceReuse => "FORCE_REUSE",
        }
    }
}

/// One scenario or a set of scenarios; exactly one of the two is present (contract 5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioBinding {
    /// One scenario.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario_id: Option<String>,
    /// Several scenarios.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario_set: Option<Vec<String>>,
}

/// The time window of a run; both ends carry a zone, start before end (contract 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestWindow {
    /// First instant.
    pub window_start_utc: String,
    /// First instant after the window.
    pub window_end_utc: String,
    /// Time zone of the business day.
    #[serde(default = "utc")]
    pub window_tz: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A run request as callers send it (contract 5.1); closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The caller's idempotency key.
    pub run_equivalence_key: String,
    /// The sealed world.
    pub manifest_fingerprint: String,
    /// The parameter bundle.
    pub parameter_hash: String,
    /// The world's seed.
    #[serde(deserialize_with = "whole_number")]
    pub seed: u64,
    /// What to run.
    pub scenario: ScenarioBinding,
    /// When.
    pub window: RequestWindow,
    /// How to find evidence; the policy's default is AUTO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_strategy: Option<Strategy>,
    /// Outputs to prove; default is the policy's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_ids: Option<Vec<String>>,
    /// The engine root, unless wiring pins one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_run_root: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoker: Option<String>,
    /// The caller's id of this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// JSON's `integer` accepts `7` and `7.0` and nothing else (contract 0.2, schema note).
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    use serde::de::Error;
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number
        .as_f64()
        .filter(|float| float.fract() == 0.0 && (0.0..1.8e19).contains(float));
    number
        .as_u64()
        .or_else(|| whole.map(|float| float as u64))
        .ok_or_else(|| D::Error::custom("must be a whole number from 0 to 2^64-1"))
}

/// A request that was checked and brought into its one canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalIntent {
    /// The run id that follows from the equivalence key (V1).
    pub run_id: String,
    /// The equivalence key.
    pub run_equivalence_key: String,
    /// The sealed world.
    pub manifest_fingerprint: String,
    /// The parameter bundle.
    pub parameter_hash: String,
    /// The world's seed.
    pub seed: u64,
    /// The scenario, or the id that stands for the set (V3).
    pub scenario_id: String,
    /// The set, sorted and without repeats.
    pub scenario_set: Option<Vec<String>>,
    /// First instant of the window.
    pub window_start: Micros,
    /// First instant after it.
    pub window_end: Micros,
    /// Time zone of the business day.
    pub window_tz: String,
    /// What the caller asked for.
    pub requested_strategy: Option<Strategy>,
    /// Outputs asked for, sorted and without repeats; `None` means the policy's list.
    pub output_ids: Option<Vec<String>>,
    /// Engine root asked for.
    pub engine_run_root: Option<String>,
    /// Free text.
    pub notes: Option<String>,
    /// Who asks.
    pub invoker: Option<String>,
    /// The caller's id of this request.
    pub request_id: Option<String>,
}

/// The members that the intent fingerprint covers, in one place (contract 1.2).
#[derive(Serialize)]
struct FingerprintInput<'a> {
    manifest_fingerprint: &'a str,
    parameter_hash: &'a str,
    seed: u64,
    scenario_id: &'a str,
    scenario_set: Option<&'a [String]>,
    window_start_utc: String,
    window_end_utc: String,
    window_tz: &'a str,
}

impl CanonicalIntent {
    /// `intent_fingerprint` (V4): equal for requests that mean the same run.
    pub fn fingerprint(&self) -> Result<String, CanonicalError> {
        ids::hash_sj(&FingerprintInput {
            manifest_fingerprint: &self.manifest_fingerprint,
            parameter_hash: &self.parameter_hash,
            seed: self.seed,
            scenario_id: &self.scenario_id,
            scenario_set: self.scenario_set.as_deref(),
            window_start_utc: self.window_start.format_off(),
            window_end_utc: self.window_end.format_off(),
            window_tz: &self.window_tz,
        })
    }

    /// The scenario binding as the engine invocation carries it (contract 3.5).
    pub fn scenario_binding(&self) -> ScenarioBinding {
        match &self.scenario_set {
            Some(set) => ScenarioBinding {
                scenario_id: None,
                scenario_set: Some(set.clone()),
            },
            None => ScenarioBinding {
                scenario_id: Some(self.scenario_id.clone()),
                scenario_set: None,
            },
        }
    }
}

impl RunRequest {
    /// Checks the request and brings it into canonical form.
    pub fn canonicalise(&self) -> Result<CanonicalIntent, DocumentError> {
        self.check_fields()?;
        let (scenario_id, scenario_set) = canonical_scenario(&self.scenario)?;
        let (window_start, window_end) = canonical_window(&self.window)?;
        Ok(CanonicalIntent {
            run_id: ids::scenario_run_id(&self.run_equivalence_key),
            run_equivalence_key: self.run_equivalence_key.clone(),
            manifest_fingerprint: self.manifest_fingerprint.clone(),
            parameter_hash: self.parameter_hash.clone(),
            seed: self.seed,
            scenario_id,
            scenario_set,
            window_start,
            window_end,
            window_tz: self.window.window_tz.clone(),
            requested_strategy: self.requested_strategy,
            output_ids: self.output_ids.as_deref().map(sorted_unique),
            engine_run_root: non_empty(&self.engine_run_root),
            notes: self.notes.clone(),
            invoker: non_empty(&self.invoker),
            request_id: self.request_id.clone(),
        })
    }

    fn check_fields(&self) -> Result<(), DocumentError> {
        let check = FieldCheck(KIND);
        check.text(
            "run_equivalence_key",
            &self.run_equivalence_key,
            limits::EQUIVALENCE_KEY_CHARS_MAX,
        )?;
        check.hex64("manifest_fingerprint", &self.manifest_fingerprint)?;
        check.hex64("parameter_hash", &self.parameter_hash)?;
        if let Some(outputs) = &self.output_ids {
            check.rule(
                "output_ids",
                !outputs.is_empty(),
                "must name at least one output",
            )?;
            let few = outputs.len() <= limits::OUTPUT_IDS_MAX;
            check.rule("output_ids", few, "names too many outputs")?;
            let named = outputs.iter().all(|id| is_output_id(id));
            check.rule("output_ids", named, "holds a text that is not an output id")?;
        }
        let fits = |text: &Option<String>, chars_max: usize| {
            text.as_ref()
                .is_none_or(|text| text.chars().count() <= chars_max)
        };
        let long = "is too long";
        check.rule(
            "invoker",
            fits(&self.invoker, limits::INVOKER_CHARS_MAX),
            long,
        )?;
        check.rule("notes", fits(&self.notes, limits::TEXT_CHARS_MAX), long)?;
        check.rule(
            "request_id",
            fits(&self.request_id, limits::TEXT_CHARS_MAX),
            long,
        )?;
        check.rule(
            "engine_run_root",
            fits(&self.engine_run_root, limits::TEXT_CHARS_MAX),
            long,
        )
    }
}

fn non_empty(text: &Option<String>) -> Option<String> {
    text.as_ref()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

fn sorted_unique(texts: &[String]) -> Vec<String> {
    let mut sorted = texts.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

fn canonical_scenario(
    scenario: &ScenarioBinding,
) -> Result<(String, Option<Vec<String>>), DocumentError> {
    let check = FieldCheck(KIND);
    match (&scenario.scenario_id, &scenario.scenario_set) {
        (Some(id), None) => {
            check.text("scenario.scenario_id", id, limits::SCENARIO_ID_CHARS_MAX)?;
            check.rule("scenario.scenario_id", is_path_safe(id), NOT_PATH_SAFE)?;
            Ok((id.clone(), None))
        }
        (None, Some(set)) => {
            let sized = (1..=limits::SCENARIO_SET_MAX).contains(&set.len());
            check.rule(
                "scenario.scenario_set",
                sized,
                "must hold 1 to 256 scenarios",
            )?;
            for id in set {
                check.text("scenario.scenario_set", id, limits::SCENARIO_ID_CHARS_MAX)?;
                check.rule("scenario.scenario_set", is_path_safe(id), NOT_PATH_SAFE)?;
            }
            Ok((ids::scenario_set_id(set), Some(sorted_unique(set))))
        }
        _both_or_none => Err(DocumentError::new(
            KIND,
            "scenario",
            "must have exactly one of scenario_id and scenario_set",
        )),
    }
}

const NOT_PATH_SAFE: &str = "must not hold slashes or control characters: it becomes part of paths";

/// Scenario ids are filled into path templates and store keys.
fn is_path_safe(id: &str) -> bool {
    !id.contains(['/', '\\']) && !id.chars().any(char::is_control)
}

fn canonical_window(window: &RequestWindow) -> Result<(Micros, Micros), DocumentError> {
    let check = FieldCheck(KIND);
    let instant = |field: &str, text: &str| {
        check.rule(
            field,
            has_zone(text),
            "must carry a time zone (Z or an offset)",
        )?;
        Micros::parse_any(text).map_err(|error| DocumentError::new(KIND, field, error.to_string()))
    };
    let start = instant("window.window_start_utc", &window.window_start_utc)?;
    let end = instant("window.window_end_utc", &window.window_end_utc)?;
    check.rule(
        "window.window_end_utc",
        start < end,
        "must be after window_start_utc",
    )?;
    check.text("window.window_tz", &window.window_tz, 64)?;
    Ok((start, end))
}

/// True when an ISO text ends in `Z` or an offset; a date's own dashes do not count.
fn has_zone(text: &str) -> bool {
    let Some((_date, time)) = text.trim().split_once(['T', 't', ' ']) else {
        return false;
    };
    time.ends_with(['Z', 'z']) || time.contains(['+', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> serde_json::Value {
        json!({
            "run_equivalence_key": "parity_20260101T000000Z",
            "manifest_fingerprint": "a".repeat(64), "parameter_hash": "b".repeat(64), "seed": 42,
            "scenario": {"scenario_id": "baseline_v1"},
            "window": {"window_start_utc": "2026-01-01T00:00:00Z",
                       "window_end_utc": "2026-01-02T00:00:00+00:00"}
        })
    }

    fn canonical(value: serde_json::Value) -> Result<CanonicalIntent, String> {
        let request: RunRequest = serde_json::from_value(value).map_err(|e| e.to_string())?;
        request.canonicalise().map_err(|e| e.to_string())
    }

    #[test]
    fn the_run_id_and_the_fingerprint_equal_vectors_v1_and_v4() {
        let intent = canonical(request()).unwrap();
        assert_eq!(intent.run_id, "e4f2285913cc771d0d8dd1ad475f7a01");
        assert_eq!(
            intent.fingerprint().unwrap(),
            "0d345b7c225c5c9a419c613f4582277dda3ea51e2e898fb0a5a578e8901471c7"
        );
    }

    #[test]
    fn outputs_root_strategy_and_invoker_do_not_change_the_fingerprint() {
        let mut other = request();
        other["output_ids"] = json!(["x", "a"]);
        other["engine_run_root"] = json!("/world");
        other["requested_strategy"] = json!("FORCE_INVOKE");
        other["invoker"] = json!("me");
        other["window"]["window_start_utc"] = json!("2026-01-01T01:00:00+01:00");
        let (one, two) = (canonical(request()).unwrap(), canonical(other).unwrap());
        assert_eq!(one.fingerprint().unwrap(), two.fingerprint().unwrap());
        assert_eq!(two.output_ids, Some(vec!["a".to_owned(), "x".to_owned()]));
    }

    #[test]
    fn a_scenario_set_is_named_by_vector_v3_whatever_its_order() {
        let mut set = request();
        set["scenario"] = json!({"scenario_set": ["stress", "baseline", "stress"]});
        let intent = canonical(set).unwrap();
        assert_eq!(intent.scenario_id, "scnset_9b4791e078cca7c9");
        assert_eq!(intent.scenario_set.as_ref().unwrap().len(), 2);
        assert_eq!(intent.scenario_binding().scenario_id, None);
    }

    #[test]
    fn a_malformed_request_is_refused_and_the_field_is_named() {
        let long = "x".repeat(513);
        let cases = [
            ("scenario", json!({"scenario": {}})),
            (
                "scenario",
                json!({"scenario": {"scenario_id": "a", "scenario_set": ["b"]}}),
            ),
            ("scenario_id", json!({"scenario": {"scenario_id": ""}})),
            ("scenario_id", json!({"scenario": {"scenario_id": long}})),
            ("slashes", json!({"scenario": {"scenario_id": "../up"}})),
            ("scenario_set", json!({"scenario": {"scenario_set": []}})),
            (
                "manifest_fingerprint",
                json!({"manifest_fingerprint": "A".repeat(64)}),
            ),
            ("parameter_hash", json!({"parameter_hash": "b".repeat(63)})),
            ("run_equivalence_key", json!({"run_equivalence_key": ""})),
            ("whole number", json!({"seed": -1})),
            ("whole number", json!({"seed": 1.5})),
            ("invalid type", json!({"seed": "42"})),
            ("invalid type", json!({"seed": true})),
            ("output_ids", json!({"output_ids": []})),
            ("output_ids", json!({"output_ids": ["a/b"]})),
            ("invoker", json!({"invoker": "x".repeat(129)})),
            ("unknown field", json!({"surprise": 1})),
            ("unknown variant", json!({"requested_strategy": "ready"})),
            (
                "zone",
                window("2026-01-01T00:00:00", "2026-01-02T00:00:00Z"),
            ),
            ("zone", window("2026-01-01", "2026-01-02T00:00:00Z")),
            (
                "after",
                window("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"),
            ),
            (
                "not a timestamp",
                window("2026-13-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ),
        ];
        for (word, change) in cases {
            let mut bad = request();
            for (key, value) in change.as_object().unwrap() {
                bad[key] = value.clone();
            }
            let error = canonical(bad).expect_err(&format!("{change} is accepted"));
            assert!(error.contains(word), "{change}: {error}");
        }
    }

    fn window(start: &str, end: &str) -> serde_json::Value {
        json!({"window": {"window_start_utc": start, "window_end_utc": end}})
    }

    #[test]
    fn a_seed_written_as_a_whole_float_is_a_whole_number() {
        let mut float = request();
        float["seed"] = json!(42.0);
        assert_eq!(canonical(float).unwrap().seed, 42);
        let mut top = request();
        top["seed"] = json!(u64::MAX);
        assert_eq!(canonical(top).unwrap().seed, u64::MAX);
    }
}
