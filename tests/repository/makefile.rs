//! The verbs operators know exist, are documented, and stay thin over the program.

use super::{root, text_of};
use std::process::Command;

const LINES_MAX: usize = 175;

const TARGETS: [&str; 36] = [
    "help",
    "demo",
    "build",
    "test",
    "test-fast",
    "simulate",
    "lint",
    "bench",
    "platform-run-new",
    "platform-bus-clean",
    "platform-oracle-pack",
    "platform-oracle-check",
    "platform-oracle-check-strict",
    "platform-oracle-stream-sort",
    "platform-oracle-stream-sort-traffic-both",
    "platform-oracle-stream-sort-context-fraud",
    "platform-oracle-stream-sort-context-baseline",
    "platform-oracle-stream-sort-context-truth",
    "platform-sr-run-reuse",
    "platform-sr-reemit",
    "platform-ig-service",
    "platform-wsp-ready-consumer",
    "platform-wsp-ready-consumer-once",
    "platform-wsp-validate-local",
    "platform-smoke",
    "parity-up",
    "parity-down",
    "parity-status",
    "parity-test",
    "platform-parity-stack-up",
    "platform-parity-stack-down",
    "platform-parity-stack-status",
    "platform-parity-bootstrap",
    "platform-parity-smoke",
    "platform-oracle-sync",
    "platform-ig-service-parity",
];

fn makefile() -> String {
    text_of(&root().join("Makefile"))
}

#[test]
fn every_verb_exists_and_says_what_it_does() {
    let text = makefile();
    for target in TARGETS {
        let documented = text
            .lines()
            .any(|line| line.starts_with(&format!("{target}:")) && line.contains("## "));
        assert!(documented, "{target} is missing or has no ## line");
    }
    assert!(
        text.lines().count() <= LINES_MAX,
        "the Makefile is too long"
    );
    assert!(text.contains(".DEFAULT_GOAL := help"));
}

#[test]
fn help_lists_every_verb() {
    let output = Command::new("make")
        .arg("--silent")
        .arg("help")
        .current_dir(root())
        .output();
    let output = output.expect("make runs");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{help}");
    for target in TARGETS {
        assert!(
            help.contains(&format!("{target} ")),
            "{target} is missing in\n{help}"
        );
    }
}
