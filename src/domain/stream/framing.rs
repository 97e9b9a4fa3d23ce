//! From a row to an envelope, in one pass and without a value tree (contract 2.2, 2.3).
//!
//! A [`FramePlan`] is made once per output and schema: constant parts of the envelope are rendered
//! ahead, payload keys are sorted and escaped. Framing a row then only appends bytes. What must hold:
//!
//! - the payload bytes are the canonical ones (CJ, contract 0.1), so the gate hashes them in place;
//! - the envelope's members stand in the order of contract 2.3;
//! - a row JSON cannot carry is an error with the column's name, never a changed value.

use super::column::{Column, NamedColumn};
use super::frame_value::{ValueProblem, push_key_text, push_payload_json, push_value};
use crate::canonical_json::{push_string, push_u64};
use crate::ids::Hash32;
use crate::sha256::HashBatch;
use crate::time_text::Micros;

/// The schema version every envelope carries (contract 2.2, T18).
pub const SCHEMA_VERSION: &str = "v1";

/// The column that replaces the whole payload by its own parsed text (contract 2.2).
pub const PAYLOAD_JSON_COLUMN: &str = "payload_json";

/// The column with the event's time.
pub const TIME_COLUMN: &str = "ts_utc";

/// What every envelope of one output of one run has in common (contract 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameContext {
    /// Output id; becomes `event_type` and opens the event id's preimage.
    pub output_id: String,
    /// Primary-key columns in catalogue order.
    pub primary_key: Vec<String>,
    /// World and run identities.
    pub pins: EnvelopePins,
    /// Producer id.
    pub producer: String,
    /// `oracle_pack_id`, else the fallback pack key.
    pub trace_id: String,
    /// Engine release; left out when unknown.
    pub span_id: Option<String>,
}

/// The identities at an envelope's top level (contract 1.1, 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopePins {
    /// Sealed world.
    pub manifest_fingerprint: String,
    /// Parameter bundle.
    pub parameter_hash: String,
    /// World seed.
    pub seed: u64,
    /// Scenario.
    pub scenario_id: String,
    /// The engine's run id, from its receipt (T15).
    pub run_id: String,
    /// The platform run.
    pub platform_run_id: String,
    /// The Scenario Runner's run id (T15).
    pub scenario_run_id: String,
}

/// Why a row cannot become an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A primary-key value is null or its column does not exist (contract 1.2).
    #[error("primary key column {column} has no value{}", at_row(*row))]
    PrimaryKeyMissing {
        /// The column.
        column: String,
        /// Row in its block, unless the column is absent.
        row: Option<usize>,
    },
    /// `ts_utc` is absent, null or not a time.
    #[error("ts_utc has no usable time{}: {found}", at_row(*row))]
    TimeInvalid {
        /// Row in its block, unless the column is absent.
        row: Option<usize>,
        /// What was found.
        found: String,
    },
    /// A value JSON cannot carry: binary, timestamp, NaN, infinity.
    #[error("column {column} cannot be written as JSON{}: {problem}", at_row(*row))]
    NotSerialisable {
        /// The column.
        column: String,
        /// Row in its block, unless the whole column is at fault.
        row: Option<usize>,
        /// What is wrong.
        problem: String,
    },
}

impl FrameError {
    /// The contract's reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PrimaryKeyMissing { .. } => "PRIMARY_KEY_MISSING",
            Self::TimeInvalid { .. } | Self::NotSerialisable { .. } => "STREAM_FAILED",
        }
    }
}

fn at_row(row: Option<usize>) -> String {
    row.map(|row| format!(" (row {row} of its block)"))
        .unwrap_or_default()
}

/// The prepared form of one output's envelopes over one set of columns.
#[derive(Clone, Debug)]
pub struct FramePlan {
    columns: Vec<String>,
    fields: Vec<Field>,
    primary_key: Vec<usize>,
    time: usize,
    payload_json: Option<usize>,
    before_time: Vec<u8>,
    after_time: Vec<u8>,
    tail: Vec<u8>,
    key_head: Vec<u8>,
    key_tail: Vec<u8>,
}

