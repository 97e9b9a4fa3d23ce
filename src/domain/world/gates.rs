//! Gates of an engine world: which exist, what each depends on, how each is proven (contract 3.4).
//!
//! The rules here are pure: they parse flags and indexes and say which bytes to hash in which order. The
//! hashing itself is done by whoever holds the files.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::catalogue::{Catalogue, CatalogueError, WorldTokens};
use crate::ids::is_hex;

/// Why a gate map cannot be used, or a gate cannot be found in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateMapError {
    /// The document has another shape than a gate map.
    #[error("the gate map is not valid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The gate is not in the map.
    #[error("gate {gate_id} is not in the gate map")]
    UnknownGate {
        /// The gate asked for.
        gate_id: String,
    },
    /// The output whose gates were asked for is not known.
    #[error(transparent)]
    Output(#[from] CatalogueError),
}

impl GateMapError {
    /// The stable reason code (contract 5.5).
    pub fn code(&self) -> &'static str {
        match self {
            GateMapError::Invalid { .. } => "GATE_MAP_INVALID",
            GateMapError::UnknownGate { .. } => "UNKNOWN_GATE_ID",
            GateMapError::Output(error) => error.code(),
        }
    }
}

/// What is hashed to prove a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum DigestKind {
    /// The bytes of every file of the bundle.
    #[serde(rename = "sha256_bundle_digest")]
    Bundle,
    /// The bytes of the files the index names.
    #[serde(rename = "sha256_index_json_ascii_lex_raw_bytes")]
    IndexRawBytes,
    /// The digests the index states for its members, as text.
    #[serde(rename = "sha256_member_digest_concat")]
    MemberDigests,
}

/// In which order it is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestOrder {
    /// By relative path, bytewise.
    AsciiLex,
    /// As the index lists the files.
    IndexOrder,
    /// As the index lists its members.
    MembersArrayOrder,
}

/// What the paths inside an index are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathBase {
    /// The gate's bundle.
    Bundle,
    /// The engine run root.
    RunRoot,
}

/// How a gate is proven.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// What is hashed.
    pub kind: DigestKind,
    /// The flag's key, and a member's key inside the index.
    pub digest_field: String,
    /// In which order.
    pub order: DigestOrder,
    /// What index paths are relative to.
    pub path_base: PathBase,
    /// Names that are never hashed: the full relative path or the file name.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl Verification {
    /// True for a file that never counts.
    pub fn excludes(&self, relative_path: &str) -> bool {
        let name = relative_path.rsplit('/').next().unwrap_or(relative_path);
        self.exclude
            .iter()
            .any(|excluded| excluded == relative_path || excluded == name)
    }
}

/// One gate (contract 3.4).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The gate's name.
    pub gate_id: String,
    /// What the gate speaks about; today always `fingerprint`.
    pub scope: String,
    /// The validation bundle's folder, with tokens.
    pub bundle_root_template: String,
    /// The flag file, with tokens.
    pub passed_flag_template: String,
    /// The bundle's index file, with tokens; a bundle digest needs none.
    #[serde(default)]
    pub index_template: Option<String>,
    /// How the gate is proven.
    pub verification: Verification,
    /// Gates that must have passed too.
    #[serde(default)]
    pub upstream: Vec<String>,
    /// Outputs that may be read once the gate has passed.
    #[serde(default)]
    pub authorizes_outputs: Vec<String>,
    /// Components that must not work without the gate.
    #[serde(default)]
    pub required_by_components: Vec<String>,
}

/// A gate's files under the engine run root, tokens filled. The bundle root ends in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatePaths {
    /// The validation bundle's folder.
    pub bundle_root: String,
    /// The flag file.
    pub passed_flag: String,
    /// The index file, for gates that have one.
    pub index: Option<String>,
}

