//! Brings answers and index entries of a committed flush in line with what the commit made of it.

use super::messages::{Answer, Verdict};
use super::writer_thread::FlushJob;
use wellspring_domain::admission::commit_report::{CommitReport, SettledRow};
use wellspring_domain::ids::Hash32;

/// Applies a report to everything that waits for its flush. Returns keys that ended without an
/// admission: their claims are to be released.
pub fn apply(job: &mut FlushJob, report: &CommitReport) -> Vec<Hash32> {
    let mut released = Vec::new();
    if report.is_as_asked() {
        return released;
    }
    for (_, portion) in &mut job.portions {
        for (_, answer) in &mut portion.answers {
            settle(answer, report);
        }
    }
    job.admitted
        .retain_mut(|(key, entry)| match report.row(entry.row) {
            Some(SettledRow::Duplicate { admitted })
            | Some(SettledRow::Quarantined {
                admitted: Some(admitted),
                ..
            }) => {
                *entry = admitted;
                true
            }
            Some(SettledRow::Quarantined { admitted: None, .. }) => {
                released.push(*key);
                false
            }
            Some(SettledRow::Published { .. }) | None => true,
        });
    released
}

fn settle(answer: &mut Answer, report: &CommitReport) {
    if matches!(answer.verdict, Verdict::Retry { .. }) {
        return;
    }
    answer.verdict = match report.row(answer.row) {
        None => return,
        Some(SettledRow::Published { partition, offset }) => {
            Verdict::Admitted { partition, offset }
        }
        Some(SettledRow::Duplicate { admitted }) => Verdict::Duplicate {
            original: admitted.row,
        },
        Some(SettledRow::Quarantined { code, .. }) => Verdict::Quarantined { code },
    };
}
