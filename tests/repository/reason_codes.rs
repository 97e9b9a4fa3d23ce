//! Every code the program can say is in the registry, and the registry is in the pages.
//!
//! The sources are read: each upper-case name in a literal is a code of the registry, an environment
//! variable that `docs/operations.md` explains, or one of the few names that are neither.

use super::tidy::{code_of, is_test_file};
use super::{root, rust_files, shown, text_of};
use std::collections::{BTreeMap, BTreeSet};
use wellspring_domain::reason_codes::{CHAPTERS, all};

/// Set to `1` to write the table into the page instead of comparing it (`make golden`).
const UPDATE: &str = "WELLSPRING_UPDATE_GOLDEN";
const PAGE: &str = "docs/operations.md";
const BEGIN: &str = "<!-- reason codes: written by `make golden` -->\n";

/// Upper-case names that are not codes, with the reason.
const OTHER_NAMES: [(&str, &[&str]); 10] = [
    (
        "names of values on the command line, of files, of the build, of fields",
        &[
            "ACTIVE_RUN_ID",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_VERSION",
            "RUNS_ROOT",
            "SCENARIO_RUNNER",
            "SCREAMING_SNAKE_CASE",
        ],
    ),
    (
        "release variables, made from the component's name",
        &[
            "INGESTION_GATE_RELEASE_ID",
            "INGESTION_GATE_SERVICE_RELEASE_ID",
        ],
    ),
    (
        "columns and values of generated worlds",
        &[
            "ACCOUNT_TAKEOVER_SWEEP",
            "AUTH_REQUEST",
            "AUTH_RESPONSE",
            "BANK_CONFIRMED_FRAUD",
            "BANK_CONFIRMED_LEGIT",
            "BANK_REJECTED_DISPUTE",
            "BONUS_ABUSE",
            "CARD_TESTING_BURST",
            "CASE_CLOSED",
            "CASE_OPENED",
            "CASE_REVERSED",
            "CHARGEBACK_DECISION",
            "CUSTOMER_DISPUTE_FILED",
            "DETECTION_EVENT_ATTACHED",
            "DISPUTE_REJECTED",
            "MERCHANT_COLLUSION",
            "REFUND_ABUSE",
        ],
    ),
    ("states of a scenario run", &["WAITING_EVIDENCE"]),
    ("states of an admission row", &["PUBLISH_IN_FLIGHT"]),
    (
        "values of the request: strategies, kinds of re-emit",
        &[
            "FORCE_INVOKE",
            "FORCE_REUSE",
            "READY_ONLY",
            "TERMINAL_ONLY",
            "READY_REEMIT",
            "TERMINAL_REEMIT",
        ],
    ),
    (
        "kinds of ledger records and observations: what happened, not why",
        &[
            "ENGINE_ATTEMPT_FINISH",
            "ENGINE_ATTEMPT_FINISHED",
            "ENGINE_ATTEMPT_LAUNCH_REQUESTED",
            "ENGINE_ATTEMPT_START",
            "EVIDENCE_COMPLETE",
            "EVIDENCE_REUSE_RESULT",
            "GOV_BUNDLE_HASH",
            "GOV_PLAN_HASH",
            "GOV_POLICY_REV",
            "GOV_REEMIT_KEY",
            "GOV_REEMIT_OVERRIDE_APPROVED",
            "GOV_RUN_IDENTITY_SOURCES",
            "PLAN_COMMITTED",
            "READY_COMMITTED",
            "READY_PUBLISHED",
            "REEMIT_DRY_RUN",
            "REEMIT_NOT_FOUND",
            "REEMIT_PUBLISHED",
            "REEMIT_REQUESTED",
            "RUN_ACCEPTED",
            "RUN_ANCHORED",
            "RUN_FAILED",
            "RUN_REQUEST_RECEIVED",
        ],
    ),
    (
        "families of governance facts",
        &[
            "CORRIDOR_ANOMALY",
            "EVIDENCE_REF_RESOLVED",
            "POLICY_REV_CHANGED",
            "RUN_ENDED",
            "RUN_READY_SEEN",
            "RUN_REPORT_GENERATED",
            "RUN_STARTED",
        ],
    ),
    (
        "codes of other planes that the gate only files under an anomaly category",
        &[
            "ACTIVE_BUNDLE_INCOMPATIBLE",
            "CAPABILITY_MISMATCH",
            "DLA_INTAKE_REPLAY_DIVERGENCE",
            "FEATURE_GROUP_VERSION_MISMATCH",
            "REF_ACCESS_DENIED",
            "REPLAY_BASIS_MISMATCH",
            "REPLAY_DIVERGENCE",
        ],
    ),
    (
        "what the program hands to the engine it starts",
        &["SR_ENGINE_INVOCATION_JSON", "SR_ENGINE_RUN_ROOT"],
    ),
];

