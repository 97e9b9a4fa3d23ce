//! Placeholders in profile values (contract 9.4, unified to the superset).
//!
//! `${VAR}` and `${VAR:-default}` anywhere in a string; a default may hold placeholders itself. A
//! variable that is unset or blank counts as missing; missing without a default is an error that
//! names the variable (T5, W20). Never replaced by an empty text in silence.

/// Looks a variable up; `None` when unset.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a text could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// `${VAR}` without a default, and the variable is unset or blank.
    #[error("${{{variable}}} is not set")]
    Missing {
        /// The variable.
        variable: String,
    },
    /// The text is not well formed.
    #[error("{problem} in {text:?}")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
        /// The text it is wrong in.
        text: String,
    },
}

const DEPTH_MAX: usize = 8;

/// A resolved text and the variables that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The text without placeholders.
    pub text: String,
    /// Variables whose value is in the text, in order.
    pub variables: Vec<String>,
}

/// Replaces every placeholder in `text`.
pub fn resolve(text: &str, lookup: Lookup<'_>) -> Result<Resolved, PlaceholderError> {
    let mut resolved = Resolved::default();
    resolve_into(text, lookup, DEPTH_MAX, &mut resolved)?;
    Ok(resolved)
}

fn resolve_into(
    text: &str,
    lookup: Lookup<'_>,
    depth: usize,
    into: &mut Resolved,
) -> Result<(), PlaceholderError> {
    let malformed = |problem| PlaceholderError::Malformed {
        problem,
        text: text.to_string(),
    };
    if depth == 0 {
        return Err(malformed("placeholders are nested too deep"));
    }
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        into.text.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let end = closing_brace(inside).ok_or_else(|| malformed("a placeholder is not closed"))?;
        let (variable, default) = match inside[..end].split_once(":-") {
            Some((variable, default)) => (variable, Some(default)),
            None => (&inside[..end], None),
        };
        if !is_variable(variable) {
            return Err(malformed("a placeholder does not name a variable"));
        }
        match (
            lookup(variable).filter(|value| !value.trim().is_empty()),
            default,
        ) {
            (Some(value), _) => {
                into.text.push_str(&value);
                into.variables.push(variable.to_string());
            }
            (None, Some(default)) => resolve_into(default, lookup, depth - 1, into)?,
            (None, None) => {
                return Err(PlaceholderError::Missing {
                    variable: variable.to_string(),
                });
            }
        }
        rest = &inside[end + 1..];
    }
    into.text.push_str(rest);
    Ok(())
}

/// Where the brace that closes this placeholder is; defaults may hold placeholders.
fn closing_brace(inside: &str) -> Option<usize> {
    let mut open = 0;
    let bytes = inside.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if index > 0 && bytes[index - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(index),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

fn is_variable(name: &str) -> bool {
    let mut chars = name.chars();
    let first_fits = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first_fits && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)], text: &str) -> Result<String, PlaceholderError> {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.to_string())
        };
        resolve(text, &lookup).map(|resolved| resolved.text)
    }

    #[test]
    fn a_placeholder_may_stand_anywhere_in_a_text() {
        let variables = [("A", "x"), ("B_2", "y")];
        for (text, resolved) in [
            ("plain", "plain"),
            ("${A}", "x"),
            ("s3://${A}/${B_2}/z", "s3://x/y/z"),
            ("${C:-d}", "d"),
            ("${C:-}", ""),
            ("${A:-d}", "x"),
            ("${C:-${A}}", "x"),
            ("${C:-${D:-e}f}g", "efg"),
            ("$A {A} $", "$A {A} $"),
        ] {
            assert_eq!(with(&variables, text).unwrap(), resolved, "{text}");
        }
    }

    #[test]
    fn a_missing_variable_without_default_is_named() {
        let missing = |variable: &str| PlaceholderError::Missing {
            variable: variable.to_string(),
        };
        assert_eq!(
            with(&[], "x/${IG_ADMISSION_DSN}"),
            Err(missing("IG_ADMISSION_DSN"))
        );
        assert_eq!(with(&[("A", "  ")], "${A}"), Err(missing("A")));
        assert_eq!(with(&[], "${A:-${B}}"), Err(missing("B")));
    }

    #[test]
    fn malformed_placeholders_are_refused() {
        for text in ["${A", "${}", "${1A}", "${A B}", "${A:-${B}"] {
            let error = with(&[], text).unwrap_err();
            assert!(
                matches!(error, PlaceholderError::Malformed { .. }),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn a_value_from_the_environment_is_not_resolved_again() {
        assert_eq!(with(&[("A", "${B}")], "${A}").unwrap(), "${B}");
    }
}
