//! The pages say what is there.

use super::{root, rust_files, text_of};

/// Names in the dependency table of the workspace.
fn dependencies() -> Vec<String> {
    let manifest = text_of(&root().join("Cargo.toml"));
    let table = manifest.split("[workspace.dependencies]\n").nth(1).unwrap();
    let lines = table.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once(" = ").map(|(name, _)| name.to_string()));
    names
        .filter(|name| !name.starts_with("wellspring"))
        .collect()
}

#[test]
fn every_dependency_is_explained() {
    let page = text_of(&root().join("docs/dependencies.md"));
    let names = dependencies();
    assert!(names.len() > 20, "the table was not found: {names:?}");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/dependencies.md says nothing about {missing:?}"
    );
}

#[test]
fn the_readme_has_exactly_the_two_commands_and_ci_runs_the_second() {
    let readme = text_of(&root().join("README.md"));
    let blocks: Vec<&str> = readme.split("```sh\n").skip(1).collect();
    let commands: Vec<&str> = blocks
        .iter()
        .map(|block| block.split("\n```").next().unwrap())
        .collect();
    assert_eq!(commands, ["make demo", "make test"]);
    let ci = text_of(&root().join(".ci/run"));
    assert_eq!(ci.lines().last(), Some(commands[1]));
}

/// Words in backticks that are names of tests: a sentence of words joined by underscores, perhaps behind the
/// module it is in.
fn test_names(page: &str) -> Vec<&str> {
    let words = page.split('`').skip(1).step_by(2);
    let words = words.map(|word| word.rsplit("::").next().unwrap_or(word));
    let plain = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    words
        .filter(|word| word.matches('_').count() > 3 && plain(word))
        .collect()
}

#[test]
fn every_test_the_pages_name_exists() {
    let pages = [
        "docs/guarantees.md",
        "docs/safety.md",
        "docs/security.md",
        "docs/testing.md",
    ];
    let text = pages.map(|page| text_of(&root().join(page))).join("\n");
    let names = test_names(&text);
    assert!(names.len() > 40, "the pages name tests: {names:?}");
    let sources: Vec<String> = ["src", "actors", "tests"]
        .iter()
        .flat_map(|folder| rust_files(folder))
        .map(|file| text_of(&file))
        .collect();
    let missing: Vec<_> = names
        .iter()
        .filter(|name| {
            let function = format!("fn {name}(");
            !sources.iter().any(|text| text.contains(&function))
        })
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}

#[test]
fn every_file_the_pages_name_exists() {
    let pages = [
        "architecture",
        "benchmarks",
        "benchmarks_history",
        "guarantees",
        "http_api",
        "load",
        "operations",
        "runbooks/parity",
        "safety",
        "security",
        "testing",
    ];
    for page in pages.map(|page| format!("docs/{page}.md")) {
        let text = text_of(&root().join(&page));
        let files = text.split('`').skip(1).step_by(2).filter(|word| {
            let folders = ["src/", "actors/", "tests/", "config/", "docs/", "infra/"];
            folders.iter().any(|folder| word.starts_with(folder)) && !word.contains(['<', '*', ' '])
        });
        let missing: Vec<_> = files.filter(|file| !root().join(file).exists()).collect();
        assert!(missing.is_empty(), "{page} names {missing:?}");
    }
}