/// One payload member: its column and the bytes before its value.
#[derive(Clone, Debug)]
struct Field {
    column: usize,
    before_value: Vec<u8>,
}

impl FramePlan {
    /// Prepares framing for blocks with exactly these columns.
    pub fn new(context: &FrameContext, columns: &[&str]) -> Result<Self, FrameError> {
        let find = |name: &str| columns.iter().position(|column| *column == name);
        let primary_key = context.primary_key.iter().map(|name| {
            let missing = || FrameError::PrimaryKeyMissing {
                column: name.clone(),
                row: None,
            };
            find(name).ok_or_else(missing)
        });
        let time = find(TIME_COLUMN).ok_or_else(|| FrameError::TimeInvalid {
            row: None,
            found: "there is no such column".to_owned(),
        })?;
        Ok(Self {
            fields: payload_fields(columns),
            primary_key: primary_key.collect::<Result<_, _>>()?,
            time,
            payload_json: find(PAYLOAD_JSON_COLUMN),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            before_time: before_time(context),
            after_time: after_time(context),
            tail: tail(context),
            key_head: context.output_id.as_bytes().to_vec(),
            key_tail: key_tail(&context.pins),
        })
    }

    /// Whether this plan fits a block with these columns.
    pub fn fits(&self, columns: &[NamedColumn<'_>]) -> bool {
        self.columns.len() == columns.len()
            && self
                .columns
                .iter()
                .zip(columns)
                .all(|(have, column)| have == column.name)
    }

    /// Connects the plan with the columns of one block; the block must fit.
    pub fn bind<'a>(
        &'a self,
        columns: &[NamedColumn<'a>],
        memo: &'a mut FrameMemo,
    ) -> Result<RowFramer<'a>, FrameError> {
        debug_assert!(
            self.fits(columns),
            "a plan is bound to the columns it was made for"
        );
        let pick = |index: usize| columns[index].column;
        let payload = match self.payload_json {
            Some(_) => BoundPayload::default(),
            None => self.bind_payload(pick)?,
        };
        memo.ids.clear();
        Ok(RowFramer {
            plan: self,
            payload,
            primary_key: self.primary_key.iter().map(|&index| pick(index)).collect(),
            time: pick(self.time),
            payload_json: self.payload_json.map(pick),
            memo,
        })
    }

    /// The payload's members in a block. Values that are the same in every row are written here, once.
    fn bind_payload<'a>(
        &self,
        pick: impl Fn(usize) -> Column<'a>,
    ) -> Result<BoundPayload<'a>, FrameError> {
        let mut bound = BoundPayload::default();
        let mut before = Vec::new();
        for field in &self.fields {
            let column = pick(field.column);
            if let Column::Instant { .. } | Column::Unsupported(_) = column {
                return Err(FrameError::NotSerialisable {
                    column: self.columns[field.column].clone(),
                    row: None,
                    problem: format!("type {}", column.type_name()),
                });
            }
            before.extend_from_slice(&field.before_value);
            if column.is_constant() && push_value(&mut before, &column, 0).is_ok() {
                continue;
            }
            bound.values.push(BoundValue {
                before: std::mem::take(&mut before),
                column,
                index: field.column,
            });
        }
        before.push(b'}');
        bound.tail = before;
        Ok(bound)
    }

    /// Appends what the event id of a row is the digest of (V10).
    fn push_id_text(
        &self,
        primary_key: &[Column<'_>],
        row: usize,
        text: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        text.extend_from_slice(&self.key_head);
        for (column, &index) in primary_key.iter().zip(&self.primary_key) {
            if column.is_null(row) {
                return Err(FrameError::PrimaryKeyMissing {
                    column: self.columns[index].clone(),
                    row: Some(row),
                });
            }
            text.push(b'|');
            push_key_text(text, column, row)
                .map_err(|problem| self.not_serialisable(index, row, problem))?;
        }
        text.extend_from_slice(&self.key_tail);
        Ok(())
    }

    fn not_serialisable(&self, column: usize, row: usize, problem: ValueProblem) -> FrameError {
        FrameError::NotSerialisable {
            column: self.columns[column].clone(),
            row: Some(row),
            problem: problem.0,
        }
    }
}

