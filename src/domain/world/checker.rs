//! The Oracle checker's report and the rules that need no files (contract 4).
//!
//! The report's JSON is read by other programs: its keys are fixed, its status follows from its issues, and
//! its reason codes name both spellings where two are in use (contract 0.3, D1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::catalogue::{Catalogue, CatalogueError};
use crate::canonical_json::{CanonicalError, to_sj};
use crate::scenario::facts_view::{OutputRole, RunFactsView};

/// How bad an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// The world must not be used.
    Error,
    /// It may be used; someone should look.
    Warn,
}

/// Whether a missing seal forbids use (contract 4, default by profile).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealRule {
    /// It does: `dev` and `prod`.
    Strict,
    /// It is only reported.
    Lenient,
}

impl SealRule {
    /// The rule of a profile: strict for `dev` and `prod`.
    pub fn of_profile(profile_id: &str) -> SealRule {
        match profile_id {
            "dev" | "prod" => SealRule::Strict,
            _ => SealRule::Lenient,
        }
    }

    /// How bad a missing seal is.
    pub fn severity(self) -> Severity {
        match self {
            SealRule::Strict => Severity::Error,
            SealRule::Lenient => Severity::Warn,
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// The stable reason code.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Issue {
    /// `CODE` or `CODE:detail`.
    pub fn coded(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}:{detail}", self.code),
            None => self.code.to_owned(),
        }
    }
}

/// What the issues come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CheckStatus {
    /// No issue.
    Ok,
    /// Warnings only.
    Warn,
    /// At least one error.
    Fail,
}

/// The second spelling of a code that other readers know (contract 0.3, D1).
fn other_spelling(code: &str) -> Option<&'static str> {
    match code {
        "GATE_PASS_MISSING" => Some("GATE_RECEIPT_MISSING"),
        "LOCATOR_MISSING" => Some("OUTPUT_MISSING"),
        _ => None,
    }
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    issues: Vec<Issue>,
    details: Map<String, Value>,
}

impl CheckReport {
    /// Adds a finding.
    pub fn add(&mut self, code: &'static str, severity: Severity, detail: Option<String>) {
        self.issues.push(Issue {
            code,
            severity,
            detail,
        });
    }

    /// Adds an error.
    pub fn error(&mut self, code: &'static str, detail: impl Into<String>) {
        self.add(code, Severity::Error, Some(detail.into()));
    }

    /// Says something about what was checked.
    pub fn detail(&mut self, name: &str, value: Value) {
        self.details.insert(name.to_owned(), value);
    }

    /// The findings in the order they were made.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// FAIL with any error, else WARN with any warning, else OK.
    pub fn status(&self) -> CheckStatus {
        let has = |severity| self.issues.iter().any(|issue| issue.severity == severity);
        if has(Severity::Error) {
            return CheckStatus::Fail;
        }
        match has(Severity::Warn) {
            true => CheckStatus::Warn,
            false => CheckStatus::Ok,
        }
    }

    /// Every code once, each followed by its other spelling.
    pub fn reason_codes(&self) -> Vec<&'static str> {
        let mut codes = Vec::new();
        for issue in &self.issues {
            for code in [Some(issue.code), other_spelling(issue.code)]
                .into_iter()
                .flatten()
            {
                if !codes.contains(&code) {
                    codes.push(code);
                }
            }
        }
        codes
    }

    /// The report as one SJ object (contract 4).
    pub fn to_json(&self) -> Result<String, CanonicalError> {
        let coded = |severity: Severity| -> Vec<String> {
            let issues = self.issues.iter();
            issues
                .filter(|issue| issue.severity == severity)
                .map(Issue::coded)
                .collect()
        };
        to_sj(&json!({
            "details": self.details,
            "errors": coded(Severity::Error),
            "issues": self.issues,
            "reason_codes": self.reason_codes(),
            "status": self.status(),
            "warnings": coded(Severity::Warn),
        }))
    }
}

/// Whether waiting and checking the same reference again can help, and what does otherwise (contract 4.1, 4.2).
pub fn remedy(code: &str) -> &'static str {
    match code {
        "RUN_RECEIPT_UNREADABLE" | "RUN_FACTS_UNREADABLE" => {
            "retry when the files are synced or the store answers; otherwise the reference is wrong"
        }
        "SCENARIO_ID_AMBIGUOUS" | "SCENARIO_ID_MISSING" => "pass --scenario-id",
        "GATE_PASS_MISSING" => {
            "retry while the engine is still validating; otherwise make a new pack"
        }
        "LOCATOR_MISSING" => "retry after the files are synced",
        "PACK_NOT_SEALED" | "PACK_MANIFEST_MISSING" => "run `wellspring oracle pack`",
        "OUTPUT_UNKNOWN" => "name an output of the catalogue",
        _ => "make a new pack and a new scenario run; a sealed world is never patched",
    }
}

/// For every business-traffic output that has a locator: the gates it needs and the facts do not prove
/// (contract 4.2). Empty means proven.
pub fn unproven_outputs(
    facts: &RunFactsView,
    catalogue: &Catalogue,
) -> Result<BTreeMap<String, Vec<String>>, CatalogueError> {
    let mut unproven = BTreeMap::new();
    let roles = facts.output_roles.iter().flatten();
    for (output_id, role) in roles {
        if *role != OutputRole::BusinessTraffic || facts.locator(output_id).is_none() {
            continue;
        }
        let needed = &catalogue.output(output_id)?.read_requires_gates;
        let missing: Vec<String> = needed
            .iter()
            .filter(|gate| !facts.gate_passed(gate))
            .cloned()
            .collect();
        if !missing.is_empty() {
            unproven.insert(output_id.clone(), missing);
        }
    }
    Ok(unproven)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_spaced_canonical_json_with_fixed_keys() {
        let mut report = CheckReport::default();
        report.detail("engine_run_root", json!("w"));
        report.error("LOCATOR_MISSING", "an_output");
        report.add("PACK_NOT_SEALED", Severity::Warn, None);
        assert_eq!(
            report.to_json().unwrap(),
            r#"{"details": {"engine_run_root": "w"}, "errors": ["LOCATOR_MISSING:an_output"], "#
                .to_owned()
                + r#""issues": [{"code": "LOCATOR_MISSING", "detail": "an_output", "severity": "ERROR"}, "#
                + r#"{"code": "PACK_NOT_SEALED", "severity": "WARN"}], "#
                + r#""reason_codes": ["LOCATOR_MISSING", "OUTPUT_MISSING", "PACK_NOT_SEALED"], "#
                + r#""status": "FAIL", "warnings": ["PACK_NOT_SEALED"]}"#
        );
    }

    #[test]
    fn the_worst_issue_decides_the_status() {
        let mut report = CheckReport::default();
        assert_eq!(report.status(), CheckStatus::Ok);
        report.add("PACK_NOT_SEALED", SealRule::Lenient.severity(), None);
        assert_eq!(report.status(), CheckStatus::Warn);
        report.add("PACK_NOT_SEALED", SealRule::Strict.severity(), None);
        assert_eq!(report.status(), CheckStatus::Fail);
        assert_eq!(report.reason_codes(), ["PACK_NOT_SEALED"]);
    }

    #[test]
    fn only_dev_and_prod_are_strict_by_default() {
        assert_eq!(SealRule::of_profile("dev"), SealRule::Strict);
        assert_eq!(SealRule::of_profile("prod"), SealRule::Strict);
        assert_eq!(SealRule::of_profile("local"), SealRule::Lenient);
        assert_eq!(SealRule::of_profile("local_parity"), SealRule::Lenient);
    }
}
