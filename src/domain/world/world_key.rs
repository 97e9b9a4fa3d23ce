//! The engine's run receipt and the world key it carries (contract 3.1).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalogue::WorldTokens;
use crate::ids::is_hex;

/// The file under the engine run root that says which world lies there.
pub const RUN_RECEIPT_FILE: &str = "run_receipt.json";

/// Why a run receipt does not name a world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunReceiptError {
    /// The bytes are not a JSON object.
    #[error("the run receipt cannot be read: {reason}")]
    Unreadable {
        /// What the reader saw.
        reason: String,
    },
    /// A required member is absent or has another form.
    #[error("the run receipt does not carry a valid {field}")]
    Invalid {
        /// The member.
        field: &'static str,
    },
}

impl RunReceiptError {
    /// The stable reason code (contract 4.1).
    pub fn code(&self) -> &'static str {
        match self {
            RunReceiptError::Unreadable { .. } => "RUN_RECEIPT_UNREADABLE",
            RunReceiptError::Invalid { .. } => "RUN_RECEIPT_INVALID",
        }
    }

    /// The code where a world key is needed rather than the receipt itself (contract 3.6, 6.4).
    pub fn world_key_code(&self) -> &'static str {
        match self {
            RunReceiptError::Unreadable { .. } => "RUN_RECEIPT_UNREADABLE",
            RunReceiptError::Invalid { .. } => "WORLD_KEY_MISSING",
        }
    }
}

/// What an engine run says about itself; other members of the file are ignored (contract 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReceipt {
    /// The engine run.
    pub run_id: String,
    /// The sealed world.
    pub manifest_fingerprint: String,
    /// The parameter bundle.
    pub parameter_hash: String,
    /// The world's seed.
    pub seed: u64,
}

impl RunReceipt {
    /// Reads the receipt's bytes.
    pub fn parse(bytes: &[u8]) -> Result<RunReceipt, RunReceiptError> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| RunReceiptError::Unreadable {
                reason: error.to_string(),
            })?;
        if !value.is_object() {
            return Err(RunReceiptError::Unreadable {
                reason: "not a JSON object".to_owned(),
            });
        }
        Ok(RunReceipt {
            manifest_fingerprint: hex_member(&value, "manifest_fingerprint", 64)?,
            parameter_hash: hex_member(&value, "parameter_hash", 64)?,
            seed: seed_member(&value)?,
            run_id: hex_member(&value, "run_id", 32)?,
        })
    }

    /// The key of the world under one of its scenarios.
    pub fn world_key(&self, scenario_id: &str) -> WorldKey {
        WorldKey {
            manifest_fingerprint: self.manifest_fingerprint.clone(),
            parameter_hash: self.parameter_hash.clone(),
            scenario_id: scenario_id.to_owned(),
            seed: self.seed,
        }
    }

    /// Values for path templates of this run under a scenario.
    pub fn tokens(&self, scenario_id: &str) -> WorldTokens {
        WorldTokens {
            run_id: Some(self.run_id.clone()),
            ..self.world_key(scenario_id).tokens()
        }
    }
}

fn hex_member(
    value: &Value,
    field: &'static str,
    length: usize,
) -> Result<String, RunReceiptError> {
    match value.get(field).and_then(Value::as_str) {
        Some(text) if is_hex(text, length) => Ok(text.to_owned()),
        _ => Err(RunReceiptError::Invalid { field }),
    }
}

/// The seed is a number; a decimal string is taken as the number it spells (contract 2.2).
fn seed_member(value: &Value) -> Result<u64, RunReceiptError> {
    let seed = match value.get("seed") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    seed.ok_or(RunReceiptError::Invalid { field: "seed" })
}

/// What makes two worlds the same world (contract 3.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldKey {
    /// The sealed world.
    pub manifest_fingerprint: String,
    /// The parameter bundle.
    pub parameter_hash: String,
    /// The scenario.
    pub scenario_id: String,
    /// The world's seed.
    pub seed: u64,
}

impl WorldKey {
    /// Values for path templates; `run_id` and `utc_day` stay unset.
    pub fn tokens(&self) -> WorldTokens {
        WorldTokens {
            seed: Some(self.seed),
            parameter_hash: Some(self.parameter_hash.clone()),
            manifest_fingerprint: Some(self.manifest_fingerprint.clone()),
            scenario_id: Some(self.scenario_id.clone()),
            ..WorldTokens::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(seed: &str) -> String {
        format!(
            r#"{{"run_id":"{}","manifest_fingerprint":"{}","parameter_hash":"{}","seed":{seed},"generator":"x"}}"#,
            "c".repeat(32),
            "a".repeat(64),
            "b".repeat(64)
        )
    }

    #[test]
    fn a_receipt_with_extra_members_gives_the_world_key() {
        let parsed = RunReceipt::parse(receipt("18446744073709551615").as_bytes()).unwrap();
        let key = parsed.world_key("baseline_v1");
        assert_eq!(key.seed, u64::MAX);
        assert_eq!(key.scenario_id, "baseline_v1");
        assert_eq!(parsed.tokens("s").value("run_id"), Some("c".repeat(32)));
    }

    #[test]
    fn a_seed_spelt_as_text_is_the_number_it_spells_and_anything_else_is_invalid() {
        assert_eq!(
            RunReceipt::parse(receipt("\"42\"").as_bytes())
                .unwrap()
                .seed,
            42
        );
        for bad in ["-1", "1.5", "\"x\"", "null", "true", "18446744073709551616"] {
            let error = RunReceipt::parse(receipt(bad).as_bytes()).unwrap_err();
            assert_eq!(error, RunReceiptError::Invalid { field: "seed" }, "{bad}");
            assert_eq!(error.world_key_code(), "WORLD_KEY_MISSING");
        }
    }

    #[test]
    fn bytes_that_are_not_an_object_are_unreadable() {
        for bad in ["", "{", "[]", "7"] {
            let error = RunReceipt::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.code(), "RUN_RECEIPT_UNREADABLE", "{bad}");
        }
    }

    #[test]
    fn upper_case_hex_is_not_a_fingerprint() {
        let text = receipt("1").replace(&"a".repeat(64), &"A".repeat(64));
        assert_eq!(
            RunReceipt::parse(text.as_bytes()).unwrap_err().code(),
            "RUN_RECEIPT_INVALID"
        );
    }
}