/// Rows whose event ids are hashed together.
const IDS_AT_ONCE: usize = 128;

/// Scratch space that outlives a block: the event ids of the next rows.
#[derive(Debug, Default)]
pub struct FrameMemo {
    hashes: HashBatch,
    ids: Vec<Hash32>,
    /// Row the first of the ids belongs to.
    first_row: usize,
}

/// The payload of the rows of a block: what differs from row to row, and the bytes between.
#[derive(Default)]
struct BoundPayload<'a> {
    values: Vec<BoundValue<'a>>,
    tail: Vec<u8>,
}

/// A value of its own in every row.
struct BoundValue<'a> {
    /// Bytes between the value before and this one.
    before: Vec<u8>,
    column: Column<'a>,
    /// The column's place among all.
    index: usize,
}

/// Frames the rows of one block.
pub struct RowFramer<'a> {
    plan: &'a FramePlan,
    payload: BoundPayload<'a>,
    primary_key: Vec<Column<'a>>,
    time: Column<'a>,
    payload_json: Option<Column<'a>>,
    memo: &'a mut FrameMemo,
}

impl RowFramer<'_> {
    /// The event time of a row, without framing it.
    pub fn time(&self, row: usize) -> Result<Micros, FrameError> {
        self.time_text(row).map(|(at, _)| at)
    }

    /// Appends the envelope of a row to `out` and gives its event time. After an error `out` is as
    /// it was.
    pub fn frame(&mut self, row: usize, out: &mut Vec<u8>) -> Result<Micros, FrameError> {
        let start = out.len();
        let framed = self.frame_at(row, out);
        if framed.is_err() {
            out.truncate(start);
        }
        framed
    }

    fn frame_at(&mut self, row: usize, out: &mut Vec<u8>) -> Result<Micros, FrameError> {
        let (at, text) = self.time_text(row)?;
        out.extend_from_slice(b"{\"event_id\":\"");
        self.push_event_id(row, out)?;
        out.extend_from_slice(&self.plan.before_time);
        out.extend_from_slice(&text);
        out.extend_from_slice(&self.plan.after_time);
        self.push_payload(row, out)?;
        out.extend_from_slice(&self.plan.tail);
        Ok(at)
    }

    /// The row's time, and its text in T-env whatever form the row has (T14).
    fn time_text(&self, row: usize) -> Result<(Micros, [u8; 27]), FrameError> {
        let invalid = |found: String| FrameError::TimeInvalid {
            row: Some(row),
            found,
        };
        if let Column::Instant { micros, validity } = self.time {
            if validity.is_null(row) {
                return Err(invalid("null".to_owned()));
            }
            let at = Micros(micros[row]);
            return Ok((at, at.env_bytes()));
        }
        let text = self
            .time
            .text(row)
            .ok_or_else(|| invalid("no text".to_owned()))?;
        if let (Some(at), Ok(exact)) = (Micros::parse_env(text), text.try_into()) {
            return Ok((at, exact));
        }
        let lossy = String::from_utf8_lossy(text);
        let at = Micros::parse_any(&lossy).map_err(|error| invalid(error.to_string()))?;
        Ok((at, at.env_bytes()))
    }

    /// The engine event id (V10).
    fn push_event_id(&mut self, row: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let known = |memo: &FrameMemo| {
            let place = row.checked_sub(memo.first_row)?;
            memo.ids.get(place).copied()
        };
        if known(self.memo).is_none() {
            self.hash_ids(row)?;
        }
        let id = known(self.memo).expect("the id of this row was just hashed");
        out.extend_from_slice(&id.hex());
        Ok(())
    }

    /// Hashes the event ids of this row and of those that probably come next, up to one that has none.
    fn hash_ids(&mut self, row: usize) -> Result<(), FrameError> {
        let rows = self.time.rows().unwrap_or(row + 1);
        for next in row..rows.min(row + IDS_AT_ONCE) {
            let (plan, columns) = (self.plan, &self.primary_key);
            let written = self
                .memo
                .hashes
                .push_with(|text| plan.push_id_text(columns, next, text));
            match written {
                Ok(()) => {}
                Err(error) if next == row => return Err(error),
                Err(_later) => break,
            }
        }
        self.memo.first_row = row;
        let memo = &mut *self.memo;
        memo.hashes.finish(&mut memo.ids);
        Ok(())
    }

    fn push_payload(&self, row: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
        if let (Some(index), Some(column)) = (self.plan.payload_json, &self.payload_json) {
            return push_payload_json(out, column, row)
                .map_err(|problem| self.plan.not_serialisable(index, row, problem));
        }
        for value in &self.payload.values {
            out.extend_from_slice(&value.before);
            push_value(out, &value.column, row)
                .map_err(|problem| self.plan.not_serialisable(value.index, row, problem))?;
        }
        out.extend_from_slice(&self.payload.tail);
        Ok(())
    }
}

