//! The engine as a command: its arguments with tokens filled in (contract 5.4).

use super::request::CanonicalIntent;
use super::run_record::EngineInvocation;
use crate::canonical_json::{CanonicalError, to_cj};
use crate::world::world_key::{RunReceipt, RunReceiptError};

/// Why an engine attempt failed (contract 5.4); each is a stable reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineFailure {
    /// The invocation breaks its schema.
    InvocationInvalid,
    /// There is no engine root.
    RootMissing,
    /// The engine wrote no receipt.
    ReceiptMissing,
    /// The receipt cannot be read.
    ReceiptInvalid,
    /// The receipt is of another run or world.
    ReceiptMismatch,
    /// Wiring names no engine command.
    CommandMissing,
    /// The command holds a token that has no value.
    CommandTemplateUnresolved,
    /// The engine ended with an error.
    ExitNonzero,
    /// The engine took too long and was stopped.
    Timeout,
    /// The engine could not be started or watched.
    Failed,
    /// No attempt is left.
    AttemptLimitExceeded,
}

impl EngineFailure {
    /// The stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            EngineFailure::InvocationInvalid => "ENGINE_INVOCATION_INVALID",
            EngineFailure::RootMissing => "ENGINE_ROOT_MISSING",
            EngineFailure::ReceiptMissing => "ENGINE_RECEIPT_MISSING",
            EngineFailure::ReceiptInvalid => "ENGINE_RECEIPT_INVALID",
            EngineFailure::ReceiptMismatch => "ENGINE_RECEIPT_MISMATCH",
            EngineFailure::CommandMissing => "ENGINE_COMMAND_MISSING",
            EngineFailure::CommandTemplateUnresolved => "ENGINE_COMMAND_TEMPLATE_UNRESOLVED",
            EngineFailure::ExitNonzero => "ENGINE_EXIT_NONZERO",
            EngineFailure::Timeout => "ENGINE_TIMEOUT",
            EngineFailure::Failed => "ENGINE_FAILED",
            EngineFailure::AttemptLimitExceeded => "ATTEMPT_LIMIT_EXCEEDED",
        }
    }

    /// True when another attempt of the same command may end differently.
    pub fn may_pass_next_time(self) -> bool {
        matches!(
            self,
            EngineFailure::ExitNonzero | EngineFailure::Timeout | EngineFailure::Failed
        )
    }
}

/// A command ready to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCommand {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The invocation as CJ, also given in the environment.
    pub invocation_json: String,
    /// Where the engine writes, also given in the environment.
    pub engine_run_root: String,
}

/// Fills the tokens of the wiring's engine command.
pub fn engine_command(
    template: &[String],
    invocation: &EngineInvocation,
    intent: &CanonicalIntent,
    engine_run_root: &str,
) -> Result<Result<EngineCommand, EngineFailure>, CanonicalError> {
    let invocation_json = to_cj(invocation)?;
    let scenario_set = intent.scenario_set.as_deref().unwrap_or_default().join(",");
    let tokens = [
        (
            "manifest_fingerprint",
            invocation.manifest_fingerprint.clone(),
        ),
        ("parameter_hash", invocation.parameter_hash.clone()),
        ("seed", invocation.seed.to_string()),
        ("run_id", invocation.run_id.clone()),
        ("scenario_id", intent.scenario_id.clone()),
        ("scenario_set", scenario_set),
        ("engine_run_root", engine_run_root.to_owned()),
        ("invocation_json", invocation_json.clone()),
    ];
    let mut filled = Vec::with_capacity(template.len());
    for text in template {
        match fill(text, &tokens) {
            Some(text) => filled.push(text),
            None => return Ok(Err(EngineFailure::CommandTemplateUnresolved)),
        }
    }
    let mut parts = filled.into_iter();
    let Some(program) = parts.next().filter(|program| !program.is_empty()) else {
        return Ok(Err(EngineFailure::CommandMissing));
    };
    Ok(Ok(EngineCommand {
        program,
        arguments: parts.collect(),
        invocation_json,
        engine_run_root: engine_run_root.to_owned(),
    }))
}

/// Fills `{name}` tokens. `None` when a `{word}` is left that has no value; other braces stay.
fn fill(text: &str, tokens: &[(&str, String)]) -> Option<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        let inner = &rest[open + 1..];
        let name = inner
            .split_once('}')
            .map(|(name, _)| name)
            .filter(|name| is_word(name));
        match name {
            Some(name) => {
                filled.push_str(&tokens.iter().find(|(token, _)| *token == name)?.1);
                rest = &inner[name.len() + 1..];
            }
            None => {
                filled.push('{');
                rest = inner;
            }
        }
    }
    filled.push_str(rest);
    Some(filled)
}

fn is_word(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Checks that the engine's receipt is of this run and world (contract 5.4).
pub fn check_engine_receipt(
    receipt: Option<&[u8]>,
    invocation: &EngineInvocation,
) -> Result<(), EngineFailure> {
    let bytes = receipt.ok_or(EngineFailure::ReceiptMissing)?;
    let receipt =
        RunReceipt::parse(bytes).map_err(|_: RunReceiptError| EngineFailure::ReceiptInvalid)?;
    let same = receipt.run_id == invocation.run_id
        && receipt.manifest_fingerprint == invocation.manifest_fingerprint
        && receipt.parameter_hash == invocation.parameter_hash
        && receipt.seed == invocation.seed;
    if same {
        Ok(())
    } else {
        Err(EngineFailure::ReceiptMismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<(&'static str, String)> {
        vec![("seed", "7".to_owned()), ("run_id", "{seed}".to_owned())]
    }

    #[test]
    fn tokens_are_filled_once_and_other_braces_stay() {
        assert_eq!(fill("--seed={seed}", &tokens()).unwrap(), "--seed=7");
        assert_eq!(fill("{run_id}", &tokens()).unwrap(), "{seed}");
        assert_eq!(
            fill("awk '{ print $1 }' {", &tokens()).unwrap(),
            "awk '{ print $1 }' {"
        );
    }

    #[test]
    fn a_token_without_a_value_leaves_the_command_unresolved() {
        assert_eq!(fill("{seed}/{colour}", &tokens()), None);
    }
}
