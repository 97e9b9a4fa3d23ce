//! How verifications are shown, and what they exit with.

use super::Outcome;
use super::output::{TableView, grouped};
use crate::state_store::embedded::verify::Differences;

/// Exit 0 when nothing differs, else 4.
pub fn outcome_of(verified: bool) -> Outcome {
    match verified {
        true => Outcome::Ok,
        false => Outcome::Differences,
    }
}

/// Adds the number of differences and the first of them to a table of pairs.
pub fn differences_table(mut table: TableView, differences: &Differences) -> TableView {
    table.row(["differences", &grouped(differences.count)]);
    for found in &differences.first {
        let text = format!("{}: {}", found.location, found.detail);
        table.row([found.code, &text]);
    }
    table
}
