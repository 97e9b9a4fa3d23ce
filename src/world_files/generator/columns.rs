//! Arrow columns of a batch of flows, and the one table of output schemas (contract 3.3).
//!
//! Columns that several outputs share (ids, times, the constant tail) are built once per batch.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use wellspring_domain::time_text::Micros;

use super::options::MICROS_PER_DAY;

const INT: DataType = DataType::Int64;
const UINT: DataType = DataType::UInt64;
const REAL: DataType = DataType::Float64;
const TEXT: DataType = DataType::Utf8;
const BOOL: DataType = DataType::Boolean;

/// Names and types of one output's columns.
pub(super) type ColumnTable = &'static [(&'static str, DataType)];

/// The constant columns that end every 6B row.
const TAIL: ColumnTable = &[
    ("seed", INT),
    ("manifest_fingerprint", TEXT),
    ("parameter_hash", TEXT),
    ("scenario_id", TEXT),
];

/// Columns that may be null; all others are required.
const NULLABLE: [&str; 7] = [
    "campaign_id",
    "tzid_settlement",
    "ts_local_settlement",
    "tzid_operational",
    "ts_local_operational",
    "site_id",
    "edge_id",
];

pub(super) const ARRIVALS: ColumnTable = &[
    ("manifest_fingerprint", TEXT),
    ("parameter_hash", TEXT),
    ("seed", UINT),
    ("scenario_id", TEXT),
    ("merchant_id", UINT),
    ("zone_representation", TEXT),
    ("channel_group", TEXT),
    ("bucket_index", INT),
    ("arrival_seq", INT),
    ("ts_utc", TEXT),
    ("tzid_primary", TEXT),
    ("ts_local_primary", TEXT),
    ("tzid_settlement", TEXT),
    ("ts_local_settlement", TEXT),
    ("tzid_operational", TEXT),
    ("ts_local_operational", TEXT),
    ("tz_group_id", TEXT),
    ("site_id", UINT),
    ("edge_id", UINT),
    ("routing_universe_hash", TEXT),
    ("lambda_realised", REAL),
    ("is_virtual", BOOL),
    ("s4_spec_version", TEXT),
];
pub(super) const ENTITIES: ColumnTable = &[
    ("scenario_id", TEXT),
    ("arrival_seq", INT),
    ("merchant_id", UINT),
    ("ts_utc", TEXT),
    ("party_id", INT),
    ("account_id", INT),
    ("instrument_id", INT),
    ("device_id", INT),
    ("ip_id", INT),
    ("session_id", INT),
    ("seed", INT),
    ("manifest_fingerprint", TEXT),
    ("parameter_hash", TEXT),
];
pub(super) const SESSIONS: ColumnTable = &[
    ("session_id", INT),
    ("arrival_count", INT),
    ("session_start_utc", TEXT),
    ("session_end_utc", TEXT),
    ("seed", INT),
    ("manifest_fingerprint", TEXT),
    ("scenario_id", TEXT),
    ("party_id", INT),
    ("device_id", INT),
    ("account_id", INT),
    ("instrument_id", INT),
    ("merchant_id", UINT),
];
pub(super) const ANCHORS: ColumnTable = &[
    ("flow_id", INT),
    ("arrival_seq", INT),
    ("merchant_id", UINT),
    ("party_id", INT),
    ("account_id", INT),
    ("instrument_id", INT),
    ("device_id", INT),
    ("ip_id", INT),
    ("ts_utc", TEXT),
    ("amount", REAL),
];
pub(super) const EVENTS: ColumnTable = &[
    ("flow_id", INT),
    ("event_seq", INT),
    ("event_type", TEXT),
    ("ts_utc", TEXT),
    ("amount", REAL),
];
pub(super) const FRAUD: ColumnTable = &[("fraud_flag", BOOL), ("campaign_id", TEXT)];
pub(super) const TRUTH: ColumnTable = &[
    ("flow_id", INT),
    ("is_fraud_truth", BOOL),
    ("fraud_label", TEXT),
];
pub(super) const BANK: ColumnTable = &[
    ("flow_id", INT),
    ("is_fraud_bank_view", BOOL),
    ("bank_label", TEXT),
];
pub(super) const EVENT_LABELS: ColumnTable = &[
    ("flow_id", INT),
    ("event_seq", INT),
    ("is_fraud_truth", BOOL),
    ("is_fraud_bank_view", BOOL),
];
pub(super) const CASES: ColumnTable = &[
    ("case_id", INT),
    ("case_event_seq", INT),
    ("flow_id", INT),
    ("case_event_type", TEXT),
    ("ts_utc", TEXT),
];

