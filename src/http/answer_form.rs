//! How much of a decision a caller wants to be told: `Prefer: return=minimal` (RFC 7240).
//!
//! A receipt is three times as long as the event it is about. Who only needs to know what was decided asks for
//! the reference, gets what an item of a batch gets, and can look the receipt up at any time.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The request header.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The header of an answer that says the preference was honoured, and its value.
pub const APPLIED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("preference-applied"),
    HeaderValue::from_static(RETURN_MINIMAL),
);

/// The preference for a short answer.
pub const RETURN_MINIMAL: &str = "return=minimal";

/// What the answer to a single push holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    /// The decision with its whole receipt.
    Receipt,
    /// The decision and where its receipt is.
    Reference,
}

impl AnswerForm {
    /// What the headers of a request ask for. The first `return` counts; what is not understood is ignored.
    pub fn of(headers: &HeaderMap) -> AnswerForm {
        let lines = headers.get_all(PREFER).into_iter();
        let mut preferences = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        match preferences.find_map(returned) {
            Some(value) if value.eq_ignore_ascii_case("minimal") => AnswerForm::Reference,
            _ => AnswerForm::Receipt,
        }
    }
}

/// The value of `return`, if the preference is that one. Parameters behind a semicolon say nothing here.
fn returned(preference: &str) -> Option<&str> {
    let (name, value) = preference.split(';').next()?.split_once('=')?;
    let is_return = name.trim().eq_ignore_ascii_case("return");
    is_return.then(|| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(lines: &[&str]) -> AnswerForm {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_str(line).unwrap());
        }
        AnswerForm::of(&headers)
    }

    #[test]
    fn only_a_wish_for_little_changes_the_answer() {
        for minimal in [
            &["return=minimal"][..],
            &["Return = \"minimal\""],
            &["wait=10, return=minimal;foo=\"bar\""],
            &["respond-async", "return=MINIMAL"],
            &["return=minimal", "return=representation"],
        ] {
            assert_eq!(form(minimal), AnswerForm::Reference, "{minimal:?}");
        }
        for whole in [
            &[][..],
            &["return=representation"],
            &["return"],
            &["minimal"],
            &["returned=minimal"],
            &["return=representation, return=minimal"],
            &["wait=10;return=minimal"],
        ] {
            assert_eq!(form(whole), AnswerForm::Receipt, "{whole:?}");
        }
    }
}
