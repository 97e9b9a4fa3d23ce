//! Brings answers and index entries of a committed flush in line with what the commit made of it.

use super::messages::{Answer, Verdict};
use super::writer_thread::FlushJob;
use wellspring_domain::admission::commit_report::{CommitReport, SettledRow};
use wellspring_domain::admission::quarantine::PAYLOAD_HASH_MISMATCH;

/// Applies a report to everything that waits for its flush.
pub fn apply(job: &mut FlushJob, report: &CommitReport) {
    if report.is_as_asked() {
        return;
    }
    for (_, portion) in &mut job.portions {
        for (_, answer) in &mut portion.answers {
            settle(answer, report);
        }
    }
    for (_, entry) in &mut job.admitted {
        match report.row(entry.row) {
            Some(SettledRow::Duplicate { admitted } | SettledRow::Mismatch { admitted }) => {
                *entry = admitted;
            }
            Some(SettledRow::Published { .. }) | None => {}
        }
    }
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
        Some(SettledRow::Mismatch { .. }) => Verdict::Quarantined {
            code: PAYLOAD_HASH_MISMATCH,
        },
    };
}
