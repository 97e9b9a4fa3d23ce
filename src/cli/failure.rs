//! How a command ends: its outcome, its error with the reason code, and the exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use wellspring_domain::reason_codes;

/// How a command ended when nothing went wrong in the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All done (exit 0).
    Ok,
    /// The work was done and did not succeed (exit 1).
    Failed,
    /// A gate said no (exit 3).
    Refused,
    /// A verification found differences (exit 4).
    Differences,
}

impl Outcome {
    /// The process exit code of this outcome. Usage errors (2) are clap's.
    pub fn code(self) -> u8 {
        match self {
            Outcome::Ok => 0,
            Outcome::Failed => 1,
            Outcome::Refused => 3,
            Outcome::Differences => 4,
        }
    }
}

/// An error with a reason code, a sentence, and what to do about it.
///
/// Printed as `error: CODE: sentence` and `hint: ...`. Commands turn coded library errors into it
/// with [`Failure::of`]; the original error stays reachable as the cause.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {sentence}")]
pub struct Failure {
    code: String,
    sentence: String,
    hint: Option<String>,
    outcome: Outcome,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure with a stable reason code and a human sentence; it ends the program with exit 1.
    pub fn new(code: impl Into<String>, sentence: impl Into<String>) -> Self {
        Failure {
            code: code.into(),
            sentence: sentence.into(),
            hint: None,
            outcome: Outcome::Failed,
            cause: None,
        }
    }

    /// A library error that knows its reason code. Its causes are kept.
    pub fn of<E>(code: impl Into<String>, error: E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let code = code.into();
        let text = error.to_string();
        let sentence = match text.strip_prefix(&code) {
            Some(rest) => rest.trim_start_matches([':', ' ']).to_string(),
            None => text,
        };
        let cause = error.source().map(|cause| cause.to_string().into());
        Failure {
            code,
            sentence,
            hint: None,
            outcome: Outcome::Failed,
            cause,
        }
    }

    /// Adds what the reader can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Ends the program as refused by a gate (exit 3).
    pub fn refused(mut self) -> Self {
        self.outcome = Outcome::Refused;
        self
    }

    /// The stable reason code.
    pub fn code(&self) -> &str {
        &self.code
    }
}

/// Writes the error, if any, to stderr and gives the exit code.
///
/// A reader that closed our stdout (`wellspring ... | head`) has what it wanted: that is exit 0.
pub fn exit_code(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Stderr may be closed too; there is nobody left to tell.
            let _ = io::stderr().write_all(describe(&error).as_bytes());
            ExitCode::from(outcome_of(&error).code())
        }
    }
}

/// The error as the reader sees it: the causes in one line, then the hint.
pub fn describe(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Many errors repeat their cause in their own text; say it once.
        if !parts.iter().any(|said| said.contains(&text)) {
            parts.push(text);
        }
    }
    let failure = error.downcast_ref::<Failure>();
    if let Some(failure) = failure {
        let own = failure.to_string();
        if let Some(at) = parts.iter().position(|part| *part == own) {
            parts.remove(at);
            parts.insert(0, own);
        }
    }
    let mut text = format!("error: {}\n", parts.join(": "));
    if let Some(hint) = failure.and_then(hint_of) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// The hint the command gave, else where the code is explained.
fn hint_of(failure: &Failure) -> Option<String> {
    let explained =
        || reason_codes::find(&failure.code).map(|row| format!("wellspring explain {}", row.code));
    failure.hint.clone().or_else(explained)
}

fn outcome_of(error: &anyhow::Error) -> Outcome {
    error
        .downcast_ref::<Failure>()
        .map_or(Outcome::Failed, |failure| failure.outcome)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_failure_is_printed_as_code_sentence_and_hint() {
        let error = anyhow::Error::from(
            Failure::new("RUN_ID_INVALID", "'x' is not a platform run id").hint("use run new"),
        );
        assert_eq!(
            describe(&error),
            "error: RUN_ID_INVALID: 'x' is not a platform run id\nhint: use run new\n"
        );
    }

    #[test]
    fn the_code_comes_first_even_when_context_was_added_later() {
        let error = anyhow::Error::from(Failure::new("CODE", "sentence")).context("while packing");
        assert_eq!(describe(&error), "error: CODE: sentence: while packing\n");
    }

    #[test]
    fn a_code_without_a_hint_of_its_own_says_where_it_is_explained() {
        let text = describe(&Failure::new("OUTPUT_UNKNOWN:an_output", "no such output").into());
        assert!(
            text.ends_with("\nhint: wellspring explain OUTPUT_UNKNOWN\n"),
            "{text}"
        );
    }

    #[test]
    fn causes_are_said_once_each() {
        let io_error = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Err::<(), _>(io_error)
            .context("cannot read a.yaml")
            .unwrap_err();
        assert_eq!(
            describe(&error),
            "error: cannot read a.yaml: no such file\n"
        );
    }

    #[test]
    fn a_refusal_has_its_own_exit_code_and_a_broken_pipe_is_no_failure() {
        let refused = anyhow::Error::from(Failure::new("GATE_MISSING", "no PASS").refused());
        assert_eq!(outcome_of(&refused), Outcome::Refused);
        let pipe = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&pipe.context("writing the result")));
    }

    #[test]
    fn a_library_error_that_starts_with_its_code_says_it_once() {
        let failure = Failure::of("SOME_CODE", io::Error::other("SOME_CODE: the sentence"));
        assert_eq!(failure.to_string(), "SOME_CODE: the sentence");
    }
}
