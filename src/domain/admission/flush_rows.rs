//! A flush's decisions as its receipts need them, and the envelopes it publishes.
//!
//! For a log that keeps decisions as rows of their own instead of journal frames: what the commit
//! settled itself is already worked in.

use super::bus_line::BusLine;
use super::commit_report::SettledRow;
use super::decision::{DecisionRow, Flush, ReceiptContext, RowOutcome};
use super::journal_row::{JournalOutcome, JournalRow};
use super::quarantine::{QuarantineDraft, RecordStamp};
use super::shared_claims::row_at;
use crate::canonical_json::push_cj;
use std::sync::Arc;

/// The envelope of every line of a flush, by append and line. `None` when a line is no bus record,
/// which a flush built by an admission shard never holds.
pub fn envelopes(flush: &Flush) -> Option<Vec<Vec<&[u8]>>> {
    let of_append = |bytes| {
        let lines = <[u8]>::split(bytes, |byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| BusLine::parse(line).map(|record| record.envelope))
            .collect()
    };
    flush
        .appends
        .iter()
        .map(|append| of_append(&append.bytes))
        .collect()
}

/// The envelope an ADMIT row publishes.
pub fn envelope_of<'a>(
    flush: &Flush,
    envelopes: &[Vec<&'a [u8]>],
    row: &DecisionRow,
) -> Option<&'a [u8]> {
    let RowOutcome::Admit { append, offset } = row.outcome else {
        return None;
    };
    let first = flush.appends.get(usize::from(append))?.first_offset;
    let line = offset.checked_sub(first)?;
    envelopes
        .get(usize::from(append))?
        .get(line as usize)
        .copied()
}

/// The rows of a flush as they were settled. Every ADMIT row that stands must have been placed: rows
/// that were not are `None`.
pub fn journal_rows(
    flush: &Flush,
    envelopes: &[Vec<&[u8]>],
    settled: &[Option<SettledRow>],
) -> Vec<Option<JournalRow>> {
    let rows = flush.rows.iter().zip(settled).enumerate();
    rows.map(|(index, (row, settled))| {
        let context = flush.contexts.get(usize::from(row.context))?.clone();
        let outcome = outcome_of(flush, envelopes, row, *settled, &context)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(JournalRow {
            row_ref: row_at(flush, index),
            decided_at: flush.decided_at,
            event_id: text(row.event_id.of(&flush.arena)),
            ts_utc: text(row.ts_utc.of(&flush.arena)),
            dedupe_key: row.dedupe_key,
            payload_hash: row.payload_hash,
            partition_key: row.partition_key,
            context,
            outcome,
        })
    })
    .collect()
}

fn outcome_of(
    flush: &Flush,
    envelopes: &[Vec<&[u8]>],
    row: &DecisionRow,
    settled: Option<SettledRow>,
    context: &ReceiptContext,
) -> Option<JournalOutcome> {
    Some(match (settled, row.outcome) {
        (Some(SettledRow::Published { partition, offset }), _) => JournalOutcome::Admit {
            topic: Arc::from(context.topic.as_str()),
            partition,
            offset,
        },
        (Some(SettledRow::Duplicate { admitted }), _) => JournalOutcome::Duplicate {
            original: admitted.row,
        },
        (Some(SettledRow::Quarantined { code, .. }), _) => {
            let envelope = envelope_of(flush, envelopes, row);
            quarantine(flush, row, context, (code, envelope))
        }
        (None, RowOutcome::Duplicate { original }) => JournalOutcome::Duplicate { original },
        (None, RowOutcome::Quarantine { code, record }) => JournalOutcome::Quarantine {
            code: Arc::from(code),
            record: record.of(&flush.arena).to_vec(),
        },
        (None, RowOutcome::Admit { .. }) => return None,
    })
}

