//! What is wrong with the settings: every problem at once, each with its code and key.

use std::fmt;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Stable reason code.
    pub code: String,
    /// The key path, e.g. `wiring.gate.flush_bytes_max`; empty when it is about the whole file.
    pub key: String,
    /// A sentence for a person; never holds a secret.
    pub sentence: String,
}

impl Problem {
    /// A problem of one key.
    pub fn new(
        code: impl Into<String>,
        key: impl Into<String>,
        sentence: impl Into<String>,
    ) -> Self {
        Problem {
            code: code.into(),
            key: key.into(),
            sentence: sentence.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.code, self.sentence)
        } else {
            write!(f, "{}: {}: {}", self.code, self.key, self.sentence)
        }
    }
}

/// Settings that cannot be used. Holds at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    problems: Vec<Problem>,
}

impl SettingsError {
    /// An error of one problem.
    pub fn one(problem: Problem) -> Self {
        SettingsError {
            problems: vec![problem],
        }
    }

    /// `Err` with all problems if there are any.
    pub fn check(problems: Vec<Problem>) -> Result<(), SettingsError> {
        if problems.is_empty() {
            return Ok(());
        }
        Err(SettingsError { problems })
    }

    /// The reason code of the first problem.
    pub fn code(&self) -> &str {
        &self.problems[0].code
    }

    /// All problems, in the order of the keys.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                write!(f, "\n  also: ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}