/// A schema out of column tables.
pub(super) fn schema(tables: &[ColumnTable]) -> SchemaRef {
    let fields = tables
        .iter()
        .flat_map(|table| table.iter())
        .map(|(name, data_type)| Field::new(*name, data_type.clone(), NULLABLE.contains(name)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A schema that ends with the constant tail of the 6B outputs.
pub(super) fn schema_with_tail(tables: &[ColumnTable]) -> SchemaRef {
    schema(&[tables, &[TAIL]].concat())
}

/// The pins of a world, as columns of any length.
pub(super) struct Pins {
    pub(super) seed: u64,
    pub(super) manifest_fingerprint: String,
    pub(super) parameter_hash: String,
    pub(super) scenario_id: String,
}

/// The pin columns of one batch.
#[derive(Clone)]
pub(super) struct PinColumns {
    pub(super) seed: ArrayRef,
    pub(super) manifest_fingerprint: ArrayRef,
    pub(super) parameter_hash: ArrayRef,
    pub(super) scenario_id: ArrayRef,
}

impl Pins {
    /// Columns of `rows` equal values.
    pub(super) fn columns(&self, rows: usize) -> PinColumns {
        PinColumns {
            seed: ints(vec![self.seed.cast_signed(); rows]),
            manifest_fingerprint: constant_text(&self.manifest_fingerprint, rows),
            parameter_hash: constant_text(&self.parameter_hash, rows),
            scenario_id: constant_text(&self.scenario_id, rows),
        }
    }
}

impl PinColumns {
    /// The columns in the order of the tail.
    pub(super) fn tail(&self) -> Vec<ArrayRef> {
        vec![
            self.seed.clone(),
            self.manifest_fingerprint.clone(),
            self.parameter_hash.clone(),
            self.scenario_id.clone(),
        ]
    }
}

/// A batch out of a schema and its columns.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(schema.clone(), columns)
}

pub(super) fn ints(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

pub(super) fn uints(values: Vec<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from(values))
}

pub(super) fn nullable_uints(values: Vec<Option<u64>>) -> ArrayRef {
    Arc::new(UInt64Array::from(values))
}

pub(super) fn reals(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

pub(super) fn bools(values: Vec<bool>) -> ArrayRef {
    Arc::new(BooleanArray::from(values))
}

pub(super) fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) fn nullable_texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn constant_text(value: &str, rows: usize) -> ArrayRef {
    texts(std::iter::repeat_n(value, rows))
}

/// T-env texts, `2026-01-01T00:00:01.250000Z`.
pub(super) fn env_times(times: &[i64]) -> Result<ArrayRef, ArrowError> {
    fixed_width_texts(times, 27)
}

/// Local times without a zone, `2026-01-01T00:00:01.250000`.
pub(super) fn local_times(times: &[i64]) -> Result<ArrayRef, ArrowError> {
    fixed_width_texts(times, 26)
}

/// Formats times through a one-day cache of the date text, into one buffer of equal-width texts.
fn fixed_width_texts(times: &[i64], width: usize) -> Result<ArrayRef, ArrowError> {
    let mut text = Vec::with_capacity(times.len() * width);
    let mut cached_day = i64::MIN;
    let mut template = [0u8; 27];
    for time in times {
        let day = time.div_euclid(MICROS_PER_DAY);
        if day != cached_day {
            cached_day = day;
            template = Micros(day * MICROS_PER_DAY).env_bytes();
        }
        put_time_of_day(
            &mut template,
            time.rem_euclid(MICROS_PER_DAY).unsigned_abs(),
        );
        text.extend_from_slice(&template[..width]);
    }
    let offsets: Vec<i32> = (0..=times.len() as i32)
        .map(|row| row * width as i32)
        .collect();
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(StringArray::try_new(
        offsets,
        Buffer::from_vec(text),
        None,
    )?))
}

fn put_time_of_day(template: &mut [u8; 27], micros_of_day: u64) {
    let seconds = (micros_of_day / 1_000_000) as u32;
    put_pair(template, 11, seconds / 3600);
    put_pair(template, 14, seconds / 60 % 60);
    put_pair(template, 17, seconds % 60);
    let micros = (micros_of_day % 1_000_000) as u32;
    put_pair(template, 20, micros / 10_000);
    put_pair(template, 22, micros / 100 % 100);
    put_pair(template, 24, micros % 100);
}

fn put_pair(template: &mut [u8; 27], at: usize, value: u32) {
    template[at] = b'0' + (value / 10) as u8;
    template[at + 1] = b'0' + (value % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;

    #[test]
    fn cached_time_texts_equal_the_plain_format() {
        let times = [
            1_767_225_601_250_000,
            1_767_225_599_999_999,
            0,
            1_767_311_999_000_001,
        ];
        let texts = env_times(&times).unwrap();
        for (row, time) in times.iter().enumerate() {
            assert_eq!(
                texts.as_string::<i32>().value(row),
                Micros(*time).format_env()
            );
        }
    }
}
