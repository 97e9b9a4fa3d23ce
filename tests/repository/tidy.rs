//! Files and functions stay small, and nothing unfinished is left in them.

use super::{rust_files, shown, text_of};
use std::path::Path;

const CODE_LINES_MAX: usize = 500;
const TEST_FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;
const FOLDERS: [&str; 2] = ["src", "actors"];

/// Words that stand for unfinished or silenced work. Written in parts: this file is read, too.
const BANNED: [&str; 9] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
    concat!("allow(dead", "_code)"),
    concat!("../sha", "red"),
    concat!("/wo", "rk/"),
];

/// The file up to its tests.
fn before_tests(text: &str) -> &str {
    let tests = text.match_indices("#[cfg(test)]\n").find(|(at, mark)| {
        let next = text[at + mark.len()..].lines().next().unwrap_or_default();
        next.contains("mod ") && next.ends_with('{')
    });
    tests.map_or(text, |(at, _)| &text[..at])
}

/// The file without its tests and without comments.
pub fn code_of(text: &str) -> String {
    let code = before_tests(text).lines();
    code.filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Files that hold tests only.
pub fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    // A clone may itself lie in a folder of that name.
    let inside = path
        .strip_prefix(env!("CARGO_MANIFEST_DIR"))
        .unwrap_or(path);
    let in_folder = inside.components().any(|part| part.as_os_str() == "tests");
    in_folder
        || name.starts_with("fake_")
        || ["tests", "testing"].contains(&&*name)
        || name.ends_with("_tests")
        || name.starts_with("test_")
}

fn all_files() -> Vec<std::path::PathBuf> {
    FOLDERS
        .iter()
        .flat_map(|folder| rust_files(folder))
        .collect()
}

/// Functions longer than the limit: their line and length. Relies on rustfmt's indentation.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        if !starts_function(line) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let ends = lines[start..].iter().position(|line| {
            *line == closing
                || (line.ends_with(';')
                    && line.starts_with(indent)
                    && !line.starts_with(&format!("{indent} ")))
        });
        let length = ends.map_or(0, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            long.push((start + 1, length));
        }
    }
    long
}

fn starts_function(line: &str) -> bool {
    let words = line.trim_start();
    let after = ["pub(crate) ", "pub(super) ", "pub "]
        .iter()
        .find_map(|visibility| words.strip_prefix(visibility))
        .unwrap_or(words);
    let after = after.strip_prefix("const ").unwrap_or(after);
    let after = after.strip_prefix("async ").unwrap_or(after);
    after.starts_with("fn ")
}

/// Fails with every finding, not only the first.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn files_stay_small() {
    let sizes = all_files().into_iter().map(|file| {
        let text = text_of(&file);
        match is_test_file(&file) {
            true => (file, text.lines().count(), TEST_FILE_LINES_MAX),
            false => (file, before_tests(&text).lines().count(), CODE_LINES_MAX),
        }
    });
    let large = sizes.filter(|(_, lines, max)| lines > max);
    none(
        large
            .map(|(file, lines, max)| format!("{}: {lines} > {max}", shown(&file)))
            .collect(),
    );
}

#[test]
fn functions_stay_small() {
    let files = all_files().into_iter().filter(|file| !is_test_file(file));
    let long = files.flat_map(|file| {
        let name = shown(&file);
        let long = long_functions(before_tests(&text_of(&file))).into_iter();
        long.map(move |(line, length)| format!("{name}:{line}: {length} lines"))
    });
    none(long.collect());
}

#[test]
fn nothing_unfinished_or_silenced_is_left() {
    let mut findings = Vec::new();
    for file in all_files().into_iter().chain(rust_files("tests")) {
        let text = text_of(&file);
        let words = BANNED
            .iter()
            .chain(&["\t"])
            .filter(|word| text.contains(**word));
        findings.extend(words.map(|word| format!("{} contains {word:?}", shown(&file))));
    }
    none(findings);
}

#[test]
fn code_outside_tests_never_unwraps() {
    let files = all_files().into_iter().filter(|file| !is_test_file(file));
    let unwrapping = files.filter(|file| code_of(&text_of(file)).contains(".unwrap()"));
    none(
        unwrapping
            .map(|file| format!("{} unwraps", shown(&file)))
            .collect(),
    );
}

/// Room is taken before anything is sent; a channel without a bound would be a queue nobody sees.
#[test]
fn no_channel_is_unbounded() {
    const UNBOUNDED: [&str; 3] = ["unbounded", " channel()", "mpsc::channel()"];
    let files = all_files().into_iter().filter(|file| !is_test_file(file));
    let mut findings = Vec::new();
    for file in files {
        let code = code_of(&text_of(&file));
        let found = UNBOUNDED.iter().filter(|word| code.contains(**word));
        findings.extend(found.map(|word| format!("{} has {word}", shown(&file))));
    }
    none(findings);
}

#[test]
fn every_file_says_what_it_is() {
    let files = all_files().into_iter().filter(|file| !is_test_file(file));
    let silent = files.filter(|file| !text_of(file).starts_with("//! "));
    none(
        silent
            .map(|file| format!("{} has no head", shown(&file)))
            .collect(),
    );
}

#[test]
fn long_functions_are_found() {
    let body = "        let x = 1;\n".repeat(80);
    let text = format!(
        "impl X {{\n    pub async fn long(\n        a: u8,\n    ) {{\n{body}    }}\n\n    fn short() {{}}\n}}\n"
    );
    assert_eq!(long_functions(&text), [(2, 84)]);
    assert!(long_functions("trait T {\n    fn a();\n    fn b();\n}\n").is_empty());
}
