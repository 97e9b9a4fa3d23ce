//! The pages say what is there.

use super::{root, text_of};

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
