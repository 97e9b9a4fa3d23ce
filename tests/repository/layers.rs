//! Domain knows nothing; actors know domain; src knows both.

use super::{root, rust_files, shown, text_of};
use crate::tidy::{code_of, is_test_file};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// What the rules may use: pure code only.
const DOMAIN: [&str; 10] = [
    "base64",
    "hashbrown",
    "hmac",
    "regex",
    "ryu",
    "serde",
    "serde_json",
    "sha2",
    "subtle",
    "thiserror",
];

/// What the actors may use: no files, no HTTP, no parquet, no command line.
const ACTORS: [&str; 12] = [
    "bytes",
    "hdrhistogram",
    "metrics",
    "ractor",
    "rand",
    "serde",
    "serde_json",
    "subtle",
    "thiserror",
    "tokio",
    "tracing",
    "wellspring_domain",
];

/// What only tests of both may use.
const TESTS_ONLY: [&str; 2] = ["proptest", "tokio"];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Names of the dependencies of a package: `dev` for tests, `null` for the code itself.
fn dependencies(metadata: &Value, package: &str, kind: Value) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages
        .iter()
        .find(|candidate| candidate["name"] == package);
    let dependencies = found.expect("the package exists")["dependencies"]
        .as_array()
        .unwrap();
    let of_kind = dependencies
        .iter()
        .filter(|dependency| dependency["kind"] == kind);
    of_kind
        .map(|dependency| dependency["name"].as_str().unwrap().to_string())
        .collect()
}

#[test]
fn domain_and_actors_depend_on_nothing_they_may_not_know() {
    let metadata = metadata();
    let packages = [
        ("wellspring_domain", &DOMAIN[..]),
        ("wellspring_actors", &ACTORS[..]),
    ];
    for (package, allowed) in packages {
        let used = dependencies(&metadata, package, Value::Null);
        assert!(!used.is_empty(), "{package} has dependencies");
        let forbidden: Vec<_> = used
            .iter()
            .filter(|name| !allowed.contains(&name.as_str()))
            .collect();
        assert!(
            forbidden.is_empty(),
            "{package} may not depend on {forbidden:?}"
        );
        let in_tests = dependencies(&metadata, package, Value::from("dev"));
        let forbidden: Vec<_> = in_tests
            .iter()
            .filter(|name| !TESTS_ONLY.contains(&name.as_str()))
            .collect();
        assert!(
            forbidden.is_empty(),
            "tests of {package} may not depend on {forbidden:?}"
        );
    }
}

#[test]
fn rules_and_actors_reach_for_no_file_no_network_no_environment_and_no_clock() {
    let everywhere = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "SystemTime",
        "std::thread::sleep",
    ];
    let packages = [
        (
            "src/domain",
            &["tokio", "ractor", "std::time::Instant", "rand::"][..],
        ),
        (
            "actors",
            &[
                "tokio::fs",
                "tokio::net",
                "std::time::Instant",
                "rand::rng()",
            ][..],
        ),
    ];
    let mut findings = Vec::new();
    for (folder, also) in packages {
        for file in rust_files(folder).iter().filter(|file| !is_test_file(file)) {
            let code = code_of(&text_of(file));
            let used = everywhere
                .iter()
                .chain(also)
                .filter(|word| code.contains(**word));
            findings.extend(used.map(|word| format!("{} uses {word}", shown(file))));
        }
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// Whatever runs on a thread of its own must run on a virtual one in the simulation, too.
#[test]
fn actors_start_threads_in_one_place_only() {
    let threads = ["std::thread", "spawn_blocking", "block_in_place"];
    let mut findings = Vec::new();
    for file in rust_files("actors")
        .iter()
        .filter(|file| !is_test_file(file))
    {
        let code = code_of(&text_of(file));
        let used = threads.iter().filter(|word| code.contains(**word));
        let elsewhere = !file.ends_with("runtime/blocking.rs");
        findings.extend(
            used.filter(|_| elsewhere)
                .map(|word| format!("{} uses {word}", shown(file))),
        );
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}
