//! Brings answers and index entries of a committed flush in line with what the commit made of it.

use super::in_flight::Admitted;
use super::messages::{Answer, Verdict};
use super::writer_thread::FlushJob;
use wellspring_domain::admission::commit_report::{CommitReport, SettledRow};

/// Applies a report to everything that waits for its flush. Returns what ended without an admission: its claims are
/// to be released.
pub fn apply(job: &mut FlushJob, report: &CommitReport) -> Vec<Admitted> {
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
        .retain_mut(|admitted| match report.row(admitted.entry.row) {
            Some(SettledRow::Duplicate { admitted: known })
            | Some(SettledRow::Quarantined {
                admitted: Some(known),
                ..
            }) => {
                admitted.entry = known;
                true
            }
            Some(SettledRow::Quarantined { admitted: None, .. }) => {
                released.push(*admitted);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingestion_gate::index_shard::ClaimPlace;
    use crate::ingestion_gate::messages::Portion;
    use std::sync::Arc;
    use tokio::sync::mpsc;
    use wellspring_domain::admission::bus_offset::BusOffset;
    use wellspring_domain::admission::claims::{Claim, ClaimTable};
    use wellspring_domain::admission::decision::{Flush, IndexEntry, RowRef};
    use wellspring_domain::ids::Hash32;
    use wellspring_domain::run_paths::PlatformRunId;
    use wellspring_domain::time_text::Micros;

    fn at(row: u32) -> RowRef {
        RowRef {
            shard: 0,
            segment: 3,
            row,
        }
    }

    fn entry(row: RowRef, payload: &[u8]) -> IndexEntry {
        IndexEntry {
            payload_hash: Hash32::of(payload),
            row,
        }
    }

    fn claim_of(row: u32) -> ClaimPlace {
        let mut table = ClaimTable::default();
        let Claim::Won(place) = table.claim(Hash32::of(&row.to_be_bytes()), 0) else {
            panic!("the first claim of a key");
        };
        ClaimPlace {
            index_shard: 0,
            place,
        }
    }

    fn job(rows: u32) -> FlushJob {
        let run = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        let admitted = |row| Verdict::Admitted {
            partition: 0,
            offset: BusOffset::Line(u64::from(row)),
        };
        let answer = |row| Answer {
            row: at(row),
            decided_at: Micros(0),
            verdict: admitted(row),
        };
        let mut answers: Vec<_> = (0..rows).map(|row| (row, answer(row))).collect();
        answers.push((rows, Answer::retry("PRECEDING_ITEM_RETRY")));
        FlushJob {
            run: Arc::new(run.clone()),
            flush: Flush {
                run,
                first_row: at(0),
                decided_at: Micros(0),
                contexts: Vec::new(),
                appends: Vec::new(),
                rows: Vec::new(),
                arena: Vec::new(),
            },
            admitted: (0..rows)
                .map(|row| Admitted {
                    key: Hash32::of(&[row as u8]),
                    entry: entry(at(row), b"p"),
                    claim: claim_of(row),
                })
                .collect(),
            portions: vec![(mpsc::channel(1).0, Portion { answers })],
            credits: Vec::new(),
        }
    }

    #[test]
    fn answers_and_index_entries_follow_what_the_commit_made_of_their_rows() {
        let elsewhere = RowRef { shard: 9, ..at(7) };
        let (same, other) = (entry(elsewhere, b"p"), entry(elsewhere, b"q"));
        let published = SettledRow::Published {
            partition: 2,
            offset: BusOffset::Line(99),
        };
        let refused = |admitted| SettledRow::Quarantined {
            code: "PAYLOAD_HASH_MISMATCH",
            admitted,
        };
        let rows = vec![
            Some(published),
            Some(SettledRow::Duplicate { admitted: same }),
            Some(refused(Some(other))),
            Some(refused(None)),
        ];
        let mut job = job(4);
        let released = apply(&mut job, &CommitReport::settled(at(0), rows));
        let verdicts: Vec<Verdict> = job.portions[0]
            .1
            .answers
            .iter()
            .map(|a| a.1.verdict)
            .collect();
        let quarantined = Verdict::Quarantined {
            code: "PAYLOAD_HASH_MISMATCH",
        };
        assert_eq!(
            verdicts,
            [
                Verdict::Admitted {
                    partition: 2,
                    offset: BusOffset::Line(99)
                },
                Verdict::Duplicate {
                    original: elsewhere
                },
                quarantined,
                quarantined,
                Verdict::Retry {
                    code: "PRECEDING_ITEM_RETRY"
                },
            ]
        );
        let entries: Vec<IndexEntry> = job.admitted.iter().map(|known| known.entry).collect();
        assert_eq!(entries, [entry(at(0), b"p"), same, other]);
        let released: Vec<Hash32> = released.iter().map(|ended| ended.key).collect();
        assert_eq!(released, [Hash32::of(&[3])]);
    }

    #[test]
    fn a_flush_that_was_written_as_it_is_changes_nothing() {
        let mut job = job(2);
        assert!(apply(&mut job, &CommitReport::as_asked()).is_empty());
        assert_eq!(job.admitted.len(), 2);
    }
}