impl Gate {
    /// Fills the gate's paths. `Err` is the first path in which a brace remains: the gate is missing.
    pub fn paths(&self, tokens: &WorldTokens) -> Result<GatePaths, String> {
        let index = match &self.index_template {
            Some(template) => Some(substitute(template, tokens)?),
            None => None,
        };
        let bundle_root = substitute(&self.bundle_root_template, tokens)?;
        Ok(GatePaths {
            bundle_root: format!("{}/", bundle_root.trim_end_matches('/')),
            passed_flag: substitute(&self.passed_flag_template, tokens)?,
            index,
        })
    }
}

/// Literal replacement of every token that has a value; a brace that remains makes the path unusable.
fn substitute(template: &str, tokens: &WorldTokens) -> Result<String, String> {
    const NAMES: [&str; 6] = [
        "seed",
        "parameter_hash",
        "manifest_fingerprint",
        "scenario_id",
        "run_id",
        "utc_day",
    ];
    let mut path = template.trim().to_owned();
    for name in NAMES {
        if let Some(value) = tokens.value(name) {
            path = path.replace(&format!("{{{name}}}"), &value);
        }
    }
    match path.contains(['{', '}']) {
        true => Err(path),
        false => Ok(path),
    }
}

/// All gates of an engine, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateMap {
    gates: Vec<Gate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GateMapFile {
    #[serde(default, rename = "version")]
    _version: Value,
    gates: Vec<Gate>,
}

impl GateMap {
    /// Reads a gate map from the value its YAML file holds; every upstream gate must be in the map.
    pub fn parse(value: &Value) -> Result<GateMap, GateMapError> {
        let file = GateMapFile::deserialize(value).map_err(|error| GateMapError::Invalid {
            reason: error.to_string(),
        })?;
        let map = GateMap { gates: file.gates };
        let mut seen = BTreeSet::new();
        for gate in &map.gates {
            if !seen.insert(gate.gate_id.as_str()) {
                return Err(GateMapError::Invalid {
                    reason: format!("gate {} is listed twice", gate.gate_id),
                });
            }
            for upstream in &gate.upstream {
                map.gate(upstream)?;
            }
        }
        Ok(map)
    }

    /// One gate; an unknown gate fails closed.
    pub fn gate(&self, gate_id: &str) -> Result<&Gate, GateMapError> {
        self.gates
            .iter()
            .find(|gate| gate.gate_id == gate_id)
            .ok_or_else(|| GateMapError::UnknownGate {
                gate_id: gate_id.to_owned(),
            })
    }

    /// All gates in file order.
    pub fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// The gates with everything upstream of them, in file order.
    pub fn closure<'a>(
        &self,
        gate_ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<&Gate>, GateMapError> {
        let mut wanted = BTreeSet::new();
        let mut open: Vec<&Gate> = Vec::new();
        for gate_id in gate_ids {
            open.push(self.gate(gate_id)?);
        }
        while let Some(gate) = open.pop() {
            if wanted.insert(gate.gate_id.as_str()) {
                for upstream in &gate.upstream {
                    open.push(self.gate(upstream)?);
                }
            }
        }
        Ok(self
            .gates
            .iter()
            .filter(|gate| wanted.contains(gate.gate_id.as_str()))
            .collect())
    }

    /// Every gate that must pass before these outputs may be read, upstream gates included.
    pub fn required_gates<'a>(
        &self,
        catalogue: &Catalogue,
        output_ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<&Gate>, GateMapError> {
        let mut direct = BTreeSet::new();
        for output_id in output_ids {
            let entry = catalogue.output(output_id)?;
            direct.extend(entry.read_requires_gates.iter().map(String::as_str));
        }
        self.closure(direct)
    }

    /// For each output the gates its entry names, without upstream gates.
    pub fn direct_gates<'a>(
        catalogue: &Catalogue,
        output_ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, Vec<String>>, GateMapError> {
        let mut gates = BTreeMap::new();
        for output_id in output_ids {
            let entry = catalogue.output(output_id)?;
            gates.insert(output_id.to_owned(), entry.read_requires_gates.clone());
        }
        Ok(gates)
    }
}

