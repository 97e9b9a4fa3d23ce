//! The catalogue of engine outputs: where each lies, how its rows are keyed, what guards it (contract 3.2).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a catalogue cannot be used, or an output cannot be found in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// The document has another shape than a catalogue.
    #[error("the output catalogue is not valid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Two entries claim the same output id.
    #[error("the output catalogue lists {output_id} twice")]
    DuplicateOutput {
        /// The repeated output.
        output_id: String,
    },
    /// The output is not in the catalogue.
    #[error("output {output_id} is not in the catalogue")]
    UnknownOutput {
        /// The output asked for.
        output_id: String,
    },
    /// The entry has an empty path template.
    #[error("output {output_id} has no path template")]
    TemplateMissing {
        /// The output without a place.
        output_id: String,
    },
    /// The template names a token that has no value.
    #[error("the path template of {output_id} needs a value for {{{token}}}")]
    TokenMissing {
        /// The output whose template it is.
        output_id: String,
        /// The token without a value.
        token: String,
    },
}

impl CatalogueError {
    /// The stable reason code (contract 3.7, 4.1).
    pub fn code(&self) -> &'static str {
        match self {
            CatalogueError::Invalid { .. } | CatalogueError::DuplicateOutput { .. } => {
                "CATALOGUE_INVALID"
            }
            CatalogueError::UnknownOutput { .. } => "OUTPUT_UNKNOWN",
            CatalogueError::TemplateMissing { .. } => "OUTPUT_TEMPLATE_MISSING",
            CatalogueError::TokenMissing { .. } => "TEMPLATE_TOKEN_MISSING",
        }
    }

    /// The code with what it is about, as operators read it: `CODE:<output>[:<token>]`.
    pub fn coded(&self) -> String {
        match self {
            CatalogueError::Invalid { .. } => self.code().to_owned(),
            CatalogueError::DuplicateOutput { output_id }
            | CatalogueError::UnknownOutput { output_id }
            | CatalogueError::TemplateMissing { output_id } => {
                format!("{}:{output_id}", self.code())
            }
            CatalogueError::TokenMissing { output_id, token } => {
                format!("{}:{output_id}:{token}", self.code())
            }
        }
    }
}

/// Whether an output may be absent from a world (contract 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It must exist.
    #[default]
    Required,
    /// A world without it is complete.
    Optional,
}

/// One engine output (contract 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputEntry {
    /// The output's name; also the event type of its rows.
    pub output_id: String,
    /// `surface`, `stream` or `gate`.
    #[serde(default)]
    pub class: String,
    /// Who the output is for.
    #[serde(default)]
    pub exposure: String,
    /// Which pins an instance of the output belongs to, as a scope name.
    pub scope: String,
    /// The engine segment that writes it.
    #[serde(default)]
    pub owner_segment: String,
    /// Where it lies under the engine run root, with tokens and a glob.
    pub path_template: String,
    /// The pins a locator of the output carries.
    #[serde(default)]
    pub partitions: Vec<String>,
    /// Row schema.
    #[serde(default)]
    pub schema_ref: Option<String>,
    /// Data dictionary.
    #[serde(default)]
    pub dictionary_ref: Option<String>,
    /// The row's key; the order matters for event ids (contract 1.2).
    pub primary_key: Vec<String>,
    /// The columns other outputs join on.
    #[serde(default)]
    pub join_keys: Vec<String>,
    /// Gates that must have passed before a row may be read.
    #[serde(default)]
    pub read_requires_gates: Vec<String>,
    /// How often a partition may be written.
    #[serde(default)]
    pub immutability: String,
    /// What the output holds.
    #[serde(default)]
    pub description: String,
    /// Required unless it says optional.
    #[serde(default)]
    pub availability: Availability,
}

/// Scope words that tie an output to one instance of a world (contract 3.2).
const INSTANCE_PINS: [&str; 4] = ["seed", "scenario_id", "parameter_hash", "run_id"];

impl OutputEntry {
    /// True when the scope names a pin beyond the fingerprint: such outputs need an instance proof.
    pub fn is_instance_scoped(&self) -> bool {
        INSTANCE_PINS.iter().any(|pin| self.scope.contains(pin))
    }

    /// True when a world without this output is still complete.
    pub fn is_optional(&self) -> bool {
        self.availability == Availability::Optional
    }

    /// The output's place under the engine run root, glob kept.
    pub fn render_path(&self, tokens: &WorldTokens) -> Result<String, CatalogueError> {
        let template = self.path_template.trim();
        if template.is_empty() {
            return Err(CatalogueError::TemplateMissing {
                output_id: self.output_id.clone(),
            });
        }
        render_template(template, tokens).map_err(|token| CatalogueError::TokenMissing {
            output_id: self.output_id.clone(),
            token,
        })
    }
}

/// Values for the tokens of path templates (contract 3.1); a token without a value stays unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorldTokens {
    /// The world's seed.
    pub seed: Option<u64>,
    /// The parameter bundle.
    pub parameter_hash: Option<String>,
    /// The sealed world.
    pub manifest_fingerprint: Option<String>,
    /// The scenario.
    pub scenario_id: Option<String>,
    /// The engine run.
    pub run_id: Option<String>,
    /// The day of a day-partitioned output.
    pub utc_day: Option<String>,
}

