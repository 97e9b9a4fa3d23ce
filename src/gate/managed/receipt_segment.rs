//! Receipt segments: what one flush decided, as one object that is written once.
//!
//! The object is zstd over JSON lines. The first line names format, version, place, time and everything
//! rows share; each line after it is one row as an array that starts with its decision:
//!
//! ```text
//! ["A", context, event_id, ts_utc, dedupe_key, payload_hash, partition_key, topic, partition, offset]
//! ["D", context, event_id, ts_utc, dedupe_key, payload_hash, [shard, segment, row]]
//! ["Q", context, event_id, ts_utc, dedupe_key, payload_hash, code, record]
//! ```
//!
//! `context` and `topic` are positions in the lists of the first line. Row 0 is the line after the first, and
//! so on: a receipt's reference ends with that number. A row that was given up, because its flush was settled
//! after its writer had died and its event was not on the bus, is the line `null`. The frame's own checksum
//! finds changed bytes. A receipt is rendered from its row (contract 7.7).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{Read, Write};
use std::sync::Arc;
use wellspring_domain::admission::bus_offset::{BusOffset, SequenceNumber};
use wellspring_domain::admission::decision::{ReceiptContext, RowRef};
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::time_text::Micros;

const FORMAT: &str = "wellspring.receipt_segment";
const VERSION: u32 = 1;
/// Fast: the rows are hashes, which do not shrink any further.
const COMPRESSION_LEVEL: i32 = 1;
/// Most bytes a segment may unpack to: far above what a flush can hold.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    platform_run_id: String,
    shard: u16,
    segment: u32,
    rows: u32,
    decided_at_micros: i64,
    contexts: Vec<Arc<ReceiptContext>>,
    topics: Vec<Arc<str>>,
}

/// The rows of one flush, in order, as the bytes of their segment. Every row lies in the same segment.
pub fn encode(rows: &[JournalRow]) -> Result<Vec<u8>, StoreError> {
    let Some(first) = rows.first() else {
        return Err(broken("segment", "a segment holds at least one row"));
    };
    let mut header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        platform_run_id: first.context.platform_run_id.clone(),
        shard: first.row_ref.shard,
        segment: first.row_ref.segment,
        rows: rows.len() as u32,
        decided_at_micros: first.decided_at.0,
        contexts: Vec::new(),
        topics: Vec::new(),
    };
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let number = row.row_ref.row as usize;
        if number < lines.len() {
            return Err(broken("segment", "rows are not in order"));
        }
        lines.resize(number, Value::Null);
        lines.push(row_line(&mut header, row));
    }
    pack(&header, &lines).map_err(|error| broken("segment", &error.to_string()))
}

/// The rows of a segment object; `key` names it in errors.
pub fn decode(key: &str, bytes: &[u8]) -> Result<Vec<JournalRow>, StoreError> {
    let text = unpack(bytes).map_err(|error| broken(key, &error.to_string()))?;
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let header = read_header(key, lines.next().unwrap_or_default())?;
    let mut rows = Vec::with_capacity(header.rows as usize);
    for (number, line) in lines.enumerate() {
        let values: Option<Vec<Value>> =
            serde_json::from_slice(line).map_err(|error| broken(key, &error.to_string()))?;
        let Some(values) = values else {
            continue;
        };
        let row = read_row(&header, number as u32, &values);
        rows.push(row.ok_or_else(|| broken(key, &format!("row {number} is no row")))?);
    }
    match rows.len() == header.rows as usize {
        true => Ok(rows),
        false => Err(broken(key, "rows are missing")),
    }
}