/// Members in code-point order of their names (which is byte order in UTF-8), keys escaped ahead.
fn payload_fields(columns: &[&str]) -> Vec<Field> {
    let mut sorted: Vec<(usize, &str)> = columns.iter().copied().enumerate().collect();
    sorted.sort_by_key(|(_, name)| *name);
    let field = |(position, (column, name)): (usize, (usize, &str))| {
        let mut before_value = vec![if position == 0 { b'{' } else { b',' }];
        push_string(&mut before_value, name);
        before_value.push(b':');
        Field {
            column,
            before_value,
        }
    };
    sorted.into_iter().enumerate().map(field).collect()
}

fn push_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    push_string(out, name);
    out.push(b':');
    push_string(out, value);
}

/// From the closing quote of the event id to the opening quote of the time.
fn before_time(context: &FrameContext) -> Vec<u8> {
    let mut out = vec![b'"'];
    push_member(&mut out, "event_type", &context.output_id);
    push_member(&mut out, "schema_version", SCHEMA_VERSION);
    out.extend_from_slice(b",\"ts_utc\":\"");
    out
}

/// From the closing quote of the time to the payload.
fn after_time(context: &FrameContext) -> Vec<u8> {
    let pins = &context.pins;
    let mut out = vec![b'"'];
    push_member(&mut out, "manifest_fingerprint", &pins.manifest_fingerprint);
    push_member(&mut out, "parameter_hash", &pins.parameter_hash);
    out.extend_from_slice(b",\"seed\":");
    push_u64(&mut out, pins.seed);
    push_member(&mut out, "scenario_id", &pins.scenario_id);
    push_member(&mut out, "run_id", &pins.run_id);
    push_member(&mut out, "platform_run_id", &pins.platform_run_id);
    push_member(&mut out, "scenario_run_id", &pins.scenario_run_id);
    push_member(&mut out, "producer", &context.producer);
    out.extend_from_slice(b",\"payload\":");
    out
}

fn tail(context: &FrameContext) -> Vec<u8> {
    let mut out = Vec::new();
    push_member(&mut out, "trace_id", &context.trace_id);
    if let Some(span_id) = &context.span_id {
        push_member(&mut out, "span_id", span_id);
    }
    out.push(b'}');
    out
}

/// The world pins that end every event id preimage (V10).
fn key_tail(pins: &EnvelopePins) -> Vec<u8> {
    let (world, bundle) = (&pins.manifest_fingerprint, &pins.parameter_hash);
    format!("|{world}|{bundle}|{}|{}", pins.seed, pins.scenario_id).into_bytes()
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