impl WorldTokens {
    /// The value of a token by its name, if it has one.
    pub fn value(&self, token: &str) -> Option<String> {
        match token {
            "seed" => self.seed.map(|seed| seed.to_string()),
            "parameter_hash" => self.parameter_hash.clone(),
            "manifest_fingerprint" => self.manifest_fingerprint.clone(),
            "scenario_id" => self.scenario_id.clone(),
            "run_id" => self.run_id.clone(),
            "utc_day" => self.utc_day.clone(),
            _ => None,
        }
    }
}

/// Fills a template. Surrounding white space is trimmed first: templates are YAML blocks and end in a
/// newline (contract 3.1). `Err` is the first token without a value; an unclosed brace is the rest of
/// the text after it.
pub fn render_template(template: &str, tokens: &WorldTokens) -> Result<String, String> {
    let mut rendered = String::with_capacity(template.len());
    let mut rest = template.trim();
    while let Some(open) = rest.find('{') {
        rendered.push_str(&rest[..open]);
        let inner = &rest[open + 1..];
        let close = inner.find('}').ok_or_else(|| inner.to_owned())?;
        let token = &inner[..close];
        rendered.push_str(&tokens.value(token).ok_or_else(|| token.to_owned())?);
        rest = &inner[close + 1..];
    }
    rendered.push_str(rest);
    Ok(rendered)
}

/// All outputs a world may hold, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    outputs: Vec<OutputEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    #[serde(default, rename = "version")]
    _version: Value,
    outputs: Vec<OutputEntry>,
}

impl Catalogue {
    /// Reads a catalogue from the value its YAML file holds.
    pub fn parse(value: &Value) -> Result<Catalogue, CatalogueError> {
        let file = CatalogueFile::deserialize(value).map_err(|error| CatalogueError::Invalid {
            reason: error.to_string(),
        })?;
        let mut seen = BTreeSet::new();
        for entry in &file.outputs {
            if !seen.insert(entry.output_id.as_str()) {
                return Err(CatalogueError::DuplicateOutput {
                    output_id: entry.output_id.clone(),
                });
            }
        }
        Ok(Catalogue {
            outputs: file.outputs,
        })
    }

    /// The entry of an output; an unknown output fails closed.
    pub fn output(&self, output_id: &str) -> Result<&OutputEntry, CatalogueError> {
        self.outputs
            .iter()
            .find(|entry| entry.output_id == output_id)
            .ok_or_else(|| CatalogueError::UnknownOutput {
                output_id: output_id.to_owned(),
            })
    }

    /// All entries in file order.
    pub fn outputs(&self) -> &[OutputEntry] {
        &self.outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokens() -> WorldTokens {
        WorldTokens {
            seed: Some(u64::MAX),
            manifest_fingerprint: Some("ab".repeat(32)),
            ..WorldTokens::default()
        }
    }

    fn entry(template: &str, scope: &str) -> OutputEntry {
        OutputEntry::deserialize(&json!({
            "output_id": "an_output", "scope": scope, "path_template": template, "primary_key": ["seed"],
        }))
        .unwrap()
    }

    #[test]
    fn a_template_is_trimmed_and_every_token_filled() {
        let rendered = render_template("  data/seed={seed}/part-*.parquet\n", &tokens()).unwrap();
        assert_eq!(rendered, "data/seed=18446744073709551615/part-*.parquet");
    }

    #[test]
    fn a_token_without_a_value_is_named_with_its_output() {
        let error = entry("data/{scenario_id}/x", "scope_seed")
            .render_path(&tokens())
            .unwrap_err();
        assert_eq!(error.code(), "TEMPLATE_TOKEN_MISSING");
        assert_eq!(
            error.coded(),
            "TEMPLATE_TOKEN_MISSING:an_output:scenario_id"
        );
    }

    #[test]
    fn an_unclosed_brace_is_a_missing_token_and_not_a_path() {
        assert_eq!(
            render_template("data/{seed", &tokens()),
            Err("seed".to_owned())
        );
    }

    #[test]
    fn a_blank_template_is_refused_by_its_own_code() {
        let error = entry(" \n", "scope_seed")
            .render_path(&tokens())
            .unwrap_err();
        assert_eq!(error.coded(), "OUTPUT_TEMPLATE_MISSING:an_output");
    }

    #[test]
    fn only_a_scope_with_a_pin_beyond_the_fingerprint_is_instance_scoped() {
        assert!(entry("x", "scope_seed_manifest_fingerprint_scenario_id").is_instance_scoped());
        assert!(entry("x", "scope_parameter_hash").is_instance_scoped());
        assert!(!entry("x", "scope_manifest_fingerprint").is_instance_scoped());
    }

    #[test]
    fn an_unknown_output_fails_closed_and_a_repeated_one_is_refused() {
        let one = json!({"output_id": "a", "scope": "s", "path_template": "p", "primary_key": []});
        let catalogue =
            Catalogue::parse(&json!({"version": "v0", "outputs": [one.clone()]})).unwrap();
        assert_eq!(catalogue.output("b").unwrap_err().code(), "OUTPUT_UNKNOWN");
        let twice = Catalogue::parse(&json!({"outputs": [one.clone(), one]}));
        assert_eq!(twice.unwrap_err().coded(), "CATALOGUE_INVALID:a");
    }

    #[test]
    fn a_misspelt_key_in_an_entry_is_refused() {
        let value = json!({"outputs": [
            {"output_id": "a", "scope": "s", "path_template": "p", "primary_key": [], "availabilty": "optional"}
        ]});
        assert_eq!(
            Catalogue::parse(&value).unwrap_err().code(),
            "CATALOGUE_INVALID"
        );
    }
}
