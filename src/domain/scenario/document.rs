//! What all Scenario Runner documents share: closed schemas, checked field by field.
//!
//! serde checks the shape (types, unknown fields); the `require_*` functions here check what the
//! types cannot say: patterns, lengths, non-empty strings (contract 1.1).

use serde::de::DeserializeOwned;

use crate::ids::is_hex;
use crate::run_paths::is_platform_run_id;

/// Why a document is not valid: its kind, the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{document} is invalid: {field}: {problem}")]
pub struct DocumentError {
    /// The kind of document, for example `run_facts_view`.
    pub document: &'static str,
    /// The field that is wrong, `document` when the whole text is.
    pub field: String,
    /// What is wrong, in words.
    pub problem: String,
}

impl DocumentError {
    /// An error about one field.
    pub fn new(document: &'static str, field: &str, problem: impl Into<String>) -> DocumentError {
        DocumentError {
            document,
            field: field.to_owned(),
            problem: problem.into(),
        }
    }
}

/// A document with rules beyond its shape.
pub trait Document: DeserializeOwned {
    /// The schema's name in the contract, for example `run_ready_signal`.
    const KIND: &'static str;

    /// Checks the rules that the types cannot say.
    fn validate(&self) -> Result<(), DocumentError>;

    /// Reads and checks a document: shape first, then rules.
    fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_slice(bytes)
            .map_err(|error| DocumentError::new(Self::KIND, "document", error.to_string()))?;
        document.validate()?;
        Ok(document)
    }

    /// Reads and checks a document that is already parsed.
    fn from_value(value: serde_json::Value) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_value(value)
            .map_err(|error| DocumentError::new(Self::KIND, "document", error.to_string()))?;
        document.validate()?;
        Ok(document)
    }
}

/// True for an engine output id: 1 to 128 of `A-Z a-z 0-9 _ . -` (contract 3.5).
pub fn is_output_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Checks the fields of one document and names the first that is wrong.
pub struct FieldCheck(pub &'static str);

impl FieldCheck {
    fn fail_unless(&self, holds: bool, field: &str, problem: &str) -> Result<(), DocumentError> {
        if holds {
            Ok(())
        } else {
            Err(DocumentError::new(self.0, field, problem))
        }
    }

    /// The field must be 64 lowercase hex digits.
    pub fn hex64(&self, field: &str, text: &str) -> Result<(), DocumentError> {
        self.fail_unless(is_hex(text, 64), field, "must be 64 lowercase hex digits")
    }

    /// The field must be 32 lowercase hex digits.
    pub fn hex32(&self, field: &str, text: &str) -> Result<(), DocumentError> {
        self.fail_unless(is_hex(text, 32), field, "must be 32 lowercase hex digits")
    }

    /// The field must be a platform run id.
    pub fn platform_run_id(&self, field: &str, text: &str) -> Result<(), DocumentError> {
        self.fail_unless(
            is_platform_run_id(text.as_bytes()),
            field,
            "must look like platform_YYYYMMDDTHHMMSSZ",
        )
    }

    /// The field must have between 1 and `chars_max` characters.
    pub fn text(&self, field: &str, text: &str, chars_max: usize) -> Result<(), DocumentError> {
        self.fail_unless(!text.is_empty(), field, "must not be empty")?;
        let fits = text.chars().count() <= chars_max;
        self.fail_unless(
            fits,
            field,
            &format!("must have at most {chars_max} characters"),
        )
    }

    /// The field, when present, must have between 1 and `chars_max` characters.
    pub fn optional_text(
        &self,
        field: &str,
        text: Option<&str>,
        chars_max: usize,
    ) -> Result<(), DocumentError> {
        text.map_or(Ok(()), |text| self.text(field, text, chars_max))
    }

    /// The field must be an engine output id.
    pub fn output_id(&self, field: &str, text: &str) -> Result<(), DocumentError> {
        self.fail_unless(
            is_output_id(text),
            field,
            "must be 1 to 128 letters, digits, '_', '.' or '-'",
        )
    }

    /// Any rule, with the sentence that explains it.
    pub fn rule(&self, field: &str, holds: bool, problem: &str) -> Result<(), DocumentError> {
        self.fail_unless(holds, field, problem)
    }
}
