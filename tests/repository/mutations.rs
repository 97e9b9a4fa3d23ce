//! The list of deliberate bugs keeps up with the code: `make mutations` takes too long to run with every change.

use super::root;
use std::process::Command;

#[test]
fn every_deliberate_bug_still_applies_and_names_a_test_that_exists() {
    let mut check = Command::new("python3");
    let check = check
        .arg(root().join("tests/mutations/run"))
        .arg("--check")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{said}");
    assert!(said.contains("apply"), "{said}");
}