fn quarantine(
    flush: &Flush,
    row: &DecisionRow,
    context: &ReceiptContext,
    (code, envelope): (&'static str, Option<&[u8]>),
) -> JournalOutcome {
    let draft = match envelope {
        Some(envelope) => QuarantineDraft::late(envelope, code),
        // A copy of an event in this flush is not published, so its bytes are gone: what its row and
        // context know stands for them.
        None => QuarantineDraft::late(&known_fields(flush, row, context), code),
    };
    let stamp = RecordStamp {
        received_at: flush.decided_at,
        policy_rev: &context.policy_rev,
        actor: &context.actor,
        provenance: &context.provenance,
    };
    let mut record = Vec::new();
    push_cj(&mut record, &draft.record(&stamp));
    JournalOutcome::Quarantine {
        code: Arc::from(code),
        record,
    }
}

fn known_fields(flush: &Flush, row: &DecisionRow, context: &ReceiptContext) -> Vec<u8> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = match &context.pins {
        serde_json::Value::Object(pins) => pins.clone(),
        _ => serde_json::Map::new(),
    };
    let mut put = |name: &str, value: String| fields.insert(name.to_owned(), value.into());
    put("event_id", text(row.event_id.of(&flush.arena)));
    put("event_type", context.event_type.clone());
    put("ts_utc", text(row.ts_utc.of(&flush.arena)));
    put("manifest_fingerprint", context.manifest_fingerprint.clone());
    serde_json::Value::Object(fields).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::bus_offset::BusOffset;
    use crate::admission::decision::{IndexEntry, RowRef};
    use crate::admission::flush_builder::{LogEnds, SegmentRule};
    use crate::admission::intake::tests::{envelope_text, judge_texts};
    use crate::admission::quarantine::PAYLOAD_HASH_MISMATCH;
    use crate::ids::Hash32;
    use crate::run_paths::PlatformRunId;
    use crate::time_text::Micros;

    fn flush() -> Flush {
        let judged = judge_texts(&[envelope_text("e1", 1), envelope_text("e2", 2)]);
        let run = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        let start = RowRef::default();
        let mut ends = LogEnds::new(run, start, SegmentRule::Flush, &[]);
        let mut builder = ends.start_flush(Micros(1_250_000));
        let (first, _) = builder.admit(&mut ends, &judged, &judged.items[0]);
        builder.admit(&mut ends, &judged, &judged.items[1]);
        builder.duplicate(&mut ends, &judged, &judged.items[0], first);
        builder.finish(&mut ends)
    }

    #[test]
    fn envelopes_are_the_bytes_that_were_judged() {
        let flush = flush();
        let envelopes = envelopes(&flush).unwrap();
        for (index, id) in ["e1", "e2"].into_iter().enumerate() {
            let envelope = envelope_of(&flush, &envelopes, &flush.rows[index]).unwrap();
            let envelope: serde_json::Value = serde_json::from_slice(envelope).unwrap();
            assert_eq!(envelope["event_id"], id);
        }
        assert_eq!(envelope_of(&flush, &envelopes, &flush.rows[2]), None);
    }

    #[test]
    fn rows_are_what_the_commit_made_of_them() {
        let flush = flush();
        let envelopes = envelopes(&flush).unwrap();
        let admitted = IndexEntry {
            payload_hash: Hash32::of(b"other"),
            row: RowRef {
                shard: 7,
                segment: 8,
                row: 9,
            },
        };
        let mismatch = SettledRow::Quarantined {
            code: PAYLOAD_HASH_MISMATCH,
            admitted: Some(admitted),
        };
        let settled = [
            Some(mismatch),
            Some(SettledRow::Published {
                partition: 4,
                offset: BusOffset::Line(11),
            }),
            Some(mismatch),
        ];
        let rows = journal_rows(&flush, &envelopes, &settled);
        for index in [0, 2] {
            let row = rows[index].as_ref().unwrap();
            let JournalOutcome::Quarantine { code, record } = &row.outcome else {
                panic!("{row:?}")
            };
            let record: serde_json::Value = serde_json::from_slice(record).unwrap();
            assert_eq!(&**code, PAYLOAD_HASH_MISMATCH);
            assert_eq!(record["envelope"]["event_id"], "e1");
            assert_eq!(record["quarantine_id"], row.receipt_id());
        }
        let placed = rows[1].as_ref().unwrap();
        assert!(matches!(
            placed.outcome,
            JournalOutcome::Admit {
                partition: 4,
                offset: BusOffset::Line(11),
                ..
            }
        ));
        let unplaced = journal_rows(&flush, &envelopes, &[None, None, None]);
        assert_eq!(unplaced[0], None);
    }
}