/// The upper-case name a literal begins with: `NAME` or `NAME:detail`, with an underscore inside.
fn name_of(literal: &str) -> Option<&str> {
    let end = literal
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .unwrap_or(literal.len());
    let (name, rest) = literal.split_at(end);
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.contains('_')
        && !name.ends_with('_');
    (is_name && (rest.is_empty() || rest.starts_with(':'))).then_some(name)
}

/// What stands between quotes, line by line: enough for names, which hold no quotes.
fn literals(code: &str) -> Vec<&str> {
    let lines = code.lines();
    lines
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .collect()
}

/// Every upper-case name in the code with the files that hold it, the registry left out.
fn names() -> BTreeMap<String, BTreeSet<String>> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in ["src", "actors"]
        .iter()
        .flat_map(|folder| rust_files(folder))
    {
        let path = shown(&file);
        if is_test_file(&file) || path.contains("reason_codes") {
            continue;
        }
        let code = code_of(&text_of(&file));
        for name in literals(&code).into_iter().filter_map(name_of) {
            names
                .entry(name.to_owned())
                .or_default()
                .insert(path.clone());
        }
    }
    names
}

#[test]
fn every_upper_case_name_in_the_code_is_explained() {
    let codes: BTreeSet<_> = all().map(|row| row.code).collect();
    let page = text_of(&root().join(PAGE));
    let other: BTreeSet<_> = OTHER_NAMES.iter().flat_map(|(_, names)| *names).collect();
    let names = names();
    assert!(names.len() > 200, "the sources were not read");
    let unexplained: Vec<_> = names
        .iter()
        .filter(|(name, _)| {
            !codes.contains(name.as_str())
                && !other.contains(&name.as_str())
                && !page.contains(&format!("| `{name}` |"))
        })
        .map(|(name, files)| format!("{name} in {files:?}"))
        .collect();
    assert!(
        unexplained.is_empty(),
        "not in src/domain/reason_codes and no variable of {PAGE}:\n{}",
        unexplained.join("\n")
    );
}

#[test]
fn every_code_of_the_registry_is_said_somewhere() {
    let files: Vec<_> = ["src", "actors"]
        .iter()
        .flat_map(|folder| rust_files(folder))
        .filter(|file| !is_test_file(file) && !shown(file).contains("reason_codes"))
        .map(|file| code_of(&text_of(&file)))
        .collect();
    let camel = |code: &str| -> String {
        let words = code.split('_').map(|word| {
            let (first, rest) = word.split_at(1);
            format!("{first}{}", rest.to_ascii_lowercase())
        });
        words.collect()
    };
    let silent: Vec<_> = all()
        .map(|row| row.code)
        .filter(|code| {
            let said = [format!("\"{code}"), format!("    {},", camel(code))];
            !files
                .iter()
                .any(|text| said.iter().any(|word| text.contains(word)))
        })
        .collect();
    assert!(silent.is_empty(), "nobody says {silent:?}");
}

/// The chapters as the page shows them.
fn tables() -> String {
    let mut text = String::new();
    for chapter in CHAPTERS {
        text.push_str(&format!(
            "\n### {}\n\n| Code | Said by | Class | Meaning | What to do |\n|---|---|---|---|---|\n",
            chapter.title
        ));
        for row in chapter.codes {
            let speakers: Vec<_> = row.said_by.iter().map(|speaker| speaker.name()).collect();
            text.push_str(&format!(
                "| `{}` | {} | {} | {} | {} |\n",
                row.code,
                speakers.join(", "),
                row.class.name(),
                row.meaning,
                row.action
            ));
        }
    }
    text
}

#[test]
fn the_operations_page_shows_the_registry() {
    let path = root().join(PAGE);
    let page = text_of(&path);
    let (before, shown) = page.split_once(BEGIN).expect("the page has the mark");
    if std::env::var(UPDATE).is_ok_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}{}", tables())).unwrap();
        return;
    }
    assert!(
        shown == tables(),
        "{PAGE} is behind the registry: make golden"
    );
}

#[test]
fn names_are_found_in_literals_only() {
    let code = "let x = (\"A_CODE\", \"B_CODE:detail\", \"lower\", NOT_QUOTED, \"OPEN\", \"C_CODE and more\");";
    let found: Vec<_> = literals(code).into_iter().filter_map(name_of).collect();
    assert_eq!(found, ["A_CODE", "B_CODE"]);
}