/// Why a gate contradicts itself: the evidence exists and is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateConflict {
    /// The flag is neither of the two known forms, or speaks of another digest.
    #[error("the flag does not carry a {digest_field} of 64 hex digits")]
    FlagUnreadable {
        /// The key the flag must have.
        digest_field: String,
    },
    /// The index is not JSON of a known shape.
    #[error("the index cannot be read: {reason}")]
    IndexUnreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not those the flag was written for.
    #[error("the flag says {flag}, the bundle is {actual}")]
    DigestDiffers {
        /// The flag's digest.
        flag: String,
        /// The recomputed digest.
        actual: String,
    },
}

/// The digest a flag states: `digest_field = hex` as text, or a JSON object with that member.
pub fn parse_flag(bytes: &[u8], digest_field: &str) -> Result<String, GateConflict> {
    let unreadable = || GateConflict::FlagUnreadable {
        digest_field: digest_field.to_owned(),
    };
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable())?.trim();
    let hex = if text.starts_with('{') {
        let value: Value = serde_json::from_str(text).map_err(|_| unreadable())?;
        value
            .get(digest_field)
            .and_then(Value::as_str)
            .map(str::to_owned)
    } else {
        text.split_once('=')
            .filter(|(key, _)| key.trim() == digest_field)
            .map(|(_, value)| value.trim().to_owned())
    };
    hex.filter(|hex| is_hex(hex, 64)).ok_or_else(unreadable)
}

/// The file paths an index names, in its order: a bare list, or the first of `items`, `members`,
/// `entries`, `files`. Excluded names are dropped; `ascii_lex` sorts.
pub fn index_paths(bytes: &[u8], rule: &Verification) -> Result<Vec<String>, GateConflict> {
    let value = index_value(bytes)?;
    let items = index_items(&value, &["items", "members", "entries", "files"])?;
    let mut paths: Vec<String> = items
        .iter()
        .filter_map(|item| item.get("path").and_then(Value::as_str))
        .filter(|path| !rule.excludes(path))
        .map(str::to_owned)
        .collect();
    if rule.order == DigestOrder::AsciiLex {
        paths.sort_unstable();
    }
    Ok(paths)
}

/// The digests an index states for its `members` (or `items`), in array order.
pub fn member_digests(bytes: &[u8], rule: &Verification) -> Result<Vec<String>, GateConflict> {
    let value = index_value(bytes)?;
    let items = index_items(&value, &["members", "items"])?;
    items
        .iter()
        .map(
            |item| match item.get(&rule.digest_field).and_then(Value::as_str) {
                Some(digest) => Ok(digest.to_owned()),
                None => Err(GateConflict::IndexUnreadable {
                    reason: format!("a member has no {}", rule.digest_field),
                }),
            },
        )
        .collect()
}

fn index_value(bytes: &[u8]) -> Result<Value, GateConflict> {
    serde_json::from_slice(bytes).map_err(|error| GateConflict::IndexUnreadable {
        reason: error.to_string(),
    })
}