fn read_header(key: &str, line: &[u8]) -> Result<Header, StoreError> {
    let head: Value =
        serde_json::from_slice(line).map_err(|error| broken(key, &error.to_string()))?;
    if head["format"] != FORMAT {
        return Err(broken(key, "not a receipt segment"));
    }
    let version = head["version"].as_u64().unwrap_or(0) as u32;
    if version != VERSION {
        return Err(StoreError::UnknownVersion {
            key: key.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    serde_json::from_value(head).map_err(|error| broken(key, &error.to_string()))
}

fn pack(header: &Header, lines: &[Value]) -> std::io::Result<Vec<u8>> {
    let mut packer = zstd::stream::Encoder::new(Vec::new(), COMPRESSION_LEVEL)?;
    packer.include_checksum(true)?;
    packer.include_contentsize(true)?;
    serde_json::to_writer(&mut packer, header)?;
    for line in lines {
        packer.write_all(b"\n")?;
        serde_json::to_writer(&mut packer, line)?;
    }
    packer.finish()
}

fn unpack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let unpacker = zstd::stream::Decoder::new(bytes)?;
    unpacker.take(UNPACKED_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn row_line(header: &mut Header, row: &JournalRow) -> Value {
    let context = position(&mut header.contexts, &row.context, Arc::ptr_eq);
    let mut line = vec![
        Value::Null,
        context.into(),
        row.event_id.as_str().into(),
        row.ts_utc.as_str().into(),
        row.dedupe_key.to_string().into(),
        row.payload_hash.to_string().into(),
    ];
    match &row.outcome {
        JournalOutcome::Admit {
            topic,
            partition,
            offset,
        } => {
            let topic = position(&mut header.topics, topic, |a, b| a == b);
            line[0] = "A".into();
            line.push(row.partition_key.to_string().into());
            line.extend([topic.into(), (*partition).into(), offset.to_string().into()]);
        }
        JournalOutcome::Duplicate { original } => {
            line[0] = "D".into();
            line.push(serde_json::json!([
                original.shard,
                original.segment,
                original.row
            ]));
        }
        JournalOutcome::Quarantine { code, record } => {
            line[0] = "Q".into();
            line.push(code.as_ref().into());
            line.push(String::from_utf8_lossy(record).into());
        }
    }
    Value::Array(line)
}

fn position<T: Clone>(known: &mut Vec<T>, wanted: &T, same: impl Fn(&T, &T) -> bool) -> u64 {
    // The last one first: neighbours share theirs.
    if let Some(found) = known.iter().rposition(|one| same(one, wanted)) {
        return found as u64;
    }
    known.push(wanted.clone());
    known.len() as u64 - 1
}

fn read_row(header: &Header, number: u32, line: &[Value]) -> Option<JournalRow> {
    let text = |index: usize| line.get(index).and_then(Value::as_str);
    let number_at = |index: usize| line.get(index).and_then(Value::as_u64);
    let hash = |index: usize| Hash32::from_hex(text(index)?.as_bytes());
    let context = header.contexts.get(number_at(1)? as usize)?.clone();
    let mut partition_key = Hash32::default();
    let outcome = match text(0)? {
        "A" => {
            partition_key = hash(6)?;
            JournalOutcome::Admit {
                topic: header.topics.get(number_at(7)? as usize)?.clone(),
                partition: u32::try_from(number_at(8)?).ok()?,
                offset: BusOffset::Sequence(SequenceNumber::parse(text(9)?)?),
            }
        }
        "D" => {
            let place: Vec<u64> = line
                .get(6)?
                .as_array()?
                .iter()
                .map_while(Value::as_u64)
                .collect();
            let [shard, segment, row] = place[..] else {
                return None;
            };
            JournalOutcome::Duplicate {
                original: RowRef {
                    shard: u16::try_from(shard).ok()?,
                    segment: u32::try_from(segment).ok()?,
                    row: u32::try_from(row).ok()?,
                },
            }
        }
        "Q" => JournalOutcome::Quarantine {
            code: Arc::from(text(6)?),
            record: text(7)?.as_bytes().to_vec(),
        },
        _ => return None,
    };
    Some(JournalRow {
        row_ref: RowRef {
            shard: header.shard,
            segment: header.segment,
            row: number,
        },
        decided_at: Micros(header.decided_at_micros),
        context,
        event_id: text(2)?.to_owned(),
        ts_utc: text(3)?.to_owned(),
        dedupe_key: hash(4)?,
        payload_hash: hash(5)?,
        partition_key,
        outcome,
    })
}

fn broken(key: &str, cause: &str) -> StoreError {
    StoreError::Damaged {
        key: key.to_owned(),
        offset: 0,
        cause: cause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_store::embedded::test_run::context;

    fn row(number: u32, outcome: JournalOutcome) -> JournalRow {
        JournalRow {
            row_ref: RowRef {
                shard: 3,
                segment: 262_145,
                row: number,
            },
            decided_at: Micros(1_767_225_601_250_000),
            context: Arc::new(context("a")),
            event_id: format!("event \"{number}\" ü"),
            ts_utc: "2026-01-01T00:00:01.250000Z".to_owned(),
            dedupe_key: Hash32::of(&number.to_be_bytes()),
            payload_hash: Hash32::of(b"payload"),
            partition_key: Hash32::default(),
            outcome,
        }
    }

    fn rows() -> Vec<JournalRow> {
        let admit = |number: u32, topic: &str| JournalRow {
            partition_key: Hash32::of(b"key"),
            ..row(
                number,
                JournalOutcome::Admit {
                    topic: topic.into(),
                    partition: number,
                    offset: BusOffset::Sequence(
                        SequenceNumber::parse(
                            "49590338271490256608559692538361571095921575989136588898",
                        )
                        .unwrap(),
                    ),
                },
            )
        };
        let original = RowRef {
            shard: 1,
            segment: 7,
            row: 9,
        };
        let quarantine = JournalOutcome::Quarantine {
            code: "SCHEMA_FAIL".into(),
            record: br#"{"decision":"QUARANTINE"}"#.to_vec(),
        };
        vec![
            admit(0, "a"),
            admit(1, "b"),
            admit(2, "a"),
            row(3, JournalOutcome::Duplicate { original }),
            row(4, quarantine),
        ]
    }

    #[test]
    fn every_row_is_read_back_as_it_was_decided() {
        let bytes = encode(&rows()).unwrap();
        assert_eq!(decode("k", &bytes).unwrap(), rows());
    }

    #[test]
    fn a_row_keeps_its_number_when_rows_before_it_were_given_up() {
        let mut left = rows();
        left.remove(2);
        left.remove(0);
        assert_eq!(decode("k", &encode(&left).unwrap()).unwrap(), left);
        left.swap(0, 1);
        assert!(encode(&left).is_err(), "rows come in order");
    }

    #[test]
    fn a_changed_byte_or_a_cut_is_damage_and_another_version_is_named() {
        let bytes = encode(&rows()).unwrap();
        // Behind the frame's first bytes, one bit of which means nothing.
        for at in [12, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert_eq!(decode("k", &changed).unwrap_err().code(), "STORE_DAMAGED");
            assert_eq!(
                decode("k", &bytes[..at]).unwrap_err().code(),
                "STORE_DAMAGED"
            );
        }
        let header = r#"{"format":"wellspring.receipt_segment","version":2}"#;
        let newer = zstd::bulk::compress(header.as_bytes(), 1).unwrap();
        assert_eq!(
            decode("k", &newer).unwrap_err().code(),
            "FORMAT_VERSION_UNKNOWN"
        );
    }
}
