//! The scripts of the parity stack: their codes are explained, their versions stand in one place.

use super::{root, text_of};
use std::collections::BTreeSet;
use std::path::PathBuf;
use wellspring_domain::reason_codes::all;

const RUNBOOK: &str = "docs/runbooks/parity.md";

/// Every file of the stack.
fn scripts() -> Vec<PathBuf> {
    let folders = ["infra/parity", "infra/parity/native"].map(|folder| root().join(folder));
    let entries = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).collect()
}

/// Words made of capitals, digits and underscores that begin with `prefix`.
fn codes_of<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(move |c: char| !is_part(c));
    words.filter(|word| word.starts_with(prefix)).collect()
}

#[test]
fn every_code_of_the_scripts_is_in_the_runbook() {
    let page = text_of(&root().join(RUNBOOK));
    let mut codes = BTreeSet::new();
    for text in scripts().iter().map(|file| text_of(file)) {
        let failing = text.split("fail ").skip(1);
        let firsts = failing.filter_map(|rest| rest.split_whitespace().next().map(str::to_owned));
        codes.extend(firsts.filter(|word| word.starts_with("PARITY_")));
    }
    assert!(codes.len() > 10, "{codes:?}");
    let silent: Vec<_> = codes
        .iter()
        // How a script is called is said by the script itself.
        .filter(|code| !["PARITY_USAGE", "PARITY_SERVER_UNKNOWN"].contains(&code.as_str()))
        .filter(|code| !page.contains(&format!("`{code}`")))
        .collect();
    assert!(silent.is_empty(), "{RUNBOOK} says nothing about {silent:?}");
}

#[test]
fn every_code_the_runbook_names_exists() {
    let page = text_of(&root().join(RUNBOOK));
    let table = page.split("## What goes wrong").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let named = rows.filter_map(|row| row.split(" | ").nth(1));
    let named: Vec<&str> = named.flat_map(|cell| codes_of(cell, "")).collect();
    let unknown: Vec<_> = named
        .into_iter()
        .filter(|code| code.contains('_') && !code.starts_with("PARITY_"))
        .filter(|code| !all().any(|known| known.code == *code))
        .collect();
    assert!(unknown.is_empty(), "no such codes: {unknown:?}");
}

#[test]
fn versions_stand_in_one_file() {
    let versions = text_of(&root().join("infra/parity/versions.env"));
    let values = versions
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(_, value)| value)
        .filter(|value| value.contains(['.', ':']));
    let values: Vec<&str> = values.collect();
    assert!(values.len() > 4, "{values:?}");
    for file in scripts()
        .iter()
        .filter(|file| !file.ends_with("versions.env"))
    {
        let text = text_of(file);
        let again: Vec<_> = values
            .iter()
            .filter(|value| text.contains(**value))
            .collect();
        assert!(again.is_empty(), "{} repeats {again:?}", file.display());
    }
}