fn index_items<'a>(value: &'a Value, names: &[&str]) -> Result<&'a [Value], GateConflict> {
    let list = match value {
        Value::Array(list) => Some(list),
        _ => names
            .iter()
            .find_map(|name| value.get(name))
            .and_then(Value::as_array),
    };
    list.map(Vec::as_slice)
        .ok_or_else(|| GateConflict::IndexUnreadable {
            reason: format!("no list under {}", names.join(", ")),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map() -> GateMap {
        let gate = |id: &str, upstream: &[&str]| {
            json!({"gate_id": id, "scope": "fingerprint",
                "bundle_root_template": "v/{manifest_fingerprint}", "passed_flag_template": "v/{manifest_fingerprint}/_passed.flag",
                "verification": {"kind": "sha256_bundle_digest", "digest_field": "sha256_hex", "order": "ascii_lex", "path_base": "bundle"},
                "upstream": upstream})
        };
        GateMap::parse(&json!({"version": "v0", "gates": [
            gate("a", &[]), gate("b", &["a"]), gate("c", &["b"]), gate("d", &[])
        ]}))
        .unwrap()
    }

    fn rule(order: &str) -> Verification {
        Verification::deserialize(&json!({"kind": "sha256_index_json_ascii_lex_raw_bytes",
            "digest_field": "sha256_hex", "order": order, "path_base": "bundle",
            "exclude": ["_passed.flag", "index.json"]}))
        .unwrap()
    }

    #[test]
    fn the_closure_takes_every_upstream_gate_once_and_keeps_file_order() {
        let map = map();
        let ids: Vec<&str> = map
            .closure(["c"])
            .unwrap()
            .iter()
            .map(|gate| gate.gate_id.as_str())
            .collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(map.closure(["x"]).unwrap_err().code(), "UNKNOWN_GATE_ID");
    }

    #[test]
    fn a_map_whose_upstream_gate_is_not_listed_is_refused() {
        let value = json!({"gates": [{"gate_id": "a", "scope": "fingerprint", "bundle_root_template": "v",
            "passed_flag_template": "v/f", "upstream": ["ghost"],
            "verification": {"kind": "sha256_bundle_digest", "digest_field": "x", "order": "ascii_lex", "path_base": "bundle"}}]});
        assert_eq!(
            GateMap::parse(&value).unwrap_err().code(),
            "UNKNOWN_GATE_ID"
        );
    }

    #[test]
    fn a_brace_that_remains_makes_the_paths_unusable() {
        let map = map();
        let without = WorldTokens::default();
        assert!(map.gate("a").unwrap().paths(&without).is_err());
        let with = WorldTokens {
            manifest_fingerprint: Some("ff".to_owned()),
            ..WorldTokens::default()
        };
        assert_eq!(
            map.gate("a").unwrap().paths(&with).unwrap().bundle_root,
            "v/ff/"
        );
    }

    #[test]
    fn both_flag_forms_give_their_digest_and_everything_else_is_a_conflict() {
        let hex = "0f".repeat(32);
        let text = format!("sha256_hex = {hex}\n");
        let object = format!(r#"{{"manifest_fingerprint": "x", "sha256_hex": "{hex}"}}"#);
        assert_eq!(parse_flag(text.as_bytes(), "sha256_hex").unwrap(), hex);
        assert_eq!(parse_flag(object.as_bytes(), "sha256_hex").unwrap(), hex);
        for bad in [
            "",
            "FAIL",
            "sha256_hex",
            "status = FAIL",
            "sha256_hex = FAIL",
            "{}",
            "{",
            "other = 00",
        ] {
            assert!(parse_flag(bad.as_bytes(), "sha256_hex").is_err(), "{bad}");
        }
        assert!(parse_flag(text.as_bytes(), "bundle_digest_sha256").is_err());
    }

    #[test]
    fn index_paths_drop_excluded_names_and_keep_or_sort_the_order() {
        let index = br#"{"items": [{"path": "z"}, {"path": "a/b"}, {"path": "deep/index.json"}, {"path": "_passed.flag"}]}"#;
        assert_eq!(
            index_paths(index, &rule("index_order")).unwrap(),
            ["z", "a/b"]
        );
        assert_eq!(
            index_paths(index, &rule("ascii_lex")).unwrap(),
            ["a/b", "z"]
        );
        let bare = br#"[{"path": "y"}]"#;
        assert_eq!(index_paths(bare, &rule("ascii_lex")).unwrap(), ["y"]);
        assert!(index_paths(b"{\"other\": []}", &rule("ascii_lex")).is_err());
        assert!(index_paths(b"not json", &rule("ascii_lex")).is_err());
    }

    #[test]
    fn member_digests_come_in_array_order_and_a_member_without_one_is_a_conflict() {
        let index = br#"{"members": [{"sha256_hex": "bb"}, {"sha256_hex": "aa"}]}"#;
        assert_eq!(
            member_digests(index, &rule("members_array_order")).unwrap(),
            ["bb", "aa"]
        );
        assert!(member_digests(br#"{"members": [{}]}"#, &rule("members_array_order")).is_err());
    }
}
