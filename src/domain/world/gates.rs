//! Gates of an engine world: which exist, what each depends on, how each is proven (contract 3.4).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::catalogue::{Catalogue, CatalogueError, WorldTokens};

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
}
